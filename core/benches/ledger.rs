//! What a reconcile of a large session costs the pure core. Figures for people, not a test: the machine
//! is shared.

#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(clippy::expect_used, reason = "a bench ends by panicking")]

use std::collections::BTreeSet;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::ids::{InstanceId, JournalId, SessionId};
use streamsession_core::ledger::desired::{DeletionPolicy, Desired, Target};
use streamsession_core::ledger::plan::{Allowed, Due};
use streamsession_core::ledger::record::Record;
use streamsession_core::ledger::{Journal, Ledger, Rules};
use streamsession_core::time::ServiceTime;

const NOW: ServiceTime = ServiceTime(1_767_837_600);

fn ids(range: std::ops::Range<usize>) -> BTreeSet<InstanceId> {
    range
        .map(|n| {
            InstanceId::parse(&format!("RK8S37P1402445261_69f8d3e2-8867-462c-a8cf-7c1d1a{n:06}"))
                .expect("an id")
        })
        .collect()
}

fn desired(instances: BTreeSet<InstanceId>) -> Desired {
    Desired {
        session: SessionId::parse("1326515201117065216").expect("an id"),
        region: None,
        default_region: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        instances,
        deleting: false,
        deletion_policy: DeletionPolicy::Delete,
        forgets_failures: false,
    }
}

fn attached(instances: &BTreeSet<InstanceId>) -> Ledger {
    let target = Target {
        session: SessionId::parse("1326515201117065216").expect("an id"),
        region: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        credential: Some("AKID".into()),
        credential_proven: true,
    };
    Ledger {
        target: Some(target),
        records: instances.iter().map(|id| (id.clone(), Record::attached())).collect(),
        ..Ledger::default()
    }
}

/// A plan, its journal, and the settle of `answer`.
fn reconcile(
    mut ledger: Ledger,
    desired: &Desired,
    rules: &Rules,
    batch: usize,
    answer: &Answer,
) -> Ledger {
    let plan = ledger.plan(desired, Some(NOW), Due::ALL, batch, Allowed::All);
    let Some(batch) = plan.batch else { return ledger };
    let id = JournalId("7f0c".into());
    ledger.journal = Some(Journal {
        id,
        operation: batch.operation,
        instances: batch.instances,
        start_time: NOW,
    });
    ledger.settle(answer, "AKID", desired, rules, false)
}

fn success(succeeded: BTreeSet<InstanceId>) -> Answer {
    Answer {
        verdict: Verdict::Processed { succeeded, refused: BTreeSet::new() },
        code: String::new(),
        message: String::new(),
        request_id: "67f3".into(),
    }
}

fn bench(criterion: &mut Criterion) {
    let rules = Rules::default();
    let thousand = ids(0..1000);
    let mut group = criterion.benchmark_group("1000 ids");

    let (all, empty, answer) =
        (desired(thousand.clone()), attached(&BTreeSet::new()), success(thousand.clone()));
    group.bench_function("plan + settle of a call of 1000", |bencher| {
        bencher.iter_batched(
            || empty.clone(),
            |ledger| black_box(reconcile(ledger, &all, &rules, 1000, &answer)),
            BatchSize::SmallInput,
        );
    });
    assert_eq!(reconcile(empty.clone(), &all, &rules, 1000, &answer).records.len(), 1000);

    let (one_less, full, answer) =
        (desired(ids(0..999)), attached(&thousand), success(ids(999..1000)));
    group.bench_function("plan + settle of a call of 1", |bencher| {
        bencher.iter_batched(
            || full.clone(),
            |ledger| black_box(reconcile(ledger, &one_less, &rules, 100, &answer)),
            BatchSize::SmallInput,
        );
    });
    assert_eq!(
        reconcile(full.clone(), &one_less, &rules, 100, &answer)
            .last_call
            .map(|call| call.operation),
        Some(Operation::Detach)
    );

    group.bench_function("plan of a converged session", |bencher| {
        bencher.iter(|| black_box(full.plan(&all, Some(NOW), Due::ALL, 100, Allowed::All)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
