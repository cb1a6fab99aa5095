//! What the demo says while it runs, on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Without a terminal, progress is a line each time so many more percent are done.
const PERCENT_PER_LINE: usize = 10;

/// The words and the bar.
pub struct Screen {
    terminal: bool,
    bar: Option<ProgressBar>,
    bar_since: Instant,
    line_at_percent: usize,
    waiting_for: Option<&'static str>,
}

impl Screen {
    /// A screen on standard error.
    pub fn new() -> Self {
        let terminal = stderr().is_terminal();
        Self {
            terminal,
            bar: None,
            bar_since: Instant::now(),
            line_at_percent: PERCENT_PER_LINE,
            waiting_for: None,
        }
    }

    /// Says a line, above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Says a fact with its name, in two columns.
    pub fn fact(&self, name: &str, fact: &str) {
        self.say(&format!("  {name:<9} {fact}"));
    }

    /// Begins the progress of `total` splits.
    pub fn begin(&mut self, total: usize) {
        self.bar_since = Instant::now();
        if self.terminal {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} splits {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▌░"));
            self.bar = Some(bar);
        }
    }

    /// Shows how many of how many splits are done; `waiting` says what for, when nothing moves.
    pub fn progress(&mut self, done: usize, total: usize, waiting: Option<&'static str>) {
        let pace = pace(done, total, self.bar_since.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(waiting.map_or_else(|| format!("· {pace}"), |what| format!("· {what}")));
            return;
        }
        let percent = done * 100 / total.max(1);
        if percent >= self.line_at_percent {
            self.line_at_percent = percent - percent % PERCENT_PER_LINE + PERCENT_PER_LINE;
            self.say(&format!("  {percent:>3} % · {done}/{total} splits · {pace}"));
        }
        if waiting != self.waiting_for {
            self.waiting_for = waiting;
            waiting.into_iter().for_each(|what| self.say(&format!("  {what}")));
        }
    }

    /// Ends the progress; the bar stays as it is.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.set_message("");
            bar.abandon();
            eprintln!();
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// The rate so far and the time that the rest takes at it.
fn pace(done: usize, total: usize, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if done == 0 || seconds <= 0.0 {
        return "starting".to_owned();
    }
    let rate = done as f64 / seconds;
    match total.saturating_sub(done) {
        0 => format!("{rate:.0}/s"),
        left => format!("{rate:.0}/s · {:.0} s left", left as f64 / rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_a_rate_and_what_is_left_at_it() {
        assert_eq!(pace(0, 400, Duration::from_secs(1)), "starting");
        assert_eq!(pace(100, 400, Duration::from_secs(2)), "50/s · 6 s left");
        assert_eq!(pace(400, 400, Duration::from_secs(4)), "100/s");
    }
}
