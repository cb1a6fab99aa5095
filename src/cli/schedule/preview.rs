//! `divvy schedule preview`: the next moments, on the clock of the zone and in UTC, and those that a change of
//! the clock shifts or skips.

mod rows;
mod stored;

pub(super) use stored::trigger;

use super::rule::RuleArgs;
use crate::cli::{Global, args, database, output};
use crate::store::clock;
use crate::store::schedule;
use crate::trigger::Trigger;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, SubsecRound, Utc};
use chrono_tz::Tz;
use rows::Preview;
use sqlx::PgPool;

/// Arguments of `divvy schedule preview`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A stored schedule
    #[arg(conflicts_with_all = ["cron", "steps", "run_at", "every"], required_unless_present_any = ["cron", "steps", "run_at", "every"])]
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
            let preview = stored::preview(&database.pool, &stored, now, count).await?;
            if stored.status != "active" {
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
    let timezone = &args.rule.timezone;
    let until = DateTime::<Utc>::MAX_UTC;
    let preview = Preview {
        moments: trigger.moments(now, now, until, count),
        on_timed: args.rule.run_at.as_ref().and_then(|text| Trigger::effect_on_timed(text, timezone)),
        trigger: Some(trigger),
        dues: Vec::new(),
        follows_runs: args.rule.follows_runs(),
        zone: zone(timezone)?,
        now,
        after: now,
        until,
        count,
        end: "the rule names no later moment".to_owned(),
    };
    preview.print(global.json)
}

/// When a stored schedule fires next.
///
/// # Errors
/// As [`run`].
pub(super) async fn next(pool: &PgPool, name: &str, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let stored = schedule::rule(pool, name).await?;
    Ok(stored::preview(pool, &stored, now, 1).await?.fires().next())
}

/// A preview decides nothing: without a database, this clock is as good as any.
#[expect(clippy::disallowed_methods, reason = "nothing is stored or fired; --after says another moment")]
fn this_machine_s_clock() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(0)
}

fn zone(name: &str) -> Result<Tz> {
    name.trim().parse().map_err(|_| {
        let expected = format!("timezone is {name:?}: an IANA name such as Europe/Berlin expected");
        Error::new(ErrorKind::BadSchedule, expected)
    })
}
