//! What people are told: every kind of scene with its whole message, to be read as a person would
//! read it at three in the morning.

#![allow(missing_docs, reason = "a test crate")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use streamsession_core::answer::Operation;
use streamsession_core::conditions::{
    ConditionInputs, Conditions, Counts, Mode, Problem, Reason, conditions, invariant_violated,
    ledger_unreadable,
};
use streamsession_core::ids::{InstanceId, JournalId, SessionId};
use streamsession_core::ledger::desired::{DeletionPolicy, Desired, Target};
use streamsession_core::ledger::record::{Failure, FailureReason, Record, Refusals, State};
use streamsession_core::ledger::{Journal, LastCall, Ledger, Rules};
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::key;

const NOW: ServiceTime = ServiceTime(1_767_837_600); // 2026-01-08T02:00:00Z
const LATER: Option<ServiceTime> = Some(ServiceTime(NOW.0 + 305));

static RULES: LazyLock<Rules> = LazyLock::new(Rules::default);

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

fn desired(ids: &[&str]) -> Desired {
    Desired {
        session: SessionId::parse("1326").unwrap(),
        region: None,
        default_region: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        instances: ids.iter().map(|text| id(text)).collect(),
        deleting: false,
        deletion_policy: DeletionPolicy::Delete,
        forgets_failures: false,
    }
}

fn deleting() -> Desired {
    Desired { deleting: true, ..desired(&["a"]) }
}

fn ledger(records: &[(&str, Record)]) -> Ledger {
    let target = Target {
        session: SessionId::parse("1326").unwrap(),
        region: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        credential: Some("AKID".into()),
        credential_proven: true,
    };
    Ledger {
        target: Some(target),
        records: records.iter().map(|(text, record)| (id(text), record.clone())).collect(),
        ..Ledger::default()
    }
}

fn attached(ids: &[&str]) -> Ledger {
    ledger(&ids.iter().map(|id| (*id, Record::attached())).collect::<Vec<_>>())
}

fn failed(operation: Operation, reason: FailureReason, code: &str, attempts: u32) -> Record {
    Record {
        state: if operation == Operation::Attach { State::Detached } else { State::Attached },
        refusals: Some(Refusals { operation, count: attempts, since: ServiceTime(NOW.0 - 3600) }),
        last_failure: Some(Failure { operation, reason, code: code.into(), attempts, time: NOW }),
        ..Record::default()
    }
}

fn refused(operation: Operation, attempts: u32) -> Record {
    failed(operation, FailureReason::Refused, "", attempts)
}

fn after(code: &str, ledger: Ledger) -> Ledger {
    let call = LastCall {
        operation: Operation::Attach,
        request_id: "67f3".into(),
        time: NOW,
        succeeded: 0,
        failed: 1,
        code: code.into(),
    };
    Ledger { last_call: Some(call), ..ledger }
}

fn pending(ledger: Ledger) -> Ledger {
    let instances = vec![id("a")];
    Ledger {
        journal: Some(Journal {
            id: JournalId("7f0c".into()),
            operation: Operation::Attach,
            instances,
            start_time: NOW,
        }),
        ..ledger
    }
}

struct Told(Conditions);

impl Told {
    #[track_caller]
    fn is(&self, mode: Mode, reason: Reason, message: &str) {
        assert_eq!((self.0.mode, self.0.reason, self.0.message.as_str()), (mode, reason, message));
    }
}

fn inputs<'a>(
    desired: &'a Desired,
    ledger: &'a Ledger,
    change: impl FnOnce(&mut ConditionInputs<'a>),
) -> Told {
    let mut inputs = ConditionInputs {
        desired,
        ledger,
        problem: None,
        full: false,
        adoption_pending: false,
        held_back_assumed: false,
        ownership: &Ownership::Uncontested,
        now: Some(NOW),
        rules: &RULES,
    };
    change(&mut inputs);
    Told(conditions(&inputs))
}

fn told(desired: &Desired, ledger: &Ledger) -> Told {
    inputs(desired, ledger, |_| ())
}

const LET_GO: &str = " To let the object go and leave the instances where they are, set spec.deletionPolicy to Orphan.";
const GONE: &str = "ResourceNotFound.SessionNotFound";

