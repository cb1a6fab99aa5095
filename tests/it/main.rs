//! One binary for all integration tests. Read `journey` first.

mod support;

mod client;
mod demo;
mod docs;
mod doctor;
mod embedded;
mod examples;
mod http;
mod journey;
mod layers;
mod leader;
mod migrate;
mod protocol;
mod sql_types;
mod transitions;
mod triggers;
mod worker;
