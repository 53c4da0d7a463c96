//! A process that stops: what is under way settles, and nothing else is begun.

use streamsession_core::ledger::record::State;
use streamsession_core::reconcile::{Effect, LedgerState, Requeue, Response, View};
use streamsession_core::scheduler::quota::WINDOW;
use streamsession_core::scheduler::{Event, Limits, Run};
use streamsession_testkit::fixtures::id;

use crate::process::{LIMITS, Process, done, object, seconds, version};

/// `lobby` has called.
fn calling() -> (Process, Run, View) {
    let mut lobby = object("lobby");
    let mut process = Process::new(LIMITS, &[lobby.clone()]);
    let mut run = process.start();
    process.call(&mut run, &mut lobby, "AKID");
    (process, run, lobby)
}

#[test]
fn nothing_new_is_begun() {
    let mut process = Process::new(LIMITS, &[object("timer")]);
    let run = process.start();
    process.finish(run, Requeue::After(seconds(5)));
    process.see(&object("due"));
    assert!(!process.scheduler.is_drained());

    process.tell(Event::Stopping);
    process.see(&object("new"));
    process.see(&version("2", object("timer")));
    process.now += seconds(60);

    assert_eq!(process.wakes_at(), None);
    assert!(process.scheduler.is_drained());
}

#[test]
fn a_run_that_is_under_way_is_waited_for_and_comes_back_for_nothing() {
    let mut process = Process::new(LIMITS, &[object("lobby")]);
    let run = process.start();

    process.tell(Event::Stopping);
    process.see(&version("2", object("lobby")));
    assert!(!process.scheduler.is_drained());
    process.finish(run, Requeue::After(seconds(5)));

    assert_eq!(process.wakes_at(), None);
    assert!(process.scheduler.is_drained());
}

#[test]
fn nobody_is_granted_a_permit() {
    let (mut process, mut run, _) = calling();
    process.see(&object("next"));
    process.wait_for_permit(&object("next"), "AKID");
    process.answer(&mut run, done());
    process.finish(run, Requeue::OnChange);

    process.tell(Event::Stopping);
    process.now += WINDOW;

    assert_eq!(process.wakes_at(), None);
}

#[test]
fn a_run_takes_no_permit_and_one_that_has_one_does_not_call() {
    let limits = Limits { concurrency: 2, ..LIMITS };
    let mut process = Process::new(limits, &[object("holds"), object("asks")]);
    let mut runs = process.commands().0;
    let (mut holds, mut asks) = (runs.remove(0), runs.remove(0));
    let mut held = object("holds");
    assert!(matches!(process.read_as(&mut holds, &held, "AKID"), Effect::Permit(_)));
    let journal = process.take_permit(&mut holds);
    assert!(matches!(process.read_as(&mut asks, &object("asks"), "OTHER"), Effect::Permit(_)));

    process.tell(Event::Stopping);

    let effect = process.write(&mut holds, &mut held, journal);
    assert!(!matches!(effect, Effect::Call(_)), "{effect:?}");
    let effect = process.take_permit(&mut asks);
    assert!(matches!(effect, Effect::Done(Requeue::OnPermit(_))), "{effect:?}");
}

#[test]
fn an_answer_that_is_not_written_yet_is_settled() {
    let (mut process, mut run, lobby) = calling();
    process.answer(&mut run, done());
    let Effect::Done(requeue) = process.step(&mut run, Response::Failed) else { panic!("the end") };
    process.finish(run, requeue);
    process.see(&object("other"));

    process.tell(Event::Stopping);
    assert!(!process.scheduler.is_drained());
    let mut run = process.start();
    assert_eq!(&*run.key().name, "lobby", "it owes a settle, and need not wait");

    let Effect::WriteStatus(status, _) = process.read(&mut run, &lobby) else { panic!("a write") };
    let LedgerState::Current(ledger) = &status.ledger else { panic!("a ledger") };
    assert_eq!(ledger.records[&id("a")].state, State::Attached);
}

#[test]
fn a_settle_that_fails_again_is_tried_again_and_then_the_process_is_drained() {
    let (mut process, mut run, mut lobby) = calling();
    process.tell(Event::Stopping);
    process.answer(&mut run, done());
    let effect = process.step(&mut run, Response::Failed);
    let Effect::Done(Requeue::After(pause)) = effect else { panic!("a pause, not {effect:?}") };
    process.finish(run, Requeue::After(pause));
    assert_eq!(process.wakes_at(), Some(process.now + pause));
    assert!(!process.scheduler.is_drained());

    process.now += pause;
    let mut run = process.start();
    let settle = process.read(&mut run, &lobby);
    process.write(&mut run, &mut lobby, settle);
    process.finish(run, Requeue::OnChange);

    assert!(process.scheduler.is_drained());
}

#[test]
fn a_settle_is_not_held_back_by_concurrency() {
    let (mut process, mut run, _) = calling();
    process.answer(&mut run, done());
    let Effect::Done(requeue) = process.step(&mut run, Response::Failed) else { panic!("the end") };
    process.finish(run, requeue);
    process.see(&object("busy"));
    process.see(&object("busy-too"));
    let _busy = process.commands();

    process.tell(Event::Stopping);

    assert_eq!(&*process.start().key().name, "lobby");
}