#[test]
fn what_is_at_rest_is_ready() {
    let ready = |wanted: &[&str], ledger: &Ledger, message| {
        told(&desired(wanted), ledger).is(Mode::Ready, Reason::UpToDate, message);
    };
    ready(&["a", "b"], &attached(&["a", "b"]), "All 2 slave instances are attached.");
    ready(&["a"], &attached(&["a"]), "The slave instance is attached.");
    ready(&[], &Ledger::default(), "No slave instance is wanted, and none is attached.");
    ready(&["a"], &after("FailedOperation", attached(&["a"])), "The slave instance is attached.");
    let harmless = ledger(&[("a", Record { attach_until: LATER, ..Record::attached() })]);
    ready(&["a"], &harmless, "The slave instance is attached.");
    let first = Ownership::Owner(key("stage/copy"));
    inputs(&desired(&["a"]), &attached(&["a"]), |inputs| inputs.ownership = &first).is(
        Mode::Ready,
        Reason::UpToDate,
        "The slave instance is attached.",
    );
}

#[test]
fn what_is_under_way_says_how_much_there_is_to_do() {
    let working = |wanted: &[&str], ledger: &Ledger, message| {
        told(&desired(wanted), ledger).is(Mode::Reconciling, Reason::Progressing, message);
    };
    working(&["a"], &Ledger::default(), "1 to attach.");
    working(&["b"], &attached(&["a"]), "1 to attach, 1 to detach.");
    working(&[], &attached(&["a"]), "1 to detach.");
    working(&["a"], &pending(attached(&["a"])), "Waiting for the answer to the last call.");
    working(
        &["a", "b"],
        &ledger(&[("a", refused(Operation::Attach, 5))]),
        "1 to attach. The service refuses a.",
    );
    let gone = failed(Operation::Attach, FailureReason::SessionGone, GONE, 9);
    working(&["a"], &ledger(&[("a", gone)]), "1 to attach.");
}

#[test]
fn a_doubt_says_until_when() {
    let waiting = |wanted: &[&str], record: Record, message| {
        told(&desired(wanted), &ledger(&[("a", record)])).is(
            Mode::Reconciling,
            Reason::OutcomeUnknown,
            message,
        );
    };
    waiting(
        &[],
        Record { attach_until: LATER, ..Record::default() },
        "An earlier attach of a may still take effect until 2026-01-08T02:05:05Z, since its answer or its record was lost; the operator detaches it again then.",
    );
    waiting(
        &["a"],
        Record { detach_until: LATER, ..Record::attached() },
        "An earlier detach of a may still take effect until 2026-01-08T02:05:05Z, since its answer or its record was lost; the operator attaches it again then.",
    );
    let sooner = Record { detach_until: Some(NOW.plus(1)), ..Record::attached() };
    let latest = Record { detach_until: LATER, ..Record::attached() };
    // Of two that wait equally long the first one is named.
    told(&desired(&["a", "b", "c", "d"]), &ledger(&[("a", sooner.clone()), ("b", latest.clone()), ("c", latest), ("d", sooner)])).is(
        Mode::Reconciling,
        Reason::OutcomeUnknown,
        "An earlier detach of b may still take effect until 2026-01-08T02:05:05Z, since its answer or its record was lost; the operator attaches it again then.",
    );
}

#[test]
fn a_failure_says_for_whom_and_what_the_service_said() {
    let retrying = |wanted: &[&str], ledger: &Ledger, message: &str| {
        told(&desired(wanted), ledger).is(Mode::Reconciling, Reason::ProgressingWithRetry, message);
    };
    let one = |reason, code| ledger(&[("a", failed(Operation::Attach, reason, code, 4))]);
    retrying(
        &["a"],
        &one(FailureReason::Refused, ""),
        "The service refused a; the operator tries again.",
    );
    retrying(
        &["a"],
        &one(FailureReason::Refused, "InvalidParameterValue"),
        "The service answered InvalidParameterValue to the last call for a; the operator tries again.",
    );
    retrying(
        &["a"],
        &one(FailureReason::Unclear, ""),
        "The service did not say what became of a; the operator tries again.",
    );
    retrying(
        &["a"],
        &one(FailureReason::Unanswered, ""),
        "The last call for a was not answered; the operator tries again.",
    );
    let outage = failed(Operation::Attach, FailureReason::Unanswered, "Timeout", 99);
    retrying(
        &["a", "b"],
        &ledger(&[("a", outage), ("b", refused(Operation::Attach, 1))]),
        "The last call for a ended with Timeout, and nobody knows whether it was done, and 1 failed otherwise; the operator tries again.",
    );
    let six = ["a", "b", "c", "d", "e", "f"];
    retrying(
        &six,
        &ledger(&six.map(|id| (id, refused(Operation::Attach, 1)))),
        "The service refused a, b, c, d, e and 1 more; the operator tries again.",
    );
    let five = &six[..5];
    retrying(
        five,
        &ledger(&five.iter().map(|id| (*id, refused(Operation::Attach, 1))).collect::<Vec<_>>()),
        "The service refused a, b, c, d, e; the operator tries again.",
    );
    let codes = [
        ("a", failed(Operation::Attach, FailureReason::Refused, "X", 1)),
        ("b", failed(Operation::Attach, FailureReason::Refused, "Y", 1)),
    ];
    retrying(
        &["a", "b"],
        &ledger(&codes),
        "The service answered X to the last call for a, and 1 failed otherwise; the operator tries again.",
    );
    retrying(
        &["a"],
        &after("FailedOperation", ledger(&[])),
        "The service answered FailedOperation to the last call; the operator tries again. 1 to attach.",
    );
    retrying(
        &["a"],
        &after("ConnectFailed", ledger(&[])),
        "The last call could not be sent (ConnectFailed): look at the network between and at the operator's log. It is tried again. 1 to attach.",
    );
    let down = Problem::Unreachable("The service is down.".into());
    inputs(&desired(&["a"]), &ledger(&[]), |inputs| inputs.problem = Some(&down)).is(
        Mode::Reconciling,
        Reason::ProgressingWithRetry,
        "The service is down.",
    );
}

