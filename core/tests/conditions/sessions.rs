//! Leaving a session, moving to another one, and several objects that name one.

use streamsession_core::answer::Operation;
use streamsession_core::conditions::{Mode, Problem, Reason, another_service};
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::desired::{DeletionPolicy, Desired};
use streamsession_core::ledger::record::Record;
use streamsession_core::ownership::claims::Ownership;
use streamsession_testkit::fixtures::{key, session};

use crate::{
    CONSOLE, GONE, LATER, LET_GO, NOW, Report, after, attached, deleting, desired, ledger, refused,
    report, report_of,
};

#[test]
fn a_deletion_says_what_it_waits_for() {
    let going = |ledger: &Ledger, message| {
        report(&deleting(), ledger).is(Mode::Reconciling, Reason::Deleting, message);
    };
    going(&attached(&["a"]), "1 to detach.");
    going(&Ledger::default(), "All instances are detached.");
    going(
        &ledger(&[("a", Record { detach_until: LATER, ..Record::default() })]),
        "All instances are detached. An earlier detach may still take effect until \
         2026-01-08T02:05:05Z; the object waits for that.",
    );
}

#[test]
fn a_ledger_of_another_service_says_which_one() {
    let desired = desired(&["a"]);
    let message = "The instances were attached at the service elsewhere, and the operator calls \
        gs.tencentcloudapi.com (--gs-endpoint). Nothing is sent. Let the operator call that service \
        again.";
    Report(another_service("elsewhere", &desired)).is(
        Mode::Stalled,
        Reason::TargetMismatch,
        message,
    );
    let deleted = Report(another_service("elsewhere", &deleting()));
    assert_eq!(deleted.0.message, format!("{message}{LET_GO}"));
}

#[test]
fn a_deletion_that_waits_for_long_says_how_to_end_it_whatever_it_waits_for() {
    let late = |ledger: &Ledger, problem: Option<&Problem>, message: &str| {
        let object = deleting();
        let told = report_of(&object, ledger, |inputs| {
            (inputs.problem, inputs.deletion_is_late) = (problem, true);
        });
        assert_eq!(told.0.message, format!("{message}{LET_GO}"));
    };
    late(&attached(&["a"]), None, "1 to detach.");
    let down = Problem::Unreachable("The service is down.".into());
    late(&attached(&["a"]), Some(&down), "The service is down.");
    late(
        &after("InternalError", attached(&["a"])),
        None,
        "The service answered InternalError to the last call. The operator tries again. 1 to \
         detach.",
    );
    late(
        &ledger(&[("a", Record { detach_until: LATER, ..Record::default() })]),
        None,
        "All instances are detached. An earlier detach may still take effect until \
         2026-01-08T02:05:05Z; the object waits for that.",
    );
    let orphaned = Desired { deletion_policy: DeletionPolicy::Orphan, ..deleting() };
    report_of(&orphaned, &attached(&["a"]), |inputs| inputs.deletion_is_late = true).is(
        Mode::Reconciling,
        Reason::Deleting,
        "1 to detach.",
    );
}

#[test]
fn a_move_says_from_where_to_where_and_what_it_waits_for() {
    let elsewhere = Desired { session: session("2"), ..desired(&["a"]) };
    report(&elsewhere, &attached(&["a"])).is(
        Mode::Reconciling,
        Reason::Progressing,
        "Moving from session 1326 to 2: 1 to detach.",
    );
    report(&elsewhere, &ledger(&[("a", Record { detach_until: LATER, ..Record::default() })])).is(
        Mode::Reconciling,
        Reason::OutcomeUnknown,
        "All instances are detached from session 1326. An earlier detach may still take effect \
         until 2026-01-08T02:05:05Z; the move to session 2 waits for that.",
    );
    report(&elsewhere, &ledger(&[("a", Record { attach_until: LATER, ..Record::default() })])).is(
        Mode::Reconciling,
        Reason::OutcomeUnknown,
        "An earlier attach of a may still take effect until 2026-01-08T02:05:05Z: its answer or \
         its ledger was lost. Then the operator detaches it again. The move to session 2 waits for \
         that.",
    );
    report(&elsewhere, &ledger(&[("a", refused(Operation::Detach, 6))])).is(
        Mode::Stalled,
        Reason::InstancesRefused,
        &format!(
            "The service refuses to detach a from session 1326. {CONSOLE} The operator tries again \
             every few minutes. The move to session 2 waits for that.",
        ),
    );
    let region = Desired { region: Some("ap-shanghai".into()), ..desired(&["a"]) };
    report(&region, &attached(&["a"])).is(
        Mode::Reconciling,
        Reason::Progressing,
        "Moving from session 1326 in no region to 1326 in ap-shanghai: 1 to detach.",
    );
}

#[test]
fn a_conflict_names_the_other_object() {
    let contender = Ownership::Contender(key("arcade/lobby"));
    let conflict = "StreamSession arcade/lobby owns session 1326. This object attaches nothing. It \
        takes over when arcade/lobby is deleted or names another session. List all instances in \
        one of the two.";
    let waits = |desired: &Desired, ledger: &Ledger, message: &str| {
        report_of(desired, ledger, |inputs| inputs.ownership = &contender).is(
            Mode::Stalled,
            Reason::SessionConflict,
            message,
        );
    };
    waits(&desired(&["a"]), &ledger(&[]), conflict);
    report_of(&desired(&[]), &ledger(&[]), |inputs| inputs.ownership = &contender).is(
        Mode::Ready,
        Reason::UpToDate,
        "No slave instance is wanted, and none is attached.",
    );
    waits(&desired(&["a"]), &after(GONE, ledger(&[])), conflict);
    let stale_members =
        "2 of its instances wait until arcade/lobby has them or does not want them.";
    waits(&desired(&[]), &attached(&["a", "b"]), &format!("{conflict} {stale_members}"));
    let going = "StreamSession arcade/lobby owns session 1326. This object is being deleted, and \
        leaves alone what the owner has.";
    waits(&deleting(), &attached(&["a", "b"]), &format!("{going} {stale_members}{LET_GO}"));
    let one = format!(
        "{conflict} 1 of its instances wait until arcade/lobby has them or does not want them."
    );
    waits(&desired(&[]), &ledger(&[("a", refused(Operation::Detach, 6))]), &one);
    let late = format!(
        "{conflict} 1 of its instances wait until 2026-01-08T02:05:05Z: an earlier call may still \
         take effect."
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
    let owner = Ownership::Owner(key("stage/copy"));
    report_of(&desired(&["a"]), &ledger(&[]), |inputs| inputs.ownership = &owner).is(
        Mode::Reconciling,
        Reason::Progressing,
        "1 to attach.",
    );
    let down = Problem::Unreachable("The service is down.".into());
    report_of(&desired(&["a"]), &ledger(&[]), |inputs| {
        (inputs.ownership, inputs.problem) = (&contender, Some(&down));
    })
    .is(Mode::Stalled, Reason::SessionConflict, conflict);
    report_of(&desired(&["a"]), &after("AuthFailure.X", ledger(&[])), |inputs| {
        inputs.ownership = &contender;
    })
    .is(
        Mode::Stalled,
        Reason::CredentialsRejected,
        "The service rejects the credentials (AuthFailure.X). Check the key. The operator tries again every minute, and at once after an edit of the spec.",
    );
}
