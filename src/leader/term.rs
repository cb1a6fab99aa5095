//! Holding the lock, and knowing for how long one may believe it.

use super::rest::Rests;
use crate::store::lead;
use crate::{Error, ErrorKind, Result};
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The pause between two looks: what is written without telling anybody is seen that late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long an answered look is trusted, counted from when it was sent: a second less than the silence after
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
    /// Looks for how long the duties may rest until `over`, then gives the lock back.
    ///
    /// # Errors
    /// As soon as the lock may be lost: the connection failed, or has been silent for [`TRUST`].
    pub(super) async fn hold(mut self, rests: &Rests, over: &CancellationToken) -> Result<()> {
        let mut trusted_until = self.asked + TRUST;
        loop {
            let sent = Instant::now();
            match timeout_at(trusted_until, lead::look(&mut self.connection)).await {
                Ok(answer) => rests.told(&answer?),
                Err(_) => {
                    return Err(Error::new(
                        ErrorKind::Database,
                        format!("the connection that holds the lock was silent for {TRUST:?}"),
                    ));
                }
            }
            trusted_until = sent + TRUST;
            tokio::select! {
                () = over.cancelled() => break,
                () = tokio::time::sleep(LOOK_EVERY) => (),
            }
        }
        lead::resign(self.connection).await;
        Ok(())
    }
}
