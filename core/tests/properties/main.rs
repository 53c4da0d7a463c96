//! Whatever the interleaving of edits, outcomes, lost answers, late arrivals and crashes: nothing
//! leaks at any step, and it converges at the end.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod asked;
mod behind;
mod reconciles;
mod world;

use proptest::prelude::*;
use world::{World, id};

/// A history: each pair of bytes is one event.
fn play(world: &mut World, history: &[(u8, u8)]) {
    for (event, detail) in history {
        match event % 16 {
            0 => world.edit(*detail),
            1 => world.tick(i64::from(detail % 16)),
            2 => world.late(detail % 2 == 0),
            3 if *detail < 16 => world.delete(),
            3 if *detail < 32 => world.strip_finalizer(),
            4..=7 => {
                world.operate(usize::from(*event / 16), detail % 14);
            }
            _ => {
                world.operate(usize::from(*event / 16), 0);
            }
        }
        world.check();
    }
}

/// 2,000 histories (20,000 in release), unless `PROPTEST_CASES` says otherwise.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_leaks_and_it_converges(
        add_present_ok: bool, remove_absent_ok: bool, poisoned: bool, operators in 1_usize..=2, history in prop::collection::vec(any::<(u8, u8)>(), 0..250),
    ) {
        let mut world = World::new(add_present_ok, remove_absent_ok, operators);
        world.poison = poisoned.then(|| id("b"));

        play(&mut world, &history);
        world.edit(0b101); // the poisoned one is taken out again, if there is one
        world.calm();

        // A service that refuses to remove what it does not hold can leave an instance that only a
        // person can judge (design 3.3).
        if remove_absent_ok {
            prop_assert!(world.converged(), "did not converge: {:?}, members {:?}", world.object, world.members);
        }
    }
}

#[test]
fn a_new_session_costs_three_writes_and_one_call() {
    let mut world = World::new(true, true, 1);

    world.calm();

    assert!(world.converged());
    assert_eq!((world.writes, world.calls), (3, 1));
}

#[test]
fn a_change_of_one_batch_costs_two_writes_and_one_of_several_one_more_than_batches() {
    let mut world = World::new(true, true, 1);
    world.calm();

    world.edit(0b111);
    world.calm();
    assert_eq!((world.writes, world.calls), (5, 2));

    world.edit(0b000); // three ids, two a batch
    world.calm();
    assert_eq!((world.writes, world.calls), (8, 4));
    assert!(world.converged());
}

#[test]
fn an_edit_that_needs_no_call_costs_one_write_and_a_look_none() {
    let mut world = World::new(true, true, 1);
    world.calm();
    let before = world.writes;

    world.edit(0b011);
    world.calm();

    assert_eq!((world.writes - before, world.calls), (1, 1));
}

#[test]
fn an_edit_between_journal_and_settle_loses_no_answer() {
    let mut world = World::new(true, true, 1);
    world.until(|world| world.calls == 1, 0);

    world.edit(0b110); // "a" is not wanted any more
    world.calm();

    assert!(world.converged());
    assert_eq!(world.members, [id("b"), id("c")].into());
    assert_eq!(world.calls, 3, "the answer was settled: nothing was sent twice");
}

#[test]
fn a_deletion_before_the_first_round_leaves_nothing_to_do() {
    let mut world = World::new(true, true, 1);

    world.delete();
    world.calm();

    assert!(world.object.is_none());
    assert_eq!(world.calls, 0);
}

#[test]
fn a_lost_answer_keeps_a_deleted_object_until_the_signature_expires() {
    let mut world = World::new(true, true, 1);
    world.calm();
    world.delete();
    world.until(|world| world.calls == 2, 10);
    let start = world.clock;

    world.calm();

    assert!(world.object.is_none());
    assert!(world.clock - start >= 10, "the object went after {} s", world.clock - start);
}

#[test]
fn a_typing_error_holds_back_no_neighbour_and_its_correction_leaves_nothing_behind() {
    let mut world = World::new(true, true, 1);
    world.poison = Some(id("b"));

    world.for_a_while(30);
    assert_eq!(world.members, [id("a")].into(), "the neighbour is in");
    world.edit(0b101);
    world.calm();

    assert!(world.converged());
    assert_eq!(world.members, [id("a"), id("c")].into());
}
