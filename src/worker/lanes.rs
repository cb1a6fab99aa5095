//! All task types of a worker: how much they take in together, and which of them starts next.

use super::Core;
use super::durations::Durations;
use super::lane::{AHEAD_MOST, Lane};
use super::lease::Held;
use crate::store::claim::{Ask, Claimed};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A lane whose turn to start is to come.
struct Turn {
    at: usize,
    /// What waited when it lined up; what came later is for its next turn.
    left: usize,
}

/// What a claim may bring.
pub(super) struct Room {
    /// How many of each lane at most; 0 for one that is full.
    pub(super) of_each: Vec<usize>,
    /// How many of all together.
    pub(super) together: usize,
}

impl Room {
    /// Names all types, those without room too: a claim remembers by their places which of them have work.
    pub(super) fn ask(&self, core: &Core) -> Ask {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        Ask {
            worker: core.id,
            task_types: core.task_types.clone(),
            per_type: self.of_each.iter().map(|n| count(*n)).collect(),
            most: count(self.together),
            lease: core.lease,
        }
    }
}

/// What a claim under way was promised.
#[derive(Default)]
pub(super) struct Reserved {
    of_each: Vec<(usize, usize)>,
    together: usize,
}

impl Reserved {
    pub(super) fn is_nothing(&self) -> bool {
        self.of_each.is_empty()
    }

    /// How many splits of all lanes.
    pub(super) fn together(&self) -> usize {
        self.together
    }
}

pub(super) struct Lanes {
    lanes: Vec<Lane>,
    places: HashMap<Arc<str>, usize>,
    /// How many splits run at once over all lanes, where that is bounded beyond each lane's own slots.
    in_flight: Option<usize>,
    running: usize,
    reserved: usize,
    queued: usize,
    durations: Durations,
    /// Lanes that could start a split, each once.
    turns: VecDeque<Turn>,
    /// Nothing has waited since before this: a bound that is looked up only when a second of it has passed.
    oldest: Instant,
}

impl Lanes {
    pub(super) fn new(lanes: Vec<Lane>, in_flight: Option<usize>) -> Self {
        Self {
            places: lanes.iter().enumerate().map(|(at, lane)| (lane.task_type.as_str().into(), at)).collect(),
            lanes,
            in_flight,
            running: 0,
            reserved: 0,
            queued: 0,
            durations: Durations::default(),
            turns: VecDeque::new(),
            oldest: Instant::now(),
        }
    }

    /// How many splits run at once.
    pub(super) fn slots(&self) -> usize {
        let sum = self.lanes.iter().map(Lane::slots).sum();
        self.in_flight.map_or(sum, |most| most.min(sum))
    }

    pub(super) fn lane(&self, at: usize) -> &Lane {
        &self.lanes[at]
    }

    /// What to ask for; none where everything is full.
    pub(super) fn room(&self, most: usize) -> Option<Room> {
        let bound = self.in_flight.map_or(most, |slots| {
            let ahead = if self.durations.are_short() { slots } else { 0 };
            (slots + ahead).saturating_sub(self.running + self.reserved + self.queued).min(most)
        });
        if bound == 0 {
            return None;
        }
        let of_each: Vec<usize> = self.lanes.iter().map(|lane| lane.room().min(bound)).collect();
        let together = of_each.iter().sum::<usize>().min(bound);
        (together > 0).then_some(Room { of_each, together })
    }

    /// Keeps room for what is asked for.
    pub(super) fn reserve(&mut self, room: Room) -> Reserved {
        let Room { of_each, together } = room;
        let of_each: Vec<_> = of_each.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        for (at, count) in &of_each {
            self.lanes[*at].reserved += count;
        }
        self.reserved += together;
        Reserved { of_each, together }
    }

    /// The claim has been answered.
    pub(super) fn unreserve(&mut self, reserved: &Reserved) {
        for (at, count) in &reserved.of_each {
            self.lanes[*at].reserved -= count;
        }
        self.reserved -= reserved.together;
    }

