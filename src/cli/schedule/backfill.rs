//! `divvy schedule backfill`: the tasks of a range that has passed.

use super::preview;
use crate::cli::args::usage;
use crate::cli::{Global, args, database, output};
use crate::store::clock;
use crate::store::schedule::{self, StoredRule};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

/// Most moments of one call, as of the SQL function.
const MOMENTS_MAX: usize = 10_000;

/// Arguments of `divvy schedule backfill`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The schedule
    name: String,
    /// From this moment on: 20261224180000, or 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Through this one [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The zone of moments without offset
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// The most of its tasks that are open at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    max_running: i32,
    /// Why, for those who look later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only say how many moments there are
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// When the schedule names no moments by a clock, the range has too many, or none.
pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let from = args::moment("--from", &args.from, &args.timezone)?;
    let to = args.to.as_deref().map(|to| args::moment("--to", to, &args.timezone)).transpose()?;
    database::with(global, 2, async |database| {
        let stored = schedule::rule(&database.pool, &args.name).await?;
        let now = clock::now(&database.pool).await?;
        let to = to.unwrap_or(now).min(now);
        let moments = moments(&stored, from, to)?;
        if moments.len() > MOMENTS_MAX {
            return Err(usage(format!(
                "--from {} --to {}: more than {MOMENTS_MAX} moments; take a shorter range",
                from.to_rfc3339(),
                to.to_rfc3339()
            ))
            .into());
        }
        let made = if args.dry_run {
            0
        } else {
            let pool = &database.pool;
            schedule::backfill_schedule(pool, &args.name, &moments, args.max_running, args.reason.as_deref())
                .await?
        };
        if global.json {
            return output::json(&json!({ "name": args.name, "moments": moments.len(), "new": made }));
        }
        let (first, last) = (moments.first().copied(), moments.last().copied());
        output::say(&match (first, last) {
            (Some(first), Some(last)) if args.dry_run => {
                format!("{} moments from {} to {}", moments.len(), output::exact(first), output::exact(last))
            }
            (Some(first), Some(last)) => format!(
                "schedule {} fires for {made} moments from {} to {}; {} were backfilled before",
                args.name,
                output::exact(first),
                output::exact(last),
                moments.len() - usize::try_from(made).unwrap_or_default()
            ),
            _ => format!("schedule {} has no moment in that range", args.name),
        });
        Ok(())
    })
    .await
}

/// What its rule names from `from` through `to`, and one more than may be.
fn moments(stored: &StoredRule, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>> {
    if stored.anchor != "created" {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "anchor is '{}': moments that count from the ends of runs can't be backfilled",
                stored.anchor
            ),
        ));
    }
    if let Some(steps) = &stored.step_moments {
        return Ok(steps.iter().filter(|at| (from..=to).contains(*at)).copied().collect());
    }
    let trigger = preview::trigger(stored)?;
    // The first moment may be `from` itself. An interval is counted from before it, so that none is left out.
    let after = from - TimeDelta::microseconds(1);
    let anchor = stored.anchored_at.unwrap_or(from);
    let anchor = match stored.every_seconds.map(|seconds| (seconds * 1e6) as i64) {
        Some(step) if anchor > after && step > 0 => {
            let steps = (anchor - after).num_microseconds().unwrap_or(i64::MAX) / step + 1;
            anchor - TimeDelta::microseconds(step.saturating_mul(steps))
        }
        _ => anchor,
    };
    Ok(trigger.moments(anchor, after, to, MOMENTS_MAX + 1))
}
