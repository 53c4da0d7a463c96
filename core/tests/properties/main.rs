//! Random histories of one object, and single reconciles step by step.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod annotations;
mod contender;
mod costs;
mod driver;
mod open_calls;
mod resync;
mod single_reconciles;
mod world;

use proptest::prelude::*;
use streamsession_testkit::fixtures::id;
use streamsession_testkit::service::UnspecifiedBehaviour;
use world::{Fault, World};

/// A history: each pair of bytes is one event.
fn play(world: &mut World, history: &[(u8, u8)]) {
    for (event, detail) in history {
        match event % 16 {
            0 => world.edit(*detail),
            1 => world.tick(i64::from(detail % 16)),
            2 => world.late_arrival(detail % 2 == 0),
            3 if *detail < 16 => world.delete(),
            3 if *detail < 32 => world.strip_finalizer(),
            4..=7 => _ = world.operate(usize::from(*event / 16), Fault::of(*detail)),
            _ => _ = world.operate(usize::from(*event / 16), Fault::None),
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
    fn nothing_leaks_at_any_step_and_it_converges(
        behaviour in prop::sample::select(UnspecifiedBehaviour::ALL.to_vec()),
        poisoned: bool,
        operators in 1_usize..=2,
        history in prop::collection::vec(any::<(u8, u8)>(), 0..250),
    ) {
        let mut world = World::new(behaviour, operators);
        if poisoned {
            world.service.poisoned.insert(id("b"));
        }

        play(&mut world, &history);
        world.edit(0b101); // the poisoned one is taken out again, if there is one
        // As long as the service rejects it, an attach of it that was not answered can't be proven
        // to have done nothing (docs/design.md, 3.2).
        world.service.poisoned.clear();
        world.converge();

        // A service that refuses to remove what it does not hold can leave an instance that only a
        // user can judge (docs/design.md, 3.3).
        if behaviour.remove_absent_ok {
            prop_assert!(world.has_converged(), "{:?}, in {:?}", world.object, world.members());
        }
    }
}
