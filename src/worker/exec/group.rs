//! A command in a process group of its own, so that whatever it starts ends with it.
//!
//! Asked to end, the group gets SIGTERM, and SIGKILL when that did not help. When the command has ended by itself, what
//! is left of its group is killed. A process that leaves the group (`setsid`) is not found any more: only a container
//! holds such a one.

use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// What belongs to divvy alone: the address of its database may hold a password.
const NOT_PASSED_ON: [&str; 4] = ["DATABASE_URL", "DATABASE_DIRECT_URL", "DIVVY_SQL_ROLE_URL", "PGPASSWORD"];

/// The pipes of a command.
pub(super) type Pipes = (ChildStdin, ChildStdout, ChildStderr);

/// A running command and its group. Dropped, it is asked to end, and ended, beside whoever dropped it.
pub(super) struct Group {
    running: Option<Running>,
    kill_after: Duration,
    ending: TaskTracker,
}

struct Running {
    child: Child,
    id: Pid,
    #[cfg(target_os = "linux")]
    exit: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

impl Group {
    /// Starts the command. `ending` tracks those that were dropped.
    pub(super) fn start(
        mut command: Command,
        kill_after: Duration,
        ending: &TaskTracker,
    ) -> io::Result<(Self, Pipes)> {
        for variable in NOT_PASSED_ON {
            command.env_remove(variable);
        }
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let gone = || io::Error::other("it has no process id");
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or_else(gone)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(gone()) };
        let running = Running {
            child,
            id,
            #[cfg(target_os = "linux")]
            exit: exit_of(id),
        };
        let group = Self { running: Some(running), kill_after, ending: ending.clone() };
        Ok((group, (stdin, stdout, stderr)))
    }

    /// Waits for the command's end, and ends what is left of its group.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let Some(running) = &mut self.running else { return Err(io::Error::other("it has ended before")) };
        let status = running.ended().await?;
        self.running = None;
        Ok(status)
    }

    /// Asks the group to end, and ends it if it doesn't in time.
    pub(super) async fn stop(self) {
        let within = self.kill_after;
        self.stop_within(within).await;
    }

    /// Ends the group at once.
    pub(super) async fn kill(self) {
        self.stop_within(Duration::ZERO).await;
    }

    /// In a task of its own: who waits may be dropped, and the group must end all the same.
    async fn stop_within(mut self, within: Duration) {
        if let Some(running) = self.running.take() {
            let _ = self.ending.spawn(running.stop(within)).await;
        }
    }
}

impl Running {
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        // While the command's own process is not waited for, nobody else can get its id, which is the group's.
        #[cfg(target_os = "linux")]
        if let Some(exit) = &self.exit {
            exit.readable().await?.retain_ready();
            self.signal(Signal::KILL);
            return self.child.wait().await;
        }
        let status = self.child.wait().await?;
        self.signal(Signal::KILL);
        Ok(status)
    }

    async fn stop(mut self, within: Duration) {
        if !within.is_zero() {
            self.signal(Signal::TERM);
            if timeout(within, self.ended()).await.is_ok() {
                return;
            }
        }
        self.signal(Signal::KILL);
        if let Err(error) = self.ended().await {
            tracing::warn!(pid = self.id.as_raw_nonzero().get(), %error, "a command that was killed is not waited for: {error}");
        }
    }

    fn signal(&self, signal: Signal) {
        // Nobody there any more is as good.
        let _ = kill_process_group(self.id, signal);
    }
}

/// Tells when the process has ended without waiting for it; none on a kernel that can't.
#[cfg(target_os = "linux")]
fn exit_of(id: Pid) -> Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    use tokio::io::{Interest, unix::AsyncFd};
    // Deprecated for descriptors that may change under it; this one is owned.
    #[allow(deprecated)]
    let register = AsyncFd::with_interest;
    let exit = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).ok()?;
    register(exit, Interest::READABLE).ok()
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(_) => drop(self.ending.spawn(running.stop(self.kill_after))),
            // The runtime is gone: nobody could wait.
            Err(_) => running.signal(Signal::KILL),
        }
    }
}
