//! One binary for all integration tests. Read `journey` first.

mod support;

mod claim;
mod client;
mod demo;
mod doctor;
mod embedded;
mod examples;
mod http;
mod journey;
mod layers;
mod leader;
mod lease;
mod low_water;
mod migrate;
mod protocol;
mod races;
mod sql_types;
mod transitions;
mod triggers;
mod worker;
