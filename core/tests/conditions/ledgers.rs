//! A ledger that was lost, and one that breaks a promise.

use streamsession_core::conditions::{
    Mode, Problem, Reason, invariant_violated, ledger_unreadable,
};
use streamsession_core::ledger::record::Record;
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::invariants::Violation;
use streamsession_testkit::fixtures::{id, key};

use crate::{LET_GO, NOW, Report, desired, ledger, report, report_of};

#[test]
fn an_assumed_instance_is_named_as_long_as_there_is_one() {
    let assumed = ledger(&[("b", Record::assumed(NOW.plus(305)))]);
    report(&desired(&["b"]), &assumed).is(
        Mode::Reconciling,
        Reason::LedgerLost,
        "The ledger was lost, copied or added to by the annotation adopt. These instances are in \
         it without proof: b. They are attached or detached again, as the spec says. Instances \
         that were attached before and are not among them can't be known.",
    );
    let owner = Ownership::Owner(key("stage/copy"));
    let theirs = [id("b")];
    report_of(&desired(&["a"]), &assumed, |inputs| {
        (inputs.ownership, inputs.left_to_others) = (&owner, &theirs);
    })
    .is(
        Mode::Reconciling,
        Reason::Progressing,
        "StreamSession stage/copy names session 1326 too, and gives way to this object. Until it \
         has, it keeps b.",
    );
}

#[test]
fn a_ledger_that_cannot_be_made_anew_yet_says_what_it_waits_for() {
    let down = Problem::Unreachable("The service is down.".into());
    let why = "The status is that of another object (uid u), copied or restored";
    let waits = format!("{why}. The ledger is rebuilt once the service has told its time.");
    Report(ledger_unreadable(why, None, false)).is(Mode::Reconciling, Reason::LedgerLost, &waits);
    for (late, how_to_end) in [(false, ""), (true, LET_GO)] {
        Report(ledger_unreadable(why, Some(&down), late)).is(
            Mode::Reconciling,
            Reason::LedgerLost,
            &format!("{waits} The service is down.{how_to_end}"),
        );
    }
}

#[test]
fn a_broken_promise_is_reported_with_the_way_out() {
    Report(invariant_violated(&Violation::Forgotten(id("a")))).is(
        Mode::Stalled,
        Reason::InvariantViolated,
        "The operator has stopped working on this object: the next step would break a promise (I1: \
         a would leave the ledger without a reason). Report this with the operator's log. An edit \
         of the spec makes it try again. To delete the object now and leave its instances \
         attached, set spec.deletionPolicy to Orphan.",
    );
}

#[test]
fn each_broken_promise_is_named() {
    let a = || id("a");
    let texts = [
        (Violation::NoSession, "I1: instances would be tracked in no session"),
        (Violation::TooManyRecords(2001), "I1: 2001 records would not fit into the status"),
        (
            Violation::UnorderedJournal,
            "I1: the journal of a call would not name each instance once",
        ),
        (
            Violation::NotStored("status.pendingCall"),
            "I1: the API server did not store status.pendingCall as it was written; is the \
             CustomResourceDefinition that of this version, and does an admission webhook or \
             policy change the object?",
        ),
        (Violation::FalseReady, "I2: Ready would be true while something is open"),
        (Violation::EarlyRelease, "I3: the object would go while its ledger tracks something"),
        (
            Violation::NoFinalizer,
            "I3: a call would be made for an object that may go at any moment",
        ),
        (
            Violation::NeverAttached(a()),
            "I4: a would be detached, and this object never attached it",
        ),
        (Violation::NotOwner(a()), "I5: a would be attached, and another object owns the session"),
        (Violation::Unwanted(a()), "I6: a would be attached, and the spec does not want it"),
    ];
    for (violation, text) in texts {
        assert_eq!(violation.to_string(), text);
    }
}
