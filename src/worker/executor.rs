//! One split, from its slot to its outcome.

use super::Core;
use super::lane::Lane;
use super::lease::Held;
use super::settle::{Settled, settle};
use super::signals::Signals;
use crate::handler::{Answer, Context, Door, Erased, HandlerError, Settlement, error_json, settlement};
use crate::id::{SplitId, TaskId, Token};
use crate::store::claim::Claimed;
use crate::store::{complete, sqlstate};
use crate::{Error, ErrorKind};
use serde_json::value::RawValue;
use sqlx::PgTransaction;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

/// The database takes a split back when its time is over: give up a quarter of the time before that, or a second,
/// so that the failure on record is ours, with its message.
const MARGIN_PART: u32 = 4;
const MARGIN_MOST: Duration = Duration::from_secs(1);

/// How the slot was left.
pub(super) enum Ended {
    /// Done, to be completed with the next batch.
    Finished(Option<Box<RawValue>>),
    /// Its outcome is stored, or no longer matters.
    Settled(Settled),
}

type Answered = Result<Answer, HandlerError>;
/// Aborted when this is dropped, so a dropped worker leaves no handler running.
type Body = AbortOnDropHandle<(Option<PgTransaction<'static>>, Answered)>;

/// Why a body was not waited for.
enum Cut {
    TimedOut,
    LeaseLost,
    GraceOver,
}

/// What is said of a split after the handler has it.
struct Who {
    task_id: TaskId,
    split_id: SplitId,
    token: Token,
    task_type: Arc<str>,
    attempt: i32,
}

/// Everything one execution needs.
pub(super) struct Execution {
    core: Arc<Core>,
    signals: Arc<Signals>,
    handler: Arc<dyn Erased>,
    who: Who,
    held: Held,
    limit: Duration,
}

impl Execution {
    pub(super) fn new(
        core: &Arc<Core>,
        signals: &Arc<Signals>,
        lane: &Lane,
        split: &Claimed,
        held: Held,
    ) -> Self {
        let limit = split.limit().unwrap_or(core.default_timeout);
        let (core, signals, handler) = (core.clone(), signals.clone(), lane.handler.clone());
        let who = Who {
            task_id: split.task_id,
            split_id: split.split_id,
            token: split.token,
            task_type: split.task_type.clone(),
            attempt: split.attempt,
        };
        Self { core, signals, handler, who, held, limit }
    }

    /// Runs the handler in a task of its own, so that its panic is an answer, and stores what came of it.
    pub(super) async fn run(self, split: Box<Claimed>) -> Ended {
        let mut body = self.spawn_body(split);
        // Most bodies are through when they are first looked at; only the others are worth a watch.
        tokio::task::yield_now().await;
        let cut = tokio::select! {
            biased;
            joined = &mut body => {
                self.held.answered();
                return match joined.map(|(transaction, answer)| (settlement(answer), transaction)) {
                    Ok((Settlement::Complete(result), None)) => Ended::Finished(result),
                    // What is rare is boxed: a future is moved as a whole when it is spawned.
                    answered => Ended::Settled(Box::pin(self.answered(answered)).await),
                };
            }
            () = tokio::time::sleep(self.limit - (self.limit / MARGIN_PART).min(MARGIN_MOST)) => Cut::TimedOut,
            () = self.lost_for_a_while() => Cut::LeaseLost,
            () = self.signals.abort.cancelled() => Cut::GraceOver,
        };
        Ended::Settled(Box::pin(self.cut_short(cut, body)).await)
    }

    async fn cut_short(&self, cut: Cut, mut body: Body) -> Settled {
        self.held.cancel();
        self.held.answered();
        body.abort();
        let settled = match cut {
            Cut::LeaseLost => Settled::Lost,
            Cut::GraceOver => self.settle(Settlement::Release).await,
            Cut::TimedOut => {
                let message = format!("timed out after {:?}", self.limit);
                self.settle_failure("timeout", &message).await
            }
        };
        // Code that never awaits can't be stopped: its slot stays taken as long as it really runs.
        tokio::select! {
            _ = &mut body => {}
            () = self.signals.abort.cancelled() => {}
        }
        settled
    }

    fn spawn_body(&self, split: Box<Claimed>) -> Body {
        let door = Door::Pools {
            control: self.core.control.clone(),
            work: self.core.work.clone(),
            limit: self.limit,
            transaction: None,
        };
        let mut context = Context::new(split, self.held.cancellation(), self.signals.stop.clone(), door);
        let handler = self.handler.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let answer = handler.run(&mut context).await;
            (context.into_transaction(), answer)
        }))
    }

    /// A handler that ignores the loss of its lease is ended after the grace: its work counts for nothing.
    async fn lost_for_a_while(&self) {
        self.held.lost().await;
        tokio::time::sleep(self.core.grace).await;
    }

    async fn answered(
        &self,
        answered: Result<(Settlement, Option<PgTransaction<'static>>), JoinError>,
    ) -> Settled {
        match answered {
            Err(error) => self.panicked(error).await,
            Ok((Settlement::Complete(result), Some(transaction))) => {
                self.complete_in(transaction, result).await
            }
            Ok((other, transaction)) => {
                // Dropped, it is rolled back; before the outcome is stored, so its locks are gone then.
                if let Some(transaction) = transaction {
                    let _ = tokio::time::timeout(self.limit, transaction.rollback()).await;
                }
                if let Settlement::Fail { error, .. } = &other {
                    self.warn_of(error);
                }
                self.settle(other).await
            }
        }
    }

    /// The user's writes and the completion commit together or not at all.
    async fn complete_in(
        &self,
        mut transaction: PgTransaction<'static>,
        result: Option<Box<RawValue>>,
    ) -> Settled {
        let (split, token) = self.key();
        let commit = async {
            complete::complete(&mut *transaction, split, token, result.as_deref()).await?;
            transaction.commit().await.map_err(Error::from)
        };
        let error = match tokio::time::timeout(self.limit, commit).await {
            Ok(Ok(())) => return Settled::Succeeded,
            Ok(Err(error)) => error,
            Err(_) => {
                Error::new(ErrorKind::Database, format!("the commit did not end within {:?}", self.limit))
            }
        };
        match error.kind() {
            ErrorKind::LeaseLost | ErrorKind::NotFound => Settled::Lost,
            ErrorKind::Cancelled => self.settle(Settlement::Release).await,
            // Whether a commit without an answer happened, the token tells: if it did, this changes nothing.
            _ => {
                let class = sqlstate::code(&error).unwrap_or_else(|| "commit".to_owned());
                self.settle_failure(&class, &error.to_string()).await
            }
        }
    }

    async fn panicked(&self, error: JoinError) -> Settled {
        match error.try_into_panic() {
            Ok(panic) => self.settle_failure("panic", &panic_message(panic.as_ref())).await,
            // Nobody aborts a body that is still waited for, so the runtime is going down.
            Err(_) => self.settle(Settlement::Release).await,
        }
    }

    async fn settle_failure(&self, class: &str, message: &str) -> Settled {
        let error = error_json(Some(class), message);
        self.warn_of(&error);
        self.settle(Settlement::Fail { error, retry: true, retry_in: None }).await
    }

    async fn settle(&self, settlement: Settlement) -> Settled {
        settle(&self.core, &self.signals, self.key(), &self.held, settlement).await
    }

    fn key(&self) -> (SplitId, Token) {
        (self.who.split_id, self.who.token)
    }

    fn warn_of(&self, error: &serde_json::Value) {
        tracing::warn!(
            task.id = %self.who.task_id,
            split.id = %self.who.split_id,
            task_type = %self.who.task_type,
            attempt = self.who.attempt,
            error = error["message"].as_str().unwrap_or_default(),
            "attempt {} of split {} failed", self.who.attempt, self.who.split_id
        );
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    message
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked without a message".to_owned())
}
