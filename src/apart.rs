//! Tasks of their own, of one kind: all that a runtime does with a task is built anew for each type of future that is spawned,
//! a twelfth of the crate when every call had its own.

use std::pin::Pin;
use tokio::task::JoinHandle;

/// Any future at all that comes to a `T`.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// `future`, whatever it was: for sets of tasks, which spawn themselves.
pub(crate) fn boxed<T>(future: impl Future<Output = T> + Send + 'static) -> Boxed<T> {
    Box::pin(future)
}

/// Spawns `future`. The box is an allocation more: not for what is done for each split.
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(boxed(future))
}
