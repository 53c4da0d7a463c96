//! What a reconcile of a large session costs the pure core. Figures, not a test: the machine is
//! shared.

#![allow(missing_docs, reason = "criterion's macros write functions")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use streamsession_core::answer::{Answer, Operation};
use streamsession_core::ledger::desired::Desired;
use streamsession_core::ledger::{Journal, Ledger, Rules};
use streamsession_core::ledger::{due::Due, plan::Allowed};
use streamsession_testkit::fixtures::{self, NOW, attached_at, journal, numbered_ids, success};

fn desired(numbers: std::ops::Range<usize>) -> Desired {
    Desired { instances: numbered_ids(numbers), ..fixtures::desired("1", &[]) }
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
    ledger.journal = Some(Journal { instances: batch.instances, ..journal(batch.operation, &[]) });
    ledger.settle(answer, &"AKID".into(), desired, rules, false)
}

fn bench(criterion: &mut Criterion) {
    let rules = Rules::default();
    let thousand = numbered_ids(0..1000);
    let mut group = criterion.benchmark_group("1000 ids");

    let (all, empty) = (desired(0..1000), attached_at("1", &numbered_ids(0..0)));
    let answer = success(thousand.clone());
    group.bench_function("plan + settle of a call of 1000", |bencher| {
        bencher.iter_batched(
            || empty.clone(),
            |ledger| black_box(reconcile(ledger, &all, &rules, 1000, &answer)),
            BatchSize::SmallInput,
        );
    });
    assert_eq!(reconcile(empty.clone(), &all, &rules, 1000, &answer).records.len(), 1000);

    let (one_less, full) = (desired(0..999), attached_at("1", &thousand));
    let answer = success(numbered_ids(999..1000));
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
