//! One thing, a field a line.

use super::{ago, clean, exact, print, short, width};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::fmt::Write as _;

/// The columns of the names.
const NAME_WIDTH: usize = 13;
/// How much of a stored value is shown; `--json` shows all.
const VALUE_MAX: usize = 2_000;
/// Where a line ends when stdout is no terminal.
const WIDTH_PIPED: usize = 100;

/// Names and values, in order; what is missing is left out.
pub struct Fields {
    text: String,
    now: DateTime<Utc>,
}

impl Fields {
    /// None yet; moments are told from `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { text: String::new(), now }
    }

    /// A field.
    pub fn add(&mut self, name: &str, value: impl ToString) -> &mut Self {
        let value = clean(&value.to_string());
        _ = writeln!(self.text, "{name:<NAME_WIDTH$} {value}");
        self
    }

    /// A field that may be missing.
    pub fn maybe(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        match value {
            Some(value) => self.add(name, value),
            None => self,
        }
    }

    /// A moment, exactly and from now.
    pub fn at(&mut self, name: &str, at: Option<DateTime<Utc>>) -> &mut Self {
        let text = at.map(|at| format!("{} ({})", exact(at), ago(at, self.now)));
        self.maybe(name, text)
    }

    /// A stored value: on one line where it fits, else beneath its name.
    pub fn json(&mut self, name: &str, value: Option<&Value>) -> &mut Self {
        let Some(value) = value else { return self };
        let line = value.to_string();
        if NAME_WIDTH + 1 + line.chars().count() <= width().unwrap_or(WIDTH_PIPED) {
            return self.add(name, line);
        }
        let pretty = serde_json::to_string_pretty(value).unwrap_or(line);
        let shown = short(&pretty, VALUE_MAX);
        _ = writeln!(self.text, "{name}");
        self.text(&shown);
        if shown.len() < pretty.len() {
            _ = writeln!(self.text, "  ({} bytes; --json shows all)", pretty.len());
        }
        self
    }

    /// An empty line and a heading.
    pub fn heading(&mut self, text: &str) -> &mut Self {
        _ = writeln!(self.text, "\n{text}");
        self
    }

    /// A stored text, a line a line.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for line in text.lines() {
            // Indentation is part of the text; other control characters are not.
            let begin = line.len() - line.trim_start().len();
            _ = writeln!(self.text, "  {}{}", " ".repeat(begin), clean(line.trim()));
        }
        self
    }

    /// Lines as they are.
    pub fn lines(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Prints them.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn print(&self) -> anyhow::Result<()> {
        print(&self.text)
    }
}
