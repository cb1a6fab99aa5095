//! The worker: claims splits, runs handlers, records outcomes; stops without loss.
//!
//! One loop ([`dispatch`]) owns all state. It never awaits the database itself: each round trip (complete
//! the last batch, claim the next) and each split runs in a task of its own, so nothing is dropped half-way.
//!
//! Connections: users' transactions take from the pool given to the builder; the protocol has a small pool of
//! its own, heartbeats one connection and the listener one, so that no handler can starve them.

mod backoff;
mod builder;
mod declared;
mod dispatch;
mod durations;
#[cfg(feature = "cli")]
mod exec;
mod executor;
#[cfg(feature = "cli")]
mod foreign;
mod generations;
mod heartbeat;
mod lane;
mod lanes;
mod lease;
mod pace;
mod pauses;
#[cfg(feature = "cli")]
mod push;
mod round;
mod settle;
mod signals;
mod sql_type;
mod tick;

pub use builder::Builder;
pub use declared::{Declared, RoleAccess};
#[cfg(feature = "cli")]
pub use declared::{PushAccess, PushTo};
#[cfg(feature = "cli")]
pub use exec::Exec;
#[cfg(feature = "cli")]
pub use push::Network;

use crate::apart;
use crate::handler::Erased;
use crate::store::line::Line;
use crate::store::state::Command;
use crate::store::worker::{PROTOCOL, Registration, protocol, register};
use crate::store::{Store, listen, sqlstate};
use crate::{Error, ErrorKind, Result};
use dispatch::Dispatcher;
use lane::Lane;
use lanes::Lanes;
use lease::Leases;
use serde_json::json;
use signals::Signals;
use sqlx::PgPool;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long one call of the protocol may take.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait for the first `LISTEN` before looking for work without it.
const LISTEN_WITHIN: Duration = Duration::from_secs(2);

/// What a worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Splits completed.
    pub succeeded: u64,
    /// Attempts that failed: an error, a stop, a panic, a timeout.
    pub failed: u64,
    /// Splits that want to be called again.
    pub continued: u64,
    /// Splits given back.
    pub released: u64,
    /// Splits whose lease was lost or whose task was cancelled: what they did does not count.
    pub lost: u64,
}

impl Summary {
    /// All splits the worker was done with.
    pub fn total(&self) -> u64 {
        self.succeeded + self.failed + self.continued + self.released + self.lost
    }
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, more: Self) {
        self.succeeded += more.succeeded;
        self.failed += more.failed;
        self.continued += more.continued;
        self.released += more.released;
        self.lost += more.lost;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { succeeded, failed, continued, released, lost } = self;
        write!(
            f,
            "{succeeded} succeeded, {failed} failed, {continued} continued, {released} released, {lost} lost"
        )
    }
}

/// A worker process's part of divvy: some task types, and how many splits of each, and of all, run at once.
///
/// ```no_run
/// # use divvy::handler::{Context, Handler, HandlerError, Outcome};
/// # struct Greet;
/// # impl Handler for Greet {
/// #     const TASK_TYPE: &'static str = "greet";
/// #     type Payload = String; type Share = (); type Output = String;
/// #     async fn execute(&self, _: &mut Context<'_>, name: &String, _: ()) -> Result<Outcome<String>, HandlerError> {
/// #         Ok(Outcome::Complete(format!("hello, {name}")))
/// #     }
/// # }
/// # async fn main_(pool: sqlx::PgPool) -> divvy::Result<()> {
/// let worker = divvy::worker::Worker::builder(pool).handler(Greet).slots(4).build()?;
/// let stop = tokio_util::sync::CancellationToken::new();
/// println!("{}", worker.run(stop).await?);
/// # Ok(()) }
/// ```
pub struct Worker {
    core: Arc<Core>,
    lanes: Vec<LaneSpec>,
    in_flight: Option<usize>,
    listen: Option<PgPool>,
}

/// A type and how many of its splits run at once.
#[derive(Clone)]
struct LaneSpec {
    task_type: String,
    slots: usize,
    handler: Arc<dyn Erased>,
}

/// What every part of a worker shares and nobody changes.
struct Core {
    id: Uuid,
    name: String,
    task_types: Vec<String>,
    registration: Registration,
    work: PgPool,
    control: Store,
    /// Claims, and completions beside a claim.
    lines: [Line; 2],
    pulse: Line,
    lease: Option<Duration>,
    grace: Duration,
    poll: Duration,
    default_timeout: Duration,
}

impl Core {
    /// Checks the protocol's version and makes the worker known.
    async fn register(&self) -> Result<(Command, Duration)> {
        let who = self.registration.clone();
        self.control
            .bounded(CALL_WITHIN, move |c| {
                Box::pin(async move {
                    protocol(&mut *c).await?;
                    register(&mut *c, &who).await
                })
            })
            .await
    }
}

