//! Several objects that name one session.

use streamsession_core::conditions::{Conditions, Mode, Reason};
use streamsession_core::ledger::desired::Desired;
use streamsession_core::ledger::record::Record;
use streamsession_core::reconcile::{Effect, LedgerState, Requeue, Response, View};
use streamsession_core::scheduler::Event;
use streamsession_core::scheduler::quota::WINDOW;
use streamsession_testkit::fixtures::{NOW, answer, attached_at, desired, id, ids, key, processed};

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
    assert_eq!(process.wakes_at(), None);
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
    assert_eq!(claims.owner(&key_of(&younger), &younger.place()), Some(&key_of(&younger)));
}

#[test]
fn who_owned_a_session_for_a_moment_only_made_no_call_so_nothing_is_called_again() {
    let mut owner = contested(converged("owner"), 5);
    owner.finalizer = true;
    let contender = contested(object("contender"), 6);
    let mut process = Process::new(LIMITS, &[owner.clone(), contender]);
    process.reconciled();
    // Its ledger says Attached all the while.
    process.see(&version("2", credentials_failed(&owner)));
    process.see(&version("3", owner.clone()));
    let mut runs = process.commands().0;
    let run = runs.iter_mut().find(|run| &*run.key().name == "owner").unwrap();

    let effect = process.read(run, &version("3", owner.clone()));

    let Effect::WriteStatus(status, _) = effect else { panic!("it is Ready, not {effect:?}") };
    assert_eq!(status.ledger, owner.status.ledger);
}

/// The owner wants a and b, and has read the contender, which shows `before`. Now its journal is
/// written: what it does once it sees `after`.
fn beside(before: &View, after: &View) -> Effect {
    let mut owner = contested(object("owner"), 1);
    owner.desired = desired("1", &["a", "b"]);
    let mut process = Process::new(LIMITS, &[owner.clone(), before.clone()]);
    let mut runs = process.commands().0;
    let mut run = runs.remove(runs.iter().position(|run| &*run.key().name == "owner").unwrap());
    let contender =
        |view: &View| Response::Claimant(key("contender"), Some(Box::new(view.clone())));

    assert_eq!(process.read(&mut run, &owner), Effect::ReadClaimant(key("contender")));
    let mut effect = process.step(&mut run, contender(before));
    if effect == Effect::Credentials {
        effect = process.step(&mut run, Response::Credentials(Ok("AKID".into())));
    }
    if matches!(effect, Effect::Permit(_)) {
        effect = process.take_permit(&mut run);
    }
    let effect = process.write(&mut run, &mut owner, effect);
    assert_eq!(effect, Effect::ReadClaimant(key("contender")));
    process.step(&mut run, contender(after))
}

fn contender() -> View {
    let mut contender = contested(object("contender"), 6);
    contender.status.ledger = LedgerState::New;
    contender
}

#[test]
fn an_owner_looks_at_the_others_before_it_calls() {
    let effect = beside(&contender(), &contender());
    let Effect::Call(call) = effect else { panic!("a call, not {effect:?}") };
    assert_eq!(call.journal().instances, [id("a"), id("b")]);

    let mut has_b = contender();
    has_b.status.ledger = LedgerState::Current(attached_at("1", &ids(&["b"])));
    let effect = beside(&contender(), &has_b);
    let Effect::WriteStatus(status, _) = effect else { panic!("taken back, not {effect:?}") };
    let LedgerState::Current(ledger) = status.ledger else { panic!("a ledger") };
    assert_eq!((ledger.journal, ledger.records.len()), (None, 0));
}

#[test]
fn a_detach_that_another_one_may_have_sent_is_counted_before_the_attach() {
    let mut detaches_b = contender();
    let mut late = attached_at("1", &ids(&["b"]));
    let until = NOW.plus(100_000);
    for record in late.records.values_mut() {
        *record = Record { detach_until: Some(until), ..Record::default() };
    }
    detaches_b.status.ledger = LedgerState::Current(late);

    let effect = beside(&contender(), &detaches_b);

    let Effect::WriteStatus(status, _) = effect else { panic!("another journal, not {effect:?}") };
    let LedgerState::Current(ledger) = status.ledger else { panic!("a ledger") };
    assert!(ledger.journal.is_some());
    assert_eq!(ledger.records[&id("b")].detach_until, Some(until));
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

    // An edit, and its call is refused.
    owner.desired = Desired { generation: 2, ..desired("1", &["a", "b"]) };
    process.see(&version("edited", owner.clone()));
    process.now += WINDOW;
    let mut run = process.start();
    process.call(&mut run, &mut owner, "AKID");
    process.see(&journalled);
    let (settle, _) = process.answer(&mut run, answer(processed(&[], &["b"])));
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

#[test]
fn what_was_read_of_one_that_is_gone_claims_nothing() {
    let mut process = Process::new(LIMITS, &[object("lobby")]);
    let mut run = process.start();
    process.read(&mut run, &object("lobby"));
    let gone = object("gone");
    process.step(&mut run, Response::Claimant(key("gone"), Some(Box::new(gone))));
    assert!(!process.scheduler.shared().claims.is_in_sight(&key("gone")));
}
