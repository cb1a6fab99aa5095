//! `divvy schedule preview`: the next moments, on the clock of the zone and in UTC.

use super::rule::RuleArgs;
use crate::cli::{Global, args, database, output};
use crate::store::clock;
use crate::store::schedule::{self, StoredRule};
use crate::trigger::Trigger;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::json;

/// Arguments of `divvy schedule preview`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A stored schedule
    #[arg(conflicts_with = "rule", required_unless_present_any = ["cron", "steps", "at", "every"])]
    name: Option<String>,
    #[command(flatten)]
    rule: RuleArgs,
    /// How many moments
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    count: u16,
    /// After this moment, for a rule that is not stored; needs no database [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "name")]
    after: Option<String>,
}

/// What is shown.
struct Preview {
    moments: Vec<DateTime<Utc>>,
    zone: Tz,
    now: DateTime<Utc>,
    /// Why there are no (more) moments.
    end: &'static str,
}

/// Runs the command.
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
    let zone = zone(&args.rule.timezone)?;
    if let Some(after) = &args.after {
        let after = args::moment("--after", after, &args.rule.timezone)?;
        return of_rule(&trigger, zone, after, count).print(global.json);
    }
    database::with(global, 1, async |database| {
        let now = clock::now(&database.pool).await?;
        of_rule(&trigger, zone, now, count).print(global.json)
    })
    .await
}

fn of_rule(trigger: &Trigger, zone: Tz, now: DateTime<Utc>, count: usize) -> Preview {
    let moments = trigger.moments(now, now, DateTime::<Utc>::MAX_UTC, count);
    Preview { moments, zone, now, end: "the rule names no later moment" }
}

fn of_stored(stored: &StoredRule, now: DateTime<Utc>, count: usize) -> Result<Preview> {
    let zone = zone(&stored.timezone)?;
    let decided = stored.fired_through.unwrap_or(DateTime::UNIX_EPOCH);
    // A moment at starts_at itself fires.
    let starts = stored.starts_at.map_or(DateTime::UNIX_EPOCH, |at| at - TimeDelta::microseconds(1));
    let after = now.max(decided).max(starts);
    let until = stored.ends_at.map_or(DateTime::<Utc>::MAX_UTC, |at| at - TimeDelta::microseconds(1));
    let left = stored.runs_left.map_or(count, |left| usize::try_from(left).unwrap_or_default().min(count));
    let moments = match &stored.step_moments {
        Some(moments) => {
            moments.iter().filter(|at| **at > after && **at <= until).take(left).copied().collect()
        }
        None => trigger(stored)?.moments(stored.anchor, after, until, left),
    };
    Ok(Preview { moments, zone, now, end: "the schedule fires no more" })
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

impl Preview {
    fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            let local = |at: &DateTime<Utc>| at.with_timezone(&self.zone).to_rfc3339();
            let moments: Vec<_> =
                self.moments.iter().map(|at| json!({ "at": at, "local": local(at) })).collect();
            return output::json(&json!({ "timezone": self.zone.name(), "moments": moments }));
        }
        let mut table = output::Table::new(["LOCAL", "ZONE", "UTC", "IN"]);
        for at in &self.moments {
            let local = at.with_timezone(&self.zone);
            let cells = [
                local.format("%a %Y-%m-%d %H:%M:%S %Z").to_string(),
                self.zone.name().to_owned(),
                output::exact(*at),
                output::ago(*at, self.now),
            ];
            table.row(cells, None);
        }
        table.print(self.end)
    }
}
