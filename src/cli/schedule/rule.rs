//! The rule of a schedule on the command line: read once, by the parser that the leader uses.

use crate::cli::args::usage;
use crate::store::schedule::Rule;
use crate::trigger::{DstFold, DstGap, Trigger};
use crate::{Error, Result};

/// One of the four kinds of rules, and its zone.
#[derive(clap::Args)]
pub(super) struct RuleArgs {
    /// By cron expression: 5 fields, 6 (seconds first) or 7 (year last), @daily and friends; several with `;`
    #[arg(long, value_name = "CRON", group = "rule")]
    cron: Option<String>,
    /// Once per offset after it is stored: 3,5,10 (seconds), 30s,5m,1h, `3,5,10 m`, or `preset m` for 3,5,10,15,30 m
    #[arg(long, value_name = "OFFSETS", group = "rule")]
    steps: Option<String>,
    /// Once: 20261224180000, or 2026-12-24T18:00:00+01:00
    #[arg(long, visible_alias = "at", value_name = "TIME", group = "rule")]
    pub(super) run_at: Option<String>,
    /// One interval after another, such as 90s, 15m or 1h30m
    #[arg(long, value_name = "DURATION", group = "rule")]
    every: Option<String>,
    /// The zone of a cron expression, and of a --run-at without offset
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub(super) timezone: String,
    /// What becomes of a local time that the clock skips
    #[arg(long, value_name = "HOW", default_value = "shift", value_parser = ["shift", "skip"])]
    pub(super) dst_gap: String,
    /// What becomes of a local time that comes twice
    #[arg(long, value_name = "WHICH", default_value = "first", value_parser = ["first", "last", "both"])]
    pub(super) dst_fold: String,
}

impl RuleArgs {
    /// The rule as it fires, and as it is stored.
    ///
    /// # Errors
    /// BadSchedule (DV012) naming what can't be understood; Config when there is none.
    pub(super) fn read(&self) -> Result<(Trigger, Rule)> {
        let (gap, fold): (DstGap, DstFold) = (self.dst_gap.parse()?, self.dst_fold.parse()?);
        if let Some(text) = &self.cron {
            return Ok((
                Trigger::cron_with(text, &self.timezone, gap, fold)?,
                Rule::Cron(text.trim().to_owned()),
            ));
        }
        let trigger = match (&self.steps, &self.run_at, &self.every) {
            (Some(steps), _, _) => Trigger::stepped(steps)?,
            (_, Some(at), _) => Trigger::timed(at, &self.timezone).map_err(renamed)?,
            (_, _, Some(every)) => Trigger::every(every)?,
            _ => return Err(usage("a schedule needs a rule: --cron, --steps, --run-at or --every")),
        };
        // A zone that does not exist is an error of every rule, not of cron alone.
        Trigger::cron("@daily", &self.timezone)?;
        let rule = match &trigger {
            Trigger::Stepped { offsets } => Rule::Steps(offsets.clone()),
            Trigger::Timed { at } => Rule::At(*at),
            Trigger::Every { interval } => Rule::Every(*interval),
            other => return Err(usage(format!("{other} can't be stored by this version"))),
        };
        Ok((trigger, rule))
    }
}

fn renamed(error: Error) -> Error {
    Error::new(error.kind(), error.to_string().replacen("run_at", "--run-at", 1))
}
