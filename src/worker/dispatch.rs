//! The loop that owns all of a worker's state: fills slots, gathers what finished, makes the rounds.

use super::backoff::Backoff;
use super::executor::{Ended, Execution};
use super::lanes::{Lanes, Reserved, Room};
use super::lease::{Held, Leases};
use super::pace::Pace;
use super::pauses::Pauses;
use super::round::{Look, Round, round};
use super::settle::{Settled, settle};
use super::signals::Signals;
use super::{Core, Summary};
use crate::handler::Settlement;
use crate::id::{SplitId, Token};
use crate::store::claim::Claimed;
use crate::store::complete::Finished;
use crate::store::state::Completed;
use crate::{Error, ErrorKind, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// How many splits one round completes, and how many it asks for.
const ROUND_SPLITS_MAX: usize = 5_000;
/// So many splits are a round's worth: finished ones are worth a second round beside the one under way.
const ROUND_MANY: usize = 100;
/// How often what has ended steps aside for what is about to; the runtime lets about sixty tasks go first each time.
const GATHER_TURNS: usize = 16;

type Joined = Result<(Id, (Ended, Duration)), JoinError>;

pub(super) struct Dispatcher {
    core: Arc<Core>,
    signals: Arc<Signals>,
    leases: Arc<Leases>,
    lanes: Lanes,
    /// Of all lanes together.
    slots: usize,
    running: JoinSet<(Ended, Duration)>,
    /// Which lane and split each running task is for: a task that ends badly can't say so itself.
    whose: HashMap<Id, (usize, SplitId, Token)>,
    finished: Vec<Finished>,
    rounds: JoinSet<Result<Round>>,
    /// What each round under way is about, in case it fails.
    flights: HashMap<Id, Flight>,
    /// There may be work that nobody asked for yet.
    hungry: bool,
    /// The next look is for no other reason than that time has passed.
    unasked: bool,
    next_look: Instant,
    backoff: Backoff,
    pace: Pace,
    pauses: Pauses,
    /// After a failed round: not before this.
    not_before: Option<Instant>,
    grace_ends: Option<Instant>,
    summary: Summary,
}

/// A round under way.
struct Flight {
    /// What it completes.
    batch: Arc<Vec<Finished>>,
    /// How many splits it asks for.
    asked: Reserved,
}

enum Event {
    Stop,
    GraceOver,
    Look,
    RoundEnded(Result<(Id, Result<Round>), JoinError>),
    SplitEnded(Joined),
}

impl Dispatcher {
    pub(super) fn new(core: Arc<Core>, lanes: Lanes, leases: Arc<Leases>, signals: Arc<Signals>) -> Self {
        Self {
            pauses: Pauses::new(core.poll),
            core,
            signals,
            leases,
            slots: lanes.slots(),
            lanes,
            running: JoinSet::new(),
            whose: HashMap::new(),
            finished: Vec::new(),
            rounds: JoinSet::new(),
            flights: HashMap::new(),
            hungry: true,
            unasked: false,
            next_look: Instant::now(),
            backoff: Backoff::new(),
            pace: Pace::new(Instant::now()),
            not_before: None,
            grace_ends: None,
            summary: Summary::default(),
        }
    }

    /// Works until it is to stop and nothing is left to do.
    pub(super) async fn run(mut self) -> Summary {
        loop {
            if self.grace_ends.is_none() {
                self.fill_slots();
            }
            if self.grace_ends.is_some() && self.through() {
                return self.summary;
            }
            self.begin_round();
            match self.next_event().await {
                Event::Stop => self.begin_stop(),
                Event::GraceOver => self.signals.abort.cancel(),
                Event::Look => {
                    self.hungry = true;
                    self.give_back_overdue();
                }
                Event::RoundEnded(ended) => {
                    self.round_ended(ended);
                    self.give_back_overdue();
                }
                Event::SplitEnded(joined) => {
                    self.split_ended(joined);
                    self.gather().await;
                }
            }
        }
    }

    /// What is through at once ends together: a round that ends whole leases is the cheapest.
    async fn gather(&mut self) {
        for _ in 0..GATHER_TURNS {
            tokio::task::yield_now().await;
            let Some(joined) = self.running.try_join_next_with_id() else { return };
            self.split_ended(joined);
            while let Some(joined) = self.running.try_join_next_with_id() {
                self.split_ended(joined);
            }
        }
    }

    /// One claim, its splits, their outcomes.
    pub(super) async fn once(mut self) -> Result<Summary> {
        let core = self.core.clone();
        let ask = self.room().map(|room| room.ask(&core));
        let first = round(&core, &self.signals, &[], ask, Look::Asked).await?;
        self.take_in(first.claimed);
        self.fill_slots();
        while let Some(joined) = self.running.join_next_with_id().await {
            self.split_ended(joined);
            self.fill_slots();
        }
        let batch = std::mem::take(&mut self.finished);
        if !batch.is_empty() {
            let last = round(&core, &self.signals, &batch, None, Look::Asked).await?;
            self.count(&batch, &last);
        }
        Ok(self.summary)
    }

    fn through(&self) -> bool {
        // After the grace, a database that is away keeps nobody waiting: leases bring the splits back.
        let given_up = self.signals.abort.is_cancelled() && self.not_before.is_some();
        self.running.is_empty() && self.rounds.is_empty() && (self.finished.is_empty() || given_up)
    }

    async fn next_event(&mut self) -> Event {
        let overdue = self.lanes.overdue_at(Instant::now());
        let look = overdue.map_or(self.next_look, |overdue| overdue.min(self.next_look));
        let wake = self.not_before.unwrap_or(look);
        let stopping = self.grace_ends.is_some();
        let aborted = self.signals.abort.is_cancelled();
        tokio::select! {
            joined = self.running.join_next_with_id(), if !self.running.is_empty() => match joined {
                Some(joined) => Event::SplitEnded(joined),
                None => Event::Look,
            },
            Some(ended) = self.rounds.join_next_with_id(), if !self.rounds.is_empty() => Event::RoundEnded(ended),
            () = self.signals.stop.cancelled(), if !stopping => Event::Stop,
            () = tokio::time::sleep_until(self.grace_ends.unwrap_or(wake)), if stopping && !aborted => Event::GraceOver,
            () = self.signals.look.notified(), if !stopping => Event::Look,
            () = tokio::time::sleep_until(wake), if self.rounds.is_empty() => {
                self.not_before = None;
                // Until a round says better; also keeps this branch from firing again at once.
                self.next_look = Instant::now() + self.core.poll;
                self.unasked = true;
                Event::Look
            },
        }
    }

    fn fill_slots(&mut self) {
        let now = Instant::now();
        while let Some((at, split, held)) = self.lanes.start(now) {
            let key = (split.split_id, split.token);
            let work = Execution::new(&self.core, &self.signals, self.lanes.lane(at), &split, held);
            let task = self.running.spawn(async move {
                let started = Instant::now();
                let ended = work.run(split).await;
                (ended, started.elapsed())
            });
            self.whose.insert(task.id(), (at, key.0, key.1));
        }
    }

    /// Stops: what hasn't started goes back at once, in tasks that the grace bounds like all others.
    fn begin_stop(&mut self) {
        self.grace_ends = Some(Instant::now() + self.core.grace);
        while let Some((at, split, held)) = self.lanes.give_back() {
            self.release(at, &split, held);
        }
    }

    /// What was fetched ahead and waits behind slow splits goes to whoever is idle.
    fn give_back_overdue(&mut self) {
        let now = Instant::now();
        while let Some((at, split, held)) = self.lanes.give_back_overdue(now) {
            self.release(at, &split, held);
        }
    }

    fn release(&mut self, at: usize, split: &Claimed, held: Held) {
        let (core, signals) = (self.core.clone(), self.signals.clone());
        let key = (split.split_id, split.token);
        held.answered();
        let task = self.running.spawn(async move {
            let settled = settle(&core, &signals, key, &held, Settlement::Release).await;
            (Ended::Settled(settled), Duration::MAX)
        });
        self.whose.insert(task.id(), (at, key.0, key.1));
    }

    fn room(&self) -> Option<Room> {
        if self.grace_ends.is_some() || self.signals.quiet.load(Ordering::Relaxed) {
            return None;
        }
        self.lanes.room(ROUND_SPLITS_MAX)
    }

    /// Begins a round if there is something to say or to ask. While one is under way finished splits gather, so batches
    /// grow with the load and a lone split doesn't wait. When many have gathered, a second round completes them beside the
    /// one that claims. It claims too where all slots are too few to gather many: what two claims at once are in each
    /// other's way costs less there than waiting.
    fn begin_round(&mut self) {
        if self.not_before.is_some() || self.rounds.len() >= 2 {
            return;
        }
        let beside = !self.rounds.is_empty();
        let claiming = self.flights.values().any(|flight| !flight.asked.is_nothing());
        let least = self.slots.min(ROUND_MANY);
        if beside && claiming && self.finished.len() < least {
            return;
        }
        // Two rounds that end parts of one lease would find it locked, and leave its end to a duty.
        let theirs: HashSet<Token> =
            self.flights.values().flat_map(|flight| flight.batch.iter().map(|one| one.token)).collect();
        let free = self.finished.iter().filter(|one| !theirs.contains(&one.token)).count();
        if beside && claiming && free < least {
            return;
        }
        let may_claim = !claiming || self.slots < ROUND_MANY;
        let room = if may_claim && (self.hungry || !self.finished.is_empty()) { self.room() } else { None };
        if room.is_none() && (free == 0 || (beside && !claiming)) {
            return;
        }
        self.hungry = self.hungry && room.is_none();
        let mut left = ROUND_SPLITS_MAX;
        let batch: Vec<Finished> = self
            .finished
            .extract_if(.., |one| {
                let takes = left > 0 && !theirs.contains(&one.token);
                left -= usize::from(takes);
                takes
            })
            .collect();
        let batch = Arc::new(batch);
        let ask = room.as_ref().map(|room| room.ask(&self.core));
        let asked = room.map(|room| self.lanes.reserve(room)).unwrap_or_default();
        let flight = Flight { batch: batch.clone(), asked };
        let (core, signals) = (self.core.clone(), self.signals.clone());
        let look = match (self.pace.is_brisk(Instant::now()), std::mem::take(&mut self.unasked)) {
            (true, _) => Look::Brisk,
            (false, true) if batch.is_empty() => Look::Unasked,
            _ => Look::Asked,
        };
        let task = self.rounds.spawn(async move { round(&core, &signals, &batch, ask, look).await });
        self.flights.insert(task.id(), flight);
    }

    fn round_ended(&mut self, ended: Result<(Id, Result<Round>), JoinError>) {
        let (id, answer) = ended.unwrap_or_else(|error| {
            let message = "a round ended early";
            (error.id(), Err(Error::new(ErrorKind::Database, message).caused_by(error)))
        });
        let Some(Flight { batch, asked }) = self.flights.remove(&id) else { return };
        self.lanes.unreserve(&asked);
        match answer {
            Ok(round) => {
                self.backoff.reset();
                self.count(&batch, &round);
                if !asked.is_nothing() {
                    let taken = round.claimed.len();
                    self.pace.took(taken, Instant::now());
                    // A claim that found many, or all it asked for, leaves more. One that did not most likely doesn't: the
                    // next look may go with what is about to end.
                    self.hungry |= taken >= asked.together().min(ROUND_MANY);
                    self.next_look = Instant::now() + self.pauses.after(taken, round.wait);
                    self.take_in(round.claimed);
                }
            }
            Err(error) => {
                let pause = self.backoff.next();
                tracing::warn!(worker.id = %self.core.id, %error, retry_in_ms = pause.as_millis(), "a round failed");
                self.finished.extend(batch.iter().cloned());
                self.hungry = true;
                self.not_before = Some(Instant::now() + pause);
            }
        }
    }

    fn take_in(&mut self, claimed: Vec<Claimed>) {
        let now = Instant::now();
        for split in claimed {
            let held = self.leases.insert(split.split_id, split.token);
            if let Err(split) = self.lanes.queue(Box::new(split), held, now) {
                tracing::error!(split.id = %split.split_id, "claimed split {} of a type not asked for", split.split_id)
            }
        }
        if self.grace_ends.is_some() && self.lanes.has_queued() {
            // The stop came while this claim was under way.
            let grace_ends = self.grace_ends;
            self.begin_stop();
            self.grace_ends = grace_ends;
        }
    }

    fn count(&mut self, batch: &[Finished], round: &Round) {
        for (_, verdict) in &round.completed {
            match verdict {
                Completed::Ok | Completed::Already => self.summary.succeeded += 1,
                Completed::Cancelled | Completed::Lost => self.summary.lost += 1,
            }
        }
        self.summary.failed += round.refused.len() as u64;
        self.leases.remove_all(batch.iter().map(|one| (one.split_id, one.token)));
    }

    fn split_ended(&mut self, joined: Joined) {
        let (id, ended) = match joined {
            Ok((id, (ended, took))) => (id, Ok((ended, took))),
            Err(error) => (error.id(), Err(error)),
        };
        let Some((lane, split_id, token)) = self.whose.remove(&id) else { return };
        match ended {
            Ok((Ended::Finished(result), took)) => {
                self.lanes.ended(lane, Some(took));
                // The lease stays until the completion is committed.
                self.finished.push(Finished { split_id, token, result });
                return;
            }
            Ok((Ended::Settled(settled), took)) => {
                self.lanes.ended(lane, (settled == Settled::Succeeded).then_some(took));
                match settled {
                    Settled::Succeeded => self.summary.succeeded += 1,
                    Settled::Failed => self.summary.failed += 1,
                    Settled::Continued => self.summary.continued += 1,
                    Settled::Released => self.summary.released += 1,
                    Settled::Lost => self.summary.lost += 1,
                }
            }
            Err(error) => {
                tracing::error!(split.id = %split_id, %error, "split {split_id} is left to its lease");
                self.lanes.ended(lane, None);
                self.summary.lost += 1;
            }
        }
        self.leases.remove(split_id, token);
    }
}
