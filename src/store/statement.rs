//! Statements that users wrote: the steps of types in SQL, and the roles they run as.

use crate::id::{SplitId, Token};
use crate::in_sql::row;
use crate::store::{pool, sqlstate};
use crate::{Error, ErrorKind, Result};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Column, PgConnection, PgExecutor, PgPool, Row, TypeInfo, ValueRef};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a split may wait for a connection of its role.
const ACQUIRE_MAX: Duration = Duration::from_secs(60);

row! {
    /// A type whose steps are statements.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SqlType {
        /// The type.
        pub name: String,
        /// Who its statements run as.
        pub role: String,
        /// One share per row.
        pub split: Option<String>,
        /// One share's work.
        pub execute: String,
        /// What becomes of the results.
        pub reduce: Option<String>,
        /// The longest a statement may run, in milliseconds, where the type says less than its timeout.
        pub statement_timeout_ms: Option<i64>,
    }
}

/// The declared types whose steps are statements, by name; of `name`, or all.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn sql_types(executor: impl PgExecutor<'_>, name: Option<&str>) -> Result<Vec<SqlType>> {
    // A timeout is given as every delay in options: a number of seconds, or an interval.
    let query = "
        select t.name, s.role, s.split, s.execute, s.reduce,
               (case jsonb_typeof(s.statement_timeout)
                    when 'number' then (s.statement_timeout #>> '{}')::float8
                    when 'string' then extract(epoch from (s.statement_timeout #>> '{}')::interval)
                end * 1000)::bigint as statement_timeout_ms
          from divvy.task_type t,
               jsonb_to_record(t.handler -> 'sql')
                   as s (role text, split text, execute text, reduce text, statement_timeout jsonb)
         where t.handler ? 'sql' and (t.name = $1 or $1 is null)
         order by t.name";
    Ok(sqlx::query_as(query).bind(name).fetch_all(executor).await?)
}

/// A pool that logs in as one role. The connections are its own: nothing that ran on them as a stronger role
/// can be reached by `reset role`.
pub fn role_pool(options: PgConnectOptions, connections: u32) -> PgPool {
    pool::options()
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(ACQUIRE_MAX)
        .connect_lazy_with(options.application_name("divvy sql"))
}

/// Whether the role behind `connection` may finish what it executes.
///
/// # Errors
/// When it may not, or the connection is lost.
pub async fn check_role(connection: &mut PgConnection, role: &str) -> Result<()> {
    let query = "
        select session_user = $1 and has_schema_privilege('divvy', 'usage')
               and bool_and(has_function_privilege(p.oid, 'execute'))
          from pg_proc p
         where p.pronamespace = to_regnamespace('divvy') and p.proname in ('complete', 'results')";
    let may: Option<bool> = sqlx::query_scalar(query).bind(role).fetch_one(connection).await?;
    if may == Some(true) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Database,
        format!(
            "role {role} may not finish splits: put the type again, which grants it divvy.complete and divvy.results"
        ),
    ))
}

/// Bounds each statement of the transaction.
///
/// # Errors
/// When the connection is lost.
pub async fn limit(connection: &mut PgConnection, milliseconds: i64) -> Result<()> {
    let set = sqlx::query("select set_config('statement_timeout', $1, true)");
    set.bind(format!("{}ms", milliseconds.max(1))).execute(connection).await?;
    Ok(())
}

/// Lets `divvy.results()` of this transaction find the splits of the task that is being reduced, and counts
/// them: `{"splits", "succeeded", "failed", "cancelled", "skipped"}`.
///
/// # Errors
/// LeaseLost when the reduce is somebody else's by now.
pub async fn open_results(
    connection: &mut PgConnection,
    split: SplitId,
    token: Token,
) -> Result<Box<RawValue>> {
    sqlx::query("select set_config('divvy.split_id', $1, true), set_config('divvy.token', $2, true)")
        .bind(split.to_string())
        .bind(token.to_string())
        .execute(&mut *connection)
        .await?;
    let query = "
        select jsonb_build_object('splits', count(*),
                   'succeeded', count(*) filter (where status = 'succeeded'),
                   'failed', count(*) filter (where status = 'failed'),
                   'cancelled', count(*) filter (where status = 'cancelled'),
                   'skipped', count(*) filter (where status = 'skipped'))
          from divvy.results()";
    let counts: Json<Box<RawValue>> = sqlx::query_scalar(query).fetch_one(connection).await?;
    Ok(counts.0)
}

