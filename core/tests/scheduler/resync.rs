//! When members are attached again, with which permits, and what is learnt from the answer.

use std::num::NonZeroU32;
use std::time::Duration;

use streamsession_core::answer::{Answer, CallResult};
use streamsession_core::ledger::plan::Priority;
use streamsession_core::reconcile::{Effect, Requeue, Resync, View};
use streamsession_core::scheduler::resync::ResyncFailure;
use streamsession_core::scheduler::run::Lesson;
use streamsession_core::scheduler::{Digest, Event, Limits, Run};
use streamsession_testkit::fixtures::{answer, error, id, ids, processed};

use crate::process::{LIMITS, Process, converged, done, key_of, names, object, seconds, version};

const INTERVAL: Duration = seconds(300);

fn resynced(object: View) -> View {
    let mut object = object;
    object.desired.resync_interval = Some(INTERVAL);
    object
}

/// The process of one object at rest, at the moment when its resync is due.
fn due(object: &View) -> Process {
    let mut process = Process::new(LIMITS, std::slice::from_ref(object));
    let began = process.now;
    process.now = process.wakes_at().unwrap();
    assert!(process.now > began && process.now <= began + INTERVAL);
    process
}

/// The run goes through its resync, and this is the answer; what it has learnt.
fn resync(process: &mut Process, mut run: Run, object: &mut View, answer: Answer) -> Vec<Lesson> {
    process.call(&mut run, object, "AKID");
    let (settle, lessons) = process.answer(&mut run, answer);
    let end = process.write(&mut run, object, settle);
    assert_eq!(end, Effect::Done(Requeue::OnChange));
    process.finish(run, Requeue::OnChange);
    process.see(object);
    lessons
}

#[test]
fn an_object_at_rest_is_due_an_interval_after_the_last_time() {
    let mut object = resynced(converged("lobby"));
    let mut process = due(&object);
    let first = process.now;

    let run = process.start();
    assert_eq!(resync(&mut process, run, &mut object, done()), []);

    assert_eq!(process.wakes_at(), Some(first + INTERVAL));
    process.now = first + INTERVAL;
    let run = process.start();
    resync(&mut process, run, &mut object, done());
    assert_eq!(process.wakes_at(), Some(first + 2 * INTERVAL));
}

#[test]
fn nobody_is_who_asks_for_none_or_has_nobody_to_ask_for() {
    let mut empty = resynced(converged("empty"));
    empty.desired.instances = ids(&[]);
    let mut deleted = resynced(converged("deleted"));
    deleted.desired.deleting = true;
    for object in [converged("lobby"), empty, deleted] {
        assert_eq!(Digest::of(&object).resync_interval, None);
    }
    let mut process = Process::new(LIMITS, &[converged("lobby")]);
    assert_eq!(process.wakes_at(), None);

    let object = resynced(converged("other"));
    process.see(&object);
    assert!(process.wakes_at().is_some());
    process.see(&version("2", converged("other")));
    assert_eq!(process.wakes_at(), None, "an edit switched it off");
    process.see(&version("3", object.clone()));
    process.tell(Event::Gone(key_of(&object)));
    assert_eq!(process.wakes_at(), None);
}

#[test]
fn a_run_that_did_not_come_to_it_leaves_it_due() {
    let object = resynced(converged("lobby"));
    let mut process = due(&object);
    let mut run = process.start();
    process.read_as(&mut run, &object, "AKID");
    process.finish(run, Requeue::After(seconds(1)));
    process.now += seconds(1);
    let mut run = process.start();
    let key = key_of(&object);
    assert_eq!(process.scheduler.shared().resyncs.of(&key, process.now), Resync::Due(None));
    process.read_as(&mut run, &object, "AKID");
    process.finish(run, Requeue::OnResyncPermit(None));
    assert_eq!(process.scheduler.waiting(), 1);
}

#[test]
fn a_process_that_stops_does_not_wait_for_one() {
    let mut process = Process::new(LIMITS, &[resynced(converged("lobby"))]);
    process.tell(Event::Stopping);
    assert_eq!(process.wakes_at(), None);
    assert!(process.scheduler.is_drained());
}

