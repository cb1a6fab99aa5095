//! How commands speak: data to stdout, as tables for people or as JSON; talk to stderr.
//!
//! A table is plain text: no borders, and no colour unless stdout is a terminal and NO_COLOR is unset. Piped,
//! every row is one line and every column is there, `-` where it is empty.

mod fields;
mod time;

pub use fields::Fields;
pub use time::{ago, exact, span};

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table as Grid, presets};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write};

/// Columns of a terminal that does not say how wide it is.
const WIDTH_DEFAULT: usize = 80;

/// Between two columns.
const GAP: usize = GAP_COLUMNS as usize;
const GAP_COLUMNS: u16 = 2;
/// A column of text is never made narrower.
const COLUMN_LEAST: usize = 10;

/// The keys of ids: JSON gives them as strings, because readers in other languages round large numbers.
const ID_KEYS: [&str; 10] = [
    "task_id",
    "split_id",
    "schedule_id",
    "event_id",
    "parent_task_id",
    "last_task_id",
    "last_split_id",
    "token",
    "id",
    "term",
];

/// Prints data. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// When stdout can't be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints one line of data.
///
/// # Errors
/// As [`print`].
pub fn line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Prints one JSON value on one line.
///
/// # Errors
/// As [`print`].
pub fn json(value: &Value) -> anyhow::Result<()> {
    line(&value.to_string())
}

/// Says something to whoever sits there.
pub fn say(text: &str) {
    eprintln!("divvy: {text}");
}

/// A row as JSON, its ids as strings. What users stored inside it is left as it is.
///
/// # Errors
/// When it is no JSON object.
pub fn row(value: impl Serialize) -> anyhow::Result<Map<String, Value>> {
    let mut object: Map<String, Value> = serde_json::from_value(serde_json::to_value(value)?)?;
    for key in ID_KEYS {
        if let Some(Value::Number(number)) = object.get(key) {
            let text = number.to_string();
            object.insert(key.to_owned(), Value::String(text));
        }
    }
    Ok(object)
}

/// Many rows as JSON.
///
/// # Errors
/// As [`row`].
pub fn rows<T: Serialize>(values: &[T]) -> anyhow::Result<Value> {
    Ok(Value::Array(
        values.iter().map(|value| Ok(Value::Object(row(value)?))).collect::<anyhow::Result<_>>()?,
    ))
}

/// Whether stdout may be coloured.
pub fn colours() -> bool {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    std::io::stdout().is_terminal() && unset("NO_COLOR") && std::env::var("TERM").as_deref() != Ok("dumb")
}

/// One line that no terminal can be tricked by: control characters become spaces.
pub fn clean(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect();
    words.join(" ")
}

