//! Two or three objects, one session, one phone: who owns it, and how it passes from one to another.
//!
//! The reconciles are the real ones, and so are the claims; each reconcile is atomic and makes one
//! call at most, and nothing is remembered between two of them: so what is shown here rests on what
//! stands in the objects alone. What two reconciles do to each other between their effects is for
//! the fleets.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod fingerprint;
mod search;
mod world;

use streamsession_testkit::service::UnspecifiedBehaviour;

use search::{Setting, search};
use world::{Budgets, Omission};

/// Searches in each of the four services.
fn every_promise_is_kept(name: &str, budgets: Budgets, objects: usize, created: usize) {
    for behaviour in UnspecifiedBehaviour::ALL {
        let setting = Setting { budgets, objects, created, behaviour, omission: None };
        let seen = search(&setting);
        println!("{name}, {behaviour:?}: {seen}");
        assert!(seen.broken.is_none(), "{}", seen.broken.unwrap());
    }
}

#[test]
fn two_objects_that_are_there_from_the_start() {
    let budgets = Budgets { losses: 2, edits: 2, ..Budgets::NONE };
    every_promise_is_kept("two calls without an answer, two edits", budgets, 2, 2);
}

#[test]
fn one_object_and_another_one_that_comes() {
    let budgets = Budgets { losses: 1, edits: 3, ..Budgets::NONE };
    every_promise_is_kept("one call without an answer, three edits", budgets, 2, 1);
}

#[test]
fn two_objects_whose_status_is_lost() {
    let budgets = Budgets { losses: 1, edits: 2, wipes: 1, ..Budgets::NONE };
    every_promise_is_kept("a lost status, one call without an answer, two edits", budgets, 2, 2);
}

#[test]
fn three_objects() {
    let budgets = Budgets { losses: 1, edits: 2, ..Budgets::NONE };
    every_promise_is_kept("three objects, one call without an answer, two edits", budgets, 3, 3);
}

#[test]
fn an_object_beside_a_stranger_that_forges() {
    let budgets = Budgets { losses: 1, edits: 2, wipes: 1, forgeries: 2 };
    every_promise_is_kept("a stranger, a lost status, a lost call, two edits", budgets, 2, 2);
}

#[test]
fn every_rule_that_is_left_out_is_missed() {
    let calls = Budgets { losses: 1, edits: 3, ..Budgets::NONE };
    let forgeries = Budgets { edits: 1, forgeries: 2, ..Budgets::NONE };
    for (omission, budgets) in [
        (Omission::KeepsAttached, calls),
        (Omission::HidesAttached, calls),
        (Omission::HidesDetaches, calls),
        (Omission::ShowsUnknownAsAttached, calls),
        (Omission::BelievesStrangers, forgeries),
    ] {
        let found = UnspecifiedBehaviour::ALL.into_iter().find_map(|behaviour| {
            let omission = Some(omission);
            let seen = search(&Setting { budgets, objects: 2, created: 2, behaviour, omission });
            seen.broken.map(|broken| (seen.states, broken))
        });
        let Some((states, broken)) = found else { panic!("{omission:?} is not missed") };
        println!("{omission:?}: after {states} states: {}", broken.lines().next().unwrap());
    }
}
