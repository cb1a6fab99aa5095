//! One binary for all integration tests. Read `journey` first.

mod support;

mod bad_input;
mod dedupe;
mod embedded;
mod enqueue;
mod follow;
mod layers;
mod migrate;
mod operate;
mod rights;
mod schedules_sql;
mod seeds;
mod types;
