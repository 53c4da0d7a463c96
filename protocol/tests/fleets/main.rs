//! Fleets: many objects, several sessions, one or two operators, people and faults, under one scheduler that a seed drives. No promise is broken at
//! any moment, and at the end everything is at rest where it should be.
//!
//! `make simulate SEED=7` plays one seed and prints all that happens, `make simulate SEEDS=100000` plays more than CI does.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::too_many_lines, reason = "a test fails by panicking")]

mod agenda;
mod api;
mod dice;
mod effects;
mod finale;
mod operator;
mod oracle;
mod people;
mod plan;
mod queue;
mod seeds;
mod service;
mod story;
mod world;

#[test]
fn no_seed_breaks_a_promise() {
    seeds::play_all();
}
