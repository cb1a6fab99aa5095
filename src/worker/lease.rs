//! The splits this worker holds, from their claim until their outcome is committed.

use crate::id::{SplitId, Token};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How a running split hears of its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<News>);

#[derive(Debug, Default)]
struct News {
    /// The handler should stop.
    cancel: CancellationToken,
    /// The lease was taken away: nothing the split does counts any more. Then `cancel` has fired too.
    lost: AtomicBool,
    lost_now: Notify,
    /// The handler has answered: verdicts come too late to matter, and "lost" may only mean that the outcome
    /// was committed while the heartbeat was under way.
    answered: AtomicBool,
}

impl Held {
    /// What the handler is given to hear of it.
    pub(super) fn cancellation(&self) -> CancellationToken {
        self.0.cancel.clone()
    }

    /// The handler should stop.
    pub(super) fn cancel(&self) {
        self.0.cancel.cancel();
    }

    /// From now on only the outcome's own call can tell whether the lease still holds.
    pub(super) fn answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Until the lease is lost.
    pub(super) async fn lost(&self) {
        let now = self.0.lost_now.notified();
        if !self.is_lost() {
            now.await;
        }
    }

    fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }

    fn lose(&self) {
        self.0.lost.store(true, Ordering::Release);
        self.0.lost_now.notify_waiters();
        self.cancel();
    }
}

/// All leases held, by split.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<SplitId, (Token, Held)>>,
}

impl Leases {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SplitId, (Token, Held)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a claimed split in. If an older lease on it is still here, that one is lost: the split
    /// wouldn't have been claimed again otherwise.
    pub(super) fn insert(&self, split: SplitId, token: Token) -> Held {
        let held = Held::default();
        if let Some((_, older)) = self.lock().insert(split, (token, held.clone())) {
            older.lose();
        }
        held
    }

    /// Lets go of a split, if it is still held under this token.
    pub(super) fn remove(&self, split: SplitId, token: Token) {
        self.remove_all([(split, token)]);
    }

    /// The same for many.
    pub(super) fn remove_all(&self, splits: impl IntoIterator<Item = (SplitId, Token)>) {
        let mut held = self.lock();
        for (split, token) in splits {
            if let Entry::Occupied(here) = held.entry(split)
                && here.get().0 == token
            {
                here.remove();
            }
        }
    }

    /// What to renew, ids ascending.
    pub(super) fn all(&self) -> Vec<(SplitId, Token)> {
        let mut all: Vec<_> = self.lock().iter().map(|(split, (token, _))| (*split, *token)).collect();
        all.sort_unstable();
        all
    }

    /// Tells a split what the database said of it, if it is still held under the token that was asked for and
    /// its handler hasn't answered. Returns whether it was news.
    pub(super) fn tell(&self, split: SplitId, token: Token, lost: bool) -> bool {
        let held = self.lock();
        let Some((_, held)) = held.get(&split).filter(|(current, _)| *current == token) else { return false };
        if held.0.answered.load(Ordering::Relaxed)
            || held.is_lost()
            || (!lost && held.0.cancel.is_cancelled())
        {
            return false;
        }
        if lost {
            held.lose()
        } else {
            held.cancel()
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_claimed_again_loses_its_older_lease_here() {
        let leases = Leases::default();
        let old = leases.insert(SplitId(1), Token(10));
        let new = leases.insert(SplitId(1), Token(11));
        assert!(old.is_lost() && old.cancellation().is_cancelled());
        assert!(!new.cancellation().is_cancelled());
        leases.remove(SplitId(1), Token(10));
        assert!(!leases.tell(SplitId(1), Token(10), true));
        assert_eq!(leases.all(), [(SplitId(1), Token(11))]);
        assert!(!new.is_lost());
        assert!(leases.tell(SplitId(1), Token(11), false));
        assert!(new.cancellation().is_cancelled() && !new.is_lost());
    }

    #[tokio::test]
    async fn whoever_waits_for_the_loss_hears_of_it_and_of_an_earlier_one() {
        let leases = Leases::default();
        let held = leases.insert(SplitId(1), Token(10));
        leases.tell(SplitId(1), Token(10), false);
        let (waits, ()) = tokio::join!(
            async { tokio::time::timeout(std::time::Duration::from_secs(30), held.lost()).await },
            async { assert!(leases.tell(SplitId(1), Token(10), true)) }
        );
        waits.unwrap();
        held.lost().await;
        assert!(!leases.tell(SplitId(1), Token(10), true));
    }

    #[test]
    fn a_verdict_after_the_handlers_answer_is_no_news() {
        let leases = Leases::default();
        let held = leases.insert(SplitId(1), Token(10));
        held.answered();
        assert!(!leases.tell(SplitId(1), Token(10), true));
        assert!(!held.is_lost());
    }
}
