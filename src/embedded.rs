//! A private Postgres, for those who have not been given one.
//!
//! It lives in one folder, keeps its data, listens on a socket in a folder only its user may enter, and is
//! shared by every divvy process that uses the same folder. Three lock files carry the sharing, because the
//! kernel gives them back whatever kills a process:
//!
//! - `start.lock`, exclusive while somebody makes or starts the server;
//! - `users.lock`, shared by every process as long as it uses the server;
//! - `watchdog.lock`, held by one helper process that waits until it gets `users.lock` alone: then the last
//!   user is gone, and it stops the server.
//!
//! Postgres refuses to run as root, so root's server runs as the owner of the folder, `postgres` or `nobody`.

mod binaries;
mod cluster;
mod download;
mod lock;
mod settings;
mod stale;
mod user;
mod watchdog;

pub use binaries::{Binaries, Search};
pub use download::Download;
pub use settings::{Durability, Settings};
pub use watchdog::watch;

use crate::{Error, ErrorKind, Result};
use cluster::Cluster;
use lock::LockFile;
use sqlx::migrate::MigrateDatabase;
use sqlx::postgres::PgConnectOptions;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// The database that is made with the cluster.
pub const DATABASE: &str = "divvy";

/// How long to wait for another process that is starting or stopping the server.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(180);

/// The watchdog, too, holds the users' lock while it looks whether they are gone, but not for longer than this.
const GLANCE_MAX: Duration = Duration::from_secs(1);

/// The right to use the private server; while it lives the server runs.
#[derive(Debug)]
pub struct Embedded {
    cluster: Cluster,
    users: LockFile,
    child: Option<Child>,
}

impl Embedded {
    /// Joins the server in `settings.root`, starting it (and making it) where needed.
    ///
    /// # Errors
    /// When there are no binaries and no download, the folder cannot be used, or the server does not start;
    /// the message says what to do.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let cluster = Cluster::prepare(&settings.root)?;
        let users = cluster.lock("users.lock")?;
        users.shared_within(LOCK_WAIT_MAX).await?;
        let start = cluster.lock("start.lock")?;
        start.exclusive_within(LOCK_WAIT_MAX).await?;
        let child = if cluster.answers().await { None } else { Some(cluster.start(settings).await?) };
        let started = Self { cluster, users, child };
        match started.settle(settings).await {
            Ok(()) => Ok(started),
            Err(error) => {
                // A server nobody watches would stay for ever.
                started.stop_if_last().await.ok();
                Err(error)
            }
        }
    }

    /// What a running server still needs.
    async fn settle(&self, settings: &Settings) -> Result<()> {
        watchdog::spawn(&self.cluster, settings)?;
        self.create_database(DATABASE).await?;
        self.cluster.raise_linger(settings.linger)
    }

    /// The address of `database` in this server, for divvy, psql and any libpq program.
    pub fn url(&self, database: &str) -> String {
        self.cluster.url(database)
    }

    /// How to connect to the database [`DATABASE`].
    pub fn options(&self) -> PgConnectOptions {
        self.cluster.options(DATABASE)
    }

    /// The folder of the server.
    pub fn root(&self) -> &Path {
        &self.cluster.root
    }

    /// This process started the server; otherwise it joined a running one.
    pub fn is_starter(&self) -> bool {
        self.child.is_some()
    }

    /// Makes `database` unless it is there.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_database(&self, database: &str) -> Result<()> {
        let url = self.url(database);
        let refused = |cause: sqlx::Error| {
            Error::new(
                ErrorKind::Embedded,
                format!("cannot create database {database} in {}", self.root().display()),
            )
            .caused_by(cause)
        };
        if !sqlx::Postgres::database_exists(&url).await.map_err(refused)? {
            match sqlx::Postgres::create_database(&url).await {
                // 42P04 and 23505: another process was faster.
                Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42P04" | "23505")) => {}
                other => other.map_err(refused)?,
            }
        }
        Ok(())
    }

    /// Leaves the server; the last to leave stops it, unless it is to linger (then the watchdog does).
    ///
    /// # Errors
    /// When the server does not stop in time.
    pub async fn stop_if_last(mut self) -> Result<()> {
        if !self.cluster.linger().is_zero() || !self.users.try_exclusive()? {
            return Ok(());
        }
        if self.cluster.has_clients().await {
            return Ok(()); // somebody's psql: the watchdog stops the server when that ends
        }
        self.cluster.stop().await?;
        if let Some(child) = self.child.as_mut() {
            child.wait().ok();
        }
        Ok(())
    }
}

/// Stops the server of `root`; with `force` even when somebody uses it. False: there was none.
///
/// # Errors
/// [`ErrorKind::Busy`] when others use it, or when it does not stop in time.
pub async fn stop(root: &Path, force: bool) -> Result<bool> {
    with_nobody_else(root, force, async |cluster: &Cluster| cluster.stop().await).await
}

/// Stops the server of `root` and deletes its data. False: there was no data.
///
/// # Errors
/// As [`stop`].
pub async fn reset(root: &Path, force: bool) -> Result<bool> {
    with_nobody_else(root, force, async |cluster: &Cluster| {
        cluster.stop().await?;
        cluster.delete_data()
    })
    .await
}

/// The program `name` (such as psql) that belongs to the server's binaries, where they have one.
pub fn program(settings: &Settings, name: &str) -> Option<PathBuf> {
    let found = settings.search.find(cluster::major_of(&settings.root).ok().flatten(), None).ok()??;
    Some(found.dir.join(name)).filter(|path| path.is_file())
}

async fn with_nobody_else(
    root: &Path,
    force: bool,
    act: impl AsyncFnOnce(&Cluster) -> Result<bool>,
) -> Result<bool> {
    if !root.exists() {
        return Ok(false);
    }
    let cluster = Cluster::prepare(root)?;
    let start = cluster.lock("start.lock")?;
    start.exclusive_within(LOCK_WAIT_MAX).await?;
    let users = cluster.lock("users.lock")?;
    let alone = match users.exclusive_within(GLANCE_MAX).await {
        Err(error) if error.kind() != ErrorKind::Busy => return Err(error),
        looked => looked.is_ok(),
    };
    if !alone && !force {
        return Err(Error::new(
            ErrorKind::Busy,
            format!(
                "other divvy processes use the Postgres in {}: end them first, or add --force",
                root.display()
            ),
        ));
    }
    act(&cluster).await
}
