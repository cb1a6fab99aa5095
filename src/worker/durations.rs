//! How long the splits of a type take: what is short is fetched ahead.

use std::time::Duration;

/// Splits are fetched ahead only where they are so short that the round trip would show; what is long is
/// better left for an idle worker.
const PREFETCH_BELOW: Duration = Duration::from_millis(20);
/// How much one split's duration moves the mean.
const MEAN_WEIGHT: f64 = 0.1;

/// How long splits take.
#[derive(Debug, Default)]
pub(super) struct Durations {
    /// Mean in seconds, once one has run.
    mean: Option<f64>,
}

impl Durations {
    pub(super) fn took(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let mean = self.mean.unwrap_or(took);
        self.mean = Some(mean + MEAN_WEIGHT * (took - mean));
    }

    /// Whether they are so short that it's worth to fetch some ahead.
    pub(super) fn are_short(&self) -> bool {
        self.mean.is_some_and(|mean| mean < PREFETCH_BELOW.as_secs_f64())
    }

    /// Nothing is fetched ahead, until splits have proven to be short again.
    pub(super) fn forget(&mut self) {
        self.mean = None;
    }
}
