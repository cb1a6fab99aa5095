//! The service that is measured: this program once more, as `divvy serve`.

use crate::apart;
use crate::bench::cpu::Cpu;
use anyhow::{Context, Result, bail};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long it may take to begin, and to end.
const WITHIN: Duration = Duration::from_secs(30);

/// A running service.
pub(super) struct Service {
    /// Where it listens.
    pub(super) address: SocketAddr,
    process: Child,
}

impl Service {
    /// Starts it on the database behind `direct`.
    pub(super) async fn start(direct: &PgConnectOptions) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut process = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("DATABASE_URL", direct.to_url_lossy().as_str())
            .env_remove("DATABASE_DIRECT_URL")
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting divvy serve")?;
        let stderr = process.stderr.take().context("no stderr of divvy serve")?;
        let mut lines = BufReader::new(stderr).lines();
        let address = timeout(WITHIN, async {
            let mut told = String::new();
            while let Some(line) = lines.next_line().await? {
                if let Some((_, address)) = line.split_once("http://") {
                    return Ok(address.split(' ').next().unwrap_or_default().parse()?);
                }
                told.push_str(&line);
            }
            bail!("divvy serve ended: {told}")
        });
        let address =
            address.await.with_context(|| format!("divvy serve did not listen within {WITHIN:?}"))??;
        // What it says is read to the end: a full pipe would stop it.
        apart::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { address, process })
    }

    /// Seconds of CPU that it has used.
    pub(super) fn cpu(&self, cpu: &Cpu) -> Option<f64> {
        cpu.of(self.process.id()?)
    }

    /// Stops it.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = timeout(WITHIN, self.process.wait()).await.context("divvy serve did not stop")??;
        if !status.success() {
            bail!("divvy serve ended with {status}");
        }
        Ok(())
    }
}
