//! Pages of lists: by keyset, so a page costs the same wherever it is.

use super::problem::Problem;
use schemars::JsonSchema;
use serde::Serialize;

/// Rows of a page where nothing is said.
pub(super) const ROWS_DEFAULT: u64 = 50;
/// Rows of a page at most.
pub(super) const ROWS_MAX: u64 = 1_000;
/// Bytes of a page, after which it ends early, though not before its first row.
const BYTES_MAX: usize = 8 << 20;

/// A part of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Page<T> {
    /// The rows
    pub(super) items: Vec<T>,
    /// For the next page: the cursor to send; null: this was the last
    pub(super) next_cursor: Option<String>,
}

/// A list that is short by nature, cut where it is not.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct List<T> {
    /// The rows
    pub(super) items: Vec<T>,
    /// There were more than one answer may have
    pub(super) truncated: bool,
}

/// How many rows to ask for: one more than the page has, so that it is known whether another follows.
pub(super) fn asked(limit: Option<u64>) -> Result<u64, Problem> {
    match limit.unwrap_or(ROWS_DEFAULT) {
        limit @ 1..=ROWS_MAX => Ok(limit),
        other => Err(Problem::invalid(format!("limit is {other}; it must be 1 to {ROWS_MAX}"))),
    }
}

impl<T: Serialize> Page<T> {
    /// The first `limit` of rows that were asked for with one more.
    pub(super) fn of(mut rows: Vec<T>, limit: u64, cursor: impl Fn(&T) -> String) -> Self {
        let asked = usize::try_from(limit).unwrap_or(usize::MAX);
        let keep = fitting(&rows).min(asked);
        let more = rows.len() > keep;
        rows.truncate(keep);
        let next_cursor = rows.last().filter(|_| more).map(cursor);
        Self { items: rows, next_cursor }
    }
}

impl<T: Serialize> List<T> {
    /// As many of `rows` as fit.
    pub(super) fn of(mut rows: Vec<T>) -> Self {
        let keep = fitting(&rows);
        let truncated = rows.len() > keep;
        rows.truncate(keep);
        Self { items: rows, truncated }
    }

    /// As many of the last of `rows` as fit.
    pub(super) fn of_last(mut rows: Vec<T>) -> Self {
        rows.reverse();
        let mut list = Self::of(rows);
        list.items.reverse();
        list
    }
}

/// How many of the first rows fit into an answer, at least one.
fn fitting<T: Serialize>(rows: &[T]) -> usize {
    let mut left = BYTES_MAX;
    let fits = |row: &T| {
        let bytes = serde_json::to_vec(row).map_or(0, |text| text.len());
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    rows.iter()
        .take_while({
            let mut fits = fits;
            move |row| fits(row)
        })
        .count()
        .max(1)
        .min(rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_at_its_limit_or_its_bytes_and_says_where_the_next_begins() {
        let page = Page::of(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((page.items, page.next_cursor.as_deref()), (vec![1, 2], Some("2")));
        let page = Page::of(vec![1, 2], 2, ToString::to_string);
        assert_eq!(page.next_cursor, None);
        let large = "x".repeat(BYTES_MAX / 2 + 1);
        let page = Page::of(vec![large.clone(), large.clone(), large], 9, |_| "c".into());
        assert_eq!((page.items.len(), page.next_cursor.as_deref()), (1, Some("c")));
        assert!(asked(Some(0)).is_err() && asked(Some(1_001)).is_err() && asked(None).is_ok());
    }
}
