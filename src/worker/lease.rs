//! The splits this worker holds, from their claim until their outcome is committed.

use crate::id::{SplitId, Token};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How a running split hears of its end.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The lease was taken away: nothing the split does counts any more. Fires `cancel` too.
    pub(super) lost: CancellationToken,
    /// The handler should stop.
    pub(super) cancel: CancellationToken,
}

impl Held {
    fn new() -> Self {
        let lost = CancellationToken::new();
        Self { cancel: lost.child_token(), lost }
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

    /// Tells a split what the database said of it, if it is still held under the token that was asked for.
    pub(super) fn tell(&self, split: SplitId, token: Token, lost: bool) {
        if let Some((current, held)) = self.lock().get(&split)
            && *current == token
        {
            if lost { held.lost.cancel() } else { held.cancel.cancel() }
        }
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
        leases.tell(SplitId(1), Token(10), true);
        assert_eq!(leases.all(), [(SplitId(1), Token(11))]);
        assert!(!new.lost.is_cancelled());
        leases.tell(SplitId(1), Token(11), false);
        assert!(new.cancel.is_cancelled() && !new.lost.is_cancelled());
    }
}
