//! Putting a worker together.

use super::{Core, LaneSpec, Worker, meta};
use crate::handler::{Erased, Handler, erase};
use crate::store::line::Line;
use crate::store::worker::Registration;
use crate::store::{Store, pool};
use crate::{Error, ErrorKind, Result};
use sqlx::PgPool;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How often to look where nobody says otherwise: one that listens, and one that doesn't.
const POLL: Duration = Duration::from_secs(2);
const POLL_ONLY: Duration = Duration::from_secs(1);
/// More would not make one process faster.
const SLOTS_MAX: usize = 10_000;
const SLOTS_DEFAULT: usize = 1;
const NAME_CHARS_MAX: usize = 100;
const LEASE_LEAST: Duration = Duration::from_secs(1);
const LEASE_MOST: Duration = Duration::from_secs(24 * 60 * 60);
const POLL_LEAST: Duration = Duration::from_millis(10);
const CONTROL_CONNECTIONS: u32 = 2;

/// A type, and the slots it was given, if any.
struct Served {
    task_type: String,
    slots: Option<usize>,
    handler: Arc<dyn Erased>,
}

/// A worker being put together. [`Builder::build`] tells all faults at once.
#[must_use]
pub struct Builder {
    pool: PgPool,
    listen: Option<PgPool>,
    types: Vec<Served>,
    in_flight: Option<usize>,
    name: Option<String>,
    lease: Option<Duration>,
    grace: Duration,
    poll: Option<Duration>,
    timeout: Duration,
    control_connections: u32,
    early_slots: bool,
}

impl Builder {
    pub(super) fn new(pool: PgPool) -> Self {
        Self {
            listen: Some(pool.clone()),
            pool,
            types: Vec::new(),
            in_flight: None,
            name: None,
            lease: None,
            grace: Duration::from_secs(30),
            poll: None,
            timeout: Duration::from_secs(15 * 60),
            control_connections: CONTROL_CONNECTIONS,
            early_slots: false,
        }
    }

    /// Serves the handler's own type, in one slot unless [`Builder::slots`] follows or [`Builder::in_flight`] is given.
    pub fn handler<H: Handler>(self, handler: H) -> Self {
        self.handler_as(H::TASK_TYPE, handler)
    }

    /// Serves a type of another name.
    pub fn handler_as<H: Handler>(self, task_type: impl Into<String>, handler: H) -> Self {
        self.erased(task_type, erase(handler))
    }

    /// Serves a type by a command.
    #[cfg(feature = "cli")]
    pub fn exec(self, task_type: impl Into<String>, exec: super::Exec) -> Self {
        self.erased(task_type, exec.handler())
    }

    /// Serves a type whose handler is no Rust type of its own.
    pub(super) fn erased(mut self, task_type: impl Into<String>, handler: Arc<dyn Erased>) -> Self {
        self.types.push(Served { task_type: task_type.into(), slots: None, handler });
        self
    }

    /// How many splits of the handler added last run at once in this worker. Default 1, or all of [`Builder::in_flight`].
    pub fn slots(mut self, slots: usize) -> Self {
        match self.types.last_mut() {
            Some(served) => served.slots = Some(slots),
            None => self.early_slots = true,
        }
        self
    }

    /// How many splits of all types together run at once in this worker, whichever have work; a type with slots of its own
    /// stays within those besides. Default: no bound but the slots.
    pub fn in_flight(mut self, splits: usize) -> Self {
        self.in_flight = Some(splits);
        self
    }

