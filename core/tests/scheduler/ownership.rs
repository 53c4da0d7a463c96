//! Several objects that name one session.

use streamsession_core::conditions::{Conditions, Mode, Reason};
use streamsession_core::ledger::record::State;
use streamsession_core::reconcile::{Effect, LedgerState, Requeue, Response, View};
use streamsession_core::scheduler::Event;
use streamsession_core::scheduler::quota::WINDOW;
use streamsession_testkit::fixtures::{answer, attached_at, desired, id, ids, key, processed};

use crate::process::{LIMITS, Process, converged, done, key_of, object, seconds, version};

/// That object names session 1, and was created then.
fn contested(object: View, created: i64) -> View {
    let mut object = View { created, ..object };
    object.desired = desired("1", &["a"]);
    if let LedgerState::Current(ledger) = &mut object.status.ledger {
        *ledger = attached_at("1", &ids(&["a"]));
    }
    object
}

fn credentials_failed(object: &View) -> View {
    let mut object = object.clone();
    object.status.conditions = Some(Conditions {
        mode: Mode::Stalled,
        reason: Reason::CredentialsRejected,
        message: String::new(),
    });
    object
}

#[test]
fn another_claimant_wakes_both_sides_and_so_does_its_end() {
    let mut process = Process::new(LIMITS, &[contested(converged("owner"), 5)]);
    assert_eq!(process.reconciled().len(), 0);

    process.see(&contested(object("contender"), 6));
    assert_eq!(process.reconciled(), ["contender", "owner"]);
    process.tell(Event::Gone(key("contender")));

    assert_eq!(process.reconciled(), ["owner"]);
}

#[test]
fn an_owner_that_goes_wakes_the_contender_whatever_it_waits_for() {
    let owner = contested(converged("owner"), 5);
    let mut process = Process::new(LIMITS, &[owner]);
    process.see(&contested(object("contender"), 6));
    for run in process.commands().0 {
        let pause = if &*run.key().name == "contender" {
            Requeue::After(seconds(60))
        } else {
            Requeue::OnChange
        };
        process.finish(run, pause);
    }

    process.tell(Event::Gone(key("owner")));

    assert_eq!(process.reconciled(), ["contender"]);
    assert_eq!(process.wakes_at(), None, "its timer is over");
}

#[test]
fn a_change_of_ownership_during_a_reconcile_starts_another_one() {
    let mut process = Process::new(LIMITS, &[contested(object("contender"), 6)]);
    let run = process.start();

    process.see(&contested(converged("owner"), 5));
    let owner = process.start();
    process.finish(owner, Requeue::OnChange);
    process.finish(run, Requeue::OnChange);

    assert_eq!(process.reconciled(), ["contender"]);
}

#[test]
fn a_converged_contender_has_to_say_that_it_is_one() {
    let all = [contested(converged("owner"), 5), contested(converged("contender"), 6)];
    let mut process = Process::new(LIMITS, &all);
    process.reconciled();

    process.see(&version("2", all[1].clone()));
    assert_eq!(process.reconciled(), ["contender"]);
    process.see(&version("2", all[0].clone()));

    assert_eq!(process.reconciled().len(), 0);
}

#[test]
fn what_a_run_reads_or_writes_changes_the_claims_at_once() {
    let mut process = Process::new(LIMITS, &[contested(object("older"), 5)]);
    let mut run = process.start();
    process.see(&contested(object("younger"), 6));
    process.reconciled();

    let mut moved = contested(object("older"), 5);
    moved.desired = desired("2", &["a"]);
    process.read(&mut run, &moved);

    assert!(process.scheduler.has_news());
    assert_eq!(process.reconciled(), ["younger"], "the session is its own now");
}

#[test]
fn the_last_thing_that_a_run_saw_is_gone_with_the_object() {
    let mut process = Process::new(LIMITS, &[contested(object("older"), 5)]);
    let mut run = process.start();
    process.see(&contested(object("younger"), 6));
    process.reconciled();
    process.tell(Event::Gone(key("older")));
    process.reconciled();
    process.read(&mut run, &contested(object("older"), 5));
    assert_eq!(process.reconciled(), ["younger"]);

    process.finish(run, Requeue::Never);

    let younger = contested(object("younger"), 6);
    let claims = &process.scheduler.shared().claims;
    assert_eq!(claims.owner(&younger.place()), Some(&key_of(&younger)));
}

