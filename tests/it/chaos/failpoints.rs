//! Death at every named step of a reconcile.

use futures::{FutureExt, StreamExt, stream};
use gs_simulator::{Faults, UnspecifiedBehaviour};
use serde_json::json;
use streamsession_operator::controller::failpoint::{STEPS, VARIABLE};

use super::fleet::{Figures, Fleet};
use super::{SIDE_BY_SIDE, VALIDITY, lab};
use crate::process::{self, Logs};

const QUIET: usize = 0;
const WALL: usize = 1;
const GOING: usize = 2;
const NEW: usize = 3;
const SLOTS: usize = 4;

/// A fleet of which three are at rest, with what makes every step due for some of it: nobody works
/// on it yet.
async fn fleet(failpoint: &str) -> Fleet {
    let mut fleet =
        Fleet::new(failpoint, lab(UnspecifiedBehaviour::default(), VALIDITY).await, SLOTS);
    fleet.create(QUIET, "a").await;
    fleet.create(WALL, "ab").await;
    fleet.create(GOING, "a").await;
    let mut process = fleet.start(None);
    fleet.until_converged().await;
    process::kill(&mut process).await;
    fleet.buried(false).await;

    if failpoint.ends_with("read-owner") {
        fleet.clone_and_delete(WALL).await;
    }
    // Answers take a moment: by then there is a permit for the next call, whose journal rides on
    // the settle.
    fleet.lab.simulator.set_faults(Faults { delay_ms: 400, ..Faults::default() });
    // Two calls.
    fleet.edit(WALL, "bc").await;
    if !is_alone(failpoint) {
        // To be observed, without a call.
        fleet.patch(QUIET, json!({"deletionPolicy": "Orphan"})).await;
        fleet.delete(GOING).await;
        fleet.create(NEW, "a").await;
    }
    fleet
}

/// A journal rides on a settle only if nobody waits for the permit.
fn is_alone(failpoint: &str) -> bool {
    failpoint.ends_with("write-next-journal")
}

/// The operator dies at `failpoint`; the spec turns; the next one makes it good.
async fn dies_at(failpoint: String) -> Figures {
    let mut fleet = fleet(&failpoint).await;
    let mut process = fleet.start(Some(&failpoint));
    let status = process::end(&mut process, &failpoint).await;
    assert!(process::was_killed(status), "{failpoint}: {status}\n{}", fleet.history());
    fleet.buried(true).await;

    fleet.edit(WALL, "ad").await;
    if is_alone(&failpoint) {
        fleet.create(NEW, "b").await;
    } else {
        fleet.edit(NEW, "b").await;
    }
    let _process = fleet.start(None);

    fleet.until_converged().await;
    fleet.lab.until_gone("clone").await;
    fleet.finish()
}

/// The second process dies while it makes a doubt of the journal that the first one left; its own
/// rides on the same write.
async fn dies_twice(first: &str, second: &str) -> Figures {
    let mut fleet = Fleet::new(
        format!("{first} and {second}"),
        lab(UnspecifiedBehaviour::default(), VALIDITY).await,
        1,
    );
    fleet.create(0, "ab").await;
    for failpoint in [first, second] {
        let mut process = fleet.start(Some(failpoint));
        let status = process::end(&mut process, failpoint).await;
        assert!(process::was_killed(status), "{failpoint}: {status}\n{}", fleet.history());
        fleet.buried(true).await;
        assert_eq!(fleet.lab.calls().len(), 1, "{}", fleet.history());
    }
    fleet.edit(0, "bc").await;
    let _process = fleet.start(None);

    fleet.until_converged().await;
    fleet.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_every_step_of_a_round_leaks_nothing() {
    let once = ["before", "after"]
        .into_iter()
        .flat_map(|side| STEPS.map(|step| dies_at(format!("{side}-{step}")).boxed_local()));
    let twice = ["before-write-next-journal", "after-write-next-journal"]
        .map(|doubt| dies_twice("after-call", doubt).boxed_local());

    let campaigns: Vec<_> =
        stream::iter(once.chain(twice)).buffer_unordered(SIDE_BY_SIDE).collect().await;

    let figures = Figures::sum(&campaigns);
    println!("{figures}");
    assert_eq!(
        (figures.at_failpoints, figures.wrong, figures.stuck),
        (STEPS.len() * 2 + 2 * 2, 0, 0)
    );
}

#[tokio::test]
async fn a_failpoint_that_does_not_exist_is_an_error_at_the_start() {
    let lab = lab(UnspecifiedBehaviour::default(), VALIDITY).await;
    let logs = Logs::of(&lab);
    let mut process = logs.start_process(&lab, 1, Some("before-cal"));

    let status = process::end(&mut process, "before-cal").await;

    let text = std::fs::read_to_string(logs.folder().join("operator-0001.log")).expect("a log");
    assert!(
        !status.success() && text.contains(VARIABLE) && text.contains("remove-finalizer"),
        "{status}: {text}"
    );
}
