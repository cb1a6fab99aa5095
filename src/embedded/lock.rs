//! Lock files: the kernel gives them back when their holder dies, however it dies.

use crate::{Error, ErrorKind, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The pause between two looks at a lock somebody else holds.
const PAUSE: Duration = Duration::from_millis(10);

/// An open lock file; dropping it gives the lock back.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    pub fn open(path: &Path) -> Result<Self> {
        options()
            .truncate(false)
            .open(path)
            .map(|file| Self { file, path: path.into() })
            .map_err(|cause| failed(path, cause))
    }

    /// Takes the lock for this process alone, at once or not at all. False: somebody else has it, and a
    /// shared lock held by this file is gone.
    pub fn try_exclusive(&self) -> Result<bool> {
        self.outcome(self.file.try_lock())
    }

    /// Waits, without bound, until nobody else has the lock.
    pub fn exclusive(&self) -> Result<()> {
        self.file.lock().map_err(|cause| failed(&self.path, cause))
    }

    pub fn unlock(&self) -> Result<()> {
        self.file.unlock().map_err(|cause| failed(&self.path, cause))
    }

    pub async fn exclusive_within(&self, bound: Duration) -> Result<()> {
        self.within(bound, || self.file.try_lock()).await
    }

    pub async fn shared_within(&self, bound: Duration) -> Result<()> {
        self.within(bound, || self.file.try_lock_shared()).await
    }

    /// Polled: a thread blocked in the kernel could not be cancelled, and would hold up the runtime's end.
    async fn within(&self, bound: Duration, take: impl Fn() -> Result<(), TryLockError>) -> Result<()> {
        let started = Instant::now();
        while !self.outcome(take())? {
            if started.elapsed() >= bound {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!(
                        "another divvy process has held {} for {} s",
                        self.path.display(),
                        bound.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn outcome(&self, outcome: Result<(), TryLockError>) -> Result<bool> {
        match outcome {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(cause)) => Err(failed(&self.path, cause)),
        }
    }
}

/// How every file of ours is opened. Root works in a folder that belongs to somebody else, who might have put a
/// link to another file in our file's place: links are not followed.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn failed(path: &Path, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Embedded, format!("cannot lock {}: {cause}", path.display())).caused_by(cause)
}
