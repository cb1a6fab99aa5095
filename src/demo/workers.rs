//! The worker processes of the demo: this very program, started again as `divvy demo-worker`.
//!
//! A worker lives as long as its standard input is open. So it ends with the demo however the demo
//! ends, and needs no process id file to be found again.

use crate::apart;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use anyhow::{Context, Result, anyhow};

/// The hidden subcommand that a worker process is started with.
pub const SUBCOMMAND: &str = "demo-worker";

/// How many of its last lines a worker that died is quoted with.
const LINES_KEPT: usize = 20;

/// How long a worker that was asked to stop may take before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The name under which the process `pid` registers as a worker.
pub fn name_of(pid: u32) -> String {
    format!("demo-{pid}")
}

/// How the workers reach the database.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// For work.
    pub url: String,
    /// Without a pooler between, where that is another address.
    pub direct_url: Option<String>,
}

/// The processes that run now.
pub struct Workers {
    addresses: Addresses,
    running: Vec<Running>,
}

struct Running {
    name: String,
    child: Child,
    /// Open as long as the worker shall live.
    stdin: ChildStdin,
    last_lines: Arc<Mutex<Vec<String>>>,
}

impl Workers {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// When this program cannot be started again.
    pub fn start(addresses: &Addresses, count: usize) -> Result<Self> {
        let mut workers = Self { addresses: addresses.clone(), running: Vec::with_capacity(count) };
        for _ in 0..count {
            workers.start_one()?;
        }
        Ok(workers)
    }

    /// Starts one more and returns its name.
    ///
    /// # Errors
    /// When this program cannot be started again.
    pub fn start_one(&mut self) -> Result<String> {
        let program = std::env::current_exe().context("cannot find this program to start a worker with")?;
        let mut command = Command::new(program);
        if let Some(direct_url) = &self.addresses.direct_url {
            command.env("DATABASE_DIRECT_URL", direct_url);
        }
        let mut child = command
            .arg(SUBCOMMAND)
            // By environment: arguments can be read by everyone on the machine, and a URL may hold a password.
            .env("DATABASE_URL", &self.addresses.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C reaches the demo, which then stops its workers.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a worker process")?;
        let name = name_of(child.id().unwrap_or_default());
        let last_lines = Arc::default();
        let (Some(stdin), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
            return Err(anyhow!("worker {name} was started without its pipes"));
        };
        apart::spawn(keep_last_lines(stderr, Arc::clone(&last_lines)));
        self.running.push(Running { name: name.clone(), child, stdin, last_lines });
        Ok(name)
    }

    /// The names of the workers that run.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.running.iter().map(|worker| worker.name.as_str())
    }

    /// Kills the worker `name` with SIGKILL; false when there is none of this name.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn kill(&mut self, name: &str) -> Result<bool> {
        let Some(at) = self.running.iter().position(|worker| worker.name == name) else { return Ok(false) };
        let mut worker = self.running.swap_remove(at);
        worker.child.kill().await.with_context(|| format!("cannot kill {name}"))?;
        Ok(true)
    }

    /// Fails when a worker ended by itself, with what it said last.
    ///
    /// # Errors
    /// Names the worker, its exit status and its last lines.
    pub fn all_alive(&mut self) -> Result<()> {
        for worker in &mut self.running {
            if let Ok(Some(status)) = worker.child.try_wait() {
                return Err(died(worker, status));
            }
        }
        Ok(())
    }

    /// Asks all to stop and waits until they have; one that does not is killed.
    pub async fn stop(self) {
        let (inputs, children): (Vec<_>, Vec<_>) =
            self.running.into_iter().map(|worker| (worker.stdin, worker.child)).unzip();
        drop(inputs);
        for mut child in children {
            if tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err() {
                // Refused only when it has just ended by itself.
                let _ = child.kill().await;
            }
        }
    }
}

async fn keep_last_lines(stderr: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() == LINES_KEPT {
            kept.remove(0);
        }
        kept.push(line);
    }
}

fn died(worker: &Running, status: ExitStatus) -> anyhow::Error {
    let lines = worker.last_lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n  ");
    let said = if lines.is_empty() { "it said nothing".to_owned() } else { format!("it said:\n  {lines}") };
    anyhow!("worker {} ended by itself ({status}); {said}", worker.name)
}
