//! One binary for all integration tests. Read `journey` first.

mod support;

mod client;
mod demo;
mod embedded;
mod journey;
mod layers;
mod migrate;
mod protocol;
mod transitions;
mod worker;
