//! What a producer sends. The shape is checked here, so that it can be described; every rule is the database's.

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// An object that is also kept as it was written: the database gets that, to the digit. (By itself, serde reads an array as
/// the fields of a struct in their order.)
#[derive(Debug)]
pub(super) struct Text<T> {
    /// As it was written.
    pub(super) raw: Box<RawValue>,
    /// As it was understood.
    pub(super) value: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('{') {
            return Err(D::Error::custom(format!("an object expected, not {:.40}", raw.get())));
        }
        let value = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        Ok(Self { raw, value })
    }
}

impl<T> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A time span: seconds, or an interval as Postgres reads it, such as "90 s" or "1 day"
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Span {
    /// Seconds
    Seconds(#[schemars(range(min = 0))] f64),
    /// An interval
    Text(String),
}

/// A name: 1 to 100 of a-z 0-9 _ . : -
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Name(pub(super) String);

/// Whether reduce runs when splits failed
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReduceOn {
    /// When all splits succeeded
    Success,
    /// When failures are tolerated
    Tolerated,
    /// Always
    Always,
}

/// What becomes of a task whose dedupe_key is held
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnDuplicate {
    /// The holder's id is the answer
    Return,
    /// 409
    Raise,
    /// The holder gets the new payload and options, if it still waits
    Replace,
}

/// A task to be made
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape; the text is what is stored")]
pub(super) struct NewTask {
    /// The type that selects the handler
    task_type: Name,
    /// For the handler; default {}
    #[schemars(with = "Option<Value>")]
    payload: Option<IgnoredAny>,
    /// Not before this moment
    run_at: Option<DateTime<Utc>>,
    /// 1 (first) to 4; default 2
    #[schemars(range(min = 1, max = 4))]
    priority: Option<i16>,
    /// At most one open task of the type has it
    #[schemars(length(max = 1000))]
    dedupe_key: Option<String>,
    /// What becomes of it when the key is held; default return
    on_duplicate: Option<OnDuplicate>,
    /// Limits and fairness go by it
    #[schemars(length(max = 200))]
    group_key: Option<String>,
    /// For filters
    #[schemars(length(max = 20))]
    labels: Option<Vec<String>>,
    /// Lineage and the like, carried to the handler
    headers: Option<Map<String, Value>>,
    /// Cancelled then
    deadline_at: Option<DateTime<Utc>>,
    /// One split for each element
    #[schemars(with = "Option<Vec<Value>>")]
    splits: Option<Vec<IgnoredAny>>,
    /// So many splits
    #[schemars(range(min = 0, max = 1_000_000))]
    split_count: Option<i32>,
    /// One split for every `split_size` keys of this range, such as [1,1000)
    split_range: Option<String>,
    /// How many keys a split of the range has
    #[schemars(range(min = 1))]
    split_size: Option<i64>,
    /// As of the type, for this task
    #[schemars(range(min = 1, max = 1000))]
    max_attempts: Option<i32>,
    /// As of the type, for this task
    timeout: Option<Span>,
    /// As of the type, for this task
    #[schemars(range(min = 0))]
    max_failed: Option<i32>,
    /// As of the type, for this task
    #[schemars(range(min = 0, max = 100))]
    max_failed_percent: Option<f64>,
    /// As of the type, for this task
    reduce_on: Option<ReduceOn>,
    /// Tasks that follow, by the state that ends this one
    then: Option<Map<String, Value>>,
}

impl NewTask {
    /// It has no options.
    pub(super) fn is_plain(&self) -> bool {
        let Self {
            task_type: _,
            payload: _,
            run_at: None,
            priority: None,
            dedupe_key: None,
            on_duplicate: None,
            group_key: None,
            labels: None,
            headers: None,
            deadline_at: None,
            splits: None,
            split_count: None,
            split_range: None,
            split_size: None,
            max_attempts: None,
            timeout: None,
            max_failed: None,
            max_failed_percent: None,
            reduce_on: None,
            then: None,
        } = self
        else {
            return false;
        };
        true
    }
}