    /// A claimed split waits for a slot; gives it back if its type is none of ours.
    pub(super) fn queue(
        &mut self,
        split: Box<Claimed>,
        held: Held,
        now: Instant,
    ) -> Result<(), Box<Claimed>> {
        let Some(&at) = self.places.get(&split.task_type) else { return Err(split) };
        if self.queued == 0 {
            self.oldest = now;
        }
        self.queued += 1;
        self.lanes[at].queue(split, held, now);
        if let Some(turn) = self.turns.back_mut().filter(|turn| turn.at == at) {
            turn.left += 1;
        } else {
            self.line_up(at);
        }
        Ok(())
    }

    /// A lane that could start something stands in the line once, with all that it has.
    fn line_up(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        if lane.can_start() && !lane.in_line {
            lane.in_line = true;
            self.turns.push_back(Turn { at, left: lane.queued() });
        }
    }

    /// The next split to start, if a slot is free; the slot is taken. Lanes take turns, each with what it had when it lined up: so
    /// splits start about in the order in which they were claimed, and what was claimed together ends together.
    pub(super) fn start(&mut self, now: Instant) -> Option<(usize, Box<Claimed>, Held)> {
        while self.in_flight.is_none_or(|most| self.running < most) {
            let turn = self.turns.front_mut()?;
            let at = turn.at;
            let started = if turn.left == 0 { None } else { self.lanes[at].start(now) };
            if let Some((split, held)) = started {
                turn.left -= 1;
                self.running += 1;
                self.queued -= 1;
                return Some((at, split, held));
            }
            self.turns.pop_front();
            self.lanes[at].in_line = false;
            self.line_up(at);
        }
        None
    }

    /// A split that waits, to be given back; it counts as running until it is.
    pub(super) fn give_back(&mut self) -> Option<(usize, Box<Claimed>, Held)> {
        if self.queued == 0 {
            return None;
        }
        let found = (0..self.lanes.len()).find_map(|at| self.lanes[at].give_back().map(|it| (at, it)));
        self.gone_back(found)
    }

    /// A split that has waited too long behind slow ones, to be given back.
    pub(super) fn give_back_overdue(&mut self, now: Instant) -> Option<(usize, Box<Claimed>, Held)> {
        if self.queued == 0 || now < self.oldest + AHEAD_MOST {
            return None;
        }
        let found =
            (0..self.lanes.len()).find_map(|at| self.lanes[at].give_back_overdue(now).map(|it| (at, it)));
        match found {
            Some(_) => self.durations.forget(),
            None => self.oldest = self.lanes.iter().filter_map(Lane::waits_since).min().unwrap_or(now),
        }
        self.gone_back(found)
    }

    fn gone_back(
        &mut self,
        found: Option<(usize, (Box<Claimed>, Held))>,
    ) -> Option<(usize, Box<Claimed>, Held)> {
        let (at, (split, held)) = found?;
        self.running += 1;
        self.queued -= 1;
        Some((at, split, held))
    }

    /// When to ask for what waits too long, if something waits.
    pub(super) fn overdue_at(&self, now: Instant) -> Option<Instant> {
        match self.oldest + AHEAD_MOST {
            _ if self.queued == 0 => None,
            earliest if now < earliest => Some(earliest),
            _ => self.lanes.iter().filter_map(Lane::overdue_at).min(),
        }
    }

    /// A slot of a lane is free again; `took` where the handler ran to its end.
    pub(super) fn ended(&mut self, at: usize, took: Option<Duration>) {
        self.running = self.running.saturating_sub(1);
        self.lanes[at].ended(took);
        if let Some(took) = took {
            self.durations.took(took);
        }
        self.line_up(at);
    }

    pub(super) fn has_queued(&self) -> bool {
        self.queued > 0
    }
}
