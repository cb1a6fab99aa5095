//! `divvy bench enqueue`: what it costs to put tasks in, beside the same rows in a plain table.

use super::figure::{Series, Watch};
use super::payload::payload;
use super::report::{Counts, Report, grouped, rounds};
use super::screen::Progress;
use super::singles::{self, Wake};
use super::{Bench, load};
use crate::client::{Client, NewTask};
use crate::store::connect;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sqlx::PgConnection;

/// Tasks of one call of `enqueue_many`, and rows of one plain insert beside it.
const MANY: usize = 1_000;

/// How many.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// Tasks of each way in a round
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks: u64,
    /// Rounds of all ways in turn; figures are their medians
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How long the clients commit single rows in a round: no longer than a worker counts as idle
    #[arg(long, default_value_t = 4, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=4))]
    pub secs: u64,
    /// Clients that commit single rows
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Finished splits that are there before it begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub history: u64,
}

/// A way to put rows in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Select,
    SelectPlain,
    Many,
    ManyPlain,
    Copy,
    CopyPlain,
    Waking,
    Silent,
}

impl Way {
    /// Into the plain table.
    fn is_plain(self) -> bool {
        matches!(self, Self::SelectPlain | Self::ManyPlain | Self::CopyPlain)
    }
}

/// Each plain one behind that which it is compared with.
const WAYS: [(Way, &str, &str); 8] = [
    (Way::Select, "insert_select", "INSERT … SELECT"),
    (Way::SelectPlain, "insert_select_plain", "  plain table"),
    (Way::Many, "enqueue_many", "enqueue_many, 1,000 each"),
    (Way::ManyPlain, "enqueue_many_plain", "  plain table"),
    (Way::Copy, "copy", "COPY"),
    (Way::CopyPlain, "copy_plain", "  plain table"),
    (Way::Waking, "single_rows", "single rows, waking"),
    (Way::Silent, "single_rows_silent", "  divvy.notify = off"),
];

/// Measures.
///
/// # Errors
/// When a step fails.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let mut series = WAYS.map(|(_, key, name)| Series::new(key, name));
    let mut connection = connect::connect(&bench.direct).await?;
    let types = load::types(1);
    let mut counts = Counts::default();
    let mut notifications = 0;
    for round in 0..options.rounds {
        for at in 0..WAYS.len() {
            // Each pair the other way round in every second round.
            let at = if round % 2 == 1 { at ^ 1 } else { at };
            let way = WAYS[at].0;
            if options.history == 0 || (round == 0 && at == 0) {
                load::clean(&mut connection).await?;
                load::declare(&mut connection, &types, &json!({})).await?;
                load::history(&mut connection, &types, options.history, bench.payload_bytes).await?;
            }
            sqlx::raw_sql(include_str!("plain.sql")).execute(&mut connection).await?;
            let before = load::standing(&mut connection).await?;
            let progress = Progress::new(WAYS[at].2.trim(), options.tasks);
            let (figure, calls) = match way {
                Way::Waking | Way::Silent => {
                    let wake = if way == Way::Waking { Wake::On } else { Wake::Off };
                    let round = singles::run(bench, options, wake, &types[0]).await?;
                    notifications += round.heard;
                    (round.figure, round.calls)
                }
                _ => {
                    let watch = Watch::start(&bench.cpu);
                    put(bench, &mut connection, way, &types[0], options.tasks, &progress).await?;
                    (watch.read(options.tasks), 0)
                }
            };
            if way.is_plain() {
                check_plain(&mut connection, WAYS[at - 1].2, figure.count).await?;
            } else {
                let (succeeded, open) = load::standing(&mut connection).await?;
                counts.inserted += figure.count;
                counts.succeeded += succeeded.saturating_sub(before.0);
                counts.handler_calls += calls;
                // With a history nothing is removed between the ways, and a worker takes what an earlier one left.
                counts.left_ready = (counts.left_ready + open).saturating_sub(before.1);
            }
            series[at].figures.push(figure);
        }
    }
    sqlx::raw_sql("drop table if exists divvy_bench.plain").execute(&mut connection).await?;
    report(options, &series, counts, notifications)
}