const CONSOLE: &str = "Look in the console whether it is still there; let go of what is out with the annotation gs.tencentcloud.dev/forget-instances or with spec.detachFailurePolicy.";

#[test]
fn what_is_refused_for_good_needs_a_person() {
    let stuck = |desired: &Desired, ledger: &Ledger, message: &str| {
        told(desired, ledger).is(Mode::Stalled, Reason::InstancesRefused, message);
    };
    let check = "Check that each exists, belongs to this account and is in no other session, or take it out of spec.slaveInstanceIds.";
    let again = "It is tried again every few minutes.";
    let coded = failed(Operation::Attach, FailureReason::Refused, "ResourceNotFound.X", 5);
    stuck(
        &desired(&["a"]),
        &ledger(&[("a", coded)]),
        &format!("The service refuses to attach a (ResourceNotFound.X). {check} {again}"),
    );
    stuck(
        &desired(&[]),
        &ledger(&[("a", refused(Operation::Detach, 5))]),
        &format!("The service refuses to detach a from session 1326. {CONSOLE} {again}"),
    );
    stuck(
        &desired(&["a"]),
        &ledger(&[("a", refused(Operation::Attach, 6)), ("b", refused(Operation::Detach, 6))]),
        &format!(
            "The service refuses to attach a. {check} The service refuses to detach b from session 1326. {CONSOLE} {again}"
        ),
    );
    stuck(
        &deleting(),
        &ledger(&[("a", refused(Operation::Detach, 6))]),
        &format!("The service refuses to detach a from session 1326. {CONSOLE} {again}{LET_GO}"),
    );
}

