//! What it costs: how many writes and calls, and how long a user waits.

use streamsession_testkit::fixtures::{id, ids};

use crate::world::{Fault, World};

#[test]
fn a_new_session_costs_three_writes_and_one_call() {
    let mut world = World::simple();

    world.converge();

    assert!(world.has_converged());
    assert_eq!((world.writes, world.calls), (3, 1));
}

#[test]
fn a_change_of_one_batch_costs_two_writes_and_one_of_several_one_more_than_batches() {
    let mut world = World::simple();
    world.converge();

    world.edit(0b111);
    world.converge();
    assert_eq!((world.writes, world.calls), (5, 2));

    world.edit(0b000); // three ids, two a batch
    world.converge();
    assert_eq!((world.writes, world.calls), (8, 4));
    assert!(world.has_converged());
}

#[test]
fn an_edit_that_needs_no_call_costs_one_write_and_a_look_none() {
    let mut world = World::simple();
    world.converge();
    let before = world.writes;

    world.edit(0b011);
    world.converge();

    assert_eq!((world.writes - before, world.calls), (1, 1));
}

#[test]
fn an_edit_between_journal_and_settle_loses_no_answer() {
    let mut world = World::simple();
    world.until(|world| world.calls == 1, Fault::None);

    world.edit(0b110); // "a" is not wanted any more
    world.converge();

    assert!(world.has_converged());
    assert_eq!(*world.members(), ids(&["b", "c"]));
    assert_eq!(world.calls, 3, "the answer was settled: nothing was sent twice");
}

#[test]
fn a_deletion_before_the_first_reconcile_leaves_nothing_to_do() {
    let mut world = World::simple();

    world.delete();
    world.converge();

    assert!(world.object.is_none());
    assert_eq!(world.calls, 0);
}

#[test]
fn a_lost_answer_keeps_a_deleted_object_until_the_signature_expires() {
    let mut world = World::simple();
    world.converge();
    world.delete();
    world.until(|world| world.calls == 2, Fault::AnswerLost);
    let start = world.clock;

    world.converge();

    assert!(world.object.is_none());
    assert!(world.clock - start >= 10, "the object went after {} s", world.clock - start);
}

#[test]
fn a_typing_error_holds_back_no_neighbour_and_its_correction_leaves_nothing_behind() {
    let mut world = World::simple();
    world.service.poisoned.insert(id("b"));

    world.run(30);
    assert_eq!(*world.members(), ids(&["a"]), "the neighbour is in");
    world.edit(0b101);
    world.converge();

    assert!(world.has_converged());
    assert_eq!(*world.members(), ids(&["a", "c"]));
}
