//! Many seeds on all cores, and what is printed of one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::oracle::Failure;
use crate::plan::Plan;
use crate::story::Story;
use crate::world::World;

/// What CI plays.
const SEEDS: u64 = 2_000;
/// Lines of a failure that are printed.
const LINES: usize = 60;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Plays a plan; answers what broke, and how many events it took.
pub fn play(plan: Plan, story: Story) -> (Option<Failure>, World) {
    let mut world = World::new(plan, story);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.play())).is_err();
    let failure = if panicked { Some(Failure { kind: "panic", text: "see above".into() }) } else { world.failure.clone() };
    (failure, world)
}

/// Plays all seeds, or the one that is asked for.
pub fn play_all() {
    if let Some(seed) = number("SEED") {
        let (failure, world) = play(Plan::of(seed), Story::kept());
        println!("{:#?}", world.plan);
        for line in world.story.lines.unwrap() {
            println!("{line}");
        }
        assert!(failure.is_none(), "seed {seed}: {failure:?}");
        return;
    }
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(from);
    let failed = Mutex::new(Vec::<(usize, u64, Failure)>::new());
    let events = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let (failure, world) = play(Plan::of(seed), Story::default());
                    events.fetch_add(u64::try_from(world.events).unwrap(), Ordering::Relaxed);
                    if let Some(failure) = failure {
                        failed.lock().unwrap().push((world.events, seed, failure));
                    }
                }
            });
        }
    });
    println!("{count} seeds, {} events", events.into_inner());
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(events, seed, _)| (*events, *seed));
    let Some((_, seed, failure)) = failed.first().cloned() else { return };
    for (events, seed, failure) in failed.iter().take(40) {
        println!("seed {seed} after {events} events: {}: {}", failure.kind, failure.text);
    }
    let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
    for (_, _, failure) in &failed {
        *kinds.entry(failure.kind).or_default() += 1;
    }
    let (_, world) = play(Plan::of(seed), Story::kept());
    let lines = world.story.lines.unwrap();
    println!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
    panic!("{} of {count} seeds failed ({kinds:?}); seed {seed}: {}: {}", failed.len(), failure.kind, failure.text);
}
