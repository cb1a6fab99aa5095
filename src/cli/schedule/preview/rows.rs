//! What a preview shows: a row for each moment, and one for what a change of the clock skips.

use crate::cli::output;
use crate::store::schedule::Due;
use crate::trigger::{ClockEffect, Fate, Trigger, ZONE_DATA};
use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

/// What is shown.
pub(super) struct Preview {
    pub(super) moments: Vec<DateTime<Utc>>,
    /// Where calendar and jitter move them, if they do; in the same order.
    pub(super) dues: Vec<Due>,
    /// All but the first are the earliest that can be: each counts from the end of a run.
    pub(super) follows_runs: bool,
    /// The rule; none where the moments are all that is known.
    pub(super) trigger: Option<Trigger>,
    pub(super) zone: Tz,
    pub(super) now: DateTime<Utc>,
    pub(super) after: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    /// How many were asked for.
    pub(super) count: usize,
    /// What a change of the clock does to a timed rule.
    pub(super) on_timed: Option<ClockEffect>,
    /// Why there are no (more) moments.
    pub(super) end: String,
}

/// One line.
struct Row {
    /// None where the clock never shows the local time.
    at: Option<DateTime<Utc>>,
    /// When it fires; none where it does not.
    due_at: Option<DateTime<Utc>>,
    local: NaiveDateTime,
    mark: Option<&'static str>,
    notes: Vec<String>,
    times: usize,
}

impl Preview {
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let rows = self.rows();
        if as_json {
            return output::json(&self.json(&rows));
        }
        let mut table = output::Table::new(["LOCAL", "UTC", "IN", "MARK"]).note("WHY");
        for row in &rows {
            let cells = [
                self.local(row),
                output::some(row.at.map(output::exact)),
                output::some(row.due_at.map(|at| output::ago(at, self.now))),
                output::some(row.mark),
            ];
            table.row(cells, Some(&row.notes.join("; ")));
        }
        output::say(&format!("on the clock of {}, zone data {ZONE_DATA}", self.zone.name()));
        table.print(&self.end)?;
        if self.fires().count() < self.count && !self.moments.is_empty() {
            output::say(&format!("these are all: {}", self.end));
        }
        Ok(())
    }

    /// When it fires.
    pub(super) fn fires(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let moved = self.dues.iter().filter_map(|due| due.due_at);
        moved.chain(self.moments.iter().filter(|_| self.dues.is_empty()).copied())
    }

    /// Moments and what is skipped between them, in order.
    fn rows(&self) -> Vec<Row> {
        // Past the last one asked for, nothing is shown; nor where the schedule has no run left.
        let until = match self.moments.last() {
            Some(last) if self.fires().count() >= self.count => *last,
            None if self.count == 0 => self.after,
            _ => self.until.min(LAST_DAY),
        };
        let effects = self.trigger.iter().flat_map(|trigger| trigger.clock_effects(self.after, until));
        let effects = effects.chain(self.on_timed.clone());
        let (skipped, others): (Vec<ClockEffect>, Vec<ClockEffect>) =
            effects.partition(|effect| effect.fate.is_skipped());
        let mut rows: Vec<(DateTime<Utc>, Row)> =
            self.moments.iter().map(|at| (*at, self.moment(*at, &others))).collect();
        rows.extend(skipped.iter().map(|effect| (effect.at, self.skipped(effect))));
        rows.sort_by_key(|(at, _)| *at);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn moment(&self, at: DateTime<Utc>, effects: &[ClockEffect]) -> Row {
        let local = at.with_timezone(&self.zone).naive_local();
        let here = || effects.iter().filter(|effect| effect.at == at);
        let repeat = self.trigger.as_ref().and_then(|trigger| trigger.repeat(at));
        let mark = match repeat {
            _ if here().any(|effect| effect.fate == Fate::Shifted) => Some("shifted"),
            Some(repeat) => Some(if repeat.is_second { "second" } else { "first" }),
            None => None,
        };
        let mut notes: Vec<String> = here().map(ToString::to_string).collect();
        if notes.is_empty() {
            notes.extend(repeat.map(|repeat| repeat.to_string()));
        }
        if self.follows_runs && self.moments.first() != Some(&at) {
            notes.push("at the earliest: it counts from the end of the run before".to_owned());
        }
        let row = Row { at: Some(at), due_at: Some(at), local, mark, notes, times: 1 };
        match self.dues.iter().find(|due| due.moment == at) {
            Some(due) if due.due_at != Some(at) => self.moved(row, due),
            _ => row,
        }
    }

    /// A moment that does not fire at its own time.
    fn moved(&self, mut row: Row, due: &Due) -> Row {
        row.due_at = due.due_at;
        row.mark = Some(match due.outcome.as_str() {
            "merged" => "merged",
            "skipped" => "skipped",
            // Jitter only ever delays.
            _ if due.reason.as_ref().is_some_and(|reason| reason.starts_with("jitter")) => {
                row.mark.unwrap_or("later")
            }
            _ => row.mark.unwrap_or("moved"),
        });
        let reason = due.reason.clone().unwrap_or_default();
        row.notes.push(match due.due_at {
            Some(at) => {
                format!("fires {}: {reason}", at.with_timezone(&self.zone).format("%a %Y-%m-%d %H:%M:%S %Z"))
            }
            None => reason,
        });
        row
    }

    fn skipped(&self, effect: &ClockEffect) -> Row {
        let shown = effect.at.with_timezone(&self.zone).naive_local() == effect.first;
        Row {
            at: shown.then_some(effect.at),
            due_at: None,
            local: effect.first,
            mark: Some("skipped"),
            notes: vec![effect.to_string()],
            times: effect.times,
        }
    }

    fn local(&self, row: &Row) -> String {
        match row.at {
            Some(at) => at.with_timezone(&self.zone).format("%a %Y-%m-%d %H:%M:%S %Z").to_string(),
            None => row.local.format("%a %Y-%m-%d %H:%M:%S").to_string(),
        }
    }

    /// What fires and what does not, apart: nobody shall take the one for the other.
    fn json(&self, rows: &[Row]) -> Value {
        let note = |row: &Row| (!row.notes.is_empty()).then(|| row.notes.join("; "));
        let local = |row: &Row| match row.at {
            Some(at) => at.with_timezone(&self.zone).to_rfc3339(),
            None => row.local.format("%Y-%m-%dT%H:%M:%S").to_string(),
        };
        let (skipped, moments): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.due_at.is_none());
        let moment = |row: &&Row| json!({ "at": row.at, "due_at": row.due_at, "local": local(row), "mark": row.mark, "why": note(row) });
        let skip =
            |row: &&Row| json!({ "at": row.at, "local": local(row), "times": row.times, "why": note(row) });
        json!({
            "timezone": self.zone.name(),
            "zone_data": ZONE_DATA,
            "moments": moments.iter().map(moment).collect::<Vec<_>>(),
            "skipped": skipped.iter().map(skip).collect::<Vec<_>>(),
        })
    }
}

/// The zone data and the cron parser end here.
const LAST_DAY: DateTime<Utc> = match DateTime::from_timestamp(4_133_980_800, 0) {
    Some(at) => at,
    None => DateTime::<Utc>::MAX_UTC,
};
