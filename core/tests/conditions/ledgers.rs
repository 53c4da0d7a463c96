//! A ledger that was lost, and one that breaks a promise.

use streamsession_core::conditions::{
    Mode, Problem, Reason, invariant_violated, ledger_unreadable,
};
use streamsession_core::ledger::record::Record;
use streamsession_core::ownership::claims::Ownership;
use streamsession_testkit::fixtures::key;

use crate::{NOW, Report, desired, ledger, report, report_of};

#[test]
fn an_assumed_instance_is_named_as_long_as_there_is_one() {
    let assumed = ledger(&[("b", Record::assumed(NOW.plus(305)))]);
    report(&desired(&["b"]), &assumed).is(
        Mode::Reconciling,
        Reason::LedgerLost,
        "In the record without evidence, since it was lost, is a copy, or was told of by the \
         annotation adopt: b. They are attached or detached anew, as the spec says; what was \
         attached before and is not among them can't be known.",
    );
    let owner = Ownership::Owner(key("stage/copy"));
    report_of(&desired(&["a"]), &assumed, |inputs| {
        (inputs.ownership, inputs.held_back_assumed) = (&owner, true);
    })
    .is(
        Mode::Stalled,
        Reason::SessionConflict,
        "The StreamSession stage/copy names session 1326 too. Of b it is not known who attached \
         them, so they are not detached before stage/copy is deleted or names another session.",
    );
}

#[test]
fn a_ledger_that_cannot_be_made_anew_yet_says_what_it_waits_for() {
    let down = Problem::Unreachable("The service is down.".into());
    let why = "The status is that of another object (uid u), copied or restored";
    let waits = format!("{why}. The record is made anew once the service has told its time.");
    Report(ledger_unreadable(why, None)).is(Mode::Reconciling, Reason::LedgerLost, &waits);
    Report(ledger_unreadable(why, Some(&down))).is(
        Mode::Reconciling,
        Reason::LedgerLost,
        &format!("{waits} The service is down."),
    );
}

#[test]
fn a_broken_promise_is_reported_with_the_way_out() {
    Report(invariant_violated(&"I1: a would leave the ledger without a reason")).is(
        Mode::Stalled,
        Reason::InvariantViolated,
        "The work on this object has stopped, since going on would break a promise of the \
         operator (I1: a would leave the ledger without a reason). Please report it with the \
         operator's log; an edit of the spec makes it try again. To let the object go and leave \
         the instances where they are, set spec.deletionPolicy to Orphan.",
    );
}
