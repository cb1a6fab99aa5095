//! One request on its way, and its answer.

use super::Api;
use super::auth::{Scope, Who};
use super::problem::Problem;
use crate::id::{SplitId, TaskId};
use crate::store::answer::{self, Keyed};
use crate::store::{Work, token};
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

/// What is left out, however deep, for those who may not read payloads. A handler may hold what nobody else should know.
const HIDDEN: [&str; 8] =
    ["payload", "split_payload", "result", "checkpoint", "headers", "then", "fields", "handler"];
/// Beside them inside of decisions, where splits are payloads and no count.
const HIDDEN_IN_DECISIONS: &str = "splits";

/// Work whose answer is a status and a text already: of one type, whatever is done.
type Written = Box<dyn for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, (u16, String)> + Send>;

/// A request that was let in.
pub(super) struct Call {
    /// The service.
    pub(super) api: Arc<Api>,
    /// Who asks.
    pub(super) who: Who,
    /// The named parts of the path.
    pub(super) path: HashMap<String, String>,
    /// Its Idempotency-Key, if it has one.
    pub(super) keyed: Option<Keyed>,
}

impl Call {
    /// A part of the path as it was sent.
    pub(super) fn name(&self, part: &str) -> &str {
        self.path.get(part).map(String::as_str).unwrap_or_default()
    }

    fn id<T: FromStr>(&self, part: &str, what: &str) -> Result<T, Problem> {
        let text = self.name(part);
        text.parse().map_err(|_| Problem::unknown(what, text))
    }

    /// The task of the path.
    pub(super) fn task(&self) -> Result<TaskId, Problem> {
        self.id("task_id", "task")
    }

    /// The split of the path.
    pub(super) fn split(&self) -> Result<SplitId, Problem> {
        self.id("split_id", "split")
    }

    /// The worker of the path.
    pub(super) fn worker(&self) -> Result<uuid::Uuid, Problem> {
        self.id("worker", "worker")
    }

    /// Looks: one or more queries that change nothing.
    pub(super) async fn look<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
    {
        Ok(self.api.store.bounded_apart(self.api.patience.database, work).await?)
    }

    /// Who waits for long is still let in: 401 once the token is not good any more.
    pub(super) async fn still_let_in(&self) -> Result<(), Problem> {
        self.api.tokens.still_good(&self.who).await
    }

    /// Does `work` in one transaction, in the name of who asks; with an Idempotency-Key the answer is kept in it, or the
    /// one that was given before is given again.
    pub(super) async fn act<T, F>(&self, status: StatusCode, work: F) -> Result<Answer<T>, Problem>
    where
        T: Serialize + Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send + 'static,
    {
        self.act_as(move |c| Box::pin(async move { Ok((status, work(c).await?)) })).await
    }

    /// The same where `work` says the status.
    pub(super) async fn act_as<T, F>(&self, work: F) -> Result<Answer<T>, Problem>
    where
        T: Serialize + Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, (StatusCode, T)> + Send + 'static,
    {
        let written: Written = Box::new(move |c| {
            Box::pin(async move {
                let (status, done) = work(c).await?;
                Ok((status.as_u16(), serde_json::to_string(&done).unwrap_or_default()))
            })
        });
        let (status, text) = self.in_transaction(written).await?;
        Ok(Answer::text(status, text))
    }

    async fn in_transaction(&self, work: Written) -> Result<(u16, String), Problem> {
        let (hash, keyed) = (self.who.hash.clone(), self.keyed.clone());
        let done = self
            .api
            .store
            .bounded_apart(self.api.patience.database, move |c| {
                Box::pin(async move {
                    let mut transaction = c.begin().await?;
                    if let Some(hash) = &hash
                        && !token::act_as(&mut *transaction, hash).await?
                    {
                        return Ok(None);
                    }
                    if let Some(keyed) = &keyed
                        && let Some(before) = answer::take_key(&mut *transaction, keyed).await?
                    {
                        return Ok(Some(before));
                    }
                    let (status, text) = work(&mut transaction).await?;
                    if let Some(keyed) = &keyed {
                        answer::keep(&mut *transaction, keyed, status, &text).await?;
                    }
                    transaction.commit().await?;
                    Ok(Some((status, text)))
                })
            })
            .await?;
        done.ok_or_else(|| {
            self.who.hash.iter().for_each(|hash| self.api.tokens.forget(hash));
            super::auth::unauthorized("the token has expired or was revoked")
        })
    }

