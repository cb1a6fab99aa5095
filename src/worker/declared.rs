//! The worker of types whose handler is declared in the database: statements, commands, URLs.
//!
//! Each kind has a worker of its own, made anew when its types change ([`super::generations`]), so that a role that can't log in
//! or a folder that is gone holds up no other kind.

#[cfg(feature = "cli")]
mod exec;
#[cfg(feature = "cli")]
mod http;
mod sql;

pub use sql::RoleAccess;

use super::generations;
#[cfg(feature = "cli")]
use super::push::Network;
use super::{Builder, Summary, Worker};
#[cfg(feature = "cli")]
use crate::Error;
use crate::Result;
use crate::apart::boxed;
use crate::store::pool;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
#[cfg(feature = "cli")]
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Serves types that are declared in the database, of the kinds that it is told to.
///
/// ```no_run
/// # async fn main_(pool: sqlx::PgPool, stop: tokio_util::sync::CancellationToken) -> divvy::Result<()> {
/// use divvy::worker::{Declared, PushAccess};
///
/// let direct = pool.connect_options().as_ref().clone();
/// let host = Declared::new(pool, direct).exec("/opt/handlers".into(), 2).push(&PushAccess::default(), 10)?;
/// println!("{}", host.run(stop).await);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Declared {
    common: Common,
    sql: Option<sql::Sql>,
    #[cfg(feature = "cli")]
    exec: Option<exec::Commands>,
    #[cfg(feature = "cli")]
    http: Option<http::Urls>,
}

/// What all kinds share.
#[derive(Debug, Clone)]
struct Common {
    pool: PgPool,
    direct: PgConnectOptions,
    grace: Duration,
    only: Option<Vec<String>>,
    in_flight: Option<usize>,
}

/// Where types with a URL may be pushed, and how they are called back.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Default)]
pub struct PushAccess {
    /// Networks besides the public internet.
    pub allowed: Vec<Network>,
    /// The address under which receivers reach `divvy serve`; none: they are told the path alone.
    pub public_url: Option<String>,
}

/// Types that are pushed to one URL, whatever their declaration says.
#[cfg(feature = "cli")]
#[derive(Debug, Clone)]
pub struct PushTo {
    /// The types.
    pub task_types: Vec<String>,
    /// Where to.
    pub url: String,
    /// The name of the secret that signs.
    pub secret: Option<String>,
    /// Whether those of them that nobody has declared have a plan and a reduce.
    pub phases: (bool, bool),
}

impl Declared {
    /// A host that claims through `pool`, and serves nothing yet. `direct` leads past any pooler, for listening.
    pub fn new(pool: PgPool, direct: PgConnectOptions) -> Self {
        let common = Common { pool, direct, grace: Duration::from_secs(30), only: None, in_flight: None };
        Self {
            common,
            sql: None,
            #[cfg(feature = "cli")]
            exec: None,
            #[cfg(feature = "cli")]
            http: None,
        }
    }

    /// Serves these types alone; others wait for somebody else. Default: all.
    #[must_use]
    pub fn only(mut self, task_types: Vec<String>) -> Self {
        self.common.only = Some(task_types);
        self
    }

