//! The demo's own tables: its only SQL. Each statement is a file beside this one.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{Connection, FromRow, PgConnection, Row};

use crate::demo::characters::Character;
use crate::demo::names::{Normalized, Pairs};
use crate::in_sql::row;
use crate::{Error, ErrorKind, Result};

/// How much of a COPY is sent at once, in bytes.
const COPY_CHUNK_BYTES: usize = 256 * 1024;

row! {
    /// Names that differ and become one.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct Collision {
        /// `NFC`, `NFD`, `NFKC` or `NFKD`.
        pub form: String,
        /// What all members become in that form.
        pub normalized: String,
        /// The names, by code point.
        pub members: Vec<String>,
        /// How many they are.
        pub how_many: i32,
    }
}

row! {
    /// What reduce says of one form.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct FormReport {
        /// `NFC`, `NFD`, `NFKC` or `NFKD`.
        pub form: String,
        /// How many groups of names collide.
        pub groups: i64,
        /// How many names are in them.
        pub names: i64,
        /// How many names the largest group has.
        pub largest: i32,
        /// What the names of that group become.
        pub largest_becomes: String,
    }
}

/// A row that only one side has: Postgres, whom the check asks, or the report of reduce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `Postgres` or `the report`.
    pub said_by: String,
    /// The row.
    #[serde(flatten)]
    pub row: Collision,
    /// How many rows differ in all; the check returns the first twenty.
    pub differing: i64,
}

impl FromRow<'_, PgRow> for Difference {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            said_by: row.try_get("said_by")?,
            row: Collision::from_row(row)?,
            differing: row.try_get("differing")?,
        })
    }
}

/// Makes the demo's tables afresh and copies all characters in, in one transaction.
///
/// # Errors
/// When the database is not UTF-8 (Postgres normalises no other), or refuses.
pub async fn load(connection: &mut PgConnection, characters: &[Character]) -> Result<()> {
    let failed = |cause| refused("load demo.character", cause);
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *transaction).await.map_err(failed)?;
    let mut copy = transaction.copy_in_raw(include_str!("copy.sql")).await.map_err(failed)?;
    for chunk in copy_chunks(characters) {
        copy.send(chunk.into_bytes()).await.map_err(failed)?;
    }
    copy.finish().await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// The lines of COPY's text format. No field holds a tab, a backslash or a line break.
fn copy_chunks(characters: &[Character]) -> impl Iterator<Item = String> {
    let mut rest = characters.iter();
    std::iter::from_fn(move || {
        let mut chunk = String::with_capacity(COPY_CHUNK_BYTES + 256);
        while chunk.len() < COPY_CHUNK_BYTES {
            let Some(Character { char, name, category, combining_class, decomposition }) = rest.next() else {
                break;
            };
            let code_point = u32::from(*char);
            chunk
                .push_str(&format!("{code_point}\t{name}\t{category}\t{combining_class}\t{decomposition}\n"));
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The rule of two-character names, found in the loaded decompositions.
///
/// # Errors
/// When the table cannot be read or holds what is no decomposition.
pub async fn pairs(connection: &mut PgConnection) -> Result<Pairs> {
    let rows: Vec<(i32, String)> = sqlx::query_as(include_str!("decompositions.sql"))
        .fetch_all(connection)
        .await
        .map_err(|cause| refused("read demo.character", cause))?;
    let rows = rows.iter().map(|(code_point, text)| Ok((char_of(*code_point)?, text.as_str())));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    Pairs::find(rows).map_err(|what| unusable(format!("decomposition {what}")))
}

/// The loaded characters whose code points are in `range`, ascending.
///
/// # Errors
/// When the table cannot be read or holds what is no character.
pub async fn characters(connection: &mut PgConnection, range: Range<u32>) -> Result<Vec<char>> {
    let bound = |code_point| i32::try_from(code_point).unwrap_or(i32::MAX);
    let code_points: Vec<i32> = sqlx::query_scalar(include_str!("characters.sql"))
        .bind(bound(range.start))
        .bind(bound(range.end))
        .fetch_all(connection)
        .await
        .map_err(|cause| refused("read demo.character", cause))?;
    code_points.into_iter().map(char_of).collect()
}

/// Writes `names` and their forms in one statement.
///
/// # Errors
/// When Postgres refuses, for instance a name that is there already.
pub async fn write(connection: &mut PgConnection, names: Vec<Normalized>) -> Result<u64> {
    let count = names.len();
    let mut columns: [Vec<String>; 5] = std::array::from_fn(|_| Vec::with_capacity(count));
    for Normalized { name, nfc, nfd, nfkc, nfkd } in names {
        for (column, value) in columns.iter_mut().zip([name, nfc, nfd, nfkc, nfkd]) {
            column.push(value);
        }
    }
    let [name, nfc, nfd, nfkc, nfkd] = columns;
    let done = sqlx::query(include_str!("write.sql"))
        .bind(name)
        .bind(nfc)
        .bind(nfd)
        .bind(nfkc)
        .bind(nfkd)
        .execute(connection)
        .await
        .map_err(|cause| refused("write demo.normalized", cause))?;
    Ok(done.rows_affected())
}

/// How many names are written.
///
/// # Errors
/// When the table cannot be read.
pub async fn names(connection: &mut PgConnection) -> Result<u64> {
    let names: i64 = sqlx::query_scalar(include_str!("count.sql"))
        .fetch_one(connection)
        .await
        .map_err(|cause| refused("read demo.normalized", cause))?;
    Ok(names.unsigned_abs())
}

/// Gathers the collisions of all names written, and says how many each form has.
///
/// # Errors
/// When Postgres refuses.
pub async fn reduce(connection: &mut PgConnection) -> Result<Vec<FormReport>> {
    let failed = |cause| refused("write demo.collision", cause);
    sqlx::raw_sql(include_str!("reduce.sql")).execute(&mut *connection).await.map_err(failed)?;
    sqlx::query_as(include_str!("report.sql")).fetch_all(connection).await.map_err(failed)
}

/// A few collisions that people know.
///
/// # Errors
/// When the table cannot be read.
pub async fn examples(connection: &mut PgConnection) -> Result<Vec<Collision>> {
    let rows = sqlx::query_as(include_str!("examples.sql")).fetch_all(connection).await;
    rows.map_err(|cause| refused("read demo.collision", cause))
}

/// Changes one row of the report to a wrong one.
///
/// # Errors
/// When Postgres refuses.
pub async fn tamper(connection: &mut PgConnection) -> Result<()> {
    let done = sqlx::query(include_str!("tamper.sql")).execute(connection).await;
    done.map(drop).map_err(|cause| refused("change demo.collision", cause))
}

/// Asks Postgres' own `normalize()` the same question and returns the first rows that differ; none when all
/// are equal.
///
/// # Errors
/// When Postgres refuses.
pub async fn differences(connection: &mut PgConnection) -> Result<Vec<Difference>> {
    let rows = sqlx::query_as(include_str!("check.sql")).fetch_all(connection).await;
    rows.map_err(|cause| refused("check demo.collision", cause))
}

fn char_of(code_point: i32) -> Result<char> {
    let char = u32::try_from(code_point).ok().and_then(char::from_u32);
    char.ok_or_else(|| unusable(format!("code point {code_point}, which is no character")))
}

fn unusable(what: String) -> Error {
    Error::new(ErrorKind::Config, format!("demo.character holds {what}"))
}

fn refused(what: &str, cause: sqlx::Error) -> Error {
    Error::new(ErrorKind::Database, format!("cannot {what}: {cause}")).caused_by(cause)
}
