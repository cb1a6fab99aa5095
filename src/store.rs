//! The one door to Postgres.

pub mod connect;
pub mod migrate;