#[test]
fn a_regained_ownership_is_acknowledged_by_the_write_that_says_so() {
    let owner = contested(converged("owner"), 5);
    let contender = contested(object("contender"), 6);
    let mut process = Process::new(LIMITS, &[owner.clone(), contender]);
    process.reconciled();
    // For a while the other one owns the session.
    process.see(&version("2", credentials_failed(&owner)));
    process.see(&version("3", owner.clone()));
    let lost = |process: &Process| process.scheduler.shared().claims.lost_ownership(&key("owner"));
    let mut runs = process.commands().0;
    runs.retain(|run| &*run.key().name == "owner");
    let mut run = runs.remove(0);

    let effect = process.read_as(&mut run, &version("3", owner.clone()), "AKID");
    assert_eq!(effect, Effect::Permit, "what was confirmed is called for again");
    let effect = process.take_permit(&mut run);
    let Effect::WriteStatus(status, _) = &effect else { panic!("a write, not {effect:?}") };
    let LedgerState::Current(ledger) = &status.ledger else { panic!("a ledger") };
    assert_eq!(ledger.records[&id("a")].state, State::Unknown);
    assert!(lost(&process), "it is not stored yet");
    let mut stored = owner;
    process.write(&mut run, &mut stored, effect);

    assert!(!lost(&process));
}

#[test]
fn a_write_that_fails_acknowledges_nothing() {
    let owner = contested(converged("owner"), 5);
    let contender = contested(object("contender"), 6);
    let mut process = Process::new(LIMITS, &[owner.clone(), contender]);
    process.reconciled();
    process.see(&version("2", credentials_failed(&owner)));
    process.see(&version("3", View { finalizer: false, ..owner.clone() }));
    let mut runs = process.commands().0;
    runs.retain(|run| &*run.key().name == "owner");
    let mut run = runs.remove(0);
    let lost = |process: &Process| process.scheduler.shared().claims.lost_ownership(&key("owner"));

    let stripped = version("3", View { finalizer: false, ..owner.clone() });
    assert_eq!(process.read(&mut run, &stripped), Effect::AddFinalizer);
    process.step(&mut run, Response::Object(Some(Box::new(version("4", owner.clone())))));
    assert!(lost(&process), "the finalizer says nothing of it");
    let effect = process.step(&mut run, Response::Credentials(Ok("AKID".into())));
    assert_eq!(effect, Effect::Permit);
    assert!(matches!(process.take_permit(&mut run), Effect::WriteStatus(..)));
    process.step(&mut run, Response::Conflict);

    assert!(lost(&process));
}

/// A fleet found it.
#[test]
fn a_late_echo_of_an_earlier_reconcile_does_not_end_the_wait_for_a_timer() {
    let mut owner = contested(object("owner"), 5);
    let mut process = Process::new(LIMITS, &[owner.clone()]);
    let mut run = process.start();
    process.call(&mut run, &mut owner, "AKID");
    let journalled = owner.clone();
    let (settle, _) = process.answer(&mut run, done());
    process.write(&mut run, &mut owner, settle);
    let settled = owner.clone();
    process.finish(run, Requeue::OnChange);

    // Another one owns the session for a moment, so that the call is made again, and refused.
    process.see(&contested(converged("other"), 1));
    process.tell(Event::Gone(key("other")));
    process.now += WINDOW;
    let mut run = process.start();
    process.call(&mut run, &mut owner, "AKID");
    process.see(&journalled);
    let (settle, _) = process.answer(&mut run, answer(processed(&[], &["a"])));
    let effect = process.write(&mut run, &mut owner, settle);
    let Effect::Done(requeue @ Requeue::After(_)) = effect else { panic!("a pause") };
    process.finish(run, requeue);
    process.see(&settled);

    let mut run = process.start();
    let effect = process.read(&mut run, &owner);
    let Effect::Done(requeue @ Requeue::After(pause)) = effect else {
        panic!("it still waits: {effect:?}")
    };
    process.finish(run, requeue);
    assert_eq!(process.wakes_at(), Some(process.now + pause));
}

#[test]
fn a_run_knows_at_its_first_read_that_another_object_owns_the_session() {
    let (owner, other) = (contested(object("owner"), 1), contested(object("other"), 5));
    let mut process = Process::new(LIMITS, &[owner, other.clone()]);
    let (mut runs, _) = process.commands();
    let run = runs.iter_mut().find(|run| &*run.key().name == "other").unwrap();

    let effect = process.read(run, &other);

    let Effect::WriteStatus(status, _) = effect else { panic!("it says so, not {effect:?}") };
    assert_eq!(status.conditions.unwrap().reason, Reason::SessionConflict);
}
