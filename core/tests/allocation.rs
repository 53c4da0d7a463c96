//! A reconcile allocates for what changes, not for what is there.

#![allow(missing_docs, reason = "a test crate")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use streamsession_core::ledger::desired::Desired;
use streamsession_core::ledger::{Journal, Rules};
use streamsession_core::ledger::{due::Due, plan::Allowed};
use streamsession_testkit::fixtures::{NOW, attached_at, desired, journal, numbered_ids, success};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// Blocks that it takes to plan and settle the removal of ten of so many instances.
fn blocks(count: usize) -> u64 {
    let rules = Rules::default();
    let desired = Desired { instances: numbered_ids(0..count - 10), ..desired("1", &[]) };
    let mut ledger = attached_at("1", &numbered_ids(0..count));
    let before = dhat::HeapStats::get().total_blocks;

    let batch = ledger.plan(&desired, Some(NOW), Due::ALL, 100, Allowed::All).batch.unwrap();
    let answer = success(batch.instances.iter().cloned().collect());
    ledger.journal = Some(Journal { instances: batch.instances, ..journal(batch.operation, &[]) });
    let settled = ledger.settle(&answer, &"AKID".into(), &desired, &rules, false);

    let blocks = dhat::HeapStats::get().total_blocks - before;
    assert_eq!(settled.records.len(), count - 10);
    blocks
}

#[test]
fn a_small_change_of_a_large_session_allocates_as_much_as_one_of_a_small_session() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let (small, large) = (blocks(20), blocks(2_000));
    println!("10 of 20: {small} blocks; 10 of 2,000: {large} blocks");
    // The tree of a large session may be rebalanced at a few more places.
    assert!(large <= small + 10, "{small} blocks of 20 instances, {large} of 2,000");
}
