//! Two operators on the same objects, neither of which knows of the other.

use gs_simulator::{Faults, Options, UnspecifiedBehaviour};
use streamsession_testkit::rng::Rng;
use tokio::time::Instant;

use super::fleet::Fleet;
use super::kills::{edit_until, faults, kills};
use super::{VALIDITY, below, lab, millis, seed};
use crate::harness::{DEADLINE, Lab};
use crate::process;

const SLOTS: usize = 6;
/// One of them is killed so often for each kill of the campaigns.
const KILLS_SHARE: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_make_each_call_once() {
    // Each keeps the whole quota, as it knows of nobody else. Time enough for every call: on a
    // machine that is busy, too, none is made twice.
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
    assert_eq!((figures.calls, figures.needed), (SLOTS * 4, SLOTS * 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_of_which_either_is_killed_leak_nothing() {
    let mut rng = Rng::new(seed(), "two operators");
    let mut fleet =
        Fleet::new("two operators", lab(UnspecifiedBehaviour::default(), VALIDITY).await, SLOTS);
    let mut both = [fleet.start(None), fleet.start(None)];
    for life in 0..kills() / KILLS_SHARE {
        // Sometimes the one that is alive has time to lose patience with what the dead one left.
        let (least, most) = if life % 4 == 3 { (13_000, 15_000) } else { (500, 4_000) };
        let life = millis(&mut rng, least, most);
        fleet.set_faults(faults(&mut rng, life));
        let victim = below(&mut rng, 2);
        let by_itself =
            edit_until(&mut fleet, &mut rng, &mut both[victim], Instant::now() + life).await;
        assert!(by_itself.is_none(), "{by_itself:?}\n{}", fleet.history());
        process::kill(&mut both[victim]).await;
        fleet.buried(false).await;
        fleet.check();
        both[victim] = fleet.start(None);
    }
    fleet.set_faults(Faults::default());

    fleet.until_converged().await;

    println!("{}", fleet.finish());
}
