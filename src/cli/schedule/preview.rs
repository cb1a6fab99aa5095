//! `divvy schedule preview`: the next moments, on the clock of the zone and in UTC, and those that a change of
//! the clock shifts or skips.

mod rows;

use super::rule::RuleArgs;
use crate::cli::{Global, args, database, output};
use crate::store::clock;
use crate::store::schedule::{self, StoredRule};
use crate::trigger::Trigger;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;
use rows::Preview;

/// Arguments of `divvy schedule preview`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A stored schedule
    #[arg(conflicts_with = "rule", required_unless_present_any = ["cron", "steps", "run_at", "every"])]
    name: Option<String>,
    #[command(flatten)]
    rule: RuleArgs,
    /// How many moments
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    count: u16,
    /// Those later than this moment, for a rule that is not stored [default: now, by this machine's clock]
    #[arg(long, visible_alias = "from", value_name = "TIME", conflicts_with = "name")]
    after: Option<String>,
}

/// Runs the command. A rule that is not stored needs no database.
///
/// # Errors
/// When the rule can't be understood, or there is no such schedule.
pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let count = usize::from(args.count);
    if let Some(name) = &args.name {
        return database::with(global, 1, async |database| {
            let stored = schedule::rule(&database.pool, name).await?;
            let now = clock::now(&database.pool).await?;
            let preview = of_stored(&stored, now, count)?;
            if !matches!(stored.status.as_str(), "active") {
                let reason = stored.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                output::say(&format!(
                    "schedule {name} is {}{reason}: none of these fires as it stands",
                    stored.status
                ));
            }
            preview.print(global.json)
        })
        .await;
    }
    let (trigger, _) = args.rule.read()?;
    let now = match &args.after {
        Some(after) => args::moment("--after", after, &args.rule.timezone)?,
        None => this_machine_s_clock(),
    };
    let mut preview = of_rule(&trigger, zone(&args.rule.timezone)?, now, count);
    let timezone = &args.rule.timezone;
    preview.on_timed = args.rule.run_at.as_ref().and_then(|text| Trigger::effect_on_timed(text, timezone));
    preview.print(global.json)
}

/// A preview decides nothing: without a database, this clock is as good as any.
#[expect(clippy::disallowed_methods, reason = "nothing is stored or fired; --after says another moment")]
fn this_machine_s_clock() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(0)
}

fn of_rule(trigger: &Trigger, zone: Tz, now: DateTime<Utc>, count: usize) -> Preview {
    let until = DateTime::<Utc>::MAX_UTC;
    Preview {
        moments: trigger.moments(now, now, until, count),
        trigger: Some(trigger.clone()),
        zone,
        now,
        after: now,
        until,
        count,
        on_timed: None,
        end: "the rule names no later moment",
    }
}

fn of_stored(stored: &StoredRule, now: DateTime<Utc>, count: usize) -> Result<Preview> {
    let zone = zone(&stored.timezone)?;
    let decided = stored.fired_through.unwrap_or(DateTime::UNIX_EPOCH);
    // A moment at starts_at itself fires.
    let starts = stored.starts_at.map_or(DateTime::UNIX_EPOCH, |at| at - TimeDelta::microseconds(1));
    let after = now.max(decided).max(starts);
    let until = stored.ends_at.map_or(DateTime::<Utc>::MAX_UTC, |at| at - TimeDelta::microseconds(1));
    let left = stored.runs_left.map_or(count, |left| usize::try_from(left).unwrap_or_default().min(count));
    let (moments, trigger) = match &stored.step_moments {
        Some(moments) => {
            let ahead = moments.iter().filter(|at| **at > after && **at <= until);
            (ahead.take(left).copied().collect(), None)
        }
        None => {
            let trigger = trigger(stored)?;
            (trigger.moments(stored.anchor, after, until, left), Some(trigger))
        }
    };
    let end = "the schedule fires no more";
    Ok(Preview { moments, trigger, zone, now, after, until, count: left, on_timed: None, end })
}

pub(super) fn trigger(stored: &StoredRule) -> Result<Trigger> {
    match (stored.run_at, &stored.cron, stored.every_seconds) {
        (Some(at), _, _) => Ok(Trigger::Timed { at }),
        (_, Some(cron), _) => {
            Trigger::cron_with(cron, &stored.timezone, stored.dst_gap.parse()?, stored.dst_fold.parse()?)
        }
        (_, _, Some(seconds)) => {
            Ok(Trigger::Every { interval: TimeDelta::microseconds((seconds * 1e6) as i64) })
        }
        _ => Err(Error::new(ErrorKind::BadSchedule, format!("schedule {} has no rule", stored.schedule_id))),
    }
}

fn zone(name: &str) -> Result<Tz> {
    name.trim().parse().map_err(|_| {
        Error::new(
            ErrorKind::BadSchedule,
            format!("time zone {name:?} is not known: an IANA name such as Europe/Berlin expected"),
        )
    })
}
