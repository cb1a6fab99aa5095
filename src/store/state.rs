//! The states as the database names them.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// The name in SQL, HTTP and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::in_sql::in_sql!($name as &str: |name| name.as_str(), |text| match text {
            $($text => Ok(Self::$variant),)+
            _ => Err(format!("{text} is no {}", stringify!($name)).into()),
        });
    };
}

names! {
    /// The status of a task: its open phase, or how it ended.
    TaskStatus {
        /// Waits for its moment, or for its type to be declared.
        Scheduled = "scheduled",
        /// Its splitter is to run or runs.
        Planning = "planning",
        /// Its splits exist and are being executed.
        Running = "running",
        /// Its reduce is to run or runs.
        Reducing = "reducing",
        /// Ended: everything succeeded.
        Succeeded = "succeeded",
        /// Ended: reduced, with failed splits within the tolerance.
        Partial = "partial",
        /// Ended: failed.
        Failed = "failed",
        /// Ended: cancelled.
        Cancelled = "cancelled",
    }
}

names! {
    /// The status of a split.
    SplitStatus {
        /// Waits for a moment, a pause or a limit.
        Delayed = "delayed",
        /// May be claimed.
        Ready = "ready",
        /// A worker holds it.
        Running = "running",
        /// Ended: done.
        Succeeded = "succeeded",
        /// Ended: stopped, or its attempts are used up.
        Failed = "failed",
        /// Ended: cancelled.
        Cancelled = "cancelled",
        /// Ended: set aside by hand or by a broken tolerance.
        Skipped = "skipped",
    }
}

names! {
    /// What a split is for.
    Phase {
        /// Runs the splitter.
        Plan = "plan",
        /// Executes one share.
        Execute = "execute",
        /// Reduces the results.
        Reduce = "reduce",
    }
}

names! {
    /// What became of a split in a batch completion.
    Completed {
        /// This call finished it.
        Ok = "ok",
        /// Its task was cancelled meanwhile.
        Cancelled = "cancelled",
        /// The lease was lost: somebody else finishes it.
        Lost = "lost",
        /// The same call finished it before.
        Already = "already",
    }
}

names! {
    /// What a heartbeat says about a split.
    Pulse {
        /// Go on.
        Ok = "ok",
        /// The task is being cancelled: stop soon.
        Cancel = "cancel",
        /// The lease is lost: stop, nothing you do counts.
        Lost = "lost",
    }
}

names! {
    /// What an operator wants of a worker.
    Command {
        /// Work.
        Run = "run",
        /// Claim nothing new.
        Quiet = "quiet",
        /// Stop gracefully.
        Terminate = "terminate",
    }
}

impl TaskStatus {
    /// Whether the task has ended.
    pub fn is_final(self) -> bool {
        match self {
            Self::Scheduled | Self::Planning | Self::Running | Self::Reducing => false,
            Self::Succeeded | Self::Partial | Self::Failed | Self::Cancelled => true,
        }
    }
}

impl SplitStatus {
    /// Whether the split has ended.
    pub fn is_final(self) -> bool {
        match self {
            Self::Delayed | Self::Ready | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped => true,
        }
    }
}
