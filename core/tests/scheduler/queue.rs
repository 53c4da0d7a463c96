//! Which objects are reconciled, and when.

use streamsession_core::object::Scope;
use streamsession_core::reconcile::Requeue;
use streamsession_core::scheduler::{Digest, Event};
use streamsession_testkit::fixtures::key;

use crate::process::{LIMITS, Process, converged, done, names, object, seconds, version};

const NOTHING: [&str; 0] = [];

#[test]
fn a_converged_object_starts_nothing_and_an_edit_of_it_starts_a_reconcile() {
    let mut process = Process::new(LIMITS, &[converged("lobby")]);
    assert_eq!(process.reconciled(), NOTHING);

    process.see(&version("2", object("lobby")));

    assert_eq!(process.reconciled(), ["lobby"]);
}

#[test]
fn an_object_that_can_not_be_read_is_looked_at() {
    let mut process = Process::new(LIMITS, &[]);

    process.tell(Event::Seen(key("lobby"), Digest::unreadable("1".into())));

    assert_eq!(process.reconciled(), ["lobby"]);
}

#[test]
fn nothing_starts_before_the_scope_was_listed() {
    let (arcade, stage) = (Scope::Namespace("arcade".into()), Scope::Namespace("stage".into()));
    let mut process = Process::unlisted(LIMITS, vec![arcade.clone(), stage.clone()]);
    process.tell(Event::ListBegan(arcade.clone()));
    process.see(&object("lobby"));
    process.see(&object("stage/hall"));
    assert_eq!(process.reconciled(), NOTHING);

    process.tell(Event::ListEnded(arcade));
    assert_eq!(process.reconciled(), ["lobby"]);
    process.tell(Event::ListEnded(stage));

    assert_eq!(process.reconciled(), ["hall"]);
}

#[test]
fn a_list_forgets_what_it_did_not_name_and_nothing_else() {
    let all = ["gone", "stays", "stage/other"].map(converged);
    let mut process = Process::new(LIMITS, &all);
    let arcade = Scope::Namespace("arcade".into());

    process.tell(Event::ListBegan(arcade.clone()));
    process.see(&converged("stays"));
    process.see(&converged("new"));
    assert_eq!(process.scheduler.objects(), 4, "the list has not ended");
    process.tell(Event::ListEnded(arcade));

    assert_eq!(process.scheduler.objects(), 3);
    process.see(&object("stays"));
    process.see(&object("gone"));
    assert_eq!(process.reconciled(), ["gone"], "of the other one this version is known");
}

#[test]
fn a_change_during_a_reconcile_starts_another_one_and_what_is_known_none() {
    let known = object("lobby");
    let edited = version("2", object("lobby"));
    let undone = version("2", converged("lobby"));
    for (seen, again) in [(known, 0), (edited, 1), (undone, 0)] {
        let mut process = Process::new(LIMITS, &[object("lobby")]);
        let run = process.start();

        process.see(&seen);
        assert_eq!(process.reconciled(), NOTHING, "one at a time");
        process.finish(run, Requeue::OnChange);

        assert_eq!(process.reconciled().len(), again, "{seen:?}");
    }
}

#[test]
fn what_a_reconcile_wrote_itself_is_no_news() {
    let mut lobby = object("lobby");
    let mut process = Process::new(LIMITS, &[lobby.clone()]);
    let mut run = process.start();
    process.call(&mut run, &mut lobby, "AKID");
    let journalled = lobby.clone();
    let (settle, _) = process.answer(&mut run, done());
    process.write(&mut run, &mut lobby, settle);

    process.see(&journalled);
    process.finish(run, Requeue::OnChange);
    assert_eq!(process.reconciled(), NOTHING);
    process.see(&lobby);

    assert_eq!(process.reconciled(), NOTHING);
}

#[test]
fn timers_fire_at_their_time_and_not_before() {
    let mut process = Process::new(LIMITS, &["soon", "later"].map(object));
    let start = process.now;
    for (run, pause) in process.commands().0.into_iter().zip([9, 5]) {
        process.finish(run, Requeue::After(seconds(pause)));
    }
    assert_eq!(process.wakes_at(), Some(start + seconds(5)));

    process.now = start + seconds(5);
    let (runs, next) = process.commands();
    assert_eq!((names(&runs), next), (vec!["later"], Some(start + seconds(9))));
    process.now = start + seconds(9);

    assert_eq!(process.reconciled(), ["soon"]);
    assert_eq!(process.wakes_at(), None);
}

#[test]
fn a_change_ends_the_wait_for_a_timer() {
    let edited = version("2", object("lobby"));
    let undone = version("2", converged("lobby"));
    for seen in [edited, undone] {
        let mut process = Process::new(LIMITS, &[object("lobby")]);
        let run = process.start();
        process.finish(run, Requeue::After(seconds(5)));

        process.see(&seen);

        assert_eq!(process.reconciled(), ["lobby"]);
        assert_eq!(process.wakes_at(), None);
    }
}

#[test]
fn a_reconcile_that_is_over_without_a_wish_is_not_repeated() {
    for requeue in [Requeue::OnChange, Requeue::Never] {
        let mut process = Process::new(LIMITS, &[object("lobby")]);
        let run = process.start();

        process.finish(run, requeue);

        assert_eq!(process.wakes_at(), None);
    }
}

#[test]
fn the_run_of_an_object_that_is_gone_has_no_say() {
    let mut process = Process::new(LIMITS, &[object("lobby")]);
    let run = process.start();

    process.tell(Event::Gone(key("lobby")));
    process.finish(run, Requeue::After(seconds(5)));

    assert_eq!((process.wakes_at(), process.scheduler.objects()), (None, 0));
}

#[test]
fn at_the_start_nothing_is_begun_before_everything_was_listed() {
    let [arcade, stage] = ["arcade", "stage"].map(|name| Scope::Namespace(name.into()));
    let mut process = Process::unlisted(LIMITS, vec![arcade.clone(), stage.clone()]);
    process.now = seconds(1);
    process.tell(Event::ListBegan(arcade.clone()));
    process.see(&object("a"));
    process.tell(Event::ListEnded(arcade));

    assert_eq!(
        process.wakes_at(),
        Some(seconds(30)),
        "one in the other namespace may be its owner"
    );
    process.now = seconds(30);
    assert_eq!(process.reconciled(), ["a"], "a list that fails stops its own namespace only");
}
