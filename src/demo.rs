//! `divvy demo`: a real batch job on real data, with one of its workers killed and its result proven.
//!
//! The question: which names look different and are the same once normalised, so that two people
//! sign up under one? The input is every character of Unicode 14. One task is **split** into
//! ranges of code points; each **execute** computes the four normal forms of its names in Rust and
//! writes them in the transaction of its completion; **reduce** gathers the names that collide.
//! `check.sql` then asks Postgres' own `normalize()` the same question and compares.

pub mod characters;
pub mod handler;
pub mod names;
pub mod run;
pub mod screen;
pub mod show;
pub mod tables;
pub mod watch;
pub mod workers;
