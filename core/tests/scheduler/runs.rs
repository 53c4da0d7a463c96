//! What a run says of itself, and what it knows at its first step.

use streamsession_core::reconcile::{Effect, Requeue, Response, View};
use streamsession_testkit::fixtures::id;

use crate::process::{LIMITS, Process, names, object, version};

#[test]
fn each_run_has_a_number_of_its_own() {
    let mut process = Process::new(LIMITS, &[object("first"), object("second")]);

    let (runs, _) = process.commands();

    assert_eq!(names(&runs), ["first", "second"]);
    assert_ne!(runs[0].number(), runs[1].number());
}

#[test]
fn the_clock_of_the_objects_endpoint_counts_from_the_read_on() {
    let lobby = object("lobby");
    let mut process = Process::new(LIMITS, std::slice::from_ref(&lobby));
    let mut run = process.start();
    let read = Response::Object(Some(Box::new(lobby.clone())));

    assert_eq!(run.endpoint(&Response::Started), None);
    assert_eq!(run.endpoint(&read), Some(lobby.endpoint()));
    process.read(&mut run, &lobby);
    assert_eq!(run.endpoint(&Response::Failed), Some(lobby.endpoint()));
}

#[test]
fn what_was_sent_is_open_until_the_object_shows_it() {
    let mut lobby = object("lobby");
    let mut process = Process::new(LIMITS, &[lobby.clone()]);
    let mut run = process.start();

    process.call(&mut run, &mut lobby, "AKID");

    assert_eq!(run.open_instances(), [&id("a")]);
}

#[test]
fn the_echo_of_a_finalizer_is_no_news() {
    let mut lobby = View { finalizer: false, ..object("lobby") };
    let mut process = Process::new(LIMITS, &[lobby.clone()]);
    let mut run = process.start();
    let mut effect = process.read_as(&mut run, &lobby, "AKID");
    if matches!(effect, Effect::Permit(_)) {
        effect = process.take_permit(&mut run);
    }
    let effect = process.write(&mut run, &mut lobby, effect);
    assert_eq!(effect, Effect::AddFinalizer);
    lobby = version("with the finalizer", View { finalizer: true, ..lobby });
    process.step(&mut run, Response::Object(Some(Box::new(lobby.clone()))));

    process.see(&lobby);

    process.finish(run, Requeue::OnChange);
    assert_eq!(process.wakes_at(), None);
}