    /// How long what has begun may take after a stop. Default 30 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.common.grace = grace;
        self
    }

    /// How many splits of all types of a kind together run at once. Default: no bound but the slots of each type.
    #[must_use]
    pub fn in_flight(mut self, splits: usize) -> Self {
        self.common.in_flight = Some(splits);
        self
    }

    /// Serves types whose steps are statements, up to `slots` splits of each at once.
    #[must_use]
    pub fn sql(mut self, access: RoleAccess, slots: usize) -> Self {
        self.sql = Some(sql::Sql::new(access, slots));
        self
    }

    /// Serves types whose handler is a command, by programs in `folder` alone.
    #[must_use]
    #[cfg(feature = "cli")]
    pub fn exec(mut self, folder: PathBuf, slots: usize) -> Self {
        self.exec = Some(exec::Commands::new(folder, slots));
        self
    }

    /// As [`super::Exec::kill_after`], of commands.
    #[must_use]
    #[cfg(feature = "cli")]
    pub fn kill_after(mut self, kill_after: Duration) -> Self {
        self.exec = self.exec.map(|exec| exec.kill_after(kill_after));
        self
    }

    /// Serves types whose handler is a URL.
    ///
    /// # Errors
    /// Config when the public URL is none.
    #[cfg(feature = "cli")]
    pub fn push(mut self, access: &PushAccess, slots: usize) -> Result<Self> {
        self.http = Some(http::Urls::new(access, slots, None)?);
        Ok(self)
    }

    /// Pushes types to a URL that the database need not know.
    ///
    /// # Errors
    /// Config when a URL is none, or leads where nothing may go.
    #[cfg(feature = "cli")]
    pub fn push_to(mut self, access: &PushAccess, to: PushTo, slots: usize) -> Result<Self> {
        self.http = Some(http::Urls::new(access, slots, Some(to))?);
        Ok(self)
    }

    /// Serves until `stop`, or until an operator terminates one of its workers. Trouble with the database or a type never ends
    /// it.
    pub async fn run(self, stop: CancellationToken) -> Summary {
        let stop = stop.child_token();
        let mut kinds = JoinSet::new();
        if let Some(sql) = self.sql {
            kinds.spawn(boxed(serve(self.common.clone(), sql, stop.clone())));
        }
        #[cfg(feature = "cli")]
        if let Some(exec) = self.exec {
            kinds.spawn(boxed(serve(self.common.clone(), exec, stop.clone())));
        }
        #[cfg(feature = "cli")]
        if let Some(http) = self.http {
            kinds.spawn(boxed(serve(self.common.clone(), http, stop.clone())));
        }
        let mut done = Summary::default();
        while let Some(ended) = kinds.join_next().await {
            // One that ended by itself was terminated: the others go with it.
            stop.cancel();
            match ended {
                Ok(summary) => done += summary,
                Err(error) => tracing::error!(%error, "a worker of declared types broke: {error}"),
            }
        }
        done
    }
}

async fn serve<K: Kind>(common: Common, kind: K, stop: CancellationToken) -> Summary {
    generations::serve(&Served { common, kind }, stop).await
}

/// One kind of handler: where its types are found, and what serves them.
trait Kind: Send + Sync + 'static {
    /// What is compared to see a change.
    type Types: PartialEq + Send + Sync;
    /// What they are called, for the log.
    const WHAT: &'static str;
    /// What its worker is called.
    const NAME: &'static str;

    /// The types, of those that are wanted.
    fn types(&self, common: &Common) -> impl Future<Output = Result<Self::Types>> + Send;
    /// Adds those that can be served to the worker.
    fn add(&self, types: &Self::Types, builder: Builder) -> impl Future<Output = Added> + Send;
}

/// What became of a builder.
struct Added {
    builder: Builder,
    /// How many types it serves now.
    served: usize,
    /// Some type can't be served now.
    refused: bool,
    /// Closed when the worker has ended.
    pools: Vec<PgPool>,
}

struct Served<K> {
    common: Common,
    kind: K,
}

impl<K: Kind> generations::Source for Served<K> {
    type Types = K::Types;
    const WHAT: &'static str = K::WHAT;

    async fn types(&self) -> Result<K::Types> {
        self.kind.types(&self.common).await
    }

    async fn prepare(&self, types: &K::Types) -> generations::Prepared {
        let direct = pool::options().max_connections(1).connect_lazy_with(self.common.direct.clone());
        let mut builder = Worker::builder(self.common.pool.clone())
            .name(format!("{} of process {}", K::NAME, std::process::id()))
            .grace(self.common.grace)
            .listen_through(direct);
        if let Some(splits) = self.common.in_flight {
            builder = builder.in_flight(splits);
        }
        let Added { builder, served, refused, pools } = self.kind.add(types, builder).await;
        generations::Prepared { builder: (served > 0).then_some(builder), refused, pools }
    }
}

impl Common {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|one| one == name))
    }
}

/// A type waits, and why.
#[cfg(feature = "cli")]
fn waits(task_type: &str, error: &Error) {
    tracing::warn!(task_type, %error, "the tasks of type {task_type} wait: {error}");
}
