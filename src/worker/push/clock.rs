//! The database's time between two looks at it: what is signed says when, and no clock of this machine decides that.

use chrono::{DateTime, TimeDelta, Utc};
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// The moment that was read, and when.
#[derive(Debug)]
pub(super) struct Clock(Mutex<(DateTime<Utc>, Instant)>);

impl Clock {
    /// It is `at` now.
    pub(super) fn new(at: DateTime<Utc>) -> Self {
        Self(Mutex::new((at, Instant::now())))
    }

    /// It is `at` now, whatever was thought.
    pub(super) fn set(&self, at: DateTime<Utc>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (at, Instant::now());
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        let (at, read) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at + TimeDelta::from_std(read.elapsed()).unwrap_or_default()
    }
}
