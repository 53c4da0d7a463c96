//! Who may call, and when a permit comes back.

use streamsession_core::answer::{Answer, NothingDone, Verdict};
use streamsession_core::identity::Identity;
use streamsession_core::reconcile::{Effect, Requeue, Response};
use streamsession_core::scheduler::quota::WINDOW;
use streamsession_core::scheduler::{Digest, Event, Limits, Run};
use streamsession_testkit::fixtures::{answer, key};

use crate::process::{LIMITS, Process, converged, done, key_of, names, object, seconds, version};

/// `first` calls with the only permit there is, and `next` waits for it.
fn one_calls_and_one_waits() -> (Process, Run) {
    let mut process = Process::new(LIMITS, &[object("first")]);
    let mut run = process.start();
    process.call(&mut run, &mut object("first"), "AKID");
    process.see(&object("next"));
    process.wait_for_permit(&object("next"), "AKID");
    assert_eq!((process.wakes_at(), process.scheduler.waiting()), (None, 1));
    (process, run)
}

#[test]
fn a_permit_that_is_granted_starts_the_run_with_it() {
    let (mut process, mut first) = one_calls_and_one_waits();
    process.answer(&mut first, done());
    process.now += WINDOW;

    let mut run = process.start();

    assert_eq!((key_of(&object("next")), process.scheduler.waiting()), (run.key().clone(), 0));
    let effect = process.read_as(&mut run, &object("next"), "AKID");
    assert!(matches!(effect, Effect::WriteStatus(..)), "it does not ask for one: {effect:?}");
}

#[test]
fn a_permit_comes_back_one_window_after_the_answer() {
    for answered in [done(), answer(Verdict::NothingDone(NothingDone::NotSent))] {
        let (mut process, mut first) = one_calls_and_one_waits();
        process.now += seconds(3);
        assert!(!process.scheduler.has_news(), "nothing happened");

        process.answer(&mut first, answered);

        assert!(process.scheduler.has_news(), "a grant is due earlier");
        assert_eq!(process.wakes_at(), Some(process.now + WINDOW));
    }
}

#[test]
fn a_permit_of_an_unanswered_call_comes_back_one_window_after_its_deadline() {
    let deadline = LIMITS.call_deadline;
    for (given_up_after, over_after) in [(seconds(3), deadline), (seconds(12), seconds(12))] {
        let (mut process, mut first) = one_calls_and_one_waits();
        let sent_at = process.now;
        process.now = sent_at + given_up_after;

        process.answer(&mut first, Answer::unanswered("Timeout", ""));

        assert_eq!(process.wakes_at(), Some(sent_at + over_after + WINDOW));
    }
}

#[test]
fn a_permit_comes_back_unspent_when_a_run_ends_without_calling() {
    let mut process = Process::new(LIMITS, &[object("first")]);
    let mut first = process.start();
    assert!(matches!(process.read_as(&mut first, &object("first"), "AKID"), Effect::Permit(_)));
    assert!(matches!(process.take_permit(&mut first), Effect::WriteStatus(..)));
    process.see(&object("next"));
    process.wait_for_permit(&object("next"), "AKID");

    let effect = process.step(&mut first, Response::Failed);
    let Effect::Done(requeue) = effect else { panic!("the end, not {effect:?}") };
    process.finish(first, requeue);

    assert_eq!(key_of(&object("next")), *process.start().key());
}

#[test]
fn a_permit_for_another_account_is_given_back_and_asked_for_anew() {
    let (mut process, mut first) = one_calls_and_one_waits();
    process.answer(&mut first, done());
    process.now += WINDOW;
    let mut run = process.start();

    // The Secret holds another key than when it began to wait.
    assert!(matches!(process.read_as(&mut run, &object("next"), "OTHER"), Effect::Permit(_)));

    assert!(process.scheduler.has_news(), "the permit of the first account is back");
    assert!(matches!(process.take_permit(&mut run), Effect::WriteStatus(..)), "its own is there");
}

#[test]
fn who_waits_for_a_permit_is_reconciled_at_a_change_and_keeps_its_place() {
    let (mut process, mut first) = one_calls_and_one_waits();

    process.see(&version("2", object("next")));
    process.wait_for_permit(&version("2", object("next")), "AKID");

    assert_eq!(process.scheduler.waiting(), 1);
    process.answer(&mut first, done());
    process.now += WINDOW;
    assert_eq!(process.reconciled(), ["next"]);
}

#[test]
fn who_needs_no_permit_any_more_waits_for_none() {
    let converges = Event::Seen(key("next"), Digest::of(&version("2", converged("next"))));
    for event in [converges, Event::Gone(key("next"))] {
        let (mut process, mut first) = one_calls_and_one_waits();

        process.tell(event);
        process.reconciled();

        assert_eq!(process.scheduler.waiting(), 0);
        process.answer(&mut first, done());
        assert_eq!(process.wakes_at(), None);
    }
}

#[test]
fn a_grant_to_one_that_is_being_reconciled_goes_to_the_next() {
    let (mut process, mut first) = one_calls_and_one_waits();
    process.see(&object("third"));
    process.wait_for_permit(&object("third"), "AKID");
    process.answer(&mut first, done());
    process.see(&version("2", object("next")));
    let _next = process.start();

    process.now += WINDOW;

    assert_eq!(process.reconciled(), ["third"]);
}

#[test]
fn concurrency_bounds_runs_without_a_permit_and_not_those_with_one() {
    let mut process = Process::new(Limits { concurrency: 1, ..LIMITS }, &[object("first")]);
    let mut run = process.start();
    process.call(&mut run, &mut object("first"), "AKID");
    process.answer(&mut run, done());
    process.finish(run, Requeue::OnChange);
    process.see(&object("next"));
    process.wait_for_permit(&object("next"), "AKID");
    process.see(&object("busy"));
    process.see(&object("queued"));
    let busy = process.start();

    process.now += WINDOW;
    let (with_permit, _) = process.commands();
    assert_eq!((names(&with_permit), process.scheduler.running()), (vec!["next"], 2));
    for run in with_permit {
        process.finish(run, Requeue::OnChange);
    }
    assert_eq!(process.commands().0.len(), 0, "its end makes no room for another one");
    process.finish(busy, Requeue::OnChange);

    assert_eq!(process.reconciled(), ["queued"]);
}

#[test]
fn two_keys_of_one_sub_account_draw_on_one_quota_whenever_that_becomes_known() {
    let names = ["first", "second", "third", "other"];
    let mut process = Process::new(Limits { concurrency: 4, ..LIMITS }, &names.map(object));
    let mut runs = process.commands().0;
    runs.sort_by_key(|run| names.iter().position(|name| *name == &*run.key().name));
    let known = |key: &str, user: &str| Identity { user: Some(user.into()), ..key.into() };
    let identities =
        ["AKID".into(), known("AKID", "7"), known("ROTATED", "7"), known("OTHER", "8")];
    let runs = runs.iter_mut().zip(names).zip(identities);
    let effects = runs.map(|((run, name), identity)| {
        assert_eq!(process.read(run, &object(name)), Effect::Credentials);
        let asks = process.step(run, Response::Credentials(Ok(identity)));
        assert!(matches!(asks, Effect::Permit(_)), "{asks:?}");
        process.take_permit(run)
    });
    let granted: Vec<_> = effects.map(|effect| matches!(effect, Effect::WriteStatus(..))).collect();
    assert_eq!(granted, [true, false, false, true]);
}
