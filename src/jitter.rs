//! Pauses that are not the same everywhere.

use std::time::Duration;

/// A fifth more or less, so that processes that started together don't stay in step.
pub(crate) fn about(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.8..1.2))
}
