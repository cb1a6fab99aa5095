//! Where the private server lives and how it behaves.

use super::{Download, Search};
use crate::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::time::Duration;

/// What a crash of the machine may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed: Postgres' own defaults.
    Durable,
    /// Everything: for tests, which value speed and throw their data away.
    Relaxed,
}

/// How to find or make the private server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the server, its locks and its log.
    pub root: PathBuf,
    /// Durable unless this is a test.
    pub durability: Durability,
    /// How long the server stays up after its last user (the longest that one of its users asks for counts);
    /// zero: the last user stops it.
    pub linger: Duration,
    /// The data is deleted when the server stops.
    pub discard: bool,
    /// The divvy program, which has the hidden command that watches for the last user.
    pub watchdog: PathBuf,
    /// Where to look for binaries.
    pub search: Search,
    /// What to do where none are found.
    pub download: Download,
}

impl Settings {
    /// The settings of the divvy program: the folder from `DIVVY_DATA_DIR` or the platform's, the binaries
    /// from `DIVVY_PG_BINDIR` or the machine, the download as `DIVVY_PG_DOWNLOAD` and `…_URL` say.
    ///
    /// # Errors
    /// When there is no folder to live in, or a variable has a value that means nothing.
    pub fn from_env() -> Result<Self> {
        let watchdog = std::env::current_exe().map_err(|cause| {
            Error::new(ErrorKind::Embedded, "cannot find the running program's own file").caused_by(cause)
        })?;
        Ok(Self {
            root: data_dir()?.join("postgres"),
            durability: Durability::Durable,
            linger: Duration::ZERO,
            discard: false,
            watchdog,
            search: Search::from_env(),
            download: Download::from_env()?,
        })
    }
}

/// A variable that is set and not empty: compose files set variables to nothing to mean "unset".
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// divvy's folder: `DIVVY_DATA_DIR`, else where this platform keeps programs' data.
fn data_dir() -> Result<PathBuf> {
    if let Some(dir) = variable("DIVVY_DATA_DIR") {
        return std::path::absolute(&dir).map_err(|cause| {
            Error::new(ErrorKind::Config, format!("DIVVY_DATA_DIR={dir} is not a path")).caused_by(cause)
        });
    }
    // Root's home is closed to the user Postgres runs as, so root's data lives where services' data lives.
    if super::user::is_root() {
        return Ok(PathBuf::from("/var/lib/divvy"));
    }
    if let Some(dir) = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        return Ok(dir.join("divvy"));
    }
    let home = std::env::home_dir().filter(|home| home.is_absolute()).ok_or_else(|| {
        Error::new(ErrorKind::Config, "no home directory to keep data in: set DIVVY_DATA_DIR or DATABASE_URL")
    })?;
    let inside = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Ok(home.join(inside).join("divvy"))
}
