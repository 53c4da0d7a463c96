//! The operator is killed at random moments.

use std::collections::BTreeMap;
use std::env::var;
use std::process::ExitStatus;
use std::time::Duration;

use futures::future::join_all;
use gs_simulator::{
    Chances, Faults, GarbledAnswer, InstanceFault, NoOpAnswer, Operation, Probability,
    UnspecifiedBehaviour,
};
use streamsession_operator::controller::failpoint::STEPS;
use streamsession_testkit::rng::Rng;
use tokio::process::Child;
use tokio::time::{Instant, timeout_at};

use super::figures::Figures;
use super::fleet::Fleet;
use super::{SIDE_BY_SIDE, VALIDITY, below, lab, millis, seed};
use crate::process;

/// In `cargo test`; `CHAOS_KILLS` says otherwise.
const KILLS: usize = 100;
const SLOTS: usize = 6;
/// One of so many runs is long enough to stop waiting for the writer of a journal that was left.
const LONG_RUN_EVERY: usize = 8;

pub fn kills() -> usize {
    var("CHAOS_KILLS").map_or(KILLS, |kills| kills.parse().expect("CHAOS_KILLS is a number"))
}

/// In a run that is longer, calls come late: long enough for a call, an edit and another call.
const SHORT_RUN_MAX: Duration = Duration::from_secs(4);

/// A wanted phone that is taken out goes back with the very next call: of a call's spacing, two
/// round trips and a busy machine.
const OUTAGE_MAX: Duration = Duration::from_secs(5);

fn no_op(refused: bool) -> NoOpAnswer {
    if refused { NoOpAnswer::Failure } else { NoOpAnswer::Success }
}

/// Add-present and remove-absent, accepted or refused.
fn behaviour(number: usize) -> UnspecifiedBehaviour {
    UnspecifiedBehaviour {
        add_present: no_op(number & 1 != 0),
        remove_absent: no_op(number & 2 != 0),
        ..UnspecifiedBehaviour::default()
    }
}

fn chance(percent: u32) -> Probability {
    Probability::try_from(f64::from(percent) / 100.0).expect("a probability")
}

/// The faults of a run of that length.
pub fn faults(rng: &mut Rng, length: Duration) -> Faults {
    if length > SHORT_RUN_MAX { late_calls(rng) } else { all_faults(rng) }
}

/// Calls come late, and little else goes wrong: objects are Ready in between, and the spec changes,
/// and changes back, before a call arrives.
fn late_calls(rng: &mut Rng) -> Faults {
    let chances =
        Chances { late_arrival: chance(30), drop_answer: chance(5), ..Chances::default() };
    Faults {
        late_arrival_ms: rng.between(1_000, 7_000),
        delay_ms: 20,
        chances,
        seed: rng.below(u64::MAX),
        ..Faults::default()
    }
}

/// Every fault, by chance.
fn all_faults(rng: &mut Rng) -> Faults {
    let instance_fault = |pattern: &str, operation| InstanceFault {
        pattern: pattern.to_owned(),
        tries: Some(1),
        operation,
    };
    Faults {
        instance_faults: vec![
            instance_fault("*-f", Operation::Attach),
            instance_fault("*-e", Operation::Detach),
        ],
        late_arrival_ms: rng.between(10, 6_000),
        slow_answers: u32::from(rng.percent(30)),
        slow_answer_bytes: 1,
        slow_answer_pause_ms: 100,
        delay_ms: rng.between(10, 900),
        chances: Chances {
            drop_request: chance(4),
            late_arrival: chance(6),
            gateways: BTreeMap::from([(GarbledAnswer::Html502, chance(2))]),
            throttle: chance(2),
            errors: BTreeMap::from([
                ("FailedOperation".to_owned(), chance(3)),
                ("InternalError".to_owned(), chance(3)),
            ]),
            drop_answer: chance(6),
            garbled_answers: [
                GarbledAnswer::Truncated,
                GarbledAnswer::NoIds,
                GarbledAnswer::IdInBothLists,
            ]
            .map(|kind| (kind, chance(1)))
            .into(),
            delay: chance(60),
            ..Chances::default()
        },
        seed: rng.below(u64::MAX),
        ..Faults::default()
    }
}

