//! One binary for all integration tests. Read `journey` first.

mod support;

mod demo;
mod embedded;
mod layers;
mod migrate;
mod transitions;
mod worker;
