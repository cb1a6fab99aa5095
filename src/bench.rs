//! `divvy bench`: what divvy costs on a database of yours, beside the hand-written SQL floor on the same server.
//!
//! Wall time lies on a machine that others use, so every figure has the CPU time of server and client beside it, and
//! is given as a ratio to a floor that ran in turn with it. A run counts what it inserted, what succeeded and how
//! often its handler was called; a figure without that proof is none.
//!
//! A file per question ([`drain`], [`floor_only`]…); [`floor`] is the yardstick, [`load`] what goes into the database.

pub mod calls;
pub mod cpu;
pub mod drain;
pub mod enqueue;
pub mod exec;
pub mod fanin;
pub mod figure;
pub mod floor;
pub mod floor_only;
pub mod hold;
pub mod http;
pub mod latency;
pub mod limits;
pub mod line;
pub mod load;
pub mod payload;
pub mod pick_up;
pub mod producer;
pub mod report;
pub mod screen;
pub mod server;
pub mod singles;
pub mod steady;

use crate::store::{connect, lock};
use anyhow::{Result, bail};
use cpu::Cpu;
use report::Report;
use server::Server;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

/// What is measured.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum What {
    /// Putting tasks in, in several ways, beside a plain table
    Enqueue(enqueue::Options),
    /// Pre-inserted single-split tasks, by one worker with a handler that does nothing
    Drain(drain::Options),
    /// The same with limits: of all that run, and beside many groups that are full
    Limits(limits::Options),
    /// A producer and a worker together: throughput and pick-up as time goes by
    Steady(steady::Options),
    /// How soon the handler of an idle worker begins after an insert
    Latency(latency::Options),
    /// One task of many splits to its reduce
    Fanin(fanin::Options),
    /// Splits by commands: a process for each, and one for all
    Exec(exec::Options),
    /// Putting tasks in and working by HTTP, against a service of its own
    Http(http::Options),
    /// The hand-written SQL that the others are compared with
    Floor(floor_only::Options),
}

/// What every measurement has at hand.
pub struct Bench {
    /// For the worker, as users have it.
    pub pool: PgPool,
    /// For everything else.
    pub direct: PgConnectOptions,
    /// Whose CPU time is read.
    pub cpu: Cpu,
    /// The size of each payload.
    pub payload_bytes: usize,
    /// Lines that come while it runs are JSON.
    pub json: bool,
    /// Prints such a line.
    pub say: fn(&str),
}

/// Measures in a migrated database, and keeps the report in `divvy_bench.run`. Others' tasks stay as they are; with
/// `force` also while they are worked on.
///
/// # Errors
/// When another run is under way, when the database is in use, when a step fails. Counts that do not agree are no
/// error here: see [`Report::mismatch`].
pub async fn run(bench: &Bench, what: &What, force: bool, keep: bool) -> Result<Report> {
    let mut connection = connect::connect(&bench.direct).await?;
    if !lock::try_advisory_lock(&mut connection, load::LOCK_KEY).await? {
        bail!("another divvy bench is running in this database");
    }
    if !force {
        load::refuse_others(&mut connection).await?;
    }
    let server = Server::look(&mut connection, &bench.cpu).await?;
    load::clean(&mut connection).await?;
    let mut report = match what {
        What::Enqueue(options) => enqueue::run(bench, options).await?,
        What::Drain(options) => drain::run(bench, options).await?,
        What::Limits(options) => limits::run(bench, options).await?,
        What::Steady(options) => steady::run(bench, options).await?,
        What::Latency(options) => latency::run(bench, options).await?,
        What::Fanin(options) => fanin::run(bench, options).await?,
        What::Exec(options) => exec::run(bench, options).await?,
        What::Http(options) => http::run(bench, options).await?,
        What::Floor(options) => floor_only::run(bench, options).await?,
    };
    report.store(&mut connection, &server).await?;
    if !keep {
        load::clean(&mut connection).await?;
    }
    Ok(report)
}

/// Removes what an interrupted run left.
///
/// # Errors
/// As [`load::clean`].
pub async fn tidy(direct: &PgConnectOptions) -> Result<()> {
    load::clean(&mut connect::connect(direct).await?).await
}
