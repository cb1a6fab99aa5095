//! The rule of a schedule on the command line: read once, by the parser that the leader uses. What is wrong is said as
//! `divvy.check_schedule` says it, with the options as they are typed.

use crate::cli::args::usage;
use crate::store::schedule::Rule;
use crate::trigger::{DstFold, DstGap, Trigger};
use crate::{Error, ErrorKind, Result};

/// The anchor of what counts from the end of the run before.
pub(super) const PREVIOUS_END: &str = "previous_end";

/// The options that are named in a refusal as they are typed.
const FIELDS: [(&str, &str); 5] = [
    ("steps ", "--steps "),
    ("run_at ", "--run-at "),
    ("every ", "--every "),
    ("timezone ", "--timezone "),
    ("anchor ", "--anchor "),
];

/// One of the four kinds of rules, and its zone.
#[derive(clap::Args)]
pub(super) struct RuleArgs {
    /// By cron expression: 5 fields, 6 (seconds first) or 7 (year last), @daily and friends; several with `;`
    #[arg(long, value_name = "CRON")]
    cron: Option<String>,
    /// Once per offset after it is stored: 3,5,10 (seconds), 30s,5m,1h, `3,5,10 m`, or `preset m` for 3,5,10,15,30 m
    #[arg(long, value_name = "OFFSETS", allow_hyphen_values = true)]
    steps: Option<String>,
    /// Once: 20261224180000, or 2026-12-24T18:00:00+01:00
    #[arg(long, visible_alias = "at", value_name = "TIME")]
    pub(super) run_at: Option<String>,
    /// One interval after another, such as 90s, 15m or 1h30m
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    every: Option<String>,
    /// What --steps and --every count from: the storing, or the end of the run before [default: created]
    #[arg(long, value_name = "WHAT", value_parser = ["created", PREVIOUS_END])]
    pub(super) anchor: Option<String>,
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
    /// The rule as it fires, and as it is stored. What counts from the ends of runs fires at the earliest like this.
    ///
    /// # Errors
    /// BadSchedule (DV012) naming what can't be understood.
    pub(super) fn read(&self) -> Result<(Trigger, Rule)> {
        self.parse().map_err(typed)
    }

    /// Whether it counts from the ends of runs.
    pub(super) fn follows_runs(&self) -> bool {
        self.anchor.as_deref() == Some(PREVIOUS_END)
    }

    fn parse(&self) -> Result<(Trigger, Rule)> {
        let bad = |message: String| Error::new(ErrorKind::BadSchedule, message);
        let kinds = [&self.steps, &self.run_at, &self.cron, &self.every].into_iter().flatten().count();
        if kinds != 1 {
            let kinds_given =
                format!("give exactly one of --steps, --run-at, --cron and --every, not {kinds}");
            return Err(if kinds == 0 { usage(kinds_given) } else { bad(kinds_given) });
        }
        if self.follows_runs() && (self.cron.is_some() || self.run_at.is_some()) {
            let goes = "anchor is 'previous_end'; it goes with steps or every, not with cron or run_at";
            return Err(bad(goes.to_owned()));
        }
        let (gap, fold): (DstGap, DstFold) = (self.dst_gap.parse()?, self.dst_fold.parse()?);
        // A zone that does not exist is an error of every rule, not of cron alone.
        Trigger::cron("@daily", &self.timezone)?;
        match (&self.cron, &self.steps, &self.run_at, &self.every) {
            (Some(text), ..) => {
                let trigger = Trigger::cron_with(text, &self.timezone, gap, fold)?;
                Ok((trigger, Rule::Cron(text.trim().to_owned())))
            }
            (_, Some(steps), ..) if self.follows_runs() => {
                let (trigger, delays) = Trigger::delayed(steps)?;
                Ok((trigger, Rule::Steps(delays)))
            }
            (_, Some(steps), ..) => stored(Trigger::stepped(steps)?),
            (_, _, Some(at), _) => stored(Trigger::timed(at, &self.timezone)?),
            (_, _, _, every) => stored(Trigger::every(every.as_deref().unwrap_or_default())?),
        }
    }
}

/// The refusal with the option as it was typed.
pub(super) fn typed(error: Error) -> Error {
    let text = error.to_string();
    let typed = FIELDS.iter().find(|(field, _)| text.starts_with(field));
    let typed = typed.map_or(text.clone(), |(field, option)| text.replacen(field, option, 1));
    Error::new(error.kind(), typed)
}

fn stored(trigger: Trigger) -> Result<(Trigger, Rule)> {
    let rule = match &trigger {
        Trigger::Stepped { offsets } => Rule::Steps(offsets.clone()),
        Trigger::Timed { at } => Rule::At(*at),
        Trigger::Every { interval } => Rule::Every(*interval),
        Trigger::Cron(cron) => Rule::Cron(cron.to_string()),
    };
    Ok((trigger, rule))
}
