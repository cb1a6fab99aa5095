//! One binary for all integration tests. Read `journey` first.

mod support;

mod bad_input;
mod bench;
mod claim;
mod cli;
mod client;
mod dedupe;
mod demo;
mod docs;
mod doctor;
mod embedded;
mod enqueue;
mod examples;
mod follow;
mod http;
mod journey;
mod layers;
mod leader;
mod lease;
mod limits;
mod low_water;
mod migrate;
mod operate;
mod oracle;
mod protocol;
mod races;
mod reduce;
mod rights;
mod schedules_sql;
mod seeds;
mod sql_types;
mod transitions;
mod triggers;
mod types;
mod worker;
