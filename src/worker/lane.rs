//! One task type in a worker: its slots, what runs, what waits.

use super::LaneSpec;
use super::lease::Held;
use crate::handler::Erased;
use crate::store::claim::Claimed;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Splits are fetched ahead only where they are so short that the round trip would show; what is long is
/// better left for an idle worker.
const PREFETCH_BELOW: Duration = Duration::from_millis(20);
/// How much one split's duration moves the mean.
const MEAN_WEIGHT: f64 = 0.1;

pub(super) struct Lane {
    pub(super) task_type: String,
    pub(super) handler: Arc<dyn Erased>,
    slots: usize,
    running: usize,
    /// Room kept for claims under way.
    pub(super) reserved: usize,
    queued: VecDeque<(Claimed, Held)>,
    /// Mean duration of a split in seconds, once one has run.
    mean: Option<f64>,
}

impl Lane {
    pub(super) fn new(spec: LaneSpec) -> Self {
        let LaneSpec { task_type, slots, handler } = spec;
        Self { task_type, handler, slots, running: 0, reserved: 0, queued: VecDeque::new(), mean: None }
    }

    /// How many splits to ask for: the free slots, and as many again ahead when splits are short.
    pub(super) fn room(&self) -> usize {
        let ahead = match self.mean {
            Some(mean) if mean < PREFETCH_BELOW.as_secs_f64() => self.slots,
            _ => 0,
        };
        (self.slots + ahead).saturating_sub(self.running + self.reserved + self.queued.len())
    }

    pub(super) fn queue(&mut self, split: Claimed, held: Held) {
        self.queued.push_back((split, held));
    }

    /// The next split to start, if a slot is free; the slot is taken.
    pub(super) fn start(&mut self) -> Option<(Claimed, Held)> {
        if self.running >= self.slots {
            return None;
        }
        let next = self.queued.pop_front()?;
        self.running += 1;
        Some(next)
    }

    /// A split that waits, to be given back; it counts as running until it is.
    pub(super) fn give_back(&mut self) -> Option<(Claimed, Held)> {
        let next = self.queued.pop_front()?;
        self.running += 1;
        Some(next)
    }

    /// A slot is free again; `took` where the handler ran to its end.
    pub(super) fn ended(&mut self, took: Option<Duration>) {
        self.running = self.running.saturating_sub(1);
        if let Some(took) = took.map(|took| took.as_secs_f64()) {
            let mean = self.mean.unwrap_or(took);
            self.mean = Some(mean + MEAN_WEIGHT * (took - mean));
        }
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }
}