    /// A name for people. Default: `worker-` and the beginning of its id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The lease of its claims, 1 s to 1 day. Default: the longest of the claimed types'.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long started splits may take to finish after a stop. Default 30 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How often to look without being notified, at least 10 ms. Default 2 s, or 1 s for one that doesn't listen, spread by a fifth.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = Some(poll);
        self
    }

    /// How long a split may run where the database names no limit. Default 15 min.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Listens through another pool's address: a direct one, where the work pool goes through a pooler.
    pub fn listen_through(mut self, direct: PgPool) -> Self {
        self.listen = Some(direct);
        self
    }

    /// Doesn't listen: work is found by polling alone. For transaction poolers without a direct address.
    pub fn poll_only(mut self) -> Self {
        self.listen = None;
        self
    }

    /// How many connections the protocol uses beside the pool. Default 2; two more are for claims and completions, two for heartbeats and
    /// listening.
    pub fn control_connections(mut self, connections: u32) -> Self {
        self.control_connections = connections;
        self
    }

    /// The worker, not yet connected.
    ///
    /// # Errors
    /// Config, naming every fault.
    pub fn build(self) -> Result<Worker> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the worker can't be built: {}", faults.join("; ")),
            ));
        }
        let id = Uuid::now_v7();
        let name = self.name.unwrap_or_else(|| {
            let id = id.simple().to_string();
            format!("worker-{}", &id[id.len() - 8..])
        });
        let own = self.in_flight.unwrap_or(SLOTS_DEFAULT);
        let lanes: Vec<_> = self
            .types
            .into_iter()
            .map(|Served { task_type, slots, handler }| LaneSpec {
                task_type,
                slots: slots.unwrap_or(own),
                handler,
            })
            .collect();
        let task_types: Vec<_> = lanes.iter().map(|lane| lane.task_type.clone()).collect();
        let slots = lanes.iter().map(|lane| lane.slots).sum::<usize>();
        let slots = self.in_flight.map_or(slots, |most| most.min(slots));
        let registration = Registration {
            worker: id,
            name: name.clone(),
            task_types: task_types.clone(),
            slots: i32::try_from(slots).unwrap_or(i32::MAX),
            meta: meta(&lanes),
        };
        let core = Core {
            id,
            name,
            task_types,
            registration,
            control: Store::new(pool::beside(&self.pool, self.control_connections)),
            lines: [0, 1].map(|_| Line::beside(&self.pool)),
            pulse: Line::beside(&self.pool),
            work: self.pool,
            lease: self.lease,
            grace: self.grace,
            poll: self.poll.unwrap_or(if self.listen.is_some() { POLL } else { POLL_ONLY }),
            default_timeout: self.timeout,
        };
        Ok(Worker { core: Arc::new(core), lanes, in_flight: self.in_flight, listen: self.listen })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.types.is_empty() {
            faults.push("it has no handler".to_owned());
        }
        if self.early_slots {
            faults.push("slots were given before any handler".to_owned());
        }
        let mut seen = HashSet::new();
        for Served { task_type, slots, .. } in &self.types {
            if !is_type_name(task_type) {
                faults.push(format!("task type {task_type:?} is not 1 to 100 characters of a-z 0-9 _ . : -"));
            }
            if !seen.insert(task_type) {
                faults.push(format!("task type {task_type:?} has two handlers"));
            }
            if let Some(slots) = slots
                && !(1..=SLOTS_MAX).contains(slots)
            {
                faults.push(format!("task type {task_type:?} has {slots} slots, not 1 to {SLOTS_MAX}"));
            }
        }
        if let Some(in_flight) = self.in_flight
            && !(1..=SLOTS_MAX).contains(&in_flight)
        {
            faults.push(format!("in_flight is {in_flight}, not 1 to {SLOTS_MAX}"));
        }
        if let Some(name) = &self.name
            && (name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains('\0'))
        {
            faults.push(format!("the name {name:?} is not 1 to {NAME_CHARS_MAX} characters"));
        }
        if let Some(lease) = self.lease
            && !(LEASE_LEAST..=LEASE_MOST).contains(&lease)
        {
            faults.push(format!("the lease {lease:?} is not within {LEASE_LEAST:?} to {LEASE_MOST:?}"));
        }
        if let Some(poll) = self.poll
            && poll < POLL_LEAST
        {
            faults.push(format!("the poll interval {poll:?} is below {POLL_LEAST:?}"));
        }
        if self.timeout.is_zero() {
            faults.push("the timeout is zero".to_owned());
        }
        if self.control_connections == 0 {
            faults.push("it has no control connection".to_owned());
        }
        faults
    }
}

fn is_type_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.:-".contains(&b))
}
