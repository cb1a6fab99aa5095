//! What becomes of moments: the options of `divvy schedule put` beside the rule and the task.

use crate::Result;
use crate::cli::args;
use crate::store::schedule::seconds;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Overlap, catch-up, bounds and calendars.
#[derive(clap::Args)]
#[command(next_help_heading = "Policies")]
pub(super) struct PolicyArgs {
    /// When the task of the moment before is still open [default: skip]
    #[arg(long, value_name = "HOW", value_parser = ["skip", "allow", "buffer_one", "buffer_all", "cancel_running", "recover"])]
    overlap: Option<String>,
    /// What becomes of moments that came while nobody looked [default: latest]
    #[arg(long, value_name = "WHICH", value_parser = ["none", "latest", "all"])]
    catch_up: Option<String>,
    /// The most moments that --catch-up all makes up for [default: 100]
    #[arg(long, value_name = "N")]
    catch_up_max: Option<i32>,
    /// How old a moment may be for that [default: 1 day]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    catch_up_window: Option<Duration>,
    /// The time between two of them [default: 1 s]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    catch_up_pace: Option<Duration>,
    /// Fire up to so much after each moment, the same for the same moment
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    jitter: Option<Duration>,
    /// Fire on the working days of this calendar
    #[arg(long, value_name = "NAME")]
    calendar: Option<String>,
    /// What becomes of a moment on another day [default: skip]
    #[arg(long, value_name = "HOW", value_parser = ["skip", "next", "previous"], requires = "calendar")]
    calendar_shift: Option<String>,
    /// No moment before this: 20261224180000, or 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME")]
    starts_at: Option<String>,
    /// No moment from this one on
    #[arg(long, value_name = "TIME")]
    ends_at: Option<String>,
    /// The most tasks it makes
    #[arg(long, value_name = "N")]
    max_runs: Option<i32>,
    /// End with the first task that succeeds
    #[arg(long)]
    stop_on_success: bool,
    /// Pause when so many tasks in a row failed
    #[arg(long, value_name = "N")]
    pause_on_failure: Option<i32>,
}

impl PolicyArgs {
    /// By the names of `divvy.put_schedule`; what was not given is null.
    ///
    /// # Errors
    /// Config when a moment can't be read.
    pub(super) fn options(&self, timezone: &str) -> Result<Map<String, Value>> {
        let moment = |name: &str, text: &Option<String>| -> Result<Value> {
            let at = text.as_deref().map(|text| args::moment(name, text, timezone)).transpose()?;
            Ok(json!(at.map(|at| at.to_rfc3339())))
        };
        let span = |duration: Option<Duration>| json!(duration.map(|span| seconds(&args::delta(span))));
        let given = [
            ("overlap", json!(self.overlap)),
            ("catch_up", json!(self.catch_up)),
            ("catch_up_max", json!(self.catch_up_max)),
            ("catch_up_window", span(self.catch_up_window)),
            ("catch_up_pace", span(self.catch_up_pace)),
            ("jitter", span(self.jitter)),
            ("calendar", json!(self.calendar)),
            ("calendar_shift", json!(self.calendar_shift)),
            ("starts_at", moment("--starts-at", &self.starts_at)?),
            ("ends_at", moment("--ends-at", &self.ends_at)?),
            ("max_runs", json!(self.max_runs)),
            ("stop_on_success", json!(self.stop_on_success)),
            ("pause_on_failure", json!(self.pause_on_failure)),
        ];
        Ok(given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