#[test]
fn each_batch_has_one_turn_and_a_tenth_of_the_permits() {
    let ten = NonZeroU32::new(10).unwrap();
    let limits = Limits { calls_per_second: ten, ..LIMITS };
    let mut objects = ["a", "b"].map(|name| resynced(converged(name)));
    let mut process = Process::new(limits, &objects);
    process.now += INTERVAL;

    let (mut runs, _) = process.commands();
    runs.sort_by_key(|run| run.key().clone());
    assert_eq!(runs.len(), 2);
    let (mut second, first) = (runs.pop().unwrap(), runs.pop().unwrap());
    let [object, other] = &mut objects;
    resync(&mut process, first, object, done());
    process.now += seconds(1) / 10;
    let effect = process.read_as(&mut second, other, "AKID");
    assert_eq!(effect, Effect::Permit(Priority::Resync));
    // What there is to say is said first.
    let effect = process.take_permit(&mut second);
    let effect = process.write(&mut second, other, effect);
    assert_eq!(effect, Effect::Permit(Priority::Resync));
    let effect = process.take_permit(&mut second);
    assert_eq!(effect, Effect::Done(Requeue::OnResyncPermit(None)));
    process.finish(second, Requeue::OnResyncPermit(None));

    let granted_at = process.wakes_at().unwrap();
    assert_eq!(granted_at, process.now + seconds(1) * 9 / 10);
    process.now = granted_at;
    let run = process.start();
    resync(&mut process, run, other, done());
}

#[test]
fn who_waits_for_a_resync_is_reconciled_when_something_else_is_due() {
    let lobby = resynced(converged("lobby"));
    let mut process = due(&lobby);
    let mut run = process.start();
    // Another one calls with the only permit.
    process.see(&object("other"));
    let mut other = process.start();
    process.call(&mut other, &mut object("other"), "AKID");
    process.read_as(&mut run, &lobby, "AKID");

    process.finish(run, Requeue::OnResyncPermit(Some(seconds(5))));

    assert_eq!(
        (process.scheduler.waiting(), process.wakes_at()),
        (1, Some(process.now + seconds(5)))
    );
    process.now += seconds(5);
    let mut run = process.start();
    process.read_as(&mut run, &lobby, "AKID");
    process.finish(run, Requeue::After(seconds(7)));
    assert_eq!(
        (process.scheduler.waiting(), process.wakes_at()),
        (0, Some(process.now + seconds(7)))
    );
}

#[test]
fn one_that_is_due_while_a_run_ends_is_not_lost() {
    let object = resynced(converged("lobby"));
    let mut process = Process::new(LIMITS, std::slice::from_ref(&object));
    let due_at = process.wakes_at().unwrap();
    process.see(&version("2", View { finalizer: false, ..object.clone() }));
    let run = process.start();
    process.now = due_at;
    assert!(process.commands().0.is_empty());
    process.see(&version("3", object));
    process.finish(run, Requeue::OnChange);
    assert_eq!(names(&process.commands().0), ["lobby"]);
}

#[test]
fn what_was_not_confirmed_is_told_once() {
    let mut object = resynced(converged("lobby"));
    let mut process = due(&object);
    let failed = |result, code: &str| {
        let failure = ResyncFailure { result, code: code.to_owned() };
        vec![Lesson::ResyncFailed { failure, instances: vec![id("a")] }]
    };
    for (answer, lessons) in [
        (error("FailedOperation"), failed(CallResult::Unclear, "FailedOperation")),
        (error("FailedOperation"), vec![]),
        (answer(processed(&[], &["a"])), failed(CallResult::Processed, "")),
        (done(), vec![]),
        (error("FailedOperation"), failed(CallResult::Unclear, "FailedOperation")),
    ] {
        let run = process.start();
        assert_eq!(resync(&mut process, run, &mut object, answer), lessons);
        process.now = process.wakes_at().unwrap();
    }
}
