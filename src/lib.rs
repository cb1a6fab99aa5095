//! divvy: a task queue and batch service that lives in the Postgres you already have.
//!
//! A **task** is divided into **splits**; workers anywhere claim splits; when the last split
//! ends, **reduce** runs once. Every rule is a SQL function under `sql/`; this crate calls them.
//!
//! Reading order: `sql/README.md`, `tests/it/journey.rs`, [`handler`], [`worker`], [`leader`].

// What things are (pure: no input or output, no clock).
mod apart;
pub mod error;
pub mod id;
mod in_sql;
mod jitter;
pub mod trigger;
#[cfg(feature = "cli")]
pub mod webhook;
// The one door to Postgres.
pub mod store;
// Actors; they meet only in the database.
pub mod handler;
pub mod leader;
pub mod worker;
// Entrances.
#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cli")]
pub mod demo;
#[cfg(feature = "cli")]
pub mod embedded;
#[cfg(feature = "cli")]
pub mod http;
#[cfg(feature = "cli")]
pub mod telemetry;
pub mod testing;

pub use error::{Error, ErrorKind, Result};