/// At most `max` characters of `text`.
pub fn short(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// How wide stdout is, when it is a terminal.
pub fn width() -> Option<usize> {
    std::io::stdout().is_terminal().then(|| Grid::new().width().map_or(WIDTH_DEFAULT, usize::from))
}

/// The colour of a state, by what it asks of the reader.
fn colour(state: &str) -> Option<Color> {
    match state {
        "succeeded" | "done" | "fired" | "alive" => Some(Color::Green),
        "failed" | "refused" | "expired" | "timeout" | "stopped" | "gone" => Some(Color::Red),
        "partial" | "paused" | "quiet" | "missed" | "terminate" | "undeclared" => Some(Color::Yellow),
        "running" | "planning" | "reducing" | "active" => Some(Color::Cyan),
        _ => None,
    }
}

/// Cuts a list that was asked for one row more than a page: whether there is another page.
pub fn cut<T>(rows: &mut Vec<T>, limit: u64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

/// Says how to see the next page, where there is one.
pub fn say_next(after: Option<&str>) {
    if let Some(after) = after {
        say(&format!("there are more: --after {after}"));
    }
}

/// Rows under a header.
pub struct Table<const N: usize> {
    header: Vec<&'static str>,
    right: &'static [&'static str],
    note: Option<&'static str>,
    rows: Vec<(Vec<String>, String)>,
}

impl<const N: usize> Table<N> {
    /// A table with these columns.
    pub fn new(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), right: &[], note: None, rows: Vec::new() }
    }

    /// Columns of numbers, set to the right.
    pub fn right(mut self, columns: &'static [&'static str]) -> Self {
        self.right = columns;
        self
    }

    /// A last column of free text. Where it doesn't fit on a terminal, it goes beneath its row.
    pub fn note(mut self, column: &'static str) -> Self {
        self.note = Some(column);
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N], note: Option<&str>) {
        let cells = cells.iter().map(|cell| clean(cell)).collect();
        self.rows.push((cells, clean(note.unwrap_or_default())));
    }

    /// Prints it; an empty one says on stderr that there is `nothing`.
    ///
    /// # Errors
    /// As [`print`].
    pub fn print(self, nothing: &str) -> anyhow::Result<()> {
        if self.rows.is_empty() {
            say(nothing);
            return Ok(());
        }
        print(&self.text(width(), colours()))
    }

    /// The whole text, for a terminal of `width` columns or for a pipe.
    pub fn text(mut self, width: Option<usize>, colours: bool) -> String {
        if width.is_some() {
            self.drop_empty_columns();
        }
        let has_notes =
            self.note.is_some() && (width.is_none() || self.rows.iter().any(|row| !row.1.is_empty()));
        let widest = self.rows.iter().map(|row| row.1.chars().count()).max().unwrap_or_default();
        let beneath = has_notes && width.is_some_and(|width| self.width() + GAP + widest > width);
        if let Some(width) = width.filter(|_| beneath || !has_notes) {
            self.shrink(width);
        }
        let grid = self.grid(has_notes && !beneath, colours);
        let mut text = String::new();
        for (index, line) in grid.lines().enumerate() {
            _ = writeln!(text, "{}", line.trim_end());
            if let Some((_, note)) = index.checked_sub(1).and_then(|index| self.rows.get(index))
                && beneath
                && !note.is_empty()
            {
                _ = writeln!(text, "  {}", short(note, width.unwrap_or(WIDTH_DEFAULT) - 2));
            }
        }
        text
    }

    fn grid(&self, notes: bool, colours: bool) -> Grid {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if colours {
            grid.enforce_styling();
        } else {
            grid.force_no_tty();
        }
        let note = self.note.filter(|_| notes);
        grid.set_header(self.header.iter().chain(&note).map(Cell::new).collect::<Vec<_>>());
        for (cells, text) in &self.rows {
            let note = note.map(|_| text);
            let cells = cells.iter().chain(note).map(|text| {
                let cell = Cell::new(if text.is_empty() { "-" } else { text });
                match colour(text).filter(|_| colours) {
                    Some(colour) => cell.fg(colour),
                    None => cell,
                }
            });
            grid.add_row(cells.collect::<Vec<_>>());
        }
        for (index, column) in grid.column_iter_mut().enumerate() {
            column.set_padding((0, GAP_COLUMNS));
            if self.header.get(index).is_some_and(|name| self.right.contains(name)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        grid
    }

    fn width(&self) -> usize {
        let columns = self.grid(false, false).column_max_content_widths();
        columns.iter().map(|column| usize::from(*column) + GAP).sum::<usize>().saturating_sub(GAP)
    }

    /// Shortens the widest columns of text until a row fits on a line.
    fn shrink(&mut self, width: usize) {
        for _ in 0..self.header.len() {
            let excess = self.width().saturating_sub(width);
            let columns = self.grid(false, false).column_max_content_widths();
            let text = |index: &usize| !self.right.contains(&self.header[*index]);
            let Some(widest) = (0..columns.len()).filter(text).max_by_key(|index| columns[*index]) else {
                return;
            };
            let room = usize::from(columns[widest]).saturating_sub(excess).max(COLUMN_LEAST);
            if excess == 0 || usize::from(columns[widest]) <= room {
                return;
            }
            self.rows.iter_mut().for_each(|(cells, _)| cells[widest] = short(&cells[widest], room));
        }
    }

    fn drop_empty_columns(&mut self) {
        for index in (0..self.header.len()).rev() {
            if self.rows.iter().all(|(cells, _)| cells[index].is_empty()) {
                self.header.remove(index);
                self.rows.iter_mut().for_each(|(cells, _)| _ = cells.remove(index));
            }
        }
    }
}

/// Anything that may be missing, as a cell.
pub fn some(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Table<4> {
        let mut table = Table::new(["ID", "STATUS", "GROUP", "SPLITS"]).right(&["SPLITS"]).note("REASON");
        table.row(["7".into(), "failed".into(), String::new(), "12".into()], Some("the file\nis missing"));
        table.row(["1042".into(), "running".into(), String::new(), "4".into()], None);
        table
    }

    #[test]
    fn a_piped_table_has_one_line_a_row_every_column_and_no_colour() {
        assert_eq!(
            table().text(None, false),
            "ID    STATUS   GROUP  SPLITS  REASON\n\
             7     failed   -          12  the file is missing\n\
             1042  running  -           4  -\n"
        );
    }

    #[test]
    fn on_a_terminal_empty_columns_go_and_a_note_that_does_not_fit_goes_beneath() {
        assert_eq!(
            table().text(Some(30), false),
            "ID    STATUS   SPLITS\n7     failed       12\n  the file is missing\n1042  running       4\n"
        );
        assert!(table().text(Some(80), true).contains("\u{1b}["));
    }

    #[test]
    fn on_a_narrow_terminal_the_widest_text_is_shortened_and_nothing_wraps() {
        let mut table = Table::new(["NAME", "RULE", "RUNS"]).right(&["RUNS"]);
        table.row(["nightly".into(), "0 4 * * MON-FRI Europe/Berlin".into(), "7".into()], None);
        assert_eq!(
            table.text(Some(34), false),
            "NAME     RULE                 RUNS\nnightly  0 4 * * MON-FRI Eu…     7\n"
        );
    }

    #[test]
    fn what_users_stored_can_not_write_to_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{9b}31mc"), "a [2Jb 31mc");
    }

    #[test]
    fn ids_are_strings_and_payloads_are_left_alone() {
        let row = row(json!({ "task_id": 7, "attempt": 1, "payload": { "task_id": 8 } })).unwrap();
        assert_eq!(Value::Object(row), json!({ "task_id": "7", "attempt": 1, "payload": { "task_id": 8 } }));
    }
}
