//! Fleets: many objects, several sessions, one or two operators, users and faults, under one
//! scheduler that a seed drives. No promise is broken at any time, and at the end everything is at
//! rest where it should be.
//!
//! ```text
//!  scenario: what happens, from a seed
//!      ▼
//!  world: one queue of events in virtual time ──▶ checks, oracle: what must be true after each
//!   ├ operator: a process with its scheduler      final_checks: what must be true at the end
//!   ├ effects: on their way, late, lost
//!   ├ api, watch, calls, users                    resync: what it promises, at the end
//!   └ figures: two times that are promised        seeds: many of them; a failure made short
//! ```
//!
//! `make simulate SEED=7` plays one seed and prints all that happens (`SHORT=1`: a failing one
//! without what it does not need), `make simulate SEEDS=100000` plays more than CI does.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod api;
mod calls;
mod checks;
mod effects;
mod figures;
mod final_checks;
mod operator;
mod oracle;
mod resync;
mod scenario;
mod seeds;
mod trace;
mod users;
mod watch;
mod world;

use api::Broken;
use seeds::{Sabotage, seeds_until_found};

#[test]
fn no_seed_breaks_a_promise() {
    seeds::play_all();
}

/// The checks fail where they should: each of these is found soon.
#[test]
fn a_broken_environment_is_noticed() {
    for sabotage in [
        Sabotage::Api(Broken::JournalNotStored),
        Sabotage::Api(Broken::PreconditionIgnored),
        Sabotage::Api(Broken::DeadlinesStripped),
        Sabotage::Api(Broken::DoubtForgotten),
        Sabotage::OldSignatures,
    ] {
        let found = seeds_until_found(sabotage, 2_000);
        println!("{sabotage:?}: {found:?}");
        assert!(found.is_some(), "{sabotage:?} was not noticed");
    }
}
