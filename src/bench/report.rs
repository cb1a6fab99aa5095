//! What a run says: a table for people, one JSON document for programs, a row in the database.

use super::figure::{Figure, Series, rounded};
use super::server::Server;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use std::fmt::Write as _;

/// Columns that a terminal surely has.
const WIDTH: usize = 80;
/// Between two columns.
const GAP: &str = "  ";

/// What went in, what came out, and what was called: the proof that a figure counts real work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Splits that were made.
    pub inserted: u64,
    /// Splits that succeeded, as the database has it.
    pub succeeded: u64,
    /// Calls of the handler.
    pub handler_calls: u64,
    /// Splits that were to stay ready: the backlog.
    pub left_ready: u64,
}

impl Counts {
    /// Whether everything that was inserted was handled once and succeeded, but for what was to stay.
    pub fn agree(&self) -> bool {
        self.inserted == self.succeeded + self.left_ready && self.succeeded == self.handler_calls
    }

    /// For people.
    pub fn line(&self) -> String {
        let Self { inserted, succeeded, handler_calls, left_ready } = *self;
        let left =
            if left_ready > 0 { format!(", left ready {}", grouped(left_ready)) } else { String::new() };
        let (inserted, succeeded, calls) = (grouped(inserted), grouped(succeeded), grouped(handler_calls));
        format!("inserted {inserted}, succeeded {succeeded}, handler calls {calls}{left}")
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.inserted += more.inserted;
        self.succeeded += more.succeeded;
        self.handler_calls += more.handler_calls;
        self.left_ready += more.left_ready;
    }
}

/// A run's report, in the making.
#[derive(Debug)]
pub struct Report {
    command: &'static str,
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
    json: Map<String, Value>,
    counts: Option<Counts>,
}

/// The columns of series and of ratios.
pub const RATES: [&str; 5] = ["", "RATE/S", "CPU µs", "SERVER", "CLIENT"];

impl Report {
    /// Of the subcommand `command`, run with `options`.
    ///
    /// # Errors
    /// When the options are no JSON.
    pub fn new(command: &'static str, title: String, options: impl Serialize) -> serde_json::Result<Self> {
        let mut json = Map::new();
        json.insert("command".to_owned(), command.into());
        json.insert("options".to_owned(), serde_json::to_value(options)?);
        let columns = RATES.to_vec();
        Ok(Self { command, title, columns, rows: Vec::new(), notes: Vec::new(), json, counts: None })
    }

    /// Another table than that of [`RATES`].
    pub fn columns(&mut self, columns: &[&'static str]) {
        self.columns = columns.to_vec();
    }

    /// A row for people.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// A row of medians.
    pub fn series(&mut self, series: &Series) {
        let us = |of: fn(&Figure) -> Option<f64>| micros(series.median(of));
        self.row([
            series.name.clone(),
            grouped(series.rate().round() as u64),
            us(Figure::cpu_us),
            us(Figure::server_us),
            us(Figure::client_us),
        ]);
        self.insert("results", &series.key, series.json());
    }

    /// A row of what `one` makes beside `other`.
    pub fn ratio(&mut self, key: &str, name: &str, one: &Series, other: &Series) {
        let (rate, cpu) = one.ratio(other);
        self.row([name.to_owned(), times(rate), times(cpu)]);
        let digits = |value: Option<f64>| value.map(|value| rounded(value, 3));
        self.insert("ratios", key, json!({ "name": name, "rate": digits(rate), "cpu": digits(cpu) }));
    }

    /// A line under the table.
    pub fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// Something for programs.
    pub fn set(&mut self, key: &str, value: Value) {
        self.json.insert(key.to_owned(), value);
    }

    /// Something for programs, in the object `under`.
    pub fn insert(&mut self, under: &str, key: &str, value: Value) {
        let object = self.json.entry(under).or_insert_with(|| json!({}));
        if let Some(object) = object.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    }

    /// The counts that must agree.
    pub fn counts(&mut self, counts: Counts) {
        self.counts = Some(counts);
    }

    /// What is wrong with the counts, if anything.
    pub fn mismatch(&self) -> Option<String> {
        let counts = self.counts.filter(|counts| !counts.agree())?;
        Some(format!("the counts do not agree: {}", counts.line()))
    }

    /// Puts the server in, and keeps the whole in `divvy_bench.run`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn store(&mut self, connection: &mut PgConnection, server: &Server) -> anyhow::Result<()> {
        self.set("server", serde_json::to_value(server)?);
        if let Some(counts) = self.counts {
            let mut value = serde_json::to_value(counts)?;
            value["agree"] = counts.agree().into();
            self.set("counts", value);
        }
        sqlx::raw_sql(include_str!("run.sql")).execute(&mut *connection).await?;
        let id: i64 =
            sqlx::query_scalar("insert into divvy_bench.run (command, report) values ($1, $2) returning id")
                .bind(self.command)
                .bind(Value::Object(self.json.clone()))
                .fetch_one(&mut *connection)
                .await?;
        self.set("run", id.into());
        self.notes.extend(self.counts.map(|counts| counts.line()));
        self.notes.extend(server.lines());
        self.notes.push(format!("kept as run {id} in divvy_bench.run"));
        Ok(())
    }

    /// The JSON document.
    pub fn json(&self) -> Value {
        Value::Object(self.json.clone())
    }

    /// The table for people, in 80 columns.
    pub fn text(&self) -> String {
        let head: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|at| {
                let cells = std::iter::once(&head).chain(&self.rows).filter_map(|row| row.get(at));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = format!("{}\n\n", wrapped(&self.title));
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "{}", wrapped(note));
        }
        text
    }
}

/// Breaks a line at spaces so that a terminal need not.
fn wrapped(line: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in line.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            text.push_str("\n  ");
            column = 2;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

/// 1234567 → 1,234,567
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 round`, `5 rounds`.
pub fn rounds(count: u32) -> String {
    format!("{count} round{}", if count == 1 { "" } else { "s" })
}

/// Microseconds, or n/a.
pub fn micros(us: Option<f64>) -> String {
    us.map_or_else(|| "n/a".to_owned(), |us| format!("{us:.1}"))
}

/// A ratio, or n/a.
pub fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "n/a".to_owned(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_only_when_nothing_is_lost_or_done_twice() {
        let counts = Counts { inserted: 10, succeeded: 8, handler_calls: 8, left_ready: 2 };
        assert!(counts.agree());
        assert!(!Counts { handler_calls: 9, ..counts }.agree());
        assert!(!Counts { left_ready: 1, ..counts }.agree());
        let mut report = Report::new("drain", "drain".to_owned(), json!({})).unwrap();
        report.counts(Counts { handler_calls: 9, ..counts });
        let mismatch = report.mismatch().unwrap();
        assert!(mismatch.ends_with("inserted 10, succeeded 8, handler calls 9, left ready 2"), "{mismatch}");
    }

    #[test]
    fn a_table_is_aligned_and_no_line_is_longer_than_a_terminal() {
        let mut report = Report::new("drain", "drain".to_owned(), json!({})).unwrap();
        report.series(&Series::new("divvy", "divvy"));
        report.note("word ".repeat(30).trim_end().to_owned());
        let text = report.text();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(
            text.contains("\ndivvy       0     0.0") || text.contains("\ndivvy       0     n/a"),
            "{text}"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!((grouped(0), grouped(999)), ("0".to_owned(), "999".to_owned()));
    }
}
