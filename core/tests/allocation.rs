//! ReconcileState is allocated for what changes, not for what is there.

#![allow(missing_docs, reason = "a test crate")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use streamsession_core::answer::{Answer, Verdict};
use streamsession_core::ids::{InstanceId, JournalId, SessionId};
use streamsession_core::ledger::desired::{DeletionPolicy, Desired};
use streamsession_core::ledger::plan::{Allowed, Due};
use streamsession_core::ledger::record::Record;
use streamsession_core::ledger::{Journal, Ledger, Rules};
use streamsession_core::time::ServiceTime;

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

const NOW: ServiceTime = ServiceTime(1_767_837_600);

fn ids(count: usize) -> BTreeSet<InstanceId> {
    (0..count).map(|n| InstanceId::parse(&format!("instance-{n:06}")).unwrap()).collect()
}

/// Blocks that it takes to plan and settle the removal of ten of so many instances.
fn blocks(count: usize) -> u64 {
    let rules = Rules::default();
    let desired = Desired {
        session: SessionId::parse("1").unwrap(),
        region: None,
        default_region: None,
        endpoint: "e".into(),
        instances: ids(count - 10),
        deleting: false,
        deletion_policy: DeletionPolicy::Delete,
        forgets_failures: false,
    };
    let records = ids(count).into_iter().map(|id| (id, Record::attached())).collect();
    let mut ledger = Ledger { records, ..Ledger::default() };
    ledger.target = Some(ledger.target_for(&desired, "AKID"));
    let before = dhat::HeapStats::get().total_blocks;

    let batch = ledger.plan(&desired, Some(NOW), Due::ALL, 100, Allowed::All).batch.unwrap();
    let succeeded = batch.instances.iter().cloned().collect();
    let answer = Answer {
        verdict: Verdict::Processed { succeeded, refused: BTreeSet::new() },
        code: String::new(),
        message: String::new(),
        request_id: String::new(),
    };
    ledger.journal = Some(Journal {
        id: JournalId("j".into()),
        operation: batch.operation,
        instances: batch.instances,
        start_time: NOW,
    });
    let settled = ledger.settle(&answer, "AKID", &desired, &rules, false);

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