    /// An answer to a look, without what this reader may not see.
    pub(super) fn show<T: Serialize>(&self, found: &T) -> Result<Answer<T>, Problem> {
        if self.who.may(&[Scope::Payloads]) {
            return Answer::ok(found);
        }
        let mut value = serde_json::to_value(found).map_err(|error| unwritable(&error))?;
        hide(&mut value, false);
        Answer::ok(&value).map(Answer::of)
    }
}

/// Takes out what only a reader of payloads may see.
fn hide(value: &mut Value, in_decision: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, in_decision)),
        Value::Object(object) => {
            let hidden =
                |key: &String| HIDDEN.contains(&key.as_str()) || in_decision && key == HIDDEN_IN_DECISIONS;
            object.retain(|key, _| !hidden(key));
            for (key, part) in object {
                hide(part, in_decision || key == "before" || key == "after");
            }
        }
        _ => {}
    }
}

/// What is answered, described by `T`.
pub(super) struct Answer<T> {
    status: StatusCode,
    content_type: &'static str,
    body: Body,
    kind: PhantomData<fn() -> T>,
}

impl<T> Answer<T> {
    fn text(status: u16, text: String) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        Self { status, content_type: "application/json", body: text.into(), kind: PhantomData }
    }

    /// A body that is written as it comes.
    pub(super) fn flowing(content_type: &'static str, body: Body) -> Self {
        Self { status: StatusCode::OK, content_type, body, kind: PhantomData }
    }

    /// The same answer, described otherwise.
    fn of<U>(other: Answer<U>) -> Self {
        let Answer { status, content_type, body, .. } = other;
        Self { status, content_type, body, kind: PhantomData }
    }
}

impl<T: Serialize> Answer<T> {
    /// 200 with `value`.
    pub(super) fn ok(value: &T) -> Result<Self, Problem> {
        Self::with(StatusCode::OK, value)
    }

    /// `value` with a status of its own.
    pub(super) fn with(status: StatusCode, value: &T) -> Result<Self, Problem> {
        let text = serde_json::to_string(value).map_err(|error| unwritable(&error))?;
        Ok(Self::text(status.as_u16(), text))
    }
}

fn unwritable(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "an answer can't be written");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the service failed; its log says why")
}

impl<T> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (self.status, headers, self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn payloads_are_taken_out_of_rows_pages_and_decisions_however_deep() {
        let shown = |mut value: Value| {
            hide(&mut value, false);
            value
        };
        let one = json!({ "task_id": "7", "payload": { "iban": 1 }, "result": 2, "error": "e", "splits": 3 });
        assert_eq!(shown(one), json!({ "task_id": "7", "error": "e", "splits": 3 }));
        let page = json!({ "items": [{ "verb": "update_task", "after": { "payload": 1, "priority": 2 } }] });
        assert_eq!(shown(page), json!({ "items": [{ "verb": "update_task", "after": { "priority": 2 } }] }));
        let decided = json!({ "before": null, "after": { "splits": [{ "iban": 1 }], "labels": ["a"] } });
        assert_eq!(shown(decided), json!({ "before": null, "after": { "labels": ["a"] } }));
        let then = json!({ "succeeded": { "task_type": "b", "payload": { "iban": 1 } } });
        let a_type = json!({ "declaration": { "options": { "then": then, "plan": true } } });
        assert_eq!(shown(a_type), json!({ "declaration": { "options": { "plan": true } } }));
    }
}
