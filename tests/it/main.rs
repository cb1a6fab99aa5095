//! One binary for all integration tests. Read `journey` first.

mod support;

mod doctor;
mod embedded;
mod http;
mod layers;
mod leader;
mod migrate;
mod sql_types;
mod triggers;
