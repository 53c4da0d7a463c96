//! Two operators on the same objects, neither of which knows the other.

use gs_simulator::{Faults, Options, UnspecifiedBehaviour};
use streamsession_testkit::rng::Rng;
use tokio::time::Instant;

use super::fleet::Fleet;
use super::kills::{edit_until, faults, kills};
use super::{VALIDITY, below, lab, millis, seed};
use crate::harness::{DEADLINE, Lab};
use crate::process;

const SLOTS: usize = 6;
/// One of them is killed for each so many kills of the campaigns.
const KILLS_SHARE: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_make_each_call_once() {
    // Each uses the whole quota, as it does not know the other. No call times out on a busy
    // machine: so none is made twice.
    let mut lab =
        Lab::with(Options { signature_validity: VALIDITY * 10, qps: 40, ..Options::default() })
            .await;
    lab.options.gs_timeout = DEADLINE;
    let mut fleet = Fleet::new("two operators", lab, SLOTS);
    let _both = [fleet.start(None), fleet.start(None)];
    for slot in 0..SLOTS {
        fleet.create(slot, "abc").await;
    }
    fleet.until_converged().await;
    for slot in 0..SLOTS {
        fleet.edit(slot, "bcd").await;
    }
    fleet.until_converged().await;
    for slot in 0..SLOTS {
        fleet.delete(slot).await;
    }
    fleet.until_converged().await;

    let figures = fleet.finish();

    println!("{figures}");
    assert_eq!((figures.calls, figures.calls_needed), (SLOTS * 4, SLOTS * 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_of_which_either_is_killed_leak_nothing() {
    let mut rng = Rng::new(seed(), "two operators");
    let mut fleet =
        Fleet::new("two operators", lab(UnspecifiedBehaviour::default(), VALIDITY).await, SLOTS);
    let mut both = [fleet.start(None), fleet.start(None)];
    for run in 0..kills() / KILLS_SHARE {
        // Sometimes the other one has time to stop waiting for the writer of what was left.
        let (least, most) = if run % 4 == 3 { (13_000, 15_000) } else { (500, 4_000) };
        let length = millis(&mut rng, least, most);
        fleet.set_faults(faults(&mut rng, length));
        let victim = below(&mut rng, 2);
        let by_itself =
            edit_until(&mut fleet, &mut rng, &mut both[victim], Instant::now() + length).await;
        assert!(by_itself.is_none(), "{by_itself:?}\n{}", fleet.history());
        process::kill(&mut both[victim]).await;
        fleet.count_kill(false).await;
        fleet.check();
        both[victim] = fleet.start(None);
    }
    fleet.set_faults(Faults::default());

    fleet.until_converged().await;

    println!("{}", fleet.finish());
}
