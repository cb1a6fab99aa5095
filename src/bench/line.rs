//! The lines of a steady run.

use super::cpu::Used;
use super::figure::Figure;
use super::hold::Kind;
use super::pick_up::{Percentiles, Waits};
use super::report::{grouped, micros};
use serde_json::{Value, json};

/// The end of a run that is compared with its beginning, in seconds.
const LAST_SECONDS: f64 = 30.0;

/// Over the lines. With the longest name of what is held they have 79 columns.
const HEAD: &str = "    s    RATE/S  SERVER µs  CLIENT µs   p50 ms   p99 ms    BACKLOG  HELD";

/// One interval.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Seconds since the beginning, at its end.
    pub at: f64,
    /// What was held.
    pub held: Option<Kind>,
    /// What was done.
    pub figure: Figure,
    /// How long it had waited.
    pub pick_up: Percentiles,
    /// What waits.
    pub backlog: u64,
}

impl Line {
    fn json(&self) -> Value {
        let mut value = self.figure.json();
        value["at"] = json!(super::figure::rounded(self.at, 2));
        value["held"] = json!(self.held);
        value["pick_up"] = json!(self.pick_up);
        value["backlog"] = json!(self.backlog);
        value
    }
}

/// All of them.
#[derive(Default)]
pub struct Lines {
    lines: Vec<Line>,
    waits: Waits,
}

impl Lines {
    /// One more.
    pub fn add(&mut self, line: Line, waits: &Waits) {
        self.lines.push(line);
        self.waits.add(waits);
    }

    /// The line as it is printed when its interval is over, under a heading if it is the first.
    pub fn print(&self, line: &Line, json: bool) -> String {
        if json {
            return json!({ "line": line.json() }).to_string();
        }
        let text = format!(
            "{:>5.0}  {:>8}  {:>9}  {:>9}  {:>7.1}  {:>7.1}  {:>9}  {}",
            line.at,
            grouped(line.figure.rate().round() as u64),
            micros(line.figure.server_us()),
            micros(line.figure.client_us()),
            line.pick_up.p50_ms,
            line.pick_up.p99_ms,
            grouped(line.backlog),
            line.held.map_or("-", Kind::name)
        );
        match self.lines.is_empty() {
            true => format!("{HEAD}\n{text}"),
            false => text,
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        self.lines.iter().map(Line::json).collect()
    }

    /// Every wait.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// All intervals together.
    pub fn whole(&self) -> Figure {
        sum(self.lines.iter())
    }

    /// What was before the hold (or, when nothing was held, in the first quarter), without the first interval, in which
    /// everything begins; and in the last 30 s of the hold. None when one of them is empty.
    pub fn flatness(&self, held: bool) -> Option<(Figure, Figure)> {
        let quarter = self.lines.last()?.at / 4.0;
        let warm = usize::from(self.lines.len() > 4);
        let before =
            self.lines.iter().take_while(|line| if held { line.held.is_none() } else { line.at <= quarter });
        let before: Vec<&Line> = before.collect();
        let before = if before.len() > warm { &before[warm..] } else { &before[..] };
        let after = self.lines.iter().filter(|line| !held || line.held.is_some());
        let end = after.clone().next_back()?.at;
        let last: Vec<&Line> =
            after.filter(|line| line.at > end - LAST_SECONDS && line.at > quarter).collect();
        if before.is_empty() || last.is_empty() {
            return None;
        }
        Some((sum(before.iter().copied()), sum(last.into_iter())))
    }
}

fn sum<'l>(lines: impl Iterator<Item = &'l Line>) -> Figure {
    let mut all = Figure { count: 0, seconds: 0.0, used: Used { server: Some(0.0), client: Some(0.0) } };
    for Line { figure, .. } in lines {
        all.count += figure.count;
        all.seconds += figure.seconds;
        all.used.server = all.used.server.zip(figure.used.server).map(|(a, b)| a + b);
        all.used.client = all.used.client.zip(figure.used.client).map(|(a, b)| a + b);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: f64, held: Option<Kind>, us: f64) -> Line {
        let used = Used { server: Some(us), client: Some(0.0) };
        let figure = Figure { count: 1_000_000, seconds: 10.0, used };
        Line { at, held, figure, pick_up: Waits::default().percentiles(), backlog: 0 }
    }

    #[test]
    fn a_line_stands_under_its_heading_and_is_no_longer_than_a_terminal() {
        let used = Used { server: Some(1234.567), client: Some(123.4567) };
        let figure = Figure { count: 1_234_567, seconds: 10.0, used };
        let mut waits = Waits::default();
        waits.record(12_345_600);
        let pick_up = waits.percentiles();
        let line = Line { at: 86_400.0, held: Some(Kind::Transaction), figure, pick_up, backlog: 1_234_567 };
        let text = Lines::default().print(&line, false);
        let (head, under) = text.split_once('\n').unwrap();
        assert!(under.chars().count() <= 80, "{text}");
        assert_eq!(
            head.chars().count() - "HELD".len(),
            under.chars().count() - "transaction".len(),
            "{text}"
        );
        assert!(under.contains("     1000.0      100.0  123"), "server and client: {text}");
    }

    #[test]
    fn flatness_compares_the_last_half_minute_of_the_hold_with_what_was_before() {
        let held = Some(Kind::Snapshot);
        let mut lines = Lines::default();
        let all = [
            (10.0, None, 90.0),
            (20.0, None, 20.0),
            (30.0, held, 30.0),
            (40.0, held, 40.0),
            (50.0, held, 40.0),
            (60.0, held, 40.0),
            (70.0, None, 20.0),
        ];
        for (at, held, us) in all {
            lines.add(line(at, held, us), &Waits::default());
        }
        let (before, last) = lines.flatness(true).unwrap();
        assert_eq!((before.cpu_us(), last.cpu_us()), (Some(20.0), Some(40.0)));
        assert_eq!(last.count, 3_000_000);
    }
}
