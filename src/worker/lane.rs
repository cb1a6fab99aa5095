//! One task type in a worker: its slots, what runs, what waits.

use super::LaneSpec;
use super::durations::Durations;
use super::lease::Held;
use crate::handler::Erased;
use crate::store::claim::Claimed;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What was fetched ahead and waits for so long goes back, for whoever is idle: those before it are slower than thought.
pub(super) const AHEAD_MOST: Duration = Duration::from_secs(1);

/// A split that waits for a slot, and since when.
struct Queued {
    split: Box<Claimed>,
    held: Held,
    since: Instant,
}

pub(super) struct Lane {
    pub(super) task_type: String,
    pub(super) handler: Arc<dyn Erased>,
    slots: usize,
    running: usize,
    /// Room kept for claims under way.
    pub(super) reserved: usize,
    queued: VecDeque<Queued>,
    durations: Durations,
    /// It stands in the line of those that could start a split.
    pub(super) in_line: bool,
    /// When one was started last.
    started: Instant,
}

impl Lane {
    pub(super) fn new(spec: LaneSpec) -> Self {
        let LaneSpec { task_type, slots, handler } = spec;
        Self {
            task_type,
            handler,
            slots,
            running: 0,
            reserved: 0,
            queued: VecDeque::new(),
            durations: Durations::default(),
            in_line: false,
            started: Instant::now(),
        }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// How many splits to ask for: the free slots, and as many again ahead when splits are short.
    pub(super) fn room(&self) -> usize {
        let ahead = if self.durations.are_short() { self.slots } else { 0 };
        (self.slots + ahead).saturating_sub(self.running + self.reserved + self.queued.len())
    }

    pub(super) fn queue(&mut self, split: Box<Claimed>, held: Held, since: Instant) {
        self.queued.push_back(Queued { split, held, since });
    }

    /// Whether a split waits and a slot is free.
    pub(super) fn can_start(&self) -> bool {
        self.running < self.slots && !self.queued.is_empty()
    }

    /// The next split to start, if a slot is free; the slot is taken.
    pub(super) fn start(&mut self, now: Instant) -> Option<(Box<Claimed>, Held)> {
        if !self.can_start() {
            return None;
        }
        self.started = now;
        self.take()
    }

    /// A split that waits, to be given back; it counts as running until it is.
    pub(super) fn give_back(&mut self) -> Option<(Box<Claimed>, Held)> {
        self.take()
    }

    fn take(&mut self) -> Option<(Box<Claimed>, Held)> {
        let Queued { split, held, .. } = self.queued.pop_front()?;
        self.running += 1;
        Some((split, held))
    }

    /// When to ask for what waits too long, if something waits.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        self.queued.front().map(|first| first.since.max(self.started) + AHEAD_MOST)
    }

    /// A split that has waited too long behind slow ones, to be given back. From then on nothing is fetched ahead, until
    /// splits have proven to be short again: else it would come back here at once.
    pub(super) fn give_back_overdue(&mut self, now: Instant) -> Option<(Box<Claimed>, Held)> {
        // Slots that go on, fast, come to it soon, however long the queue is.
        let flows = self.durations.are_short() && now < self.started + AHEAD_MOST;
        if flows || now < self.queued.front()?.since + AHEAD_MOST {
            return None;
        }
        self.durations.forget();
        self.take()
    }

    /// A slot is free again; `took` where the handler ran to its end.
    pub(super) fn ended(&mut self, took: Option<Duration>) {
        self.running = self.running.saturating_sub(1);
        if let Some(took) = took {
            self.durations.took(took);
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Since when the first of what waits does.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.queued.front().map(|first| first.since)
    }
}
