//! One cluster: its folder, making it, starting it, stopping it.

use super::lock::{self, LockFile};
use super::user::{self, Account};
use super::{Binaries, Durability, Settings, download, stale};
use crate::store::connect;
use crate::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// The superuser of the cluster; the socket's folder says who may be it.
const SUPERUSER: &str = "postgres";
/// A socket's path must fit into the kernel's 108 bytes, with `/.s.PGSQL.5432` and a final NUL.
const SOCKET_DIR_BYTES_MAX: usize = 90;
/// The SQLSTATE of a server that is well and full.
const TOO_MANY_CONNECTIONS: &str = "53300";
/// How long a start may take; recovery after a crash is part of it.
const START_MAX: Duration = Duration::from_secs(120);
/// How long a fast shutdown may take before it becomes an immediate one.
const STOP_MAX: Duration = Duration::from_secs(60);
/// The pause between two looks at a server that is starting or stopping.
const PAUSE: Duration = Duration::from_millis(5);
/// The log is begun anew when it has grown beyond this.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of the log is shown when the server does not start.
const LOG_SHOWN_BYTES_MAX: usize = 2000;

/// Settings of every server of ours: a socket, no network; a killed client is noticed within a second.
const COMMON: &[&str] = &[
    "listen_addresses=",
    "port=5432",
    "max_connections=300",
    "client_connection_check_interval=1s",
    // The views join much, of which the planner of a young database expects more than there is.
    "jit=off",
];
/// What tests add: no promise to outlive a crash.
const RELAXED: &[&str] = &[
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=64MB",
    "max_prepared_transactions=20",
    "autovacuum_naptime=10s",
];

#[derive(Debug)]
pub(super) struct Cluster {
    pub root: PathBuf,
    data: PathBuf,
    socket_dir: PathBuf,
    account: Option<Account>,
}

/// The major version that made the data in `root`; `None`: there is no data yet.
pub(super) fn major_of(root: &Path) -> Result<Option<u32>> {
    let file = root.join("data/PG_VERSION");
    let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| {
        Error::new(
            ErrorKind::Embedded,
            format!("{} says {:?}, which is no version", file.display(), text.trim()),
        )
    })
}

impl Cluster {
    /// Makes the folder ready, for the user the server runs as.
    pub fn prepare(root: &Path) -> Result<Self> {
        let account = user::own_folder(root)?;
        let root = fs::canonicalize(root).map_err(|cause| at(root, &cause))?;
        let socket_dir = socket_dir(&root, account)?;
        Ok(Self { data: root.join("data"), socket_dir, root, account })
    }

    pub fn lock(&self, name: &str) -> Result<LockFile> {
        LockFile::open(&self.root.join(name))
    }

    pub fn url(&self, database: &str) -> String {
        let path = self.socket_dir.to_string_lossy();
        let escaped: String = path.bytes().map(escape).collect();
        format!("postgres:///{database}?host={escaped}&user={SUPERUSER}")
    }