/// When a run ends at the latest; perhaps at a failpoint before.
fn run_end(rng: &mut Rng, number: usize) -> (Duration, Option<String>) {
    if number % LONG_RUN_EVERY == LONG_RUN_EVERY - 1 {
        return (millis(rng, 13_000, 16_000), None);
    }
    // The first call comes after a second, the quota's window.
    let length = match rng.below(100) {
        0..15 => millis(rng, 0, 1_000),
        15..75 => millis(rng, 1_000, 4_000),
        _ => millis(rng, 4_000, 9_000),
    };
    let failpoint = (length < SHORT_RUN_MAX && rng.percent(60)).then(|| {
        let side = rng.pick(&["before", "after"]);
        format!("{side}-{}:{}", rng.pick(&STEPS), rng.between(1, 3))
    });
    (length, failpoint)
}

/// Edits the fleet at random moments until then, or until the process ends by itself; answers its
/// status if it does.
pub async fn edit_until(
    fleet: &mut Fleet,
    rng: &mut Rng,
    process: &mut Child,
    end: Instant,
) -> Option<ExitStatus> {
    loop {
        let next = Instant::now() + millis(rng, 20, 600);
        // An edit is never cancelled: it would not be known whether it was made.
        if let Ok(status) = timeout_at(next.min(end), process.wait()).await {
            return Some(status.expect("a status"));
        }
        if next > end {
            return None;
        }
        fleet.edit_at_random(rng).await;
    }
}

/// So many kills, with the unspecified behaviour of that number.
async fn campaign(number: usize, kills: usize, seed: u64) -> Figures {
    let mut rng = Rng::new(seed, &format!("campaign {number}"));
    // Longer where a refused attach is believed at once: the next process finds journals that may
    // still arrive.
    let validity = if number.is_multiple_of(2) { VALIDITY * 2 } else { VALIDITY };
    let mut fleet =
        Fleet::new(format!("campaign {number}"), lab(behaviour(number), validity).await, SLOTS);
    for run in 1..kills {
        let (length, failpoint) = run_end(&mut rng, run);
        fleet.set_faults(faults(&mut rng, length));
        let mut process = fleet.start(failpoint.as_deref());
        let end = Instant::now() + length;
        let at_failpoint = edit_until(&mut fleet, &mut rng, &mut process, end).await;
        match at_failpoint {
            Some(status) => assert!(
                process::was_killed(status),
                "the operator ended by itself: {status}\n{}",
                fleet.history()
            ),
            None => process::kill(&mut process).await,
        }
        fleet.count_kill(at_failpoint.is_some()).await;
        fleet.check();
        for _ in 0..below(&mut rng, 3) {
            fleet.edit_at_random(&mut rng).await;
        }
    }
    fleet.set_faults(Faults::default());
    let mut process = fleet.start(None);
    fleet.faults_are_over();
    fleet.until_converged().await;
    process::kill(&mut process).await;
    fleet.count_kill(false).await;
    fleet.check_restart_is_free().await;
    fleet.check_pauses();
    let figures = fleet.finish();
    let Figures { outage, settling, .. } = figures;
    println!("campaign {number}: outage {outage:.1?}, settling {settling:.1?}");
    assert!(outage <= OUTAGE_MAX, "a wanted phone was out for {outage:?}");
    figures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_leak_nothing_whatever_is_unspecified() {
    let kills = kills();
    let seed = seed();

    let campaigns = (0..SIDE_BY_SIDE).map(|number| {
        let share = kills / SIDE_BY_SIDE + usize::from(number < kills % SIDE_BY_SIDE);
        Box::pin(campaign(number, share, seed))
    });
    let figures = Figures::sum(&join_all(campaigns).await);

    println!("{figures}");
    assert_eq!((figures.kills, figures.violations), (kills, 0));
}
