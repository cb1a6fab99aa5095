//! What one sees while it runs: on a terminal a bar, elsewhere nothing.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// How often the bar is drawn, a second: drawing takes CPU too.
const DRAWN_PER_SECOND: u8 = 5;

/// One step of a run.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `what` is done in so many pieces.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND);
            let bar = ProgressBar::with_draw_target(Some(total), target);
            let style = ProgressStyle::with_template("  {msg:34} {bar:24} {percent:>3} %");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▌░"));
            bar.set_message(what.to_owned());
            bar.tick();
            bar
        });
        Self { bar }
    }

    /// So many are done.
    pub fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Says a line above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
