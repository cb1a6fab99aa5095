//! Ids: small types, so that a task's id is never taken for a split's.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
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
