//! What people are told: every kind of situation with its whole message, to be read as a user would
//! read it at three in the morning.

#![allow(missing_docs, reason = "a test crate")]

mod failures;
mod ledgers;
mod sessions;

use std::sync::LazyLock;

use streamsession_core::answer::{CallResult, Operation};
use streamsession_core::conditions::{
    ConditionInputs, Conditions, Counts, Mode, Reason, conditions,
};
use streamsession_core::ledger::desired::Desired;
use streamsession_core::ledger::record::{Failure, FailureReason, Record, Refusals, State};
use streamsession_core::ledger::{LastCall, Ledger, Rules};
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{self, attached_at, id, ids, journal, key, last_call};

const NOW: ServiceTime = ServiceTime(1_767_837_600); // 2026-01-08T02:00:00Z
const LATER: Option<ServiceTime> = Some(ServiceTime(NOW.0 + 305));
const LET_GO: &str = " To delete the object now and leave its instances attached, set \
    spec.deletionPolicy to Orphan.";
const GONE: &str = "ResourceNotFound.SessionNotFound";
const CONSOLE: &str = "Check in the console whether it is still there. Release what is out with \
    the annotation gs.tencentcloud.dev/forget-instances, or set spec.detachFailurePolicy to \
    Forget.";

fn desired(instances: &[&str]) -> Desired {
    fixtures::desired("1326", instances)
}

fn deleting() -> Desired {
    Desired { deleting: true, ..desired(&["a"]) }
}

fn attached(instances: &[&str]) -> Ledger {
    attached_at("1326", &ids(instances))
}

fn ledger(records: &[(&str, Record)]) -> Ledger {
    let records = records.iter().map(|(text, record)| (id(text), record.clone())).collect();
    Ledger { records, ..attached(&[]) }
}

fn failed(operation: Operation, reason: FailureReason, code: &str, attempts: u32) -> Record {
    Record {
        state: if operation == Operation::Attach { State::Detached } else { State::Attached },
        refusals: Some(Refusals { operation, count: attempts, since: NOW.plus(-3600) }),
        last_failure: Some(Failure {
            operation,
            reason,
            code: code.into(),
            attempts,
            time: NOW,
            generation: 1,
        }),
        ..Record::default()
    }
}

fn refused(operation: Operation, attempts: u32) -> Record {
    failed(operation, FailureReason::Refused, "", attempts)
}

/// The ledger after a call that failed with this code.
fn after(code: &str, ledger: Ledger) -> Ledger {
    Ledger { last_call: Some(last_call(code)), ..ledger }
}

/// Likewise, whatever the code says.
fn after_result(result: CallResult, code: &str) -> Ledger {
    let call = LastCall { result, ..last_call(code) };
    Ledger { last_call: Some(call), ..ledger(&[]) }
}

/// What an object is told.
struct Report(Conditions);

impl Report {
    #[track_caller]
    fn is(&self, mode: Mode, reason: Reason, message: &str) {
        assert_eq!((self.0.mode, self.0.reason, self.0.message.as_str()), (mode, reason, message));
    }
}

/// The report of an object that is alone, if it is not changed.
fn report_of<'a>(
    desired: &'a Desired,
    ledger: &'a Ledger,
    change: impl FnOnce(&mut ConditionInputs<'a>),
) -> Report {
    static RULES: LazyLock<Rules> = LazyLock::new(Rules::default);
    let mut inputs = ConditionInputs {
        desired,
        ledger,
        problem: None,
        full: false,
        no_room_for: &[],
        adoption_pending: false,
        left_to_others: &[],
        deletion_is_late: false,
        ownership: &Ownership::Uncontested,
        now: Some(NOW),
        rules: &RULES,
    };
    change(&mut inputs);
    Report(conditions(&inputs))
}

fn report(desired: &Desired, ledger: &Ledger) -> Report {
    report_of(desired, ledger, |_| ())
}

#[test]
fn what_is_at_rest_is_ready() {
    let ready = |wanted: &[&str], ledger: &Ledger, message| {
        report(&desired(wanted), ledger).is(Mode::Ready, Reason::UpToDate, message);
    };
    ready(&["a", "b"], &attached(&["a", "b"]), "All 2 slave instances are attached.");
    ready(&["a"], &attached(&["a"]), "The slave instance is attached.");
    ready(&[], &Ledger::default(), "No slave instance is wanted, and none is attached.");
    ready(&["a"], &after("FailedOperation", attached(&["a"])), "The slave instance is attached.");
    let harmless = ledger(&[("a", Record { attach_until: LATER, ..Record::attached() })]);
    ready(&["a"], &harmless, "The slave instance is attached.");
    let owner = Ownership::Owner(key("stage/copy"));
    report_of(&desired(&["a"]), &attached(&["a"]), |inputs| inputs.ownership = &owner).is(
        Mode::Ready,
        Reason::UpToDate,
        "The slave instance is attached.",
    );
}

#[test]
fn what_is_under_way_says_how_much_there_is_to_do() {
    let working = |wanted: &[&str], ledger: &Ledger, message| {
        report(&desired(wanted), ledger).is(Mode::Reconciling, Reason::Progressing, message);
    };
    working(&["a"], &Ledger::default(), "1 to attach.");
    working(&["b"], &attached(&["a"]), "1 to attach, 1 to detach.");
    working(&[], &attached(&["a"]), "1 to detach.");
    working(
        &["a"],
        &Ledger { journal: Some(journal(Operation::Attach, &["a"])), ..attached(&["a"]) },
        "Waiting for the answer to the last call.",
    );
    working(
        &["a", "b"],
        &ledger(&[("a", refused(Operation::Attach, 5))]),
        "1 to attach. The service refuses a.",
    );
    let gone = failed(Operation::Attach, FailureReason::SessionGone, GONE, 9);
    working(&["a"], &ledger(&[("a", gone)]), "1 to attach.");
}

#[test]
fn instances_are_counted_as_users_see_them() {
    let records = [
        ("a", Record::attached()),
        ("b", refused(Operation::Attach, 1)),
        ("c", refused(Operation::Detach, 1)),
        ("d", Record { detach_until: LATER, ..Record::attached() }),
        ("e", refused(Operation::Detach, 1)),
    ];
    let counts = Counts::of(&desired(&["a", "b", "c", "x"]), &ledger(&records));
    assert_eq!(
        (counts.desired, counts.attached, counts.failed),
        (4, 4, 2),
        "a detach that nobody wants any more has not failed"
    );
}

#[test]
fn each_reason_is_read_as_it_is_written() {
    let words = [
        "UpToDate",
        "Progressing",
        "ProgressingWithRetry",
        "OutcomeUnknown",
        "InstancesRefused",
        "CredentialsNotFound",
        "CredentialsRejected",
        "SessionNotFound",
        "SessionConflict",
        "TargetMismatch",
        "LedgerLost",
        "TooManyInstances",
        "ActionUnavailable",
        "InvariantViolated",
        "Deleting",
    ];
    for word in words {
        assert_eq!(Reason::parse(word).map(Reason::as_str), Some(word));
    }
    assert_eq!(Reason::parse("Ready"), None);
}
