//! Doubts, refusals and problems: what is wrong, for whom, what to do.

use streamsession_core::answer::{CallResult, Operation};
use streamsession_core::conditions::{Mode, Problem, Reason};
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::desired::{DeletionPolicy, Desired};
use streamsession_core::ledger::record::{FailureReason, Record};
use streamsession_testkit::fixtures::id;

use crate::{
    CONSOLE, GONE, LATER, LET_GO, NOW, after, after_result, attached, deleting, desired, failed,
    ledger, refused, report, report_of,
};

#[test]
fn a_doubt_says_until_when() {
    let waiting = |wanted: &[&str], record: Record, message| {
        report(&desired(wanted), &ledger(&[("a", record)])).is(
            Mode::Reconciling,
            Reason::OutcomeUnknown,
            message,
        );
    };
    waiting(
        &[],
        Record { attach_until: LATER, ..Record::default() },
        "An earlier attach of a may still take effect until 2026-01-08T02:05:05Z: its answer or \
         its ledger was lost. Then the operator detaches it again.",
    );
    waiting(
        &["a"],
        Record { detach_until: LATER, ..Record::attached() },
        "An earlier detach of a may still take effect until 2026-01-08T02:05:05Z: its answer or \
         its ledger was lost. Then the operator attaches it again.",
    );
    let sooner = Record { detach_until: Some(NOW.plus(1)), ..Record::attached() };
    let latest = Record { detach_until: LATER, ..Record::attached() };
    // Of two that wait equally long the first one is named.
    report(
        &desired(&["a", "b", "c", "d"]),
        &ledger(&[("a", sooner.clone()), ("b", latest.clone()), ("c", latest), ("d", sooner)]),
    )
    .is(
        Mode::Reconciling,
        Reason::OutcomeUnknown,
        "An earlier detach of b may still take effect until 2026-01-08T02:05:05Z: its answer or \
         its ledger was lost. Then the operator attaches it again.",
    );
}

#[test]
fn a_failure_says_for_whom_and_what_the_service_said() {
    let retrying = |wanted: &[&str], ledger: &Ledger, message: &str| {
        report(&desired(wanted), ledger).is(
            Mode::Reconciling,
            Reason::ProgressingWithRetry,
            message,
        );
    };
    let one = |reason, code| ledger(&[("a", failed(Operation::Attach, reason, code, 4))]);
    retrying(
        &["a"],
        &one(FailureReason::Refused, ""),
        "The service refused a. The operator tries again.",
    );
    retrying(
        &["a"],
        &one(FailureReason::Refused, "InvalidParameterValue"),
        "The service answered InvalidParameterValue to the last call for a. The operator tries \
         again.",
    );
    retrying(
        &["a"],
        &one(FailureReason::Unclear, ""),
        "The service did not say what became of a. The operator tries again.",
    );
    retrying(
        &["a"],
        &one(FailureReason::Unanswered, ""),
        "The last call for a was not answered. The operator tries again.",
    );
    let outage = failed(Operation::Attach, FailureReason::Unanswered, "Timeout", 99);
    retrying(
        &["a", "b"],
        &ledger(&[("a", outage), ("b", refused(Operation::Attach, 1))]),
        "The last call for a ended with Timeout. Its outcome is unknown. 1 more failed for another \
         reason. The operator tries again.",
    );
    let six = ["a", "b", "c", "d", "e", "f"];
    retrying(
        &six,
        &ledger(&six.map(|id| (id, refused(Operation::Attach, 1)))),
        "The service refused a, b, c, d, e and 1 more. The operator tries again.",
    );
    let five = &six[..5];
    retrying(
        five,
        &ledger(&five.iter().map(|id| (*id, refused(Operation::Attach, 1))).collect::<Vec<_>>()),
        "The service refused a, b, c, d, e. The operator tries again.",
    );
    let codes = [
        ("a", failed(Operation::Attach, FailureReason::Refused, "X", 1)),
        ("b", failed(Operation::Attach, FailureReason::Refused, "Y", 1)),
    ];
    retrying(
        &["a", "b"],
        &ledger(&codes),
        "The service answered X to the last call for a. 1 more failed for another reason. The \
         operator tries again.",
    );
    retrying(
        &["a"],
        &after("FailedOperation", ledger(&[])),
        "The service answered FailedOperation to the last call. The operator tries again. 1 to \
         attach.",
    );
    retrying(
        &["a"],
        &after("", ledger(&[])),
        "The service did not answer the last call. The operator tries again. 1 to attach.",
    );
    retrying(
        &["a"],
        &after_result(CallResult::NotSent, "ConnectFailed"),
        "The last call could not be sent (ConnectFailed). Check the network and the operator's \
         log. The operator tries again. 1 to attach.",
    );
    // A status 429 has no code of the service's own: the result says what it was.
    retrying(
        &["a"],
        &after_result(CallResult::Throttled, "HTTP 429"),
        "The service limits the rate of calls (HTTP 429). The operator tries again. 1 to \
         attach.",
    );
    let down = Problem::Unreachable("The service is down.".into());
    report_of(&desired(&["a"]), &ledger(&[]), |inputs| inputs.problem = Some(&down)).is(
        Mode::Reconciling,
        Reason::ProgressingWithRetry,
        "The service is down.",
    );
}