#[test]
fn a_problem_with_account_session_or_room_says_what_to_do() {
    let stalled = |desired: &Desired, ledger: &Ledger, reason, message: &str| {
        told(desired, ledger).is(Mode::Stalled, reason, message);
    };
    stalled(
        &desired(&["a"]),
        &after("AuthFailure.SignatureFailure", ledger(&[])),
        Reason::CredentialsRejected,
        "The service refuses the credentials with AuthFailure.SignatureFailure. Check the key and its permissions; the operator tries again every minute, and at once after an edit of the spec.",
    );
    stalled(
        &desired(&["a"]),
        &after(GONE, ledger(&[])),
        Reason::SessionNotFound,
        "The service says that session 1326 does not exist (ResourceNotFound.SessionNotFound): nothing is attached any more. Create the session again, or set spec.sessionId to the new one.",
    );
    stalled(
        &desired(&["b"]),
        &after(GONE, attached(&["a"])),
        Reason::TargetMismatch,
        "The service says that session 1326 does not exist (ResourceNotFound.SessionNotFound), but to other credentials than those that attached the instances (AKID), so this is not believed. Give the credentials back that were used before.",
    );
    let full = "The ledger is full (2000 instances): more are attached or adopted once others could be detached.";
    inputs(&desired(&["a"]), &ledger(&[]), |inputs| inputs.full = true).is(
        Mode::Stalled,
        Reason::TooManyInstances,
        full,
    );
    inputs(&desired(&["a"]), &attached(&["a"]), |inputs| {
        (inputs.full, inputs.adoption_pending) = (true, true);
    })
    .is(Mode::Stalled, Reason::TooManyInstances, full);
    inputs(&desired(&["a"]), &attached(&["a"]), |inputs| inputs.adoption_pending = true).is(
        Mode::Reconciling,
        Reason::ProgressingWithRetry,
        "The instances that the annotation adopt names are taken into the record once the service has told its time.",
    );
    inputs(&desired(&["a"]), &attached(&["a", "b"]), |inputs| inputs.adoption_pending = true).is(
        Mode::Reconciling,
        Reason::Progressing,
        "1 to detach.",
    );
    inputs(&desired(&["a"]), &attached(&["b"]), |inputs| inputs.full = true).is(
        Mode::Reconciling,
        Reason::Progressing,
        "1 to attach, 1 to detach.",
    );
    let missing = Problem::Credentials("There is no Secret tencent.".into());
    inputs(&desired(&["a"]), &ledger(&[]), |inputs| inputs.problem = Some(&missing)).is(
        Mode::Stalled,
        Reason::CredentialsNotFound,
        "There is no Secret tencent.",
    );
    inputs(&deleting(), &attached(&["a"]), |inputs| inputs.problem = Some(&missing)).is(
        Mode::Stalled,
        Reason::CredentialsNotFound,
        &format!("There is no Secret tencent.{LET_GO}"),
    );
    let orphan = Desired { deletion_policy: DeletionPolicy::Orphan, ..deleting() };
    inputs(&orphan, &attached(&["a"]), |inputs| inputs.problem = Some(&missing)).is(
        Mode::Stalled,
        Reason::CredentialsNotFound,
        "There is no Secret tencent.",
    );
}

#[test]
fn a_deletion_says_what_it_waits_for() {
    let going = |ledger: &Ledger, message| {
        told(&deleting(), ledger).is(Mode::Reconciling, Reason::Deleting, message);
    };
    going(&attached(&["a"]), "1 to detach.");
    going(&Ledger::default(), "All instances are detached.");
    going(
        &ledger(&[("a", Record { detach_until: LATER, ..Record::default() })]),
        "All instances are detached; an earlier detach may still arrive until 2026-01-08T02:05:05Z, and the object waits for that.",
    );
}

#[test]
fn a_move_says_from_where_to_where_and_what_it_waits_for() {
    let elsewhere = Desired { session: SessionId::parse("2").unwrap(), ..desired(&["a"]) };
    told(&elsewhere, &attached(&["a"])).is(
        Mode::Reconciling,
        Reason::Progressing,
        "Moving from session 1326 to 2: 1 to detach.",
    );
    told(&elsewhere, &ledger(&[("a", Record { detach_until: LATER, ..Record::default() })])).is(
        Mode::Reconciling,
        Reason::OutcomeUnknown,
        "All instances are detached from session 1326; an earlier detach may still arrive until 2026-01-08T02:05:05Z, and the move to session 2 waits for that.",
    );
    told(&elsewhere, &ledger(&[("a", Record { attach_until: LATER, ..Record::default() })])).is(
        Mode::Reconciling,
        Reason::OutcomeUnknown,
        "An earlier attach of a may still take effect until 2026-01-08T02:05:05Z, since its answer or its record was lost; the operator detaches it again then. The move to session 2 waits for that.",
    );
    told(&elsewhere, &ledger(&[("a", refused(Operation::Detach, 6))])).is(
        Mode::Stalled,
        Reason::InstancesRefused,
        &format!("The service refuses to detach a from session 1326. {CONSOLE} It is tried again every few minutes. The move to session 2 waits for that."),
    );
    let region = Desired { region: Some("ap-shanghai".into()), ..desired(&["a"]) };
    told(&region, &attached(&["a"])).is(
        Mode::Reconciling,
        Reason::Progressing,
        "Moving from session 1326 in no region to 1326 in ap-shanghai: 1 to detach.",
    );
}

