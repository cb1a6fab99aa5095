//! Single enqueues that come in together are committed together.
//!
//! While one commit is under way the next requests gather, so groups grow with the load and a lone request waits for
//! nothing. Every answer is sent after the commit that holds its task. A group that is refused is halved until the task
//! that is to blame stands alone: the others don't suffer for it.

use super::problem::Problem;
use crate::apart;
use crate::store::enqueue::{self, Enqueued};
use crate::store::{Store, sqlstate};
use crate::{Error, ErrorKind, Result};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Tasks that wait for a commit, at most; more are refused.
const WAITING_MAX: usize = 10_000;
/// Tasks of one group.
const GROUP_TASKS_MAX: usize = 500;
/// Tasks with options of one group: each of them is a subtransaction, and more than 64 are slow for everybody.
const GROUP_OPTIONS_MAX: usize = 50;
/// Bytes of one group, but always one task.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Commits under way at once: while one waits for the disk, another is computed.
const COMMITS: usize = 2;
/// How long one may take.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// A task on its way.
struct Item {
    text: Box<RawValue>,
    plain: bool,
    answer: oneshot::Sender<Result<Enqueued, Problem>>,
}

/// Where single enqueues gather.
#[derive(Debug, Clone)]
pub(super) struct Group {
    sender: mpsc::Sender<Item>,
}

impl Group {
    /// Begins to commit what comes in, until the last of its clones is gone.
    pub(super) fn start(store: &Store) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..COMMITS {
            apart::spawn(commit_groups(receiver.clone(), store.clone()));
        }
        Self { sender }
    }

    /// Stores one task; `plain`: it has no options. Answered after the commit.
    ///
    /// # Errors
    /// As [`enqueue::enqueue_many`]; 503 when too many wait.
    pub(super) async fn enqueue(&self, text: Box<RawValue>, plain: bool) -> Result<Enqueued, Problem> {
        let (answer, answered) = oneshot::channel();
        if self.sender.try_send(Item { text, plain, answer }).is_err() {
            return Err(Problem::unavailable(format!("{WAITING_MAX} tasks wait to be stored already")));
        }
        answered.await.unwrap_or_else(|_| Err(Problem::unavailable("the service stops")))
    }
}

async fn commit_groups(receiver: Arc<Mutex<mpsc::Receiver<Item>>>, store: Store) {
    loop {
        let group = gather(&receiver).await;
        if group.is_empty() {
            return;
        }
        let (plain, others): (Vec<_>, Vec<_>) = group.into_iter().partition(|item| item.plain);
        for part in [plain, others] {
            if !part.is_empty() {
                commit(&store, part).await;
            }
        }
    }
}

/// The first task, once there is one, and what has come in with it.
async fn gather(receiver: &Mutex<mpsc::Receiver<Item>>) -> Vec<Item> {
    let mut receiver = receiver.lock().await;
    let Some(first) = receiver.recv().await else { return Vec::new() };
    let mut bytes = first.text.get().len();
    let mut options = usize::from(!first.plain);
    let mut group = vec![first];
    while group.len() < GROUP_TASKS_MAX && options < GROUP_OPTIONS_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(next) = receiver.try_recv() else { break };
        bytes += next.text.get().len();
        options += usize::from(!next.plain);
        group.push(next);
    }
    group
}

async fn commit(store: &Store, group: Vec<Item>) {
    let mut parts = vec![group];
    while let Some(mut part) = parts.pop() {
        // Whoever asked may have gone; what was asked is done all the same.
        match store_all(store, &part).await {
            Ok(made) => {
                part.into_iter().zip(made).for_each(|(item, made)| drop(item.answer.send(Ok(made))));
            }
            Err(error) if part.len() > 1 && is_one_to_blame(&error) => {
                let half = part.split_off(part.len() / 2);
                parts.extend([half, part]);
            }
            Err(error) => {
                let problem = Problem::from(error);
                part.into_iter().for_each(|item| drop(item.answer.send(Err(problem.clone()))));
            }
        }
    }
}

/// Whether the same call without one of its tasks may go well.
fn is_one_to_blame(error: &Error) -> bool {
    error.is_conflict() || sqlstate::is_value_fault(error)
}

async fn store_all(store: &Store, part: &[Item]) -> Result<Vec<Enqueued>> {
    let mut text =
        String::with_capacity(part.iter().map(|item| item.text.get().len() + 1).sum::<usize>() + 2);
    text.push('[');
    for (at, item) in part.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(item.text.get());
    }
    text.push(']');
    let tasks = RawValue::from_string(text)
        .map_err(|error| Error::new(ErrorKind::BadOption, "a task is no JSON").caused_by(error))?;
    let rows = store
        .bounded(COMMIT_WITHIN, move |c| Box::pin(async move { enqueue::enqueue_text(c, &tasks).await }))
        .await?;
    if rows.len() != part.len() {
        let message = format!("{} tasks were stored as {}", part.len(), rows.len());
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    Ok(rows.into_iter().map(|row| Enqueued { task_id: row.task_id, created: row.created }).collect())
}
