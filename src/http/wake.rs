//! One listener for all clients that wait for work.

use crate::apart;
use crate::store::Store;
use crate::store::listen::{self, Heard};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

/// Notifications a slow waiter may fall behind; beyond that it just looks.
const BEHIND_MAX: usize = 256;

/// Where those who wait hear of work.
#[derive(Debug, Clone)]
pub(super) struct Wake(Sender<Option<String>>);

impl Wake {
    /// Begins to listen, until `stop`.
    pub(super) fn start(listen_on: &Store, stop: CancellationToken) -> Self {
        let (sender, _) = broadcast::channel(BEHIND_MAX);
        let (pool, tell) = (listen_on.pool().clone(), sender.clone());
        apart::spawn(async move {
            listen::listen(&pool, stop, |heard| {
                let woken = match heard {
                    Heard::Ready(task_type) => Some(task_type),
                    // Anything may have happened: everybody looks.
                    Heard::Listening | Heard::Control(_) => None,
                    Heard::Deaf => return,
                };
                tell.send(woken).ok();
            })
            .await;
        });
        Self(sender)
    }

    /// Hears from now on.
    pub(super) fn subscribe(&self) -> Receiver<Option<String>> {
        self.0.subscribe()
    }
}

/// Waits for word of one of these types.
pub(super) async fn of_types(heard: &mut Receiver<Option<String>>, task_types: &[String]) {
    loop {
        match heard.recv().await {
            Ok(Some(task_type)) if !task_types.contains(&task_type) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // Nobody listens any more: time alone wakes.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
