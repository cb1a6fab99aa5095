//! The helper process that stops the server when its last user is gone, however that user ended.

use super::Settings;
use super::cluster::Cluster;
use crate::{Error, ErrorKind, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// The hidden command of the divvy program that runs [`watch`].
pub(super) const COMMAND: &str = "embedded-watchdog";
/// How often a lingering watchdog looks whether the server has been stopped by somebody else.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks whether the last psql has gone.
const CLIENT_LOOK: Duration = Duration::from_secs(1);

/// Starts the helper; a second one ends at once, so every user may start one.
pub(super) fn spawn(cluster: &Cluster, settings: &Settings) -> Result<()> {
    let mut command = Command::new(&settings.watchdog);
    command.arg(COMMAND).arg(&cluster.root);
    if settings.discard {
        command.arg("--discard");
    }
    // Away from the terminal and its Ctrl-C; its working folder must not hold a file system.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .current_dir("/");
    command.spawn().map(|_| ()).map_err(|cause| {
        let program = settings.watchdog.display();
        Error::new(ErrorKind::Embedded, format!("cannot start the watchdog {program} {COMMAND}: {cause}"))
            .caused_by(cause)
    })
}

/// Waits until nobody uses the server in `root`, as much longer as it is to linger, and stops it.
///
/// # Errors
/// When a lock file cannot be used or the server does not stop.
pub async fn watch(root: &Path, discard: bool) -> Result<()> {
    let cluster = Cluster::prepare(root)?;
    let alone = cluster.lock("watchdog.lock")?;
    if !alone.try_exclusive()? {
        return Ok(());
    }
    let users = cluster.lock("users.lock")?;
    loop {
        // The kernel grants this when the last user is gone; blocking is all this process has to do.
        users.exclusive()?;
        users.unlock()?;
        let since = Instant::now();
        while since.elapsed() < cluster.linger() && cluster.is_running() {
            tokio::time::sleep(LOOK).await;
        }
        if !users.try_exclusive()? {
            continue;
        }
        if cluster.has_clients().await {
            users.unlock()?;
            tokio::time::sleep(CLIENT_LOOK).await;
            continue;
        }
        break;
    }
    cluster.stop().await?;
    if discard {
        cluster.delete_data()?;
    }
    // In this order: whoever gets `users.lock` next must be able to start a watchdog of its own.
    alone.unlock()?;
    users.unlock()
}
