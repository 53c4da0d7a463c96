//! What becomes of a journal and of an answer that could not be written, or that somebody removed.

use std::time::Duration;

use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::State;
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::{
    Effect, LedgerState, ReconcileState, Requeue, Response, Status, StepContext,
};
use streamsession_testkit::fixtures::{id, ids, key, with_status};

use crate::driver::{Driver, at, done, foreign_journal, ledger, lost, object, settings, unstarted};

#[test]
fn an_answer_that_could_not_be_written_is_owed() {
    let mut reconcile = Driver::calling(&unstarted());
    reconcile.answer(done()).respond(Response::Failed);
    let Driver { object, reconcile, .. } = reconcile;
    assert!(reconcile.state().owes_settle());

    let next = Driver::resume(reconcile.into_state(), &object, false, at(Some(1_002), 2));

    let state = next.ledger().records[&id("a")].state;
    assert_eq!(state, State::Attached, "the answer is settled, not doubted");
}

#[test]
fn a_call_whose_journal_somebody_removed_is_remembered_until_its_doubt_is_written() {
    for found in [lost().status.ledger, LedgerState::Current(Ledger::default())] {
        let mut reconcile = Driver::calling(&unstarted());
        reconcile.answer(done());
        reconcile.object.desired.generation = 2;
        reconcile.object.desired.instances = ids(&["b"]);
        reconcile.object.status.ledger = found;

        // The settle conflicts, and what is written instead does too.
        for _ in 0..2 {
            reconcile.respond(Response::Conflict);
            assert_eq!(reconcile.effect, Effect::Read);
            reconcile.read();
            if reconcile.effect == Effect::Credentials {
                reconcile.credentials();
            }
            reconcile.permit(false);

            assert_eq!(reconcile.ledger().records[&id("a")].state, State::Unknown);
            assert_eq!(reconcile.ledger().target.as_ref().unwrap().session.as_str(), "1");
        }
    }
}

#[test]
fn a_call_is_remembered_until_the_ledger_tells_of_it_whatever_else_is_written() {
    let mut reconcile = Driver::calling(&unstarted());
    reconcile.answer(done());
    reconcile.context = at(None, 1);
    reconcile.respond(Response::Conflict);
    reconcile.object.desired.generation = 2;
    reconcile.object.status.ledger = lost().status.ledger;
    reconcile.read().no_time();
    assert_eq!(reconcile.status().observed_generation, 2);
    assert_eq!(
        reconcile.message(),
        "Gone. The ledger is rebuilt once the service has told its time. The service is down."
    );

    reconcile.write();

    assert!(reconcile.pause() > Duration::ZERO);
    assert_eq!(reconcile.reconcile.state().open_instances(), [&id("a")]);
}

#[test]
fn a_journal_whose_write_was_not_answered_is_known_when_it_turns_up() {
    let mut writer = Driver::journalling(&unstarted());
    let journalled = with_status(&writer.object, writer.status().clone());
    writer.respond(Response::Failed);

    // It is not there yet.
    let state = writer.reconcile.into_state();
    let next = Driver::resume(state, &writer.object, false, at(Some(1_001), 1));
    let state = next.reconcile.into_state();

    for permit in [false, true] {
        let later = Driver::resume(state.clone(), &journalled, permit, at(Some(1_002), 2));
        // It is taken back at once, and the call is to be made anew.
        assert_eq!(later.effect, Effect::Credentials);
    }
}

#[test]
fn of_journals_whose_writes_were_not_answered_the_last_ones_are_known() {
    let object = unstarted();
    let (mut state, mut journals) = (ReconcileState::new(&settings()), Vec::new());
    for seconds in 0..3 {
        let mut writer = Driver::resume(state, &object, true, at(Some(1_000), seconds));
        writer.credentials();
        journals.push(writer.status().clone());
        writer.respond(Response::Failed);
        state = writer.reconcile.into_state();
    }

    let found = |journal: &Status| {
        let object = with_status(&object, journal.clone());
        Driver::resume(state.clone(), &object, false, at(Some(1_000), 3)).effect
    };
    let taken_back = [found(&journals[1]), found(&journals[2])];
    assert_eq!(taken_back, [Effect::Credentials, Effect::Credentials]);
    let foreign = found(&journals[0]);
    assert!(
        matches!(foreign, Effect::Done(Requeue::After(_))),
        "it can't be stored any more; whoever wrote this is somebody else: {foreign:?}"
    );
}

#[test]
fn a_journal_of_someone_else_is_left_alone_for_as_long_as_its_writer_may_be_at_work() {
    let reads = |state, journal: &str, seconds| {
        let mut object = object(&[]);
        let journal = Some(foreign_journal(journal));
        object.status.ledger =
            LedgerState::Current(Ledger { journal, ..ledger(&object.status).clone() });
        let driver = Driver::resume(state, &object, false, at(Some(1_000), seconds));
        (driver.reconcile.into_state(), driver.effect)
    };
    let after = |seconds| Effect::Done(Requeue::After(Duration::from_secs(seconds)));

    let (state, effect) = reads(ReconcileState::new(&settings()), "theirs", 0);
    assert_eq!(effect, after(8));
    let (state, effect) = reads(state, "theirs", 7);
    assert_eq!(effect, after(1));
    let (state, effect) = reads(state, "their next", 8);
    assert_eq!(effect, after(8), "that is another one");
    let (_, effect) = reads(state, "their next", 16);
    assert_eq!(effect, Effect::Credentials, "it is in doubt now, and is called again");
}

#[test]
fn a_call_that_may_not_be_made_any_more_was_not_sent() {
    let mut reconcile = Driver::journalling(&unstarted());
    reconcile.context = StepContext { may_act: false, ..at(Some(1_000), 0) };

    reconcile.write();

    assert!(reconcile.pause() > Duration::ZERO);
    assert!(reconcile.reconcile.state().open_instances().is_empty());
}

#[test]
fn a_journal_that_may_not_be_sent_is_taken_back_without_a_look_at_the_others() {
    let mut driver = Driver::journalling(&unstarted());
    let mut journalled = with_status(&driver.object, driver.status().clone());
    (journalled.desired.instances, journalled.desired.generation) = (ids(&[]), 2);
    driver.respond(Response::Failed);
    let state = driver.reconcile.into_state();

    let owner = StepContext {
        ownership: Ownership::Owner(key("other")),
        others: vec![key("other")],
        ..at(Some(1_001), 1)
    };
    let driver = Driver::resume(state, &journalled, true, owner);

    assert_eq!(driver.ledger().journal, None, "nobody knows what stood there when it was written");
}
