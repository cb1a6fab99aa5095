//! What a schedule is made of. Its cron text is read by the parser that the leader uses, before it is stored.

use super::new_task::{Name, ReduceOn, Span};
use super::problem::Problem;
use crate::trigger::Trigger;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What becomes of a local time that the clock skips
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Gap {
    /// It moves behind the gap
    Shift,
    /// It is left out
    Skip,
}

/// What becomes of a local time that comes twice
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fold {
    /// It fires the first time
    First,
    /// It fires the second time
    Last,
    /// It fires twice
    Both,
}

/// One of cron, run_at, steps and every
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rule {
    /// By cron expression: 5, 6 or 7 fields, @daily and friends
    cron: Option<String>,
    /// Once: RFC 3339, or yyyyMMddHHmmss on the clock of `timezone`
    run_at: Option<String>,
    /// Once per offset: seconds, or texts such as 30s, 5m, 1h
    steps: Option<Vec<Span>>,
    /// One interval after another: seconds, or a text such as 90s, 15m, 1h30m
    every: Option<Span>,
    /// The zone whose clock cron and run_at read; default UTC
    timezone: Option<String>,
    /// Default shift
    dst_gap: Option<Gap>,
    /// Default first
    dst_fold: Option<Fold>,
}

/// A schedule to be stored: one rule, policies, and the template of its tasks
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape; the text is what is stored")]
pub(super) struct NewSchedule {
    /// The type of the tasks it makes
    task_type: Name,
    /// By cron expression: 5, 6 or 7 fields, @daily and friends
    cron: Option<String>,
    /// Once: RFC 3339, or yyyyMMddHHmmss on the clock of `timezone`
    run_at: Option<String>,
    /// Once per offset after it is stored
    steps: Option<Vec<Span>>,
    /// One interval after another
    every: Option<Span>,
    /// The zone whose clock cron and run_at read; default UTC
    timezone: Option<String>,
    /// Default shift
    dst_gap: Option<Gap>,
    /// Default first
    dst_fold: Option<Fold>,
    /// What steps and every count from: created or previous_end
    anchor: Option<String>,
    /// Moments from this one
    starts_at: Option<DateTime<Utc>>,
    /// Moments before this one
    ends_at: Option<DateTime<Utc>>,
    /// Tasks at most
    #[schemars(range(min = 1))]
    max_runs: Option<i32>,
    /// When the last run is open: allow, skip, buffer_one, buffer_all, cancel_running or recover
    overlap: Option<String>,
    /// What was due while nobody looked: none, latest or all
    catch_up: Option<String>,
    /// Of all: how many
    catch_up_max: Option<i32>,
    /// Of all: how old
    catch_up_window: Option<Span>,
    /// Of all: how far apart
    catch_up_pace: Option<Span>,
    /// Fire up to so much later
    jitter: Option<Span>,
    /// Fire on working days
    calendar: Option<String>,
    /// What moves a moment on another day: skip, next or previous
    calendar_shift: Option<String>,
    /// The first success ends the schedule
    stop_on_success: Option<bool>,
    /// Pause after so many failures in a row
    pause_on_failure: Option<i32>,
    /// Of its tasks
    payload: Option<Map<String, Value>>,
    /// Of its tasks
    #[schemars(range(min = 1, max = 4))]
    priority: Option<i16>,
    /// Of its tasks
    dedupe_key: Option<String>,
    /// Of its tasks
    group_key: Option<String>,
    /// Of its tasks
    labels: Option<Vec<String>>,
    /// Of its tasks
    headers: Option<Map<String, Value>>,
    /// Of its tasks
    splits: Option<Vec<Value>>,
    /// Of its tasks
    split_count: Option<i32>,
    /// Of its tasks
    split_range: Option<String>,
    /// Of its tasks
    split_size: Option<i64>,
    /// Of its tasks
    max_attempts: Option<i32>,
    /// Of its tasks
    timeout: Option<Span>,
    /// Of its tasks
    max_failed: Option<i32>,
    /// Of its tasks
    max_failed_percent: Option<f64>,
    /// Of its tasks
    reduce_on: Option<ReduceOn>,
    /// Of its tasks
    then: Option<Map<String, Value>>,
}

impl NewSchedule {
    /// Its rule.
    pub(super) fn rule(&self) -> Rule {
        // What only the database reads (steps and intervals) is left to it.
        Rule {
            cron: self.cron.clone(),
            run_at: self.run_at.clone(),
            timezone: self.timezone.clone(),
            dst_gap: self.dst_gap,
            dst_fold: self.dst_fold,
            ..Rule::default()
        }
    }
}

impl Rule {
    /// The rule as it fires; none where it names nothing.
    pub(super) fn trigger(&self) -> Result<Option<Trigger>, Problem> {
        let zone = self.timezone.as_deref().unwrap_or("UTC");
        let gap = match self.dst_gap.unwrap_or(Gap::Shift) {
            Gap::Shift => "shift",
            Gap::Skip => "skip",
        };
        let fold = match self.dst_fold.unwrap_or(Fold::First) {
            Fold::First => "first",
            Fold::Last => "last",
            Fold::Both => "both",
        };
        let text = |span: &Span| match span {
            Span::Seconds(seconds) => seconds.to_string(),
            Span::Text(text) => text.clone(),
        };
        let given = [self.cron.is_some(), self.run_at.is_some(), self.steps.is_some(), self.every.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            return Err(Problem::invalid("give one of cron, run_at, steps and every, not several"));
        }
        // A zone that does not exist is an error of every rule, not of cron alone.
        Trigger::cron("@daily", zone)?;
        Ok(Some(match (&self.cron, &self.run_at, &self.steps, &self.every) {
            (Some(cron), ..) => Trigger::cron_with(cron, zone, gap.parse()?, fold.parse()?)?,
            (_, Some(at), ..) => Trigger::timed(at, zone)?,
            (_, _, Some(steps), _) => {
                Trigger::stepped(&steps.iter().map(text).collect::<Vec<_>>().join(","))?
            }
            (.., Some(every)) => Trigger::every(&text(every))?,
            _ => return Ok(None),
        }))
    }
}