/// A plain table has no rows that succeed, so they are in no counts; but as many are there as were put in.
async fn check_plain(connection: &mut PgConnection, how: &str, count: u64) -> Result<()> {
    let rows: i64 =
        sqlx::query_scalar("select count(*) from divvy_bench.plain").fetch_one(connection).await?;
    ensure!(
        u64::try_from(rows)? == count,
        "plain table, {how}: {} rows were put in, {} are there",
        grouped(count),
        grouped(u64::try_from(rows)?)
    );
    Ok(())
}

async fn put(
    bench: &Bench,
    connection: &mut PgConnection,
    way: Way,
    task_type: &str,
    count: u64,
    progress: &Progress,
) -> Result<()> {
    let text = payload(0, 0, bench.payload_bytes);
    match way {
        Way::Select | Way::SelectPlain => {
            let sql = match way {
                Way::Select => {
                    "insert into divvy.task (task_type, payload) select $1, $2::text::jsonb from generate_series(1, $3::bigint)"
                }
                _ => {
                    "insert into divvy_bench.plain (task_type, payload) select $1, $2::text::jsonb from generate_series(1, $3::bigint)"
                }
            };
            let insert = sqlx::query(sql).bind(task_type).bind(text).bind(i64::try_from(count)?);
            insert.execute(connection).await?;
        }
        Way::Many => {
            let client = Client::new(bench.pool.clone());
            let value: Value = serde_json::from_str(&text)?;
            for size in pieces(count, progress) {
                let tasks = (0..size).map(|_| NewTask::new(task_type, value.clone()));
                client.enqueue_many(tasks).await?;
            }
        }
        Way::ManyPlain => {
            for size in pieces(count, progress) {
                sqlx::query("insert into divvy_bench.plain (task_type, payload) select $1, p::jsonb from unnest($2::text[]) p")
                    .bind(task_type)
                    .bind(vec![text.as_str(); size])
                    .execute(&mut *connection)
                    .await?;
            }
        }
        Way::Copy => {
            copy(
                connection,
                "copy divvy.task (task_type, payload) from stdin",
                task_type,
                &text,
                count,
                progress,
            )
            .await?;
        }
        Way::CopyPlain => {
            copy(
                connection,
                "copy divvy_bench.plain (task_type, payload) from stdin",
                task_type,
                &text,
                count,
                progress,
            )
            .await?;
        }
        // They are measured by their clients, and a worker takes them.
        Way::Waking | Way::Silent => {}
    }
    Ok(())
}

/// The sizes of calls.
fn pieces(count: u64, progress: &Progress) -> impl Iterator<Item = usize> {
    (0..count.div_ceil(MANY as u64)).map(move |at| {
        progress.at(at * MANY as u64);
        usize::try_from(count - at * MANY as u64).unwrap_or(MANY).min(MANY)
    })
}

async fn copy(
    connection: &mut PgConnection,
    sql: &str,
    task_type: &str,
    text: &str,
    count: u64,
    progress: &Progress,
) -> Result<()> {
    let mut sink = connection.copy_in_raw(sql).await?;
    // Text format: backslashes are doubled.
    let line = format!("{task_type}\t{}\n", text.replace('\\', "\\\\"));
    for size in pieces(count, progress) {
        sink.send(line.repeat(size).into_bytes()).await?;
    }
    sink.finish().await.context("COPY")?;
    Ok(())
}

fn report(options: &Options, series: &[Series], counts: Counts, notifications: u64) -> Result<Report> {
    let title = format!(
        "enqueue: {} tasks each way, single rows by {} clients for {} s; {}, medians",
        grouped(options.tasks),
        options.clients,
        options.secs,
        rounds(options.rounds)
    );
    let mut report = Report::new("enqueue", title, options)?;
    for (at, pair) in series.chunks(2).enumerate() {
        let [one, other] = pair else { continue };
        report.series(one);
        report.series(other);
        let key = format!("{}_{}", one.key, if at == 3 { "silent" } else { "plain" });
        report.ratio(&key, "  ratio", one, other);
    }
    report.set("notifications", notifications.into());
    report.note(format!(
        "the plain table has the same columns and defaults, and one index; {} wake-ups were heard",
        grouped(notifications)
    ));
    report.counts(counts);
    Ok(report)
}