/// Begins to read what a split statement returns; `$1` is the task's payload.
///
/// # Errors
/// Whatever Postgres says of the statement.
pub async fn open_shares(connection: &mut PgConnection, statement: &str, payload: &RawValue) -> Result<()> {
    // A cursor, so that a million shares are never in memory at once.
    let declare = format!("declare divvy_shares no scroll cursor for {statement}");
    sqlx::query(AssertSqlSafe(declare)).bind(Json(payload)).execute(connection).await?;
    Ok(())
}

/// The next shares, none after the last.
///
/// # Errors
/// Whatever Postgres says of the statement; a column that is no JSON.
pub async fn next_shares(connection: &mut PgConnection, max: u32) -> Result<Vec<Box<RawValue>>> {
    let fetch = format!("fetch forward {max} from divvy_shares");
    let rows = sqlx::query(AssertSqlSafe(fetch)).fetch_all(connection).await?;
    rows.iter().map(json_row).collect()
}

/// Runs a statement with `$1` and `$2`; what it returns is the result.
///
/// # Errors
/// Whatever Postgres says of the statement; more than one row; a column that is no JSON.
pub async fn run(
    connection: &mut PgConnection,
    statement: &str,
    payload: &RawValue,
    second: &RawValue,
) -> Result<Option<Box<RawValue>>> {
    let query = sqlx::query(AssertSqlSafe(statement.to_owned())).bind(Json(payload)).bind(Json(second));
    match query.fetch_all(connection).await?.as_slice() {
        [] => Ok(None),
        [row] => Ok(Some(json_row(row)?)),
        more => Err(Error::new(
            ErrorKind::BadOption,
            format!("it returned {} rows: none or one expected, jsonb_agg() makes one of many", more.len()),
        )),
    }
}

/// The class under which a failed statement is known: its SQLSTATE where there is one.
pub fn class(error: &Error) -> String {
    sqlstate::code(error).unwrap_or_else(|| "sql".to_owned())
}

/// One column is the value itself, several are an object.
fn json_row(row: &PgRow) -> Result<Box<RawValue>> {
    if let [_] = row.columns() {
        return cell(row, 0);
    }
    let cells: BTreeMap<&str, Box<RawValue>> = row
        .columns()
        .iter()
        .map(|column| Ok((column.name(), cell(row, column.ordinal())?)))
        .collect::<Result<_>>()?;
    raw(&cells)
}

fn cell(row: &PgRow, index: usize) -> Result<Box<RawValue>> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return raw(&());
    }
    match value.type_info().name() {
        "JSONB" | "JSON" => Ok(row.try_get::<Json<Box<RawValue>>, _>(index)?.0),
        "BOOL" => raw(&row.try_get::<bool, _>(index)?),
        "INT2" => raw(&row.try_get::<i16, _>(index)?),
        "INT4" => raw(&row.try_get::<i32, _>(index)?),
        "INT8" => raw(&row.try_get::<i64, _>(index)?),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" => raw(&row.try_get::<String, _>(index)?),
        "UUID" => raw(&row.try_get::<uuid::Uuid, _>(index)?),
        "VOID" => raw(&()),
        other => {
            let name = row.columns()[index].name();
            Err(Error::new(
                ErrorKind::BadOption,
                format!(
                    "its column {name} is {}: jsonb, text, an integer, a boolean or a uuid expected, to_jsonb() \
                     makes one of anything",
                    other.to_lowercase()
                ),
            ))
        }
    }
}

fn raw<T: serde::Serialize>(value: &T) -> Result<Box<RawValue>> {
    to_raw_value(value)
        .map_err(|error| Error::new(ErrorKind::BadOption, format!("it is no JSON: {error}")).caused_by(error))
}
