//! Binaries from the network, where the machine has none: checksummed, pinned.

mod archive;

use super::binaries::look;
use super::settings::variable;
use super::{Binaries, Settings};
use crate::{Error, ErrorKind, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// The version that is downloaded. Pinned: the same divvy always brings the same Postgres.
const VERSION: &str = "17.9.0";
/// Its major version: data made by another one cannot use it.
pub(super) const MAJOR: u32 = 17;
/// Where it is downloaded from: builds of many systems' Postgres, each release in a folder named after its version.
const STANDARD: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";
/// How long the download may take.
const DOWNLOAD_MAX: Duration = Duration::from_secs(600);

/// What to do where the machine has no binaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Download {
    /// Say so and stop (`DIVVY_PG_DOWNLOAD=never`).
    Never,
    /// Download from the project `postgresql-binaries`.
    Standard,
    /// Download from here (`DIVVY_PG_DOWNLOAD_URL`): an archive `….tar.gz` with its checksum beside it at
    /// `….tar.gz.sha256`, or a folder that has them as `VERSION/postgresql-VERSION-TARGET.tar.gz`.
    From(String),
}

impl Download {
    /// As `DIVVY_PG_DOWNLOAD` (`auto`, `always` or `never`) and `DIVVY_PG_DOWNLOAD_URL` say.
    ///
    /// # Errors
    /// When one of them has another value.
    pub fn from_env() -> Result<Self> {
        match variable("DIVVY_PG_DOWNLOAD").as_deref() {
            Some("never") => return Ok(Self::Never),
            None | Some("auto" | "always") => {}
            Some(other) => {
                let message = format!("DIVVY_PG_DOWNLOAD={other} means nothing: give auto, always or never");
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        match variable("DIVVY_PG_DOWNLOAD_URL") {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => Ok(Self::From(url)),
            Some(url) => {
                let message = format!("DIVVY_PG_DOWNLOAD_URL={url} does not begin with http:// or https://");
                Err(Error::new(ErrorKind::Config, message))
            }
            None => Ok(Self::Standard),
        }
    }
}

/// Binaries that were downloaded into `root` before, by this divvy or an older one; where there is data, only
/// those of its major version.
pub(super) fn kept(root: &Path, major: Option<u32>) -> Option<Binaries> {
    let folders = fs::read_dir(root).into_iter().flatten().flatten();
    let downloads = folders.filter(|folder| folder.file_name().to_string_lossy().starts_with("postgres-"));
    let mut found: Vec<Binaries> = downloads
        .filter_map(|folder| look(&folder.path().join("bin"), None).ok())
        .filter(|found| major.is_none_or(|major| found.major == major))
        .collect();
    found.sort_by_key(|found| found.major);
    found.pop()
}

/// Downloads binaries into `root`.
pub(super) async fn binaries(settings: &Settings, root: &Path) -> Result<Binaries> {
    let url = match &settings.download {
        Download::Never => {
            return Err(ways_out(settings, "and DIVVY_PG_DOWNLOAD=never forbids to download one"));
        }
        Download::Standard => STANDARD.to_owned(),
        Download::From(url) => url.clone(),
    };
    let folder = root.join(format!("postgres-{VERSION}"));
    eprintln!("divvy: no Postgres found on this machine; downloading Postgres {VERSION} from {url} (once)");
    fetch(&url, &folder)
        .await
        .map_err(|why| ways_out(settings, &format!("and downloading one from {url} failed: {why}")))?;
    look(&folder.join("bin"), None).map_err(|why| {
        let message =
            format!("the Postgres downloaded from {url} into {} cannot be used: {why}", folder.display());
        Error::new(ErrorKind::Embedded, message)
    })
}

async fn fetch(url: &str, folder: &Path) -> Result<(), String> {
    let address = archive::address(url, VERSION);
    let got = tokio::time::timeout(DOWNLOAD_MAX, archive::get(&address)).await;
    let bytes = got.map_err(|_| format!("it took longer than {} s", DOWNLOAD_MAX.as_secs()))??;
    archive::unpack(&bytes, folder).map_err(|cause| format!("{}: {cause}", folder.display()))
}

/// Root downloads, somebody else runs: whatever our umask, everybody may read and enter.
fn open_to_all(path: &Path) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.permissions().mode();
    let runs = if meta.is_dir() || mode & 0o100 != 0 { 0o555 } else { 0o444 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | runs))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}

/// No binaries: says why, and the three ways out.
fn ways_out(settings: &Settings, why: &str) -> Error {
    Error::new(
        ErrorKind::Embedded,
        format!(
            "no Postgres (15 or later) found on this machine (looked in {}), {why}. Three ways out:\n\
             - give a database you have: set DATABASE_URL=postgres://…\n\
             - install Postgres (Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server; \
             macOS: brew install postgresql@17), or name the folder of its programs with DIVVY_PG_BINDIR\n\
             - let divvy download one: leave DIVVY_PG_DOWNLOAD unset, and where the network needs another address \
             set DIVVY_PG_DOWNLOAD_URL",
            settings.search.told()
        ),
    )
}