#[test]
fn what_is_refused_for_good_needs_a_user() {
    let stuck = |desired: &Desired, ledger: &Ledger, message: &str| {
        report(desired, ledger).is(Mode::Stalled, Reason::InstancesRefused, message);
    };
    let check = "Check that each exists, belongs to this account and is in no other session, or \
        remove it from spec.slaveInstanceIds.";
    let again = "The operator tries again every few minutes.";
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
            "The service refuses to attach a. {check} The service refuses to detach b from session \
             1326. {CONSOLE} {again}"
        ),
    );
    stuck(
        &deleting(),
        &ledger(&[("a", refused(Operation::Detach, 6))]),
        &format!("The service refuses to detach a from session 1326. {CONSOLE} {again}{LET_GO}"),
    );
}

#[test]
fn what_is_not_offered_says_to_whom_and_what_to_do() {
    let unavailable = |region: Option<&str>, code, what: &str| {
        let object = Desired { region: region.map(str::to_owned), ..desired(&["a"]) };
        let target = object.target(Some(&"AKID".into()));
        let message = format!(
            "{what} The operator tries again every few minutes, and at once after an edit of the \
             spec."
        );
        let ledger = after(code, Ledger { target: Some(target), ..ledger(&[]) });
        report(&object, &ledger).is(Mode::Stalled, Reason::ActionUnavailable, &message);
    };
    unavailable(
        None,
        "InvalidAction",
        "The service does not offer the call to this account (InvalidAction). Nothing was done. \
         Ask Tencent Cloud for it, or check spec.region and the operator's --gs-endpoint.",
    );
    unavailable(
        Some("ap-x"),
        "UnsupportedRegion",
        "The service does not offer the call to this account in region ap-x (UnsupportedRegion). \
         Nothing was done. Set spec.region, or the operator's --region.",
    );
    for code in ["IpInBlacklist", "IpNotInWhitelist"] {
        let what = format!(
            "The service refuses calls from the operator's address ({code}). Nothing was done. Let \
             the address in."
        );
        unavailable(Some("ap-x"), code, &what);
    }
}