impl Worker {
    /// A worker whose handlers' transactions use `pool`. Its size bounds how many splits can hold a
    /// transaction at once. Make it by [`crate::store::pool::options`] where you can.
    pub fn builder(pool: PgPool) -> Builder {
        Builder::new(pool)
    }

    /// Its identity: new for each [`Worker`] built.
    pub fn id(&self) -> Uuid {
        self.core.id
    }

    /// Works until `shutdown` fires or an operator terminates it; then unstarted splits are given back at
    /// once, started ones may finish within the grace period, and what is left then is given back too.
    ///
    /// An unreachable database is waited for, at the start and later.
    ///
    /// # Errors
    /// Only at the start: Protocol when the schema speaks another version, and what no waiting cures (no
    /// schema, no rights, no such database).
    ///
    /// # Cancel safety
    /// Dropping the future stops claiming; its splits come back when their leases end. Use `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<Summary> {
        let signals = Arc::new(Signals::new(&shutdown));
        let _done = signals.done.clone().drop_guard();
        let Some(first) = self.register_first(&signals).await? else { return Ok(Summary::default()) };
        tokio::join!(self.start_listening(&signals), self.core.lines[0].open());
        let leases = Arc::new(Leases::default());
        let beating =
            apart::spawn(heartbeat::beat(self.core.clone(), leases.clone(), signals.clone(), first));
        let ticking = apart::spawn(tick::tick(self.core.clone(), signals.clone()));
        let summary = Dispatcher::new(self.core.clone(), self.lanes(), leases, signals.clone()).run().await;
        for spec in &self.lanes {
            spec.handler.close().await;
        }
        signals.done.cancel();
        let _ = tokio::join!(beating, ticking);
        Ok(summary)
    }

    /// Claims once, executes all of that, records the outcomes. For tests and for `drain`.
    ///
    /// # Errors
    /// Whatever the database refuses, or that it can't be reached.
    pub async fn run_once(&self) -> Result<Summary> {
        let signals = Arc::new(Signals::new(&CancellationToken::new()));
        let _done = signals.done.clone().drop_guard();
        let first = self.core.register().await?;
        let leases = Arc::new(Leases::default());
        let beating =
            apart::spawn(heartbeat::beat(self.core.clone(), leases.clone(), signals.clone(), first));
        let ran = Dispatcher::new(self.core.clone(), self.lanes(), leases, signals.clone()).once().await;
        signals.done.cancel();
        let _ = beating.await;
        ran
    }

    fn lanes(&self) -> Lanes {
        Lanes::new(self.lanes.iter().map(|spec| Lane::new(spec.clone())).collect(), self.in_flight)
    }

    /// Registers, waiting for a database that is away. None when told to stop meanwhile.
    async fn register_first(&self, signals: &Signals) -> Result<Option<(Command, Duration)>> {
        let mut backoff = backoff::Backoff::new();
        loop {
            let core = self.core.clone();
            // In a task of its own: a stop must not drop a call half-way.
            let answer = match apart::spawn(async move { core.register().await }).await {
                Ok(answer) => answer,
                Err(ended) => {
                    return Err(Error::new(ErrorKind::Database, "registering ended early").caused_by(ended));
                }
            };
            match answer {
                Ok(first) => return Ok(Some(first)),
                Err(error) if !sqlstate::is_passing(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(worker.id = %self.core.id, %error, "waiting for the database");
                    tokio::select! {
                        () = signals.stop.cancelled() => return Ok(None),
                        () = tokio::time::sleep(backoff.next()) => {}
                    }
                }
            }
        }
    }

    /// Listens before the first look for work, so that nothing inserted in between waits for a poll.
    async fn start_listening(&self, signals: &Arc<Signals>) {
        let Some(pool) = self.listen.clone() else { return };
        let (heard, done) = (signals.clone(), signals.done.clone());
        let types = self.core.task_types.clone();
        apart::spawn(async move { listen::listen(&pool, done, |what| heard.hear(&types, &what)).await });
        if tokio::time::timeout(LISTEN_WITHIN, signals.listener_answered.cancelled()).await.is_err() {
            tracing::warn!(worker.id = %self.core.id, "no LISTEN yet: work is found by polling");
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.core.id)
            .field("name", &self.core.name)
            .field("task_types", &self.core.task_types)
            .finish_non_exhaustive()
    }
}

/// What `register_worker` is told of the types, so that undeclared ones are declared.
fn meta(lanes: &[LaneSpec]) -> serde_json::Value {
    let types: serde_json::Map<_, _> = lanes
        .iter()
        .map(|lane| {
            let steps = json!({ "plan": lane.handler.plans(), "reduce": lane.handler.reduces() });
            (lane.task_type.clone(), steps)
        })
        .collect();
    json!({ "types": types, "protocol": PROTOCOL, "version": env!("CARGO_PKG_VERSION") })
}
