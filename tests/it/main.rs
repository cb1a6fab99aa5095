//! One binary for all integration tests. Read `journey` first.

mod support;

mod client;
mod embedded;
mod examples;
mod layers;
mod migrate;
mod worker;
