//! Where this machine keeps Postgres. Debian keeps it off PATH, so looking in the usual places matters.

use super::settings::variable;
use super::user::{Account, closed_ancestor};
use crate::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version divvy runs on.
const MAJOR_MIN: u32 = 15;

/// Folders in which each version has a folder of its own: parent, what precedes the version, what follows.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// A folder with `postgres` and `initdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub dir: PathBuf,
    /// The major version, such as 15.
    pub major: u32,
}

/// Where to look for binaries.
#[derive(Debug, Clone)]
pub enum Search {
    /// This folder and no other (`DIVVY_PG_BINDIR`).
    Given(PathBuf),
    /// PATH, `pg_config --bindir`, then the usual places, the newest version first.
    Machine,
    /// Nowhere: download.
    Nowhere,
}

impl Search {
    /// [`Search::Given`] by `DIVVY_PG_BINDIR`, else [`Search::Machine`]. `DIVVY_PG_DOWNLOAD=always` looks nowhere.
    pub fn from_env() -> Self {
        match (variable("DIVVY_PG_BINDIR"), variable("DIVVY_PG_DOWNLOAD").as_deref()) {
            (Some(dir), _) => Self::Given(dir.into()),
            (None, Some("always")) => Self::Nowhere,
            (None, _) => Self::Machine,
        }
    }

    /// The first usable binaries; with `major` only that version's, for a cluster made by it. As `account`
    /// they must be reachable too.
    ///
    /// # Errors
    /// When a given folder has none, or others than are needed.
    pub fn find(&self, major: Option<u32>, account: Option<Account>) -> Result<Option<Binaries>> {
        let fits = |found: &Binaries| major.is_none_or(|major| found.major == major);
        match self {
            Self::Given(dir) => {
                let found = look(dir, account).map_err(|why| {
                    Error::new(
                        ErrorKind::Config,
                        format!("DIVVY_PG_BINDIR={} cannot be used: {why}", dir.display()),
                    )
                })?;
                Ok(Some(found).filter(fits))
            }
            Self::Machine => Ok(places().iter().filter_map(|dir| look(dir, account).ok()).find(fits)),
            Self::Nowhere => Ok(None),
        }
    }

    /// The places looked at, for the message that none had what is needed.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Given(dir) => dir.display().to_string(),
            Self::Machine => "PATH, pg_config --bindir, /usr/lib/postgresql/*/bin and the like".into(),
            Self::Nowhere => "nowhere, as DIVVY_PG_DOWNLOAD=always asks".into(),
        }
    }
}

/// The candidate folders in order of preference, existing or not.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    if let Ok(answer) = Command::new("pg_config").arg("--bindir").output() {
        places.push(String::from_utf8_lossy(&answer.stdout).trim().into());
    }
    for (parent, before, after) in FAMILIES {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let mut versions: Vec<(u32, PathBuf)> = entries
            .filter_map(|entry| {
                let version = entry.file_name().to_str()?.strip_prefix(before)?.parse().ok()?;
                Some((version, entry.path().join(after)))
            })
            .collect();
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        places.extend(versions.into_iter().map(|(_, dir)| dir));
    }
    places
}

/// The binaries in `dir`, or why there are none to use.
pub(super) fn look(dir: &Path, account: Option<Account>) -> Result<Binaries, String> {
    let program =
        |name: &str| Some(dir.join(name)).filter(|path| path.is_file()).ok_or(format!("it has no {name}"));
    let postgres = program("postgres")?;
    program("initdb")?;
    if let Some(closed) = account.and_then(|account| closed_ancestor(dir, account)) {
        return Err(format!("the user Postgres runs as may not enter {}", closed.display()));
    }
    let answer = Command::new(&postgres)
        .arg("--version")
        .output()
        .map_err(|cause| format!("postgres --version: {cause}"))?;
    let said = String::from_utf8_lossy(&answer.stdout);
    let major = major_in(&said).ok_or(format!("postgres --version says {:?}", said.trim()))?;
    if major < MAJOR_MIN {
        return Err(format!("Postgres {major} is too old: divvy needs {MAJOR_MIN} or later"));
    }
    Ok(Binaries { dir: dir.into(), major })
}

/// 15 in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, 19 in `postgres (PostgreSQL) 19beta3`.
fn major_in(said: &str) -> Option<u32> {
    let version = said.split_whitespace().nth(2)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(major_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_in("postgres (PostgreSQL) 19beta3\n"), Some(19));
        assert_eq!(major_in("command not found"), None);
    }

    #[test]
    fn a_given_folder_without_binaries_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = Search::Given(dir.path().into()).find(None, None).unwrap_err().to_string();
        assert!(
            error.contains(&dir.path().display().to_string()) && error.contains("it has no postgres"),
            "{error}"
        );
    }
}
