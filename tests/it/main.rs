//! One binary for all integration tests. Read `journey` first.

mod support;

mod cli;
mod client;
mod embedded;
mod journey;
mod layers;
mod migrate;
mod protocol;
mod transitions;
mod worker;
