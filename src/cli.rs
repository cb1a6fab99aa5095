//! The command line. Data goes to stdout, talk to stderr.
//!
//! To add a command: a file `cli/<name>.rs` with `pub struct Args` (clap) and
//! `pub async fn run(args: Args, global: &Global) -> anyhow::Result<()>`, one line in [`Command`] and one in [`run`].
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 75 not now (the same call may succeed later).

pub mod alert;
pub mod args;
pub mod bench;
pub mod bulk;
pub mod calendar;
pub mod completions;
pub mod database;
pub mod db;
pub mod demo;
pub mod doctor;
pub mod enqueue;
pub mod follow;
pub mod migrate;
pub mod output;
pub mod push;
pub mod schedule;
pub mod secret;
pub mod serve;
pub mod split;
pub mod task;
pub mod task_type;
pub mod tick;
pub mod token;
pub mod worker;
pub mod workers;

use crate::store::sqlstate;
use crate::{Error, ErrorKind, config};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// divvy: a task queue and batch service that lives in the Postgres you already have.
#[derive(Parser)]
#[command(name = "divvy", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Over the options that every command has, so that its own stand out.
const HEADING: &str = "Everywhere";

/// What every command understands.
#[derive(Args, Clone)]
pub struct Global {
    /// The database; without one, divvy's own embedded Postgres
    #[arg(long, global = true, help_heading = HEADING, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// The database without a pooler between, for migrations and listening [default: the same]
    #[arg(long, global = true, help_heading = HEADING, env = "DATABASE_DIRECT_URL", hide_env_values = true, value_name = "URL")]
    database_direct_url: Option<String>,
    /// Print data as JSON
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
    /// Say more (-vv: still more); RUST_LOG overrules it
    #[arg(short, long, global = true, help_heading = HEADING, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// Which database was asked for.
    pub fn database(&self) -> config::Database {
        config::Database::new(self.database_url.clone(), self.database_direct_url.clone())
    }
}

/// The number of threads, as the runtime reads it by itself.
const THREADS: &str = "TOKIO_WORKER_THREADS";

#[derive(Subcommand)]
enum Command {
    /// Run a real batch job on real data, kill one of its workers, and prove the result
    Demo(demo::Args),
    /// (internal) One worker process of the demo, until its standard input is closed
    #[command(name = crate::demo::workers::SUBCOMMAND, hide = true)]
    DemoWorker,
    /// (internal) A command of the bench that lives long: completes every split, until its standard input is closed
    #[command(name = crate::bench::exec::ECHO, hide = true)]
    ExecEcho,
    /// Bring the database to this version's schema
    Migrate(migrate::Args),
    /// Serve HTTP, lead, and run declared types: written in SQL, pushed to a URL
    Serve(serve::Args),
    /// Make a task
    Enqueue(enqueue::Args),
    /// Tasks: list, show, wait for, follow, cancel and redrive them
    Task(task::Args),
    /// Cancel, redrive, pause, resume, reschedule or forget many tasks; without --apply, count them
    Bulk(Box<bulk::Args>),
    /// Splits: list and show them, say why one is not running, set one aside
    Split(split::Args),
    /// Task types: list, show, declare, pause and resume them
    Type(task_type::Args),
    /// Schedules: list, put, preview, trigger, pause, resume and cancel them
    Schedule(schedule::Args),
    /// Calendars of working days, for schedules: list, show, put and drop them
    Calendar(calendar::Args),
    /// Run declared types, or types by a command or a URL, and lead; like serve, without HTTP
    Worker(worker::Args),
    /// Workers: list them, and tell one to be quiet or to stop
    Workers(workers::Args),
    /// Alerts: list what somebody should look at, say that one is known
    Alert(alert::Args),
    /// Tokens of the HTTP API: make, list and revoke them
    Token(token::Args),
    /// Secrets of types with a URL: make, rotate, list and drop them
    Secret(secret::Args),
    /// Measure what divvy costs on this database, beside hand-written SQL
    Bench(bench::Args),
    /// Do every duty once: fire, promote, reclaim, reduce check, prune
    Tick(tick::Args),
    /// Say whether divvy can work here, and what to do where it can't
    Doctor(doctor::Args),
    /// The embedded Postgres: its address, a psql in it, stopping and resetting it
    Db(db::Args),
    /// Print the completions of a shell
    Completions(completions::Args),
    /// (internal) Stop the embedded Postgres when its last user is gone
    #[command(name = "embedded-watchdog", hide = true)]
    Watchdog {
        /// The server's folder
        root: PathBuf,
        /// Delete the data after the stop
        #[arg(long)]
        discard: bool,
    },
}

