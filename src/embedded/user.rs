//! As whom the server runs: Postgres refuses root.

use crate::{Error, ErrorKind, Result};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Another account than this process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// This process is root.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes `root` a folder only the server's user may enter, and says who that is: `None` is ourselves.
pub(super) fn own_folder(root: &Path) -> Result<Option<Account>> {
    let failed = |cause: std::io::Error| {
        Error::new(
            ErrorKind::Embedded,
            format!(
                "cannot use the data folder {}: {cause} (choose another with DIVVY_DATA_DIR)",
                root.display()
            ),
        )
        .caused_by(cause)
    };
    fs::create_dir_all(root).map_err(failed)?;
    let owner = fs::metadata(root).map_err(failed)?;
    let me = rustix::process::geteuid().as_raw();
    let account = match (is_root(), owner.uid()) {
        (true, 0) => Some(unprivileged()?),
        (true, uid) => Some(Account { uid, gid: owner.gid() }),
        (false, uid) if uid == me => None,
        (false, uid) => {
            return Err(Error::new(
                ErrorKind::Embedded,
                format!(
                    "the data folder {} belongs to user {uid}, not to {me}: choose another with DIVVY_DATA_DIR",
                    root.display()
                ),
            ));
        }
    };
    if let Some(Account { uid, gid }) = account {
        chown(root, Some(uid), Some(gid)).map_err(failed)?;
        if let Some(closed) = closed_ancestor(root, Account { uid, gid }) {
            return Err(Error::new(
                ErrorKind::Embedded,
                format!(
                    "the data folder {} cannot be used: Postgres must run as an ordinary user (here {uid}), who may not enter {}; \
                     choose another with DIVVY_DATA_DIR",
                    root.display(),
                    closed.display()
                ),
            ));
        }
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(account)
}

/// The first folder on the way to `path` (itself included) that `account` may not enter.
pub(super) fn closed_ancestor(path: &Path, account: Account) -> Option<PathBuf> {
    let mut way: Vec<&Path> = path.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
    way.reverse();
    way.into_iter()
        .find(|folder| fs::metadata(folder).is_ok_and(|meta| meta.is_dir() && !enters(&meta, account)))
        .map(Into::into)
}

fn enters(folder: &fs::Metadata, account: Account) -> bool {
    let bit = match () {
        () if folder.uid() == account.uid => 0o100,
        () if folder.gid() == account.gid => 0o010,
        () => 0o001,
    };
    folder.mode() & bit != 0
}

/// Lets `command` run as `account`; std drops root's supplementary groups itself.
pub(super) fn run_as(command: &mut Command, account: Option<Account>) {
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
}

/// The ordinary account root's server runs as.
fn unprivileged() -> Result<Account> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].into_iter().find_map(|name| entry(&passwd, name)).ok_or_else(|| {
        Error::new(
            ErrorKind::Embedded,
            "Postgres refuses to run as root, and there is neither a user postgres nor nobody: run divvy as an ordinary user",
        )
    })
}

fn entry(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(|field| field.parse().ok());
    Some(Account { uid: numbers.next()??, gid: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_from_its_passwd_line() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody2:x:7:8::/:\nnobody:x:65534:65533::/:\n";
        assert_eq!(entry(passwd, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(entry(passwd, "postgres"), None);
    }

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account { uid: 4_000_000, gid: 4_000_000 };
        assert_eq!(closed_ancestor(&inner, stranger).as_deref(), Some(dir.path()));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(closed_ancestor(&inner, stranger), None);
    }
}
