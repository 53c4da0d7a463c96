//! The real operator is killed, by itself at every named step and from outside at random moments,
//! under edits and faults, whatever the service does where nothing is specified. What is promised is
//! judged all the while, and at the end.
//!
//! `make chaos` is [`kills`] for longer: `CHAOS_KILLS=1000 CHAOS_SEED=… make chaos`.

mod checker;
mod contenders;
mod dice;
mod failpoints;
mod fleet;
mod kills;

use std::num::NonZeroU32;
use std::time::Duration;

use gs_simulator::{Options, UnspecifiedBehaviour};

use crate::harness::Lab;

/// A lab with this unspecified behaviour. A journal that a dead process left is older than
/// `validity` and its margin of 5 s when the next one stops waiting for its writer (12 s), unless
/// `validity` is more than 7 s.
async fn lab(behaviour: UnspecifiedBehaviour, validity: Duration) -> Lab {
    let mut lab = Lab::with(Options {
        unspecified_behaviour: behaviour,
        signature_validity: validity,
        ..Options::default()
    })
    .await;
    // The next call of an object comes at once: its journal rides on the settle of the last.
    lab.options.gs_burst = NonZeroU32::MIN.saturating_add(9);
    lab
}

const VALIDITY: Duration = Duration::from_secs(4);
/// Campaigns at a time, each with a namespace, a service and operators of its own: they mostly
/// wait.
const SIDE_BY_SIDE: usize = 8;
