//! URLs as handlers: each split is a signed request to a receiver, whose answer is its outcome (docs/http-handlers.md).
//!
//! [`guard`] says where requests may go, [`client`] sends them within bounds, [`answer`] knows what an answer means, [`breaker`]
//! leaves a receiver alone that does not answer. The types come from [`super::declared`].

mod answer;
mod breaker;
mod client;
mod clock;
mod guard;
mod shared;
mod target;

pub use guard::Network;

pub(super) use shared::Shared;
pub(super) use target::Target;

use super::foreign::{Calls, Request, Shares, inputs};
use crate::handler::{Answer, Context, Erased, HandlerError, Running};
use crate::store::state::Phase;
use crate::webhook::Ticket;
use answer::{Answered, Meaning};
use breaker::{Breaker, Passes};
use client::{Silence, whom};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

/// The most that an outcome may have: a result of what the protocol takes, in its object.
const RESULT_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;
/// The most that the answer to a plan may have.
const PLAN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A worker ends an attempt this part of its time, or a second, before the database does; a request ends before that, so that its
/// end counts for the breaker.
const MARGIN_PART: u32 = 3;
const MARGIN_MOST: Duration = Duration::from_millis(1_300);
/// Where the database names no limit.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// A split that comes while the breaker is not closed goes back after this, so that nobody claims it in circles.
const BACK_AFTER: Duration = Duration::from_secs(1);

/// The handler of one type.
pub(super) struct Push {
    shared: Arc<Shared>,
    target: Target,
    breaker: Arc<Breaker>,
}

impl Push {
    pub(super) fn new(shared: &Arc<Shared>, task_type: &str, target: Target) -> Self {
        Self { shared: shared.clone(), breaker: shared.breaker(task_type), target }
    }

    async fn attempt(&self, context: &Context<'_>) -> Result<Answer, HandlerError> {
        let calls = Calls::of(context)?;
        let limit = context.claimed().limit().unwrap_or(LIMIT);
        let within = limit - (limit / MARGIN_PART).min(MARGIN_MOST);
        let within = self.target.request_timeout.map_or(within, |timeout| timeout.min(within));
        let Some(_place) = self.shared.client.place().await else { return Ok(Answer::GivesBack) };
        let passed = self.passes(context, &calls, within).await;
        if passed == Passes::Not {
            tokio::time::sleep(BACK_AFTER).await;
            return Ok(Answer::GivesBack);
        }
        let body = body(context, &calls).await?;
        let headers = self.headers(context, &body)?;
        let most = if context.phase() == Phase::Plan { PLAN_BYTES_MAX } else { RESULT_BYTES_MAX };
        let posting = self.shared.client.post(&self.target.url, headers, body, most, &self.shared.clock);
        let answered = match tokio::time::timeout(within, posting).await {
            Ok(answered) => answered,
            Err(_) => {
                let message = format!("no answer of {} within {within:?}", whom(&self.target.url));
                Err(Silence::Broken(HandlerError::new(message).class("timeout")))
            }
        };
        self.note(context, &calls, passed, &answered).await;
        match answered {
            Ok(answered) => self.outcome(answered, &calls).await,
            Err(Silence::Broken(error) | Silence::TooMuch(error)) => Err(error),
        }
    }

    /// Asks the breaker. Where it can't be asked, the split goes back: that is no fault of the receiver.
    async fn passes(&self, context: &Context<'_>, calls: &Calls, within: Duration) -> Passes {
        if self.target.breaker.is_none() {
            return Passes::Freely;
        }
        let task_type = context.task_type();
        self.breaker.passes(task_type, calls, within).await.unwrap_or_else(|error| {
            tracing::warn!(task_type, %error, "the breaker of type {task_type} can't be asked: {error}");
            Passes::Not
        })
    }

    /// Tells the breaker. What can't be told costs nobody's attempt.
    async fn note(
        &self,
        context: &Context<'_>,
        calls: &Calls,
        passed: Passes,
        answered: &Result<Answered, Silence>,
    ) {
        let Some(policy) = self.target.breaker else { return };
        let task_type = context.task_type();
        let noted = match answered {
            Ok(answered) if answered.is_broken() => {
                let why = format!("{} answered {}", whom(&self.target.url), answered.status);
                self.breaker.failed(task_type, calls, (passed, policy), &why).await
            }
            Err(Silence::Broken(error)) => {
                self.breaker.failed(task_type, calls, (passed, policy), error.message()).await
            }
            _ => self.breaker.answered(task_type, calls, passed).await,
        };
        if let Err(error) = noted {
            tracing::warn!(task_type, %error, "the breaker of type {task_type} can't be noted: {error}");
        }
    }

    async fn outcome(&self, answered: Answered, calls: &Calls) -> Result<Answer, HandlerError> {
        match answered.meaning(&whom(&self.target.url))? {
            Meaning::Later => {
                // The callback may have been faster: then there is nothing to say any more.
                calls.log(vec!["accepted (202): waits for its callback".to_owned()]).await.ok();
                Ok(Answer::Awaits { within: self.target.callback_timeout })
            }
            Meaning::Outcome(outcome, splits) => {
                let mut shares = Shares::new(calls.clone());
                for split in &splits {
                    shares.add(split).await?;
                }
                shares.store().await?;
                Ok(outcome.into())
            }
        }
    }

    fn headers(&self, context: &Context<'_>, body: &[u8]) -> Result<HeaderMap, HandlerError> {
        let mut headers = self.target.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let id = context.idempotency_key();
        let timestamp = self.shared.clock.now().timestamp();
        let mut set = |name: &'static str, text: &str| match HeaderValue::from_str(text) {
            Ok(value) => {
                headers.insert(name, value);
                Ok(())
            }
            Err(error) => Err(HandlerError::new(format!("{name} can't be sent: {error}")).class("header")),
        };
        set("webhook-id", id)?;
        set("webhook-timestamp", &timestamp.to_string())?;
        if !self.target.keys.is_empty() {
            let signatures: Vec<String> =
                self.target.keys.iter().map(|key| key.sign(id, timestamp, body)).collect();
            set("webhook-signature", &signatures.join(" "))?;
        }
        if let Some(callback) =
            self.shared.callback(Ticket { split: context.split_id(), token: context.token() })
        {
            set("divvy-callback", &callback)?;
        }
        for (name, value) in [("traceparent", context.traceparent()), ("tracestate", context.tracestate())] {
            if let Some(value) = value {
                set(name, &value)?;
            }
        }
        Ok(headers)
    }
}

impl Erased for Push {
    fn plans(&self) -> bool {
        self.target.plans
    }

    fn reduces(&self) -> bool {
        self.target.reduces
    }

    fn run<'a>(&'a self, context: &'a mut Context<'_>) -> Running<'a> {
        Box::pin(async {
            let cancelled = context.cancellation();
            tokio::select! {
                answer = self.attempt(context) => answer,
                // The request is dropped, and its connection with it.
                () = cancelled.cancelled() => Err(HandlerError::new("cancelled").class("cancelled")),
            }
        })
    }
}

/// The request, whole: its signature stands in front of it.
async fn body(context: &Context<'_>, calls: &Calls) -> Result<Vec<u8>, HandlerError> {
    let mut body = Request::new(context.claimed(), None).line()?;
    if context.phase() == Phase::Reduce {
        body.extend_from_slice(&inputs(calls).await?);
    }
    Ok(body)
}
