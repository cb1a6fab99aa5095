//! How the parts of a worker wake and stop one another.

use super::tick::TickDue;
use crate::store::listen::Heard;
use crate::store::state::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Each is a fact or a wake-up; none carries data.
pub(super) struct Signals {
    /// Claim nothing more, give back what isn't started, let the rest finish.
    pub(super) stop: Arc<CancellationToken>,
    /// The grace is over: end what still runs.
    pub(super) abort: CancellationToken,
    /// The worker is through: heartbeats and listener end.
    pub(super) done: CancellationToken,
    /// The first `LISTEN` succeeded or failed.
    pub(super) listener_answered: CancellationToken,
    /// There may be work.
    pub(super) look: Notify,
    /// Ask for verdicts now.
    pub(super) beat: Notify,
    /// An operator wants nothing new claimed.
    pub(super) quiet: AtomicBool,
    /// When somebody of this worker should tick.
    pub(super) tick_due: TickDue,
    /// The database doesn't know this worker (any more).
    pub(super) unknown: AtomicBool,
}

impl Signals {
    pub(super) fn new(shutdown: &CancellationToken) -> Self {
        Self {
            stop: Arc::new(shutdown.child_token()),
            abort: CancellationToken::new(),
            done: CancellationToken::new(),
            listener_answered: CancellationToken::new(),
            look: Notify::new(),
            beat: Notify::new(),
            quiet: AtomicBool::new(false),
            tick_due: TickDue::default(),
            unknown: AtomicBool::new(false),
        }
    }

    pub(super) fn hear(&self, task_types: &[String], what: &Heard) {
        match what {
            Heard::Listening => {
                self.look.notify_one();
                self.beat.notify_one();
            }
            Heard::Deaf => {}
            Heard::Ready(task_type) => {
                if task_types.contains(task_type) {
                    self.look.notify_one();
                }
            }
            // A pause may have ended, a split may have been cancelled: both are asked at once.
            Heard::Control(_) => {
                self.beat.notify_one();
                self.look.notify_one();
            }
        }
        self.listener_answered.cancel();
    }

    pub(super) fn obey(&self, command: Command) {
        let was_quiet = self.quiet.swap(command == Command::Quiet, Ordering::Relaxed);
        match command {
            Command::Run if was_quiet => self.look.notify_one(),
            Command::Run | Command::Quiet => {}
            Command::Terminate => self.stop.cancel(),
        }
    }
}
