//! Death at random moments.

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
use tokio::time::{Instant, sleep, timeout_at};

use super::fleet::{Figures, Fleet};
use super::{SIDE_BY_SIDE, VALIDITY, below, lab, millis, seed};
use crate::process;

/// In `cargo test`; `CHAOS_KILLS` says otherwise.
const KILLS: usize = 100;
const SLOTS: usize = 6;
/// Of this many lives one is long enough to lose patience with the journal of a dead process.
const LONG_LIFE: usize = 8;

pub fn kills() -> usize {
    var("CHAOS_KILLS").map_or(KILLS, |kills| kills.parse().expect("CHAOS_KILLS is a number"))
}

/// Long enough for a call, an edit and another call.
const LATE_LIFE: Duration = Duration::from_secs(4);

/// A signature's validity and its margin, at least, and patience with a journal.
const PEACE: Duration = Duration::from_secs(15);

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

/// What goes wrong in a life of that length.
pub fn faults(rng: &mut Rng, life: Duration) -> Faults {
    if life > LATE_LIFE { lateness(rng) } else { all_faults(rng) }
}

/// Calls come late, and little else happens: objects are Ready in between, and the spec turns, and
/// turns back, before a call comes.
fn lateness(rng: &mut Rng) -> Faults {
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

/// Everything that may go wrong, some of it.
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

/// How a life ends: at the latest after this time; perhaps at a failpoint before.
fn fate(rng: &mut Rng, number: usize) -> (Duration, Option<String>) {
    if number % LONG_LIFE == LONG_LIFE - 1 {
        return (millis(rng, 13_000, 16_000), None);
    }
    // The first call comes after a second, the quota's window.
    let life = match rng.below(100) {
        0..15 => millis(rng, 0, 1_000),
        15..75 => millis(rng, 1_000, 4_000),
        _ => millis(rng, 4_000, 9_000),
    };
    let failpoint = (life < LATE_LIFE && rng.percent(60)).then(|| {
        let side = rng.pick(&["before", "after"]);
        format!("{side}-{}:{}", rng.pick(&STEPS), rng.between(1, 3))
    });
    (life, failpoint)
}

/// Edits the fleet at random moments until then, or until the process ends by itself; answers how
/// it did.
pub async fn edit_until(
    fleet: &mut Fleet,
    rng: &mut Rng,
    process: &mut Child,
    end: Instant,
) -> Option<ExitStatus> {
    loop {
        let next = Instant::now() + millis(rng, 20, 600);
        // An edit is never broken off: nobody would know whether it was made.
        if let Ok(status) = timeout_at(next.min(end), process.wait()).await {
            return Some(status.expect("a status"));
        }
        if next > end {
            return None;
        }
        fleet.edit_somehow(rng).await;
    }
}

/// So many kills under the unspecified behaviour of that number.
async fn campaign(number: usize, kills: usize, seed: u64) -> Figures {
    let mut rng = Rng::new(seed, &format!("campaign {number}"));
    // A longer one where a refused attach counts at once: the next process meets journals that may
    // still arrive.
    let validity = if number.is_multiple_of(2) { VALIDITY * 2 } else { VALIDITY };
    let mut fleet =
        Fleet::new(format!("campaign {number}"), lab(behaviour(number), validity).await, SLOTS);
    for life in 1..kills {
        let (life, failpoint) = fate(&mut rng, life);
        fleet.set_faults(faults(&mut rng, life));
        let mut process = fleet.start(failpoint.as_deref());
        let end = Instant::now() + life;
        let at_failpoint = edit_until(&mut fleet, &mut rng, &mut process, end).await;
        match at_failpoint {
            Some(status) => assert!(
                process::was_killed(status),
                "the operator ended by itself: {status}\n{}",
                fleet.history()
            ),
            None => process::kill(&mut process).await,
        }
        fleet.buried(at_failpoint.is_some()).await;
        fleet.check();
        for _ in 0..below(&mut rng, 3) {
            fleet.edit_somehow(&mut rng).await;
        }
    }
    // The last life has peace until no signature of before is good any more: while a detach may
    // still arrive, a refused attach says nothing, and the pauses between them grow.
    fleet.set_faults(Faults::default());
    let mut process = fleet.start(None);
    sleep(PEACE).await;
    process::kill(&mut process).await;
    fleet.buried(false).await;

    let mut process = fleet.start(None);
    fleet.until_converged().await;
    process::kill(&mut process).await;
    fleet.until_at_rest().await;
    fleet.check_pauses();
    fleet.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_leak_nothing_in_any_world() {
    let kills = kills();
    let seed = seed();

    let campaigns = (0..SIDE_BY_SIDE).map(|number| {
        let share = kills / SIDE_BY_SIDE + usize::from(number < kills % SIDE_BY_SIDE);
        Box::pin(campaign(number, share, seed))
    });
    let figures = Figures::sum(&join_all(campaigns).await);

    println!("{figures}");
    assert_eq!((figures.kills, figures.wrong), (kills, 0));
}
