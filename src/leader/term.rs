//! Holding the lock, and knowing for how long one may believe it.

use crate::store::lead;
use crate::{Error, ErrorKind, Result};
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The pause between two pings.
const PING_EVERY: Duration = Duration::from_secs(1);

/// How long an answered ping is trusted, counted from when it was sent: a second less than the silence after
/// which the server gives the lock to others.
pub(super) const TRUST: Duration = lead::SILENCE_MAX.saturating_sub(Duration::from_secs(1));

/// One time of leading.
pub(super) struct Term {
    /// Its number.
    pub(super) number: i64,
    /// The session that holds the lock.
    pub(super) connection: PgConnection,
    /// When the question was sent that the lock answered.
    pub(super) asked: Instant,
}

impl Term {
    /// Pings until `over`, then gives the lock back.
    ///
    /// # Errors
    /// As soon as the lock may be lost: the connection failed, or has been silent for [`TRUST`].
    pub(super) async fn hold(mut self, over: &CancellationToken) -> Result<()> {
        let mut trusted_until = self.asked + TRUST;
        loop {
            tokio::select! {
                () = over.cancelled() => break,
                () = tokio::time::sleep(PING_EVERY) => (),
            }
            let sent = Instant::now();
            match timeout_at(trusted_until, lead::ping(&mut self.connection)).await {
                Ok(answer) => answer?,
                Err(_) => {
                    return Err(Error::new(
                        ErrorKind::Database,
                        format!("the connection that holds the lock was silent for {TRUST:?}"),
                    ));
                }
            }
            trusted_until = sent + TRUST;
        }
        lead::resign(self.connection).await;
        Ok(())
    }
}
