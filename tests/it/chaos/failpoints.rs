//! The operator is killed at every named step of a reconcile.

use futures::{FutureExt, StreamExt, stream};
use gs_simulator::{Faults, UnspecifiedBehaviour};
use serde_json::json;
use streamsession_operator::controller::failpoint::{STEPS, VARIABLE};

use super::checker::name;
use super::figures::Figures;
use super::fleet::Fleet;
use super::{SIDE_BY_SIDE, VALIDITY, lab};
use crate::process::{self, Logs};

const UNCHANGED: usize = 0;
const EDITED: usize = 1;
const DELETED: usize = 2;
const NEW: usize = 3;
const SLOTS: usize = 4;

/// A fleet of three converged objects, with edits that make every step due for some of them; no
/// operator runs.
async fn fleet(failpoint: &str) -> Fleet {
    let mut fleet =
        Fleet::new(failpoint, lab(UnspecifiedBehaviour::default(), VALIDITY).await, SLOTS);
    fleet.create(UNCHANGED, "a").await;
    fleet.create(EDITED, "ab").await;
    fleet.create(DELETED, "a").await;
    let mut process = fleet.start(None);
    fleet.until_converged().await;
    process::kill(&mut process).await;
    fleet.count_kill(false).await;

    if failpoint.ends_with("read-claimant") {
        fleet.clone_and_delete(EDITED).await;
    }
    // Answers take a moment: by then there is a permit for the next call, whose journal is written
    // with the settle.
    fleet.lab.simulator.set_faults(Faults { delay_ms: 400, ..Faults::default() });
    // Two calls.
    fleet.edit(EDITED, "bc").await;
    if !needs_a_free_permit(failpoint) {
        // To be observed, without a call.
        fleet.lab.edit(&name(UNCHANGED), json!({"deletionPolicy": "Orphan"})).await;
        fleet.delete(DELETED).await;
        fleet.create(NEW, "a").await;
    }
    fleet
}

/// A journal is written with a settle only if no other object waits for the permit.
fn needs_a_free_permit(failpoint: &str) -> bool {
    failpoint.ends_with("write-next-journal")
}

/// The operator is killed at `failpoint`, the spec changes, and the next operator converges.
async fn killed_at(failpoint: String) -> Figures {
    let mut fleet = fleet(&failpoint).await;
    let mut process = fleet.start(Some(&failpoint));
    let status = process::end(&mut process, &failpoint).await;
    assert!(process::was_killed(status), "{failpoint}: {status}\n{}", fleet.history());
    fleet.count_kill(true).await;

    fleet.edit(EDITED, "ad").await;
    if needs_a_free_permit(&failpoint) {
        fleet.create(NEW, "b").await;
    } else {
        fleet.edit(NEW, "b").await;
    }
    let _process = fleet.start(None);

    fleet.until_converged().await;
    fleet.lab.until_gone("clone").await;
    fleet.finish()
}

/// The second process is killed while it puts the call in doubt that the first one left; its own
/// journal is in the same write.
async fn killed_twice(first: &str, second: &str) -> Figures {
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
        fleet.count_kill(true).await;
        assert_eq!(fleet.lab.calls().len(), 1, "{}", fleet.history());
    }
    fleet.edit(0, "bc").await;
    let _process = fleet.start(None);

    fleet.until_converged().await;
    fleet.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_of_a_reconcile_leaks_nothing() {
    let once = ["before", "after"]
        .into_iter()
        .flat_map(|side| STEPS.map(|step| killed_at(format!("{side}-{step}")).boxed_local()));
    let twice = ["before-write-next-journal", "after-write-next-journal"]
        .map(|doubt| killed_twice("after-call", doubt).boxed_local());

    let campaigns: Vec<_> =
        stream::iter(once.chain(twice)).buffer_unordered(SIDE_BY_SIDE).collect().await;

    let figures = Figures::sum(&campaigns);
    println!("{figures}");
    assert_eq!(
        (figures.at_failpoints, figures.violations, figures.stuck),
        (STEPS.len() * 2 + 2 * 2, 0, 0)
    );
}

#[tokio::test]
async fn an_unknown_failpoint_is_an_error_at_the_start() {
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
