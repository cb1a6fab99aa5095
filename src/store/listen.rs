//! Wake-ups. A lost notification costs latency, never work: callers poll as well.

use crate::store::pool;
use crate::{Error, ErrorKind, Result};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Work of a type became ready; the payload is the type.
pub const READY: &str = "divvy_ready";
/// A cancel, a pause or a command.
pub const CONTROL: &str = "divvy_control";

/// A socket whose other end vanished says nothing: ask this often, so that it is noticed.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pauses between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// What a listener heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It listens (again): anything may have happened before, so look at everything.
    Listening,
    /// It can't listen now: only polls find work.
    Deaf,
    /// `divvy_ready` with the type.
    Ready(String),
    /// `divvy_control` with its payload.
    Control(String),
}

/// Listens on a connection of its own until `stop`, and tells `hear`, which must not block: a listener that
/// doesn't read holds back VACUUM for the whole database.
pub async fn listen(pool: &PgPool, stop: CancellationToken, hear: impl Fn(Heard) + Send) {
    let mut pause = RETRY_FIRST;
    while !stop.is_cancelled() {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = tokio::time::timeout(ANSWER_WITHIN, connect(pool)) => connected,
        };
        if let Ok(Ok(listener)) = connected {
            pause = RETRY_FIRST;
            hear(Heard::Listening);
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = attend(listener, &hear) => ended,
            };
            tracing::debug!(error = %ended, "the listener's connection ended");
        }
        hear(Heard::Deaf);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))) => {}
        }
        pause = (pause * 2).min(RETRY_MOST);
    }
}

async fn connect(pool: &PgPool) -> Result<PgListener> {
    // A pool of one, because the listener's connection must not come from (or return to) a work pool.
    let own = pool::beside(pool, 1);
    let mut listener = PgListener::connect_with(&own).await?;
    // Without this a reconnect happens inside `try_recv` and would be told only by the `None` before it.
    listener.eager_reconnect(false);
    listener.listen_all([READY, CONTROL]).await?;
    Ok(listener)
}

/// Passes on what is heard until the connection fails; the failure is the return value.
async fn attend(mut listener: PgListener, hear: &impl Fn(Heard)) -> Error {
    loop {
        match tokio::time::timeout(PING_EVERY, listener.try_recv()).await {
            Ok(Ok(Some(note))) if note.channel() == READY => hear(Heard::Ready(note.payload().to_owned())),
            Ok(Ok(Some(note))) => hear(Heard::Control(note.payload().to_owned())),
            Ok(Ok(None)) => return Error::new(ErrorKind::Database, "the server closed the connection"),
            Ok(Err(error)) => return Error::from(error),
            Err(_) => {
                let ping = sqlx::query("select 1").execute(&mut listener);
                match tokio::time::timeout(ANSWER_WITHIN, ping).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Error::from(error),
                    Err(_) => return Error::new(ErrorKind::Database, "no answer to a ping"),
                }
            }
        }
    }
}