impl Command {
    /// Whether it runs until it is told to stop: such a process says by itself what it does.
    fn stays(&self) -> bool {
        matches!(self, Self::Serve(_))
    }

    /// A worker of this program only waits, for the database and for those who do the work: more threads than one are in each
    /// other's way, and in the database's. `TOKIO_WORKER_THREADS` overrules it.
    fn runtime(&self) -> std::io::Result<Runtime> {
        let mut builder = Builder::new_multi_thread();
        if matches!(self, Self::Worker(_) | Self::Bench(_)) && std::env::var_os(THREADS).is_none() {
            builder.worker_threads(1);
        }
        builder.enable_all().build()
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Demo(args) => demo::run(args, global).await,
        Command::DemoWorker => demo::work(global).await,
        Command::ExecEcho => crate::bench::exec::echo(),
        Command::Migrate(args) => migrate::run(args, global).await,
        Command::Serve(args) => serve::run(args, global).await,
        Command::Enqueue(args) => enqueue::run(args, global).await,
        Command::Task(args) => task::run(args, global).await,
        Command::Bulk(args) => bulk::run(*args, global).await,
        Command::Split(args) => split::run(args, global).await,
        Command::Type(args) => task_type::run(args, global).await,
        Command::Schedule(args) => schedule::run(args, global).await,
        Command::Calendar(args) => calendar::run(args, global).await,
        Command::Worker(args) => worker::run(args, global).await,
        Command::Workers(args) => workers::run(args, global).await,
        Command::Alert(args) => alert::run(args, global).await,
        Command::Token(args) => token::run(args, global).await,
        Command::Secret(args) => secret::run(args, global).await,
        Command::Bench(args) => bench::run(args, global).await,
        Command::Tick(args) => tick::run(args, global).await,
        Command::Doctor(args) => doctor::run(args, global).await,
        Command::Db(args) => db::run(args, global).await,
        Command::Completions(args) => completions::run(&args),
        Command::Watchdog { root, discard } => Ok(crate::embedded::watch(&root, discard).await?),
    }
}

/// The whole program: reads the arguments, runs the command, says what went wrong, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::telemetry::init(cli.global.verbose.saturating_add(u8::from(cli.command.stays())));
    let ended = cli.command.runtime().map_err(Into::into).and_then(|runtime| runtime.block_on(run(cli)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("divvy: {}", told(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The command line's description, for completions and for tests that compare papers with it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Prints data. A reader that has gone (`divvy … | head`) has seen what it wanted.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(gone) if gone.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The error and its causes, as far as a cause says something new, with the code of the protocol.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let mut ours_seen = error.is::<Error>();
    for cause in error.chain().skip(1) {
        // What the driver says, our error has said in our words.
        if ours_seen && cause.is::<sqlx::Error>() {
            break;
        }
        ours_seen |= cause.is::<Error>();
        let cause = cause.to_string();
        let core = cause.rsplit(": ").next().unwrap_or_default();
        if !text.contains(core) {
            text = format!("{text}: {cause}");
        }
    }
    match ours(error).and_then(|error| sqlstate::code_of(error.kind())) {
        Some(code) if !text.contains(code) => format!("{text} ({code})"),
        _ => text,
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match ours(error) {
        Some(error) if error.kind() == ErrorKind::Config => 2,
        Some(error) if error.kind() == ErrorKind::Busy || sqlstate::is_unreachable(error) => 75,
        _ => 1,
    }
}

/// The error of divvy that began it.
fn ours(error: &anyhow::Error) -> Option<&Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_failed_from_wrong_usage_and_from_not_now() {
        let code = |kind| exit_code(&anyhow::Error::from(Error::new(kind, "x")).context("doing y"));
        assert_eq!(code(ErrorKind::Busy), 75);
        assert_eq!(code(ErrorKind::Config), 2);
        assert_eq!(code(ErrorKind::Database), 1);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
    }

    #[test]
    fn a_cause_that_says_nothing_new_is_not_repeated() {
        let error =
            anyhow::anyhow!("connection refused").context("cannot reach Postgres: connection refused");
        assert_eq!(told(&error), "cannot reach Postgres: connection refused");
        let refused = Error::from(sqlx::Error::RowNotFound);
        let words = refused.to_string();
        assert_eq!(
            told(&anyhow::Error::from(refused).context("cannot look")),
            format!("cannot look: {words}")
        );
        let unknown = Error::new(ErrorKind::NotFound, "there is no task 7");
        assert_eq!(told(&unknown.into()), "there is no task 7 (DV011)");
        assert_eq!(told(&anyhow::anyhow!("disk full").context("cannot lock")), "cannot lock: disk full");
    }
}
