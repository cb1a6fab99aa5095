//! What was measured: a count, in so much time, with so much CPU; and medians of rounds.

use super::cpu::{Cpu, Used};
use serde_json::{Value, json};
use std::time::Instant;

/// One round.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// How many.
    pub count: u64,
    /// In how many seconds.
    pub seconds: f64,
    /// With how many seconds of CPU.
    pub used: Used,
}

impl Figure {
    /// How many a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.seconds.max(1e-9)
    }

    /// Microseconds of the server's CPU for each.
    pub fn server_us(&self) -> Option<f64> {
        Some(self.used.server? * 1e6 / self.count.max(1) as f64)
    }

    /// Microseconds of this process's CPU for each.
    pub fn client_us(&self) -> Option<f64> {
        Some(self.used.client? * 1e6 / self.count.max(1) as f64)
    }

    /// Both.
    pub fn cpu_us(&self) -> Option<f64> {
        Some(self.server_us()? + self.client_us()?)
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "count": self.count,
            "seconds": rounded(self.seconds, 4),
            "rate": rounded(self.rate(), 1),
            "cpu_us": self.cpu_us().map(|us| rounded(us, 2)),
            "server_us": self.server_us().map(|us| rounded(us, 2)),
            "client_us": self.client_us().map(|us| rounded(us, 2)),
        })
    }
}

/// Measures one round.
pub struct Watch<'c> {
    cpu: &'c Cpu,
    used: Used,
    started: Instant,
}

impl<'c> Watch<'c> {
    /// Begins.
    pub fn start(cpu: &'c Cpu) -> Self {
        Self { cpu, used: cpu.now(), started: Instant::now() }
    }

    /// What it came to until now.
    pub fn read(&self, count: u64) -> Figure {
        let seconds = self.started.elapsed().as_secs_f64();
        Figure { count, seconds, used: self.cpu.now().since(self.used) }
    }
}

/// The rounds of one way.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in JSON.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// One for each round.
    pub figures: Vec<Figure>,
}

impl Series {
    /// Without a round yet.
    pub fn new(key: impl Into<String>, name: impl Into<String>) -> Self {
        Self { key: key.into(), name: name.into(), figures: Vec::new() }
    }

    /// The median of the rates.
    pub fn rate(&self) -> f64 {
        median(self.figures.iter().map(Figure::rate)).unwrap_or_default()
    }

    /// The median of something that may be unknown.
    pub fn median(&self, of: impl Fn(&Figure) -> Option<f64>) -> Option<f64> {
        let known: Option<Vec<f64>> = self.figures.iter().map(of).collect();
        median(known?)
    }

    /// The median over the rounds of what this one makes beside `other`: of rates, and of CPU.
    pub fn ratio(&self, other: &Self) -> (Option<f64>, Option<f64>) {
        let pairs = || self.figures.iter().zip(&other.figures);
        let rates = median(pairs().map(|(a, b)| a.rate() / b.rate()));
        let cpu: Option<Vec<f64>> = pairs().map(|(a, b)| Some(a.cpu_us()? / b.cpu_us()?)).collect();
        (rates, cpu.and_then(median))
    }

    /// As JSON: medians and rounds.
    pub fn json(&self) -> Value {
        let us = |of: fn(&Figure) -> Option<f64>| self.median(of).map(|us| rounded(us, 2));
        json!({
            "name": self.name,
            "rate": rounded(self.rate(), 1),
            "cpu_us": us(Figure::cpu_us),
            "server_us": us(Figure::server_us),
            "client_us": us(Figure::client_us),
            "rounds": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
        })
    }
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// To so many digits behind the point: more would only look exact.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(count: u64, seconds: f64, server: Option<f64>) -> Figure {
        Figure { count, seconds, used: Used { server, client: Some(0.5) } }
    }

    #[test]
    fn medians_are_of_rounds_and_an_unknown_stays_unknown() {
        let mut series = Series::new("a", "A");
        series.figures =
            vec![figure(100, 1.0, Some(1.0)), figure(100, 4.0, Some(1.0)), figure(100, 2.0, None)];
        assert_eq!(series.rate(), 50.0);
        assert_eq!(series.median(Figure::client_us), Some(5_000.0));
        assert_eq!(series.median(Figure::cpu_us), None);
        assert_eq!(median([3.0, 1.0]), Some(2.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let (mut a, mut b) = (Series::new("a", "A"), Series::new("b", "B"));
        a.figures = vec![figure(100, 1.0, Some(0.5)), figure(100, 2.0, Some(0.5))];
        b.figures = vec![figure(100, 2.0, Some(1.5)), figure(100, 4.0, Some(1.5))];
        assert_eq!(a.ratio(&b), (Some(2.0), Some(0.5)));
    }
}
