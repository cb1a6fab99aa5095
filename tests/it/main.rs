//! One binary for all integration tests. Read `journey` first.

mod support;

mod claim;
mod client;
mod embedded;
mod journey;
mod layers;
mod lease;
mod low_water;
mod migrate;
mod protocol;
mod races;
mod reduce;
mod transitions;
mod worker;
