//! The shares divvy makes itself, for tasks inserted with `split_count` or `split_range`.

use serde::{Deserialize, Serialize};

/// The share of a task with `split_count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// 0 … count − 1.
    pub index: u64,
    /// How many shares there are.
    pub count: u64,
}

/// The share of a task with `split_range`: `lo ≤ key < hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first key.
    pub lo: i64,
    /// One past the last.
    pub hi: i64,
}
