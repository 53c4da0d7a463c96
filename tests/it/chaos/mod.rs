//! The real operator is killed, by itself at every named step and from outside at random moments,
//! under edits and faults, whatever the service does where nothing is specified. That nothing leaks
//! is checked all the while, and at the end.
//!
//! `make chaos` is [`kills`] for longer: `CHAOS_KILLS=1000 CHAOS_SEED=… make chaos`.

mod checker;
mod contenders;
mod failpoints;
mod figures;
mod fleet;
mod kills;

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use gs_simulator::{Options, UnspecifiedBehaviour};
use streamsession_testkit::rng::Rng;

use crate::harness::Lab;

/// A lab with this unspecified behaviour. A journal that a killed process has left is older than
/// `validity` and its margin of 5 s when the next one stops waiting for its writer (12 s), unless
/// `validity` is more than 7 s.
async fn lab(behaviour: UnspecifiedBehaviour, validity: Duration) -> Lab {
    let mut lab = Lab::with(Options {
        unspecified_behaviour: behaviour,
        signature_validity: validity,
        ..Options::default()
    })
    .await;
    // The next call of an object has its permit at once: its journal is written with the settle.
    lab.options.gs_burst = NonZeroU32::MIN.saturating_add(9);
    lab
}

/// The number in `CHAOS_SEED`, else any. It is printed, so that a failure shows it.
fn seed() -> u64 {
    let seed = env::var("CHAOS_SEED").map_or_else(
        |_| RandomState::new().hash_one(0),
        |seed| seed.parse().expect("CHAOS_SEED is a number"),
    );
    println!("CHAOS_SEED={seed}");
    seed
}

/// A number less than `bound`, which is not zero.
fn below(rng: &mut Rng, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("a small number");
    usize::try_from(rng.below(bound)).expect("a small number")
}

/// A duration between so many milliseconds and so many.
fn millis(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.between(least, most))
}

const VALIDITY: Duration = Duration::from_secs(4);
/// Campaigns at a time, each with a namespace, a service and operators of its own: they mostly
/// wait.
const SIDE_BY_SIDE: usize = 8;