#[test]
fn a_problem_with_account_session_or_room_says_what_to_do() {
    let stalled = |desired: &Desired, ledger: &Ledger, reason, message: &str| {
        report(desired, ledger).is(Mode::Stalled, reason, message);
    };
    stalled(
        &desired(&["a"]),
        &after("AuthFailure.SignatureFailure", ledger(&[])),
        Reason::CredentialsRejected,
        "The service rejects the credentials (AuthFailure.SignatureFailure). Check the key. The \
         operator tries again every minute, and at once after an edit of the spec.",
    );
    stalled(
        &desired(&["a"]),
        &after("UnauthorizedOperation.X", ledger(&[])),
        Reason::CredentialsRejected,
        "The credentials may not make the call (UnauthorizedOperation.X). Allow them the CAM \
         action gs:SwitchCloudPhoneMultipleStreamSessionSlaves. The operator tries again every \
         minute, and at once after an edit of the spec.",
    );
    stalled(
        &desired(&["a"]),
        &after(GONE, ledger(&[])),
        Reason::SessionNotFound,
        "The service says that session 1326 does not exist (ResourceNotFound.SessionNotFound). \
         Nothing is attached any more. Create the session again, or set spec.sessionId to a new \
         one.",
    );
    stalled(
        &desired(&["b"]),
        &after(GONE, attached(&["a"])),
        Reason::TargetMismatch,
        "The service says that session 1326 does not exist (ResourceNotFound.SessionNotFound). The \
         operator does not believe it: the instances were attached with other credentials (AKID), \
         and nobody says that these are of the same account. Restore those credentials, or give \
         others of that account.",
    );
    let mut of_account = after(GONE, attached(&["a"]));
    of_account.target.as_mut().unwrap().account = Some("100".into());
    let told = report(&desired(&["b"]), &of_account).0;
    let text = told.message;
    assert!(text.contains("credentials (AKID of account 100), and nobody"), "{text}");
    let full = "The ledger is full (2000 instances). More are attached or adopted once others are \
        detached.";
    report_of(&desired(&["a"]), &ledger(&[]), |inputs| inputs.full = true).is(
        Mode::Stalled,
        Reason::TooManyInstances,
        full,
    );
    report_of(&desired(&["a"]), &attached(&["a"]), |inputs| {
        (inputs.full, inputs.adoption_pending) = (true, true);
    })
    .is(Mode::Stalled, Reason::TooManyInstances, full);
    let no_room_for = [id("x"), id("y")];
    report_of(&desired(&["a"]), &attached(&["a"]), |inputs| {
        (inputs.full, inputs.adoption_pending, inputs.no_room_for) = (true, true, &no_room_for);
    })
    .is(
        Mode::Stalled,
        Reason::TooManyInstances,
        &format!("{full} There is no room for these of the annotation adopt: x, y."),
    );
    report_of(&desired(&["a"]), &attached(&["a"]), |inputs| inputs.adoption_pending = true).is(
        Mode::Reconciling,
        Reason::ProgressingWithRetry,
        "The instances of the annotation adopt are added to the ledger once the service has told \
         its time.",
    );
    report_of(&desired(&["a"]), &attached(&["a", "b"]), |inputs| inputs.adoption_pending = true)
        .is(Mode::Reconciling, Reason::Progressing, "1 to detach.");
    report_of(&desired(&["a"]), &attached(&["b"]), |inputs| inputs.full = true).is(
        Mode::Reconciling,
        Reason::Progressing,
        "1 to attach, 1 to detach.",
    );
    let missing = Problem::Credentials("There is no Secret tencent.".into());
    report_of(&desired(&["a"]), &ledger(&[]), |inputs| inputs.problem = Some(&missing)).is(
        Mode::Stalled,
        Reason::CredentialsNotFound,
        "There is no Secret tencent.",
    );
    report_of(&deleting(), &attached(&["a"]), |inputs| inputs.problem = Some(&missing)).is(
        Mode::Stalled,
        Reason::CredentialsNotFound,
        &format!("There is no Secret tencent.{LET_GO}"),
    );
    let orphan = Desired { deletion_policy: DeletionPolicy::Orphan, ..deleting() };
    report_of(&orphan, &attached(&["a"]), |inputs| inputs.problem = Some(&missing)).is(
        Mode::Stalled,
        Reason::CredentialsNotFound,
        "There is no Secret tencent.",
    );
}
