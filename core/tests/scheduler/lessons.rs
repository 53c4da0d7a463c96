//! What the service teaches one run about the calls of others.

use std::num::NonZeroU32;

use streamsession_core::reconcile::{Effect, LedgerState, View};
use streamsession_core::scheduler::quota::WINDOW;
use streamsession_core::scheduler::run::Lesson;
use streamsession_core::scheduler::{Limits, Run};
use streamsession_testkit::fixtures::{error, numbered_ids};

use crate::process::{LIMITS, Process, done, object};

/// Nobody waits for a permit.
const MANY_CALLS: Limits =
    Limits { concurrency: 9, calls_per_second: THOUSAND, burst: THOUSAND, ..LIMITS };
const THOUSAND: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

/// An object that wants so many instances.
fn wants(name: &str, count: usize) -> View {
    let mut object = object(name);
    object.desired.instances = numbered_ids(0..count);
    object
}

/// How many ids the first call of an object names that wants eight.
fn first_call(process: &mut Process, name: &str, account: &str) -> usize {
    let mut object = wants(name, 8);
    process.see(&object);
    let mut run = process.start();
    process.call(&mut run, &mut object, account);
    let LedgerState::Current(ledger) = object.status.ledger else { panic!("a ledger") };
    ledger.journal.unwrap().instances.len()
}

#[test]
fn a_throttled_call_halves_the_quota_of_its_account() {
    let four = NonZeroU32::new(4).unwrap();
    let limits = Limits { calls_per_second: four, burst: four, ..MANY_CALLS };
    let mut process = Process::new(limits, &[object("first"), object("second")]);
    let mut runs = process.commands().0;
    for (run, name) in runs.iter_mut().zip(["first", "second"]) {
        process.call(run, &mut object(name), "AKID");
    }
    let throttled = error("RequestLimitExceeded");

    let (_, lessons) = process.answer(&mut runs[0], throttled.clone());
    assert_eq!(lessons, [Lesson::Throttled { calls_per_second: 2 }]);
    assert_eq!(runs[0].take_lessons(), [], "it is told once");
    let (_, lessons) = process.answer(&mut runs[1], throttled);
    assert_eq!(lessons, [], "that is no news");

    // Two permits were never taken, and both are withheld.
    process.see(&object("third"));
    process.wait_for_permit(&object("third"), "AKID");
    assert_eq!(process.wakes_at(), Some(process.now + WINDOW));
    process.see(&object("other"));
    let mut run = process.start();
    process.call(&mut run, &mut object("other"), "OTHER");
}

#[test]
fn a_call_that_was_too_large_halves_the_batches_of_its_account() {
    for code in ["RequestSizeLimitExceeded", "ResponseSizeLimitExceeded"] {
        let mut large = wants("large", 8);
        let mut process = Process::new(MANY_CALLS, &[large.clone()]);
        let mut run = process.start();
        process.call(&mut run, &mut large, "AKID");

        let (_, lessons) = process.answer(&mut run, error(code));

        assert_eq!(lessons, [Lesson::TooLarge { ids: 8, batch_size: 4 }]);
        assert_eq!(first_call(&mut process, "next", "AKID"), 4);
        assert_eq!(first_call(&mut process, "other", "OTHER"), 8);
    }
}

#[test]
fn batches_are_halved_again_and_again_and_only_news_is_told() {
    let mut objects = [("8", 8), ("8-more", 8), ("1", 1)].map(|(name, ids)| wants(name, ids));
    let mut process = Process::new(MANY_CALLS, &objects);
    let mut runs = process.commands().0;
    for (run, object) in runs.iter_mut().zip(&mut objects) {
        process.call(run, object, "AKID");
    }
    let too_large = |process: &mut Process, run: &mut Run| {
        process.answer(run, error("RequestSizeLimitExceeded")).1
    };

    let lessons: Vec<_> = runs.iter_mut().flat_map(|run| too_large(&mut process, run)).collect();
    assert_eq!(lessons, [Lesson::TooLarge { ids: 8, batch_size: 4 }]);

    let mut next = wants("next", 8);
    process.see(&next);
    let mut run = process.start();
    process.call(&mut run, &mut next, "AKID");
    let lessons = too_large(&mut process, &mut run);
    assert_eq!(lessons, [Lesson::TooLarge { ids: 4, batch_size: 2 }]);
}

#[test]
fn a_good_answer_teaches_nothing() {
    let mut lobby = object("lobby");
    let mut process = Process::new(LIMITS, &[lobby.clone()]);
    let mut run = process.start();
    process.call(&mut run, &mut lobby, "AKID");

    let (effect, lessons) = process.answer(&mut run, done());

    assert!(matches!(effect, Effect::WriteStatus(..)));
    assert_eq!(lessons, []);
}