#[test]
fn a_conflict_names_the_other_object() {
    let behind = Ownership::Contender(key("arcade/lobby"));
    let conflict = "Session 1326 is driven by the StreamSession arcade/lobby: this one attaches nothing, and takes over by itself when that one is deleted or names another session. Name all instances in one of them.";
    let waits = |desired: &Desired, ledger: &Ledger, message: &str| {
        inputs(desired, ledger, |inputs| inputs.ownership = &behind).is(
            Mode::Stalled,
            Reason::SessionConflict,
            message,
        );
    };
    waits(&desired(&["a"]), &ledger(&[]), conflict);
    waits(&desired(&[]), &ledger(&[]), conflict);
    waits(&desired(&["a"]), &after(GONE, ledger(&[])), conflict);
    let stale_members =
        "2 of its instances wait until arcade/lobby has them or does not want them.";
    waits(&desired(&[]), &attached(&["a", "b"]), &format!("{conflict} {stale_members}"));
    let going = "Session 1326 is driven by the StreamSession arcade/lobby: this one goes, and touches nothing that is the other's.";
    waits(&deleting(), &attached(&["a", "b"]), &format!("{going} {stale_members}{LET_GO}"));
    let one = format!(
        "{conflict} 1 of its instances wait until arcade/lobby has them or does not want them."
    );
    waits(&desired(&[]), &ledger(&[("a", refused(Operation::Detach, 6))]), &one);
    let late = format!(
        "{conflict} 1 of its instances wait until no earlier call for them can arrive any more (2026-01-08T02:05:05Z)."
    );
    waits(
        &desired(&[]),
        &ledger(&[("a", Record { attach_until: LATER, ..Record::default() })]),
        &late,
    );
    waits(
        &desired(&[]),
        &ledger(&[("a", Record { attach_until: Some(NOW), ..Record::default() })]),
        &one,
    );
    waits(&desired(&["a"]), &attached(&["a"]), conflict);
    let first = Ownership::Owner(key("stage/copy"));
    inputs(&desired(&["a"]), &ledger(&[]), |inputs| inputs.ownership = &first).is(
        Mode::Reconciling,
        Reason::Progressing,
        "1 to attach.",
    );
    let down = Problem::Unreachable("The service is down.".into());
    inputs(&desired(&["a"]), &ledger(&[]), |inputs| {
        (inputs.ownership, inputs.problem) = (&behind, Some(&down));
    })
    .is(Mode::Stalled, Reason::SessionConflict, conflict);
    inputs(&desired(&["a"]), &after("AuthFailure.X", ledger(&[])), |inputs| inputs.ownership = &behind).is(
        Mode::Stalled,
        Reason::CredentialsRejected,
        "The service refuses the credentials with AuthFailure.X. Check the key and its permissions; the operator tries again every minute, and at once after an edit of the spec.",
    );
}

#[test]
fn an_assumed_instance_is_named_as_long_as_there_is_one() {
    let assumed = ledger(&[("b", Record::assumed(NOW.plus(305)))]);
    told(&desired(&["b"]), &assumed).is(
        Mode::Reconciling,
        Reason::LedgerLost,
        "In the record without evidence, since it was lost, is a copy, or was told of by the annotation adopt: b. They are attached or detached anew, as the spec says; what was attached before and is not among them can't be known.",
    );
    let first = Ownership::Owner(key("stage/copy"));
    let guess = |inputs: &mut ConditionInputs<'_>| inputs.held_back_assumed = true;
    inputs(&desired(&["a"]), &assumed, |inputs| {
        inputs.ownership = &first;
        guess(inputs);
    })
    .is(
        Mode::Stalled,
        Reason::SessionConflict,
        "The StreamSession stage/copy names session 1326 too. Of b it is not known who attached them, so they are not detached before stage/copy is deleted or names another session.",
    );
}

#[test]
fn a_ledger_that_cannot_be_made_anew_yet_says_what_it_waits_for() {
    let down = Problem::Unreachable("The service is down.".into());
    let why = "The status is that of another object (uid u), copied or restored";
    let waits = format!("{why}. The record is made anew once the service has told its time.");
    Told(ledger_unreadable(why, None)).is(Mode::Reconciling, Reason::LedgerLost, &waits);
    Told(ledger_unreadable(why, Some(&down))).is(
        Mode::Reconciling,
        Reason::LedgerLost,
        &format!("{waits} The service is down."),
    );
}

#[test]
fn a_broken_promise_is_reported_with_the_way_out() {
    Told(invariant_violated(&"I1: a would leave the ledger without a reason")).is(
        Mode::Stalled,
        Reason::InvariantViolated,
        "The work on this object has stopped, since going on would break a promise of the operator (I1: a would leave the ledger without a reason). Please report it with the operator's log; an edit of the spec makes it try again. To let the object go and leave the instances where they are, set spec.deletionPolicy to Orphan.",
    );
}

#[test]
fn instances_are_counted_as_people_see_them() {
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
        "InvariantViolated",
        "Deleting",
    ];
    for word in words {
        assert_eq!(Reason::parse(word).map(Reason::as_str), Some(word));
    }
    assert_eq!(Reason::parse("Ready"), None);
}
