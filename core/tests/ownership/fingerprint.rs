//! Equal situations have equal fingerprints: times count from now, and what no rule reads is left
//! out, as in the model of one object.

use std::hash::{Hash, Hasher};

use streamsession_core::ledger::record::Record;
use streamsession_core::reconcile::{LedgerState, View};
use streamsession_core::time::ServiceTime;

use crate::world::State;

/// The highest number that a rule compares a count with.
const COUNT_MAX: u32 = 5;

/// A number that stands for the situation; with `budgets`, for what may still happen too.
pub fn of(state: &State, budgets: bool) -> u128 {
    let half = |seed: u64| {
        let mut hasher = std::hash::DefaultHasher::new();
        seed.hash(&mut hasher);
        hash(state, budgets, &mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

fn hash(state: &State, budgets: bool, hasher: &mut impl Hasher) {
    if budgets {
        state.budgets.hash(hasher);
    }
    state.is_member.hash(hasher);
    for (operation, until) in &state.in_flight {
        (operation, until - state.now).hash(hasher);
    }
    for object in &state.objects {
        object.is_some().hash(hasher);
        let Some(object) = object else { continue };
        object.has_keys.hash(hasher);
        view(&object.view, state.now, hasher);
    }
}

fn view(view: &View, now: i64, hasher: &mut impl Hasher) {
    let View { finalizer, desired, status, .. } = view;
    (finalizer, &desired.instances, desired.deleting).hash(hasher);
    (status.observed_generation == desired.generation).hash(hasher);
    let reason = status.conditions.as_ref().map(|conditions| (conditions.mode, conditions.reason));
    reason.hash(hasher);
    match &status.ledger {
        LedgerState::New => 1.hash(hasher),
        LedgerState::Lost { remains, .. } => {
            2.hash(hasher);
            remains.records.keys().for_each(|id| id.hash(hasher));
        }
        LedgerState::Current(ledger) => {
            3.hash(hasher);
            let target = ledger.target.as_ref();
            target.map(|target| (&target.credential, target.credential_proven)).hash(hasher);
            ledger.last_call.as_ref().map(|call| call.result).hash(hasher);
            ledger.journal.is_some().hash(hasher);
            for (id, known) in &ledger.records {
                id.hash(hasher);
                record(known, now, hasher);
            }
        }
    }
}

fn record(record: &Record, now: i64, hasher: &mut impl Hasher) {
    let to_go = |until: Option<ServiceTime>| until.map(|until| (until.0 - now).max(0));
    (record.state, record.assumed).hash(hasher);
    (to_go(record.attach_until), to_go(record.detach_until)).hash(hasher);
    let refusals =
        record.refusals.map(|refusals| (refusals.operation, refusals.count.min(COUNT_MAX)));
    refusals.hash(hasher);
    if let Some(failure) = &record.last_failure {
        (failure.operation, failure.reason, failure.attempts.min(COUNT_MAX)).hash(hasher);
        // Whether it was before or after a detach that may still arrive.
        to_go(Some(crate::world::VALIDITY.end(failure.time))).hash(hasher);
    }
}
