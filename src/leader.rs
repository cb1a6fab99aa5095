//! The leader: the process that holds the advisory lock and sees to the duties: often while there is work, and else when
//! they are due.
//!
//! The lock is for economy, not for correctness: every duty is one pass that any number of callers may run
//! at once, so two processes that both believe they lead do no harm. Still, a leader whose connection is
//! lost, or has not answered for [`TRUST`], steps down at once, and another one leads within seconds.

mod duty;
mod fire;
mod rest;
mod term;

pub use duty::{BATCH, Duty, Report};
pub use fire::{fire, plan_named};

use crate::jitter::about;
use crate::store::{Store, lead};
use crate::{Error, ErrorKind, Result};
use rest::Rests;
use sqlx::postgres::PgConnectOptions;
use std::time::Duration;
use term::Term;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The pause between two tries for the lock. Each candidate asks, all the time, and workers tick where nobody leads.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// The first and the longest pause after the database refused, or a pooler was found.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// Longest wait for the answer to one try.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// How a candidate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Somebody else leads, or nobody knows yet.
    Waiting,
    /// This process leads.
    Leading {
        /// The number of its term; a later leader's is greater.
        term: i64,
    },
    /// It can't lead for now, and why.
    Unfit {
        /// The reason, for people.
        reason: String,
    },
    /// It has ended.
    Stopped,
}

/// A candidate for leading one database.
#[derive(Debug)]
pub struct Leader {
    direct: PgConnectOptions,
    id: Uuid,
    name: String,
    standing: watch::Sender<Standing>,
}

impl Leader {
    /// A candidate called `name`. `direct` leads past any transaction pooler. Its identity is new for each
    /// call: names of hosts repeat.
    pub fn new(direct: PgConnectOptions, name: impl Into<String>) -> Self {
        Self {
            direct,
            id: Uuid::now_v7(),
            name: name.into(),
            standing: watch::Sender::new(Standing::Waiting),
        }
    }

    /// How it stands, now and whenever that changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Tries to lead, leads, and tries again after a loss, until `shutdown`. Returns how many terms it had.
    /// Trouble with the database never ends it.
    pub async fn run(self, shutdown: CancellationToken) -> usize {
        let mut terms = 0;
        let mut pause = REFUSED_FIRST;
        loop {
            // Dropping a campaign ends its sessions, and a lock with them.
            let elected = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                elected = self.campaign() => elected,
            };
            match elected {
                Ok(term) => {
                    terms += 1;
                    pause = REFUSED_FIRST;
                    self.reign(term, &shutdown).await;
                }
                Err(error) => {
                    self.unfit(&error);
                    wait(pause, &shutdown).await;
                    pause = (pause * 2).min(REFUSED_MAX);
                }
            }
        }
        self.standing.send_replace(Standing::Stopped);
        terms
    }

    /// Waits for the lock, and opens a term.
    async fn campaign(&self) -> Result<Term> {
        if answered(lead::is_pooled(&self.direct)).await? {
            return Err(Error::new(
                ErrorKind::Config,
                "a transaction pooler stands between: give an address without it in DATABASE_DIRECT_URL",
            ));
        }
        let mut connection = answered(lead::open(&self.direct)).await?;
        self.standing.send_replace(Standing::Waiting);
        loop {
            let asked = Instant::now();
            if answered(lead::try_lock(&mut connection)).await? {
                let number = answered(lead::lead(&mut connection, self.id, &self.name)).await?;
                return Ok(Term { number, connection, asked });
            }
            tokio::time::sleep(about(TRY_EVERY)).await;
        }
    }

    /// Runs the duties for as long as the lock is certain.
    async fn reign(&self, term: Term, shutdown: &CancellationToken) {
        let number = term.number;
        tracing::info!(leader.term = number, leader.name = %self.name, "{} leads in term {number}", self.name);
        self.standing.send_replace(Standing::Leading { term: number });
        let store = Store::new(lead::duty_pool(&self.direct, duty::PASS_MAX));
        let over = CancellationToken::new();
        let rests = Rests::new();
        let mut duties = duty::start_all(&store, &rests, &over);
        let ended = tokio::select! {
            ended = term.hold(&rests, shutdown) => ended,
            Some(Err(panic)) = duties.join_next() => {
                Err(Error::new(ErrorKind::Database, format!("a duty broke: {panic}")).caused_by(panic))
            }
        };
        over.cancel();
        if let Err(error) = ended {
            self.standing.send_replace(Standing::Waiting);
            tracing::warn!(leader.term = number, %error, "{} steps down from term {number}: {error}", self.name);
        }
        // They end at once; what they have sent to the database ends by its statement_timeout.
        while duties.join_next().await.is_some() {}
        tokio::time::timeout(ANSWER_MAX, store.pool().close()).await.ok();
    }

    /// Says once why it can't lead; the same reason again is not news.
    fn unfit(&self, error: &Error) {
        let news = Standing::Unfit { reason: error.to_string() };
        let changed = self.standing.send_if_modified(|standing| {
            let changed = *standing != news;
            *standing = news;
            changed
        });
        if changed {
            tracing::warn!(leader.name = %self.name, %error, "{} cannot lead: {error}", self.name);
        }
    }
}

/// The answer, or an error when it takes longer than [`ANSWER_MAX`].
async fn answered<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(ANSWER_MAX, call).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Database, format!("the database did not answer within {ANSWER_MAX:?}")))
    })
}

/// About `pause`, or until `stop`.
async fn wait(pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => (),
        () = tokio::time::sleep(about(pause)) => (),
    }
}
