//! A worker that runs beside the test.

use super::race::DEADLINE;
use divvy::worker::{Summary, Worker};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// It stops when told to, or when the test is over.
pub struct Running {
    stop: CancellationToken,
    _guard: DropGuard,
    task: JoinHandle<divvy::Result<Summary>>,
}

impl Running {
    pub fn start(worker: Worker) -> Self {
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        let task = tokio::spawn(async move { worker.run(shutdown).await });
        Self { _guard: stop.clone().drop_guard(), stop, task }
    }

    /// Asks it to stop, without waiting.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops it and returns what it did.
    pub async fn stop(self) -> Summary {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Summary {
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .expect("the worker did not end in time")
            .expect("the worker's task panicked")
            .expect("the worker failed")
    }
}

/// How long a task may take in a test.
pub const WITHIN: Duration = DEADLINE;
