//! Many seeds on all cores, and what is printed of one that fails: the shortest scenario that
//! fails in the same way.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::Broken;
use crate::checks::Failure;
use crate::figures::Worst;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::World;

/// What CI plays.
const SEEDS: u64 = 20_000;
/// Lines of a failure that are printed.
const LINES: usize = 60;
/// What happens in what CI plays, or the scenarios do not play what they are meant to.
const NOTABLE: [&str; 10] = [
    "a batch size that was halved",
    "a list in two portions",
    "a quota that was halved",
    "a resync",
    "a resync that failed",
    "a resync that proved itself",
    "a stop that drained",
    "a stop that timed out",
    "a stop with reconciles under way",
    "who else wants an instance",
];
/// Failures after which no more seeds are played.
const FAILURES_MAX: usize = 20;
/// Events that may be spent on making a failure short.
const SHORTENING_EVENTS: usize = 2_000_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// What is wrong with the environment on purpose, so that the checks are seen to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    Api(Broken),
    /// The service takes signatures of any age.
    OldSignatures,
}

/// Plays a scenario; answers what broke, and the world as it was then.
pub fn play(
    scenario: Scenario,
    trace: Trace,
    sabotage: Option<Sabotage>,
) -> (Option<Failure>, World) {
    let mut world = World::new(scenario, trace);
    match sabotage {
        Some(Sabotage::Api(broken)) => world.api.broken = Some(broken),
        Some(Sabotage::OldSignatures) => world.service.signature_seconds = i64::MAX,
        None => {}
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| world.play())).is_err();
    let failure = if panicked {
        Some(Failure { kind: "panic", text: "see above".into() })
    } else {
        world.failure.clone()
    };
    (failure, world)
}

/// The scenario less all that the failure does not need, as far as that is found out soon.
fn shortened(mut scenario: Scenario, kind: &str) -> Scenario {
    let mut spent = 0;
    let mut still_fails = |scenario: &Scenario| {
        if spent > SHORTENING_EVENTS {
            return false;
        }
        let (failure, world) = play(scenario.clone(), Trace::default(), None);
        spent += world.events;
        failure.is_some_and(|failure| failure.kind == kind)
    };
    loop {
        let before = scenario.actions.len() + scenario.faults.len();
        let mut size = scenario.actions.len().max(1);
        while size > 0 {
            let mut from = 0;
            while from < scenario.actions.len() {
                let mut shorter = scenario.clone();
                shorter.actions.drain(from..(from + size).min(scenario.actions.len()));
                if still_fails(&shorter) { scenario = shorter } else { from += size }
            }
            size /= 2;
        }
        for fault in scenario.faults.keys().copied().collect::<Vec<_>>() {
            let mut shorter = scenario.clone();
            shorter.faults.remove(&fault);
            if still_fails(&shorter) {
                scenario = shorter;
            }
        }
        if scenario.actions.len() + scenario.faults.len() == before {
            return scenario;
        }
    }
}

/// Plays one seed and prints all that happens.
fn replay(seed: u64) {
    let (failure, world) = play(Scenario::of(seed), Trace::kept(), None);
    let mut scenario = world.scenario;
    if let (Some(failure), Some(_)) = (&failure, number("SHORT")) {
        scenario = shortened(scenario, failure.kind);
    }
    let (failure, world) = play(scenario, Trace::kept(), None);
    let Scenario { actions, faults, .. } = &world.scenario;
    println!(
        "{:?}",
        Scenario { actions: Vec::new(), faults: BTreeMap::new(), ..world.scenario.clone() }
    );
    for (at_ms, action) in actions {
        println!("{at_ms:>9} ms  {action:?}");
    }
    for ((name, effect), fault) in faults {
        println!("{name}, effect {effect}: {fault:?}");
    }
    for line in world.trace.lines.into_iter().flatten() {
        println!("{line}");
    }
    assert!(failure.is_none(), "seed {seed}: {failure:?}");
}

/// Plays all seeds, or the one that is asked for.
pub fn play_all() {
    if let Some(seed) = number("SEED") {
        replay(seed);
        return;
    }
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(from);
    let failed = Mutex::new(Vec::<(usize, u64, Failure)>::new());
    let events = AtomicU64::new(0);
    let notable = Mutex::new(BTreeMap::<&str, u64>::new());
    let figures = Mutex::new(BTreeMap::<String, Worst>::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || failed.lock().unwrap().len() >= FAILURES_MAX {
                        return;
                    }
                    let (failure, world) = play(Scenario::of(seed), Trace::default(), None);
                    events.fetch_add(u64::try_from(world.events).unwrap(), Ordering::Relaxed);
                    for (what, count) in world.notable {
                        *notable.lock().unwrap().entry(what).or_default() += count;
                    }
                    let behaviour = format!("{:?}", world.scenario.behaviour);
                    let mut figures = figures.lock().unwrap();
                    let worst = figures.entry(behaviour).or_default();
                    worst.add(seed, world.stopwatch.figures);
                    drop(figures);
                    if let Some(failure) = failure {
                        failed.lock().unwrap().push((world.events, seed, failure));
                    }
                }
            });
        }
    });
    let (played, notable) =
        (next.into_inner().min(from + count) - from, notable.into_inner().unwrap());
    let figures = figures.into_inner().unwrap();
    for (behaviour, worst) in &figures {
        println!("{behaviour}: {worst}");
    }
    println!("{played} seeds, {} events; {notable:?}", events.into_inner());
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(events, seed, _)| (*events, *seed));
    let Some((_, seed, failure)) = failed.first().cloned() else {
        if played >= SEEDS {
            assert!(notable.keys().eq(&NOTABLE), "not all of {NOTABLE:?} happened: {notable:?}");
        }
        figures.values().for_each(Worst::check);
        return;
    };
    for (events, seed, failure) in &failed {
        println!("seed {seed} after {events} events: {}: {}", failure.kind, failure.text);
    }
    let mut kinds = BTreeMap::<&str, usize>::new();
    for (_, _, failure) in &failed {
        *kinds.entry(failure.kind).or_default() += 1;
    }
    let (_, world) = play(shortened(Scenario::of(seed), failure.kind), Trace::kept(), None);
    let lines = world.trace.lines.unwrap();
    println!(
        "seed {seed}, less what the failure does not need; all of it: make simulate SEED={seed}"
    );
    println!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
    panic!(
        "{} seeds failed ({kinds:?}); seed {seed}: {}: {}",
        failed.len(),
        failure.kind,
        failure.text
    );
}

/// How many seeds it takes until the checks see what is wrong.
pub fn seeds_until_found(sabotage: Sabotage, most: u64) -> Option<(u64, Failure)> {
    (0..most).find_map(|seed| {
        Some((seed, play(Scenario::of(seed), Trace::default(), Some(sabotage)).0?))
    })
}
