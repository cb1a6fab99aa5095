//! What every system in this suite does, and how the runner talks to it.
//!
//! A program is started as `PROGRAM COMMAND [N] [--slots N] [--every SECONDS] [--from N]` with `DATABASE_URL`. It connects, says
//! `ready`, and waits for a line on its standard input. Then it works and says `measured` (and, in between, `tick`),
//! so that the runner can read the CPU time of the server and of this process around exactly that; then it checks that
//! nothing was lost and says `done`. Each is one line of JSON.

mod job;
mod phases;
mod talk;
mod tally;

pub use job::Job;
pub use talk::fail;
pub use tally::Tally;

use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

/// The allocator of the `divvy` program, for everybody.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any error; printed for the table's "skipped" line.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What everything here returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// The clients of `commits`, and what a peer's pool has to have for them.
pub const CLIENTS: usize = 8;

/// How many jobs a worker may have begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    /// Whatever the system does best with.
    Best,
    /// No more than this, what is fetched ahead included.
    AtMost(usize),
}

/// What the database says at the end.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Jobs that wait or run.
    pub open: i64,
    /// Finished jobs that can still be asked for; none if the system deletes them.
    pub kept: Option<i64>,
}

/// One system under test, through its public API.
pub trait Peer: Sized + Send + Sync + 'static {
    /// Connects; the worker's pool included.
    fn connect(url: &str, in_flight: InFlight) -> impl Future<Output = Result<Self>> + Send;
    /// The settings that matter, in words for the table.
    fn settings(&self) -> String;
    /// Makes the schema and the queue in an empty database.
    fn setup(&self) -> impl Future<Output = Result<()>> + Send;
    /// Inserts jobs in one call of the way the system has for many.
    fn add(&self, jobs: &[Job]) -> impl Future<Output = Result<()>> + Send;
    /// Inserts one job in a transaction of its own.
    fn add_one(&self, job: Job) -> impl Future<Output = Result<()>> + Send;
    /// Starts one worker, which calls [`Tally::call`] for each job, and returns.
    fn start(&self, tally: Tally) -> impl Future<Output = Result<()>> + Send;
    /// Whether what was handled is also recorded as done. Asked within the measured time: it has to be cheap.
    fn settled(&self) -> impl Future<Output = Result<bool>> + Send;
    /// A full count, outside of the measured time.
    fn standing(&self) -> impl Future<Output = Result<Standing>> + Send;
}

/// The `main` of every system.
pub async fn run<P: Peer>() -> ExitCode {
    match command::<P>().await {
        // Workers in the background have no more to do, and some systems take seconds to stop.
        Ok(()) => std::process::exit(0),
        Err(error) => fail(error),
    }
}

async fn command<P: Peer>() -> Result<()> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(command) = words.first() else {
        return Err(
            "no command: setup, enqueue N, commits SECONDS, drain N, latency N, steady SECONDS".into()
        );
    };
    let number = || match words.get(1).map(|word| word.parse::<u64>()) {
        Some(Ok(number)) => Ok(number),
        _ => Err(format!("{command} takes a number, not {:?}", words.get(1))),
    };
    let in_flight = option(&words, "--slots")?.map_or(InFlight::Best, |n| InFlight::AtMost(n as usize));
    let peer = P::connect(&url, in_flight).await?;
    match command.as_str() {
        "setup" => phases::setup(&peer).await,
        "enqueue" => phases::enqueue(&peer, number()?).await,
        "commits" => phases::commits(peer, Duration::from_secs(number()?)).await,
        "drain" => phases::drain(&peer, number()?).await,
        "latency" => phases::latency(&peer, number()?).await,
        "steady" => {
            let every = option(&words, "--every")?.unwrap_or(15);
            let from = option(&words, "--from")?.unwrap_or(0);
            phases::steady(peer, from, Duration::from_secs(number()?), Duration::from_secs(every)).await
        }
        other => Err(format!("unknown command {other:?}").into()),
    }
}

fn option(words: &[String], name: &str) -> Result<Option<u64>> {
    let Some(at) = words.iter().position(|word| word == name) else { return Ok(None) };
    match words.get(at + 1).map(|word| word.parse()) {
        Some(Ok(number)) => Ok(Some(number)),
        _ => Err(format!("{name} takes a number, not {:?}", words.get(at + 1)).into()),
    }
}

/// Runs a worker until the end of the program; if it ends before, the program fails.
pub fn background<T, E>(work: impl Future<Output = std::result::Result<T, E>> + Send + 'static)
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    tokio::spawn(async move {
        let why = match work.await {
            Ok(_) => "the worker has stopped by itself".to_owned(),
            Err(error) => format!("the worker has stopped: {error}"),
        };
        fail(why);
        std::process::exit(1);
    });
}
