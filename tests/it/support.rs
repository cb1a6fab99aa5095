//! What the tests share: a database each, a clock they set, races without sleeping, the divvy program.

#![allow(dead_code, reason = "each helper serves some of the tests")]

pub mod act;
pub mod both;
pub mod clock;
pub mod db;
pub mod hand;
pub mod program;
pub mod queue;
pub mod race;
pub mod running;
pub mod wire;
