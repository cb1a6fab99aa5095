//! What a run puts into the database, counts there, and takes out again.

use super::payload::payload;
use super::screen::Progress;
use anyhow::{Context, Result, bail};
use sqlx::PgConnection;

/// The types of a run are called this, and so on; nothing else is touched.
pub const TYPE_PREFIX: &str = "bench.";
/// Workers of a run are called this, and so on.
pub const WORKER_PREFIX: &str = "bench-";
/// Held while a run is under way: two would measure one another.
pub const LOCK_KEY: i64 = 0x6469_7676_7962_656e;
/// Rows of one statement, so that a long fill shows progress and one can stop it.
const FILL_ROWS: u64 = 200_000;

/// Refuses to disturb others.
///
/// # Errors
/// When other types have ready work or other workers are alive, naming them.
pub async fn refuse_others(connection: &mut PgConnection) -> Result<()> {
    let others: Vec<String> = sqlx::query_scalar(include_str!("others.sql")).fetch_all(connection).await?;
    if others.is_empty() {
        return Ok(());
    }
    let shown = others.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    let more = if others.len() > 5 { format!("; and {} more", others.len() - 5) } else { String::new() };
    bail!(
        "this database is in use: {shown}{more}. A bench would slow it down, and its figures would be wrong: \
         use another database, or --force"
    )
}

/// Removes whatever earlier runs left, and the floor's tables.
///
/// # Errors
/// When the role may not, or somebody holds a lock on the tables for longer than 10 s.
pub async fn clean(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("set client_min_messages = warning").execute(&mut *connection).await?;
    sqlx::raw_sql(include_str!("clean.sql"))
        .execute(connection)
        .await
        .context("removing what earlier runs left (a bench needs a superuser, or a member of divvy_owner)")?;
    Ok(())
}

/// The names of so many types.
pub fn types(count: u32) -> Vec<String> {
    if count == 1 {
        return vec![format!("{TYPE_PREFIX}noop")];
    }
    (1..=count).map(|no| format!("{TYPE_PREFIX}noop{no}")).collect()
}

/// Declares types with these options.
///
/// # Errors
/// When the database refuses.
pub async fn declare(
    connection: &mut PgConnection,
    types: &[String],
    options: &serde_json::Value,
) -> Result<()> {
    sqlx::query("select divvy.put_task_type(t, $2) from unnest($1::text[]) t")
        .bind(types)
        .bind(options)
        .execute(connection)
        .await
        .context("declaring the types of the bench")?;
    Ok(())
}

/// Inserts ready tasks, spread over the types.
///
/// # Errors
/// When the database refuses.
pub async fn fill(connection: &mut PgConnection, types: &[String], count: u64, bytes: usize) -> Result<()> {
    in_pieces(
        connection,
        "inserting",
        "insert into divvy.task (task_type, payload)
         select ($1::text[])[1 + n % cardinality($1::text[])], $3::text::jsonb from generate_series(1, $2::bigint) n",
        types,
        count,
        bytes,
    )
    .await
}

/// Inserts finished tasks, spread over the types.
///
/// # Errors
/// When the database refuses.
pub async fn history(
    connection: &mut PgConnection,
    types: &[String],
    count: u64,
    bytes: usize,
) -> Result<()> {
    in_pieces(connection, "inserting history", include_str!("history.sql"), types, count, bytes).await?;
    if count > 0 {
        // Who claimed all that would have raised the marks on the way, over a little at a time.
        sqlx::raw_sql("select divvy.advance_low_water(); select divvy.advance_low_water()")
            .execute(&mut *connection)
            .await?;
        sqlx::query("select divvy.raise_marks(t, p_worth => 0) from unnest($1::text[]) t")
            .bind(types)
            .execute(&mut *connection)
            .await
            .context("raising the marks over the history")?;
    }
    Ok(())
}

async fn in_pieces(
    connection: &mut PgConnection,
    what: &str,
    sql: &'static str,
    types: &[String],
    count: u64,
    bytes: usize,
) -> Result<()> {
    let progress = Progress::new(what, count);
    let mut done = 0;
    while done < count {
        let piece = FILL_ROWS.min(count - done);
        sqlx::query(sql)
            .bind(types)
            .bind(i64::try_from(piece)?)
            .bind(payload(0, 0, bytes))
            .execute(&mut *connection)
            .await
            .with_context(|| format!("{what} {piece} rows"))?;
        done += piece;
        progress.at(done);
    }
    Ok(())
}

/// What a planner and a first reader would do to new rows is done before the clock runs: of divvy's tables and the
/// floor's alike.
///
/// # Errors
/// When the database refuses.
pub async fn vacuum(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("vacuum (analyze) divvy.task, divvy.share").execute(connection).await?;
    Ok(())
}

/// How many tasks of the bench have succeeded, and how many are ready.
///
/// # Errors
/// When the database is lost.
pub async fn standing(connection: &mut PgConnection) -> Result<(u64, u64)> {
    let (succeeded, open): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where status = 'succeeded'), count(*) filter (where finished_at is null)
           from divvy.task_overview where task_type like 'bench.%'",
    )
    .fetch_one(connection)
    .await?;
    Ok((u64::try_from(succeeded)?, u64::try_from(open)?))
}

/// The floor's tables go.
///
/// # Errors
/// When the database refuses.
pub async fn drop_floor(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("drop schema if exists divvy_bench_floor cascade").execute(connection).await?;
    Ok(())
}
