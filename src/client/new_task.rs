//! A task to be made.

use crate::store::enqueue::{Enqueued, enqueue};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgExecutor;
use std::ops::Range;
use std::time::Duration;

/// What to do when another task holds the dedupe key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// Return that task, with `created` false. The default.
    Return,
    /// Fail with a Conflict that names it.
    Raise,
    /// Give it the new payload if it hasn't started, and return it.
    Replace,
}

/// When reduce runs, with regard to failed splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOn {
    /// Only when none failed.
    Success,
    /// When no more failed than is tolerated. The default.
    Tolerated,
    /// Whatever failed.
    Always,
}

/// A task to be made. The database checks every value and names the one it refuses.
///
/// ```
/// use divvy::client::NewTask;
/// let task = NewTask::new("greet", "Ada").priority(1).dedupe_key("greet:ada");
/// ```
#[derive(Debug, Clone)]
#[must_use = "a task is made by enqueueing it"]
pub struct NewTask {
    task_type: String,
    payload: Value,
    options: Map<String, Value>,
    fault: Option<String>,
}

impl NewTask {
    /// A task of `task_type` with its payload. The type need not be declared yet; until it is, the task waits.
    pub fn new(task_type: impl Into<String>, payload: impl Serialize) -> Self {
        let mut task =
            Self { task_type: task_type.into(), payload: Value::Null, options: Map::new(), fault: None };
        task.payload = task.json("payload", payload);
        task
    }

    /// Its type.
    pub fn task_type(&self) -> &str {
        &self.task_type
    }

    fn json(&mut self, what: &str, value: impl Serialize) -> Value {
        serde_json::to_value(value).unwrap_or_else(|error| {
            self.fault.get_or_insert(format!("task of type {}: {what} is no JSON: {error}", self.task_type));
            Value::Null
        })
    }

    fn option(mut self, name: &str, value: impl Serialize) -> Self {
        let value = self.json(name, value);
        self.options.insert(name.to_owned(), value);
        self
    }

    /// Not before this moment.
    pub fn run_at(self, at: DateTime<Utc>) -> Self {
        self.option("run_at", at)
    }

    /// 1 (first) to 4; default 2.
    pub fn priority(self, priority: i16) -> Self {
        self.option("priority", priority)
    }

    /// At most one open task of the type has this key.
    pub fn dedupe_key(self, key: impl Into<String>) -> Self {
        self.option("dedupe_key", key.into())
    }

    /// What to do when the key is held.
    pub fn on_duplicate(self, what: OnDuplicate) -> Self {
        self.option(
            "on_duplicate",
            match what {
                OnDuplicate::Return => "return",
                OnDuplicate::Raise => "raise",
                OnDuplicate::Replace => "replace",
            },
        )
    }

    /// The group it counts for.
    pub fn group_key(self, key: impl Into<String>) -> Self {
        self.option("group_key", key.into())
    }

    /// Labels to find it by; at most 20.
    pub fn labels<I: Into<String>>(self, labels: impl IntoIterator<Item = I>) -> Self {
        self.option("labels", labels.into_iter().map(Into::into).collect::<Vec<String>>())
    }

    /// An object that handlers are given: lineage, trace ids. At most 16 KiB.
    pub fn headers(self, headers: impl Serialize) -> Self {
        self.option("headers", headers)
    }

    /// Cancelled if it hasn't ended by then.
    pub fn deadline_at(self, at: DateTime<Utc>) -> Self {
        self.option("deadline_at", at)
    }

    /// One execute split per share; none skip straight to reduce.
    pub fn splits<S: Serialize>(self, shares: impl IntoIterator<Item = S>) -> Self {
        let mut task = self;
        let shares: Vec<Value> = shares.into_iter().map(|share| task.json("splits", share)).collect();
        task.option("splits", shares)
    }

    /// `count` splits that know their index: [`crate::handler::Index`].
    pub fn split_count(self, count: i32) -> Self {
        self.option("split_count", count)
    }

    /// Splits of `size` keys each: [`crate::handler::Range`].
    pub fn split_range(self, keys: Range<i64>, size: i64) -> Self {
        let keys = format!("[{},{})", keys.start, keys.end.max(keys.start));
        self.option("split_range", keys).option("split_size", size)
    }

    /// How many attempts each split may use, 1 to 1,000.
    pub fn max_attempts(self, attempts: i32) -> Self {
        self.option("max_attempts", attempts)
    }

    /// How long one attempt may run.
    pub fn timeout(self, limit: Duration) -> Self {
        self.option("timeout", format!("{} microseconds", limit.as_micros()))
    }

    /// How many splits may fail.
    pub fn max_failed(self, splits: i32) -> Self {
        self.option("max_failed", splits)
    }

    /// How many percent of the splits may fail.
    pub fn max_failed_percent(self, percent: f64) -> Self {
        self.option("max_failed_percent", percent)
    }

    /// When reduce runs.
    pub fn reduce_on(self, when: ReduceOn) -> Self {
        self.option(
            "reduce_on",
            match when {
                ReduceOn::Success => "success",
                ReduceOn::Tolerated => "tolerated",
                ReduceOn::Always => "always",
            },
        )
    }

    /// What follows, by how it ends: `{"succeeded": {"task_type": …, "payload": …}, "failed": …}`.
    pub fn then(self, templates: impl Serialize) -> Self {
        self.option("then", templates)
    }

    /// Stores it, in the caller's transaction if `executor` is one.
    ///
    /// # Errors
    /// As [`crate::client::Client::enqueue`].
    pub async fn enqueue_with(self, executor: impl PgExecutor<'_>) -> Result<Enqueued> {
        self.check()?;
        enqueue(executor, &self.task_type, &self.payload, &Value::Object(self.options)).await
    }

    fn check(&self) -> Result<()> {
        match &self.fault {
            Some(fault) => Err(Error::new(ErrorKind::BadOption, fault.clone())),
            None => Ok(()),
        }
    }

    /// As `enqueue_many` takes it.
    pub(crate) fn into_row(self) -> Result<Value> {
        self.check()?;
        let mut row = self.options;
        row.insert("task_type".to_owned(), Value::String(self.task_type));
        row.insert("payload".to_owned(), self.payload);
        Ok(Value::Object(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_task_is_one_row_with_only_what_was_given() {
        let row =
            NewTask::new("a", json!({ "n": 1 })).split_range(0..10, 3).labels(["x"]).into_row().unwrap();
        let expected = json!({ "task_type": "a", "payload": { "n": 1 }, "labels": ["x"],
            "split_range": "[0,10)", "split_size": 3 });
        assert_eq!(row, expected);
    }

    #[test]
    fn a_value_that_is_no_json_is_told_at_the_enqueue() {
        let odd = std::collections::HashMap::from([((1, 2), 3)]);
        let error = NewTask::new("a", odd).into_row().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOption);
        assert!(error.to_string().starts_with("task of type a: payload is no JSON"), "{error}");
    }
}
