//! Ids: small types, so that a task's id is never taken for a split's.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// An id in JSON is a string, because readers in other languages round large numbers; a number is understood, too.
struct Digits;

impl Visitor<'_> for Digits {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id: a string of digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i64, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
        Ok(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
        i64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Digits).map(Self)
            }
        }

        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": ["string", "integer"],
                    "pattern": "^-?[0-9]{1,19}$",
                    "description": "An id: a string of digits; a number is understood, too"
                })
            }
        }

        $crate::in_sql::in_sql!($name as i64: |id| id.0, |number| Ok(Self(number)));
    };
}

id! {
    /// A task.
    TaskId
}
id! {
    /// A split. Opaque: one sequence numbers tasks and splits.
    SplitId
}
id! {
    /// The right to finish a claimed split: a bigint from one sequence, shared by the splits of one
    /// claim call. A later claim always has a greater one.
    Token
}
id! {
    /// A schedule.
    ScheduleId
}
id! {
    /// A decision: a row of `divvy.event`.
    EventId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_string_in_json_and_read_from_a_number_too() {
        assert_eq!(serde_json::to_string(&TaskId(9_007_199_254_740_993)).unwrap(), "\"9007199254740993\"");
        let read = |text| serde_json::from_str::<TaskId>(text).ok();
        assert_eq!(
            (read("\"7\""), read("7"), read("\"x\""), read("1.5")),
            (Some(TaskId(7)), Some(TaskId(7)), None, None)
        );
    }
}
