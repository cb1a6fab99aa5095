//! Waiting for tasks to end: one question for all who wait, instead of one each.

use crate::apart;
use crate::id::TaskId;
use crate::store::{Store, enqueue};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Tasks of one look.
const LOOK_TASKS_MAX: usize = 5_000;
/// Longest wait for the database.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Who waits for which task.
#[derive(Debug, Default)]
struct Waiting {
    tasks: Mutex<HashMap<TaskId, Vec<oneshot::Sender<()>>>>,
    come: Notify,
}

/// A place to wait at.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Waiting>);

impl Watch {
    /// Begins to look, until `stop`.
    pub(super) fn start(store: &Store, stop: CancellationToken) -> Self {
        let waiting = Arc::new(Waiting::default());
        apart::spawn(look(waiting.clone(), store.clone(), stop));
        Self(waiting)
    }

    /// Waits until the task has ended or is gone. Look once more after you began to wait: it may have ended before.
    pub(super) async fn ended(&self, task: TaskId) {
        let (tell, told) = oneshot::channel();
        if let Ok(mut tasks) = self.0.tasks.lock() {
            tasks.entry(task).or_default().push(tell);
        }
        self.0.come.notify_one();
        told.await.ok();
    }
}

async fn look(waiting: Arc<Waiting>, store: Store, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let tasks = waiting.open();
        if tasks.is_empty() {
            tokio::select! {
                () = waiting.come.notified() => continue,
                () = stop.cancelled() => return,
            }
        }
        for some in tasks.chunks(LOOK_TASKS_MAX) {
            let some = some.to_vec();
            let ended = store
                .bounded(LOOK_WITHIN, move |c| Box::pin(async move { enqueue::ended(c, &some).await }))
                .await;
            match ended {
                Ok(ended) => waiting.tell(&ended),
                Err(error) => tracing::debug!(%error, "looking for ended tasks failed"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Waiting {
    /// The tasks that somebody still waits for.
    fn open(&self) -> Vec<TaskId> {
        let Ok(mut tasks) = self.tasks.lock() else { return Vec::new() };
        tasks.retain(|_, who| {
            who.retain(|one| !one.is_closed());
            !who.is_empty()
        });
        tasks.keys().copied().collect()
    }

    fn tell(&self, ended: &[TaskId]) {
        let Ok(mut tasks) = self.tasks.lock() else { return };
        for who in ended.iter().filter_map(|task| tasks.remove(task)) {
            who.into_iter().for_each(|one| _ = one.send(()));
        }
    }
}
