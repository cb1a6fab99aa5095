//! The splits this worker holds, from their claim until their outcome is committed.

use crate::id::{SplitId, Token};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How a running split hears of its end.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The lease was taken away: nothing the split does counts any more. Fires `cancel` too.
    pub(super) lost: CancellationToken,
    /// The handler should stop.
    pub(super) cancel: CancellationToken,
    /// The handler has answered: verdicts come too late to matter, and "lost" may only mean that the outcome
    /// was committed while the heartbeat was under way.
    answered: Arc<AtomicBool>,
}

impl Held {
    fn new() -> Self {
        let lost = CancellationToken::new();
        Self { cancel: lost.child_token(), lost, answered: Arc::default() }
    }

    /// From now on only the outcome's own call can tell whether the lease still holds.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
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
        let held = Held::new();
        if let Some((_, older)) = self.lock().insert(split, (token, held.clone())) {
            older.lost.cancel();
        }
        held
    }

    /// Lets go of a split, if it is still held under this token.
    pub(super) fn remove(&self, split: SplitId, token: Token) {
        let mut held = self.lock();
        if held.get(&split).is_some_and(|(current, _)| *current == token) {
            held.remove(&split);
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
        let told = if lost { &held.lost } else { &held.cancel };
        if held.answered.load(Ordering::Relaxed) || told.is_cancelled() {
            return false;
        }
        told.cancel();
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
        assert!(old.lost.is_cancelled() && old.cancel.is_cancelled());
        assert!(!new.cancel.is_cancelled());
        leases.remove(SplitId(1), Token(10));
        assert!(!leases.tell(SplitId(1), Token(10), true));
        assert_eq!(leases.all(), [(SplitId(1), Token(11))]);
        assert!(!new.lost.is_cancelled());
        assert!(leases.tell(SplitId(1), Token(11), false));
        assert!(new.cancel.is_cancelled() && !new.lost.is_cancelled());
    }

    #[test]
    fn a_verdict_after_the_handlers_answer_is_no_news() {
        let leases = Leases::default();
        let held = leases.insert(SplitId(1), Token(10));
        held.answered();
        assert!(!leases.tell(SplitId(1), Token(10), true));
        assert!(!held.lost.is_cancelled());
    }
}
