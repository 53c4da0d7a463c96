//! A phone that moves from one session to another by one commit.

use streamsession_core::answer::Operation;
use streamsession_core::ledger::desired::Desired;
use streamsession_core::ledger::record::{Record, Refusals, State};
use streamsession_core::reconcile::{Effect, Requeue};
use streamsession_core::scheduler::Event;
use streamsession_core::scheduler::quota::WINDOW;
use streamsession_testkit::fixtures::{
    NOW, answer, attached_at, desired, id, ids, key, processed, status,
};

use crate::process::{LIMITS, Process, done, object, seconds, version};

#[test]
fn the_detach_that_frees_it_makes_the_other_attach_due_at_once() {
    let (mut old, mut new) = (object("old"), object("new"));
    let mut process = Process::new(LIMITS, &[old.clone()]);
    let mut run = process.start();
    process.call(&mut run, &mut old, "AKID");
    let (settle, _) = process.answer(&mut run, done());
    process.write(&mut run, &mut old, settle);
    process.finish(run, Requeue::OnChange);

    process.now += WINDOW;
    process.see(&new);
    let mut run = process.start();
    process.call(&mut run, &mut new, "AKID");
    let (settle, _) = process.answer(&mut run, answer(processed(&[], &["a"])));
    let Effect::Done(requeue) = process.write(&mut run, &mut new, settle) else {
        panic!("a pause")
    };
    assert!(matches!(requeue, Requeue::After(_)), "{requeue:?}");
    process.finish(run, requeue);
    assert!(process.commands().0.is_empty());
    assert_eq!(process.sought, [ids(&["a"])], "who has it?");

    process.now += WINDOW;
    old.desired = Desired { generation: 2, ..desired("old", &[]) };
    process.see(&version("edited", old.clone()));
    let mut detach = process.start();
    process.call(&mut detach, &mut old, "AKID");
    assert_eq!(process.commands().0.len(), 0, "it still waits");
    let (settle, _) = process.answer(&mut detach, done());

    assert!(process.scheduler.has_news());
    let mut run = process.start();
    assert_eq!(run.key(), &key("new"));
    process.write(&mut detach, &mut old, settle);
    process.finish(detach, Requeue::OnChange);
    process.now += WINDOW;
    process.call(&mut run, &mut new, "AKID");
    let (settle, _) = process.answer(&mut run, answer(processed(&[], &["a"])));
    let Effect::Done(requeue) = process.write(&mut run, &mut new, settle) else {
        panic!("a pause")
    };
    assert!(matches!(requeue, Requeue::After(_)), "it is freed once, not for ever: {requeue:?}");
}

#[test]
fn who_else_wants_an_instance_is_asked_once_a_minute() {
    let mut process = Process::new(LIMITS, &[]);
    let refuse = |process: &mut Process, name: &str, instance: &str| {
        let mut object = object(name);
        object.desired.instances = ids(&[instance]);
        process.see(&object);
        let mut run = process.start();
        process.call(&mut run, &mut object, "AKID");
        let (settle, _) = process.answer(&mut run, answer(processed(&[], &[instance])));
        process.write(&mut run, &mut object, settle);
        process.finish(run, Requeue::OnChange);
    };
    refuse(&mut process, "first", "x");
    assert_eq!(process.wakes_at(), None);
    let asked_at = process.now;
    process.now += WINDOW;
    refuse(&mut process, "second", "x");
    process.now += WINDOW;
    refuse(&mut process, "third", "y");
    assert_eq!(process.wakes_at(), Some(asked_at + seconds(60)));
    assert_eq!(process.sought, [ids(&["x"])]);

    process.now = asked_at + seconds(60);
    assert_eq!(process.wakes_at(), None);
    assert_eq!(process.sought, [ids(&["x"]), ids(&["x", "y"])], "two want x");

    process.now += WINDOW;
    refuse(&mut process, "fourth", "z");
    process.tell(Event::Stopping);
    assert_eq!(process.wakes_at(), None, "nobody is told any more");
}

#[test]
fn what_is_taken_out_to_know_where_it_stands_is_free_for_nobody() {
    let (mut refused, mut waits) = (object("refused"), object("waits"));
    let refusals = Refusals { operation: Operation::Attach, count: 3, since: NOW };
    let record = Record { state: State::Unknown, refusals: Some(refusals), ..Record::default() };
    let mut ledger = attached_at("refused", &ids(&["a"]));
    ledger.records.insert(id("a"), record);
    refused.status = status(ledger);
    let mut process = Process::new(LIMITS, &[waits.clone()]);
    let mut run = process.start();
    process.call(&mut run, &mut waits, "AKID");
    let (settle, _) = process.answer(&mut run, answer(processed(&[], &["a"])));
    process.write(&mut run, &mut waits, settle);
    process.finish(run, Requeue::OnChange);

    process.now += WINDOW;
    process.see(&refused);
    let mut run = process.start();
    process.call(&mut run, &mut refused, "AKID");
    process.answer(&mut run, done());
    assert!(!process.scheduler.shared().freed.has_changed());
}