    pub fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(5432)
            .username(SUPERUSER)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// The server takes connections, or would if it had one left.
    pub async fn answers(&self) -> bool {
        let Err(error) = connect::connect(&self.options("postgres")).await else { return true };
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<sqlx::Error>());
        cause.and_then(|cause| cause.as_database_error()?.code()).as_deref() == Some(TOO_MANY_CONNECTIONS)
    }

    /// Somebody is connected, such as a person with psql.
    pub async fn has_clients(&self) -> bool {
        let Ok(mut connection) = connect::connect(&self.options("postgres")).await else { return false };
        connect::other_clients(&mut connection).await.is_ok_and(|clients| clients > 0)
    }

    /// A server of this cluster runs.
    pub fn is_running(&self) -> bool {
        stale::live_postmaster(&self.data).is_some()
    }

    /// Makes the cluster where there is none, and starts its server. The caller holds `start.lock`.
    pub async fn start(&self, settings: &Settings) -> Result<Child> {
        let first = self.try_start(settings).await;
        if first.is_ok() || !settings.discard || !self.data.exists() || self.is_running() {
            return first;
        }
        // Data that is thrown away in any case, such as of a test that was killed while it made or deleted it.
        tracing::info!(folder = %self.root.display(), "throwing away data that no server starts on");
        self.delete_data()?;
        self.try_start(settings).await
    }

    async fn try_start(&self, settings: &Settings) -> Result<Child> {
        let binaries = self.binaries(settings).await?;
        if major_of(&self.root)?.is_none() {
            self.init(&binaries, settings.durability)?;
        }
        let log_start = self.begin_log()?;
        let mut child = self.spawn(&binaries, settings.durability)?;
        if self.wait(&mut child).await? {
            return Ok(child);
        }
        if self.log_since(log_start).contains("postmaster.pid") && stale::is_stale(&self.data) {
            tracing::info!(folder = %self.root.display(), "removing the postmaster.pid of a server that is gone");
            stale::remove(&self.data, &self.socket_dir);
            child = self.spawn(&binaries, settings.durability)?;
            if self.wait(&mut child).await? {
                return Ok(child);
            }
        }
        let log = self.log_since(log_start);
        let shown = log.char_indices().rev().nth(LOG_SHOWN_BYTES_MAX).map_or(0, |(at, _)| at);
        Err(Error::new(
            ErrorKind::Embedded,
            format!(
                "the Postgres in {} does not start; its log says:\n{}",
                self.root.display(),
                log[shown..].trim_end()
            ),
        ))
    }

    /// Found ones before downloaded ones; for data that is there already, only those of its major version.
    async fn binaries(&self, settings: &Settings) -> Result<Binaries> {
        let major = major_of(&self.root)?;
        if let Some(found) = settings.search.find(major, self.account)? {
            return Ok(found);
        }
        if let Some(kept) = download::kept(&self.root, major) {
            return Ok(kept);
        }
        match major {
            Some(major) if major != download::MAJOR => Err(Error::new(
                ErrorKind::Embedded,
                format!(
                    "the data in {} was made by Postgres {major}, which is not found on this machine: install Postgres {major} \
                     or name the folder of its programs with DIVVY_PG_BINDIR (dump the data there and restore it to change \
                     versions), or throw the data away with `divvy db reset`",
                    self.root.display()
                ),
            )),
            _ => download::binaries(settings, &self.root).await,
        }
    }

    /// `initdb` into a neighbouring folder, then a rename: a kill never leaves half a cluster.
    fn init(&self, binaries: &Binaries, durability: Durability) -> Result<()> {
        if fs::read_dir(&self.data).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::new(
                ErrorKind::Embedded,
                format!(
                    "{} holds files but no PG_VERSION, so it is no Postgres cluster: move it away to keep it, or \
                     delete it with `divvy db reset`",
                    self.data.display()
                ),
            ));
        }
        let unfinished = self.root.join("data.init");
        delete(&unfinished)?;
        let mut command = self.command(&binaries.dir.join("initdb"));
        command.arg("-D").arg(&unfinished).args([
            "-U",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        if durability == Durability::Relaxed {
            command.arg("--no-sync");
        }
        let outcome = command.output().map_err(|cause| at(&binaries.dir.join("initdb"), &cause))?;
        if !outcome.status.success() {
            let said = String::from_utf8_lossy(&outcome.stderr);
            return Err(Error::new(
                ErrorKind::Embedded,
                format!("cannot make a Postgres cluster in {}: {}", self.root.display(), said.trim()),
            ));
        }
        fs::rename(&unfinished, &self.data).map_err(|cause| at(&self.data, &cause))
    }

    fn spawn(&self, binaries: &Binaries, durability: Durability) -> Result<Child> {
        let log = self.log()?;
        let mut command = self.command(&binaries.dir.join("postgres"));
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.socket_dir);
        let relaxed = if durability == Durability::Relaxed { RELAXED } else { &[] };
        for setting in COMMON.iter().chain(relaxed) {
            command.args(["-c", setting]);
        }
        let errors = log.try_clone().map_err(|cause| at(&self.root, &cause))?;
        command.stdout(log).stderr(errors);
        command.spawn().map_err(|cause| at(&binaries.dir.join("postgres"), &cause))
    }

    /// A command with nothing of our environment, in its own process group: the terminal's Ctrl-C must not
    /// reach the server before our workers have finished.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        command.stdin(Stdio::null()).process_group(0).current_dir("/");
        user::run_as(&mut command, self.account);
        command
    }

    /// Waits until the server answers. False: it ended.
    async fn wait(&self, child: &mut Child) -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < START_MAX {
            if self.answers().await {
                return Ok(true);
            }
            if child.try_wait().map_err(|cause| at(&self.root, &cause))?.is_some() {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!(
                "the Postgres in {} is still starting after {} s",
                self.root.display(),
                START_MAX.as_secs()
            ),
        ))
    }

    /// Stops the server: fast, and immediately when that takes too long. False: none was running.
    pub async fn stop(&self) -> Result<bool> {
        use rustix::process::{Pid, Signal, kill_process};
        fs::remove_file(self.root.join("linger")).ok();
        let Some(pid) = stale::live_postmaster(&self.data).and_then(Pid::from_raw) else { return Ok(false) };
        for signal in [Signal::INT, Signal::QUIT] {
            // It may be gone by now, which is what we want.
            kill_process(pid, signal).ok();
            let started = Instant::now();
            while started.elapsed() < STOP_MAX {
                if !self.data.join("postmaster.pid").exists() || !self.is_running() {
                    return Ok(true);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(Error::new(ErrorKind::Embedded, format!("the Postgres in {} does not stop", self.root.display())))
    }

    /// Deletes the data of a stopped server, but not the lock files: others may be waiting on them. Renamed
    /// first: a kill never leaves half a cluster. False: there was none.
    pub fn delete_data(&self) -> Result<bool> {
        let doomed = self.root.join("data.deleted");
        delete(&doomed)?;
        let existed = self.data.exists();
        if existed {
            fs::rename(&self.data, &doomed).map_err(|cause| at(&self.data, &cause))?;
        }
        delete(&doomed)?;
        delete(&self.root.join("data.init"))?;
        fs::remove_file(self.root.join("postgres.log")).ok();
        Ok(existed)
    }

    /// How long the server stays up after its last user: the longest that any of its users asked for.
    pub fn linger(&self) -> Duration {
        let text = fs::read_to_string(self.root.join("linger")).unwrap_or_default();
        Duration::from_millis(text.trim().parse().unwrap_or(0))
    }

    /// Asks for at least this linger. The caller holds `start.lock`.
    pub fn raise_linger(&self, linger: Duration) -> Result<()> {
        let path = self.root.join("linger");
        if linger <= self.linger() {
            return Ok(());
        }
        let written = lock::options()
            .truncate(true)
            .open(&path)
            .and_then(|mut file| file.write_all(linger.as_millis().to_string().as_bytes()));
        written.map_err(|cause| at(&path, &cause))
    }

    fn log(&self) -> Result<File> {
        let path = self.root.join("postgres.log");
        lock::options().append(true).open(&path).map_err(|cause| at(&path, &cause))
    }

    /// Where this start's part of the log will begin.
    fn begin_log(&self) -> Result<u64> {
        let log = self.log()?;
        let size = log.metadata().map_err(|cause| at(&self.root, &cause))?.len();
        if size <= LOG_BYTES_MAX {
            return Ok(size);
        }
        log.set_len(0).map_err(|cause| at(&self.root, &cause))?;
        Ok(0)
    }

    fn log_since(&self, start: u64) -> String {
        let mut text = Vec::new();
        if let Ok(mut log) = File::open(self.root.join("postgres.log")) {
            let read =
                log.seek(SeekFrom::Start(start)).and_then(|_| log.take(LOG_BYTES_MAX).read_to_end(&mut text));
            read.ok();
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The socket lives in the cluster's folder, or, where that path is too long, in one of its own under /tmp
/// whose name only depends on the cluster's folder.
fn socket_dir(root: &Path, account: Option<Account>) -> Result<PathBuf> {
    if root.as_os_str().len() <= SOCKET_DIR_BYTES_MAX {
        return Ok(root.into());
    }
    let meta = fs::metadata(root).map_err(|cause| at(root, &cause))?;
    let dir = PathBuf::from(format!("/tmp/divvy-{}-{:x}-{:x}", meta.uid(), meta.dev(), meta.ino()));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => return Err(at(&dir, &cause)),
        _ => {}
    }
    if let Some(Account { uid, gid }) = account {
        std::os::unix::fs::lchown(&dir, Some(uid), Some(gid)).map_err(|cause| at(&dir, &cause))?;
    }
    // In /tmp anybody may have been faster: a folder that isn't ours alone is not used.
    let found = fs::symlink_metadata(&dir).map_err(|cause| at(&dir, &cause))?;
    if !found.is_dir() || found.uid() != meta.uid() || found.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::Embedded,
            format!("{} is not a folder of user {} alone", dir.display(), meta.uid()),
        ));
    }
    Ok(dir)
}

/// Deletes a folder; none is as good.
fn delete(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(at(folder, &cause)),
        _ => Ok(()),
    }
}

fn escape(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

fn at(path: &Path, cause: &std::io::Error) -> Error {
    Error::new(ErrorKind::Embedded, format!("{}: {cause}", path.display()))
}
