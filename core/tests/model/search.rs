//! The search: every state that can be reached, the nearest first, so that a counterexample is a
//! shortest one.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use streamsession_testkit::service::UnspecifiedBehaviour;

use crate::convergence::{Convergence, KnownEnds};
use crate::describe;
use crate::fingerprint;
use crate::setting::Setting;
use crate::world::{Move, Operator, State, Violation};

/// Fingerprints are mixed already.
#[derive(Default)]
pub struct Pass(u64);
pub type Passing = BuildHasherDefault<Pass>;

impl Hasher for Pass {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u128(&mut self, print: u128) {
        self.0 = u64::try_from(print & u128::from(u64::MAX)).unwrap();
    }
}

/// What a search has seen, in one kind of service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub states: usize,
    /// States without the object.
    pub gone: usize,
    /// States from which a user is needed.
    pub need_user: usize,
    /// States in which an instance was released while it was in.
    pub released: usize,
}

/// What a search has seen.
#[derive(Debug)]
pub struct Seen {
    pub name: String,
    pub states: usize,
    pub transitions: usize,
    /// Of each service; a state before it turns out which one it is belongs to several.
    pub services: [(UnspecifiedBehaviour, Count); 4],
    pub time: Duration,
    /// The promise that was broken, and how it came to that.
    pub broken: Option<(Violation, String)>,
}

impl Seen {
    fn count(&mut self, state: &State, end: Option<Convergence>) {
        self.states += 1;
        for (behaviour, count) in &mut self.services {
            if state.service.may_be(*behaviour) {
                count.states += 1;
                count.gone += usize::from(state.object.is_none());
                count.released += usize::from(state.released != 0);
                count.need_user +=
                    usize::from(end == Some(Convergence::NeedsUser) && !behaviour.remove_absent_ok);
            }
        }
    }

    /// The promise that was broken, and the way there.
    pub fn counterexample(&self) -> String {
        self.broken
            .as_ref()
            .map_or_else(String::new, |((promise, how), way)| format!("{promise:?}: {how}\n{way}"))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, transitions, services, time, .. } = self;
        write!(
            f,
            "{name}: {states} states, {transitions} transitions, {:.1} s",
            time.as_secs_f64()
        )?;
        let word = |ok| if ok { "ok" } else { "refused" };
        for (behaviour, Count { states, gone, need_user, released }) in services {
            let add_present = word(behaviour.add_present_ok);
            let remove_absent = word(behaviour.remove_absent_ok);
            write!(f, "\n  add-present {add_present:7} remove-absent {remove_absent:7} ")?;
            write!(f, "states {states:8}, object gone {gone:6}, ")?;
            write!(f, "released while attached {released:6}, needs a user {need_user:6}")?;
        }
        Ok(())
    }
}

/// Visits every state.
pub fn search(setting: &Setting) -> Seen {
    let began = Instant::now();
    let services = UnspecifiedBehaviour::ALL.map(|behaviour| (behaviour, Count::default()));
    let mut seen = Seen {
        name: setting.name.clone(),
        states: 0,
        transitions: 0,
        services,
        time: Duration::ZERO,
        broken: None,
    };
    let mut prints = HashSet::with_hasher(Passing::default());
    let mut known_ends = KnownEnds::default();
    // Who came to a state from which, and how: to tell the way.
    let mut ways: Vec<(u32, Move)> = Vec::new();
    let mut front = VecDeque::new();
    let start = setting.start();
    prints.insert(fingerprint::of(&start, true));
    ways.push((0, Move::Tick));
    front.push_back((0_u32, start));
    'all: while let Some((at, state)) = front.pop_front() {
        for step in setting.moves(&state) {
            let next = match setting.after(&state, step) {
                Ok(Some(next)) => next,
                Ok(None) => continue,
                Err(violation) => {
                    seen.broken = Some((violation, describe::way(setting, &ways, at, Some(step))));
                    break 'all;
                }
            };
            seen.transitions += 1;
            if !prints.insert(fingerprint::of(&next, true)) {
                continue;
            }
            let index = u32::try_from(ways.len()).unwrap();
            ways.push((at, step));
            // A reconcile that is under way is on the way to its end, which is a state too: its
            // writes and calls ask for nothing that is left out.
            let mut end = None;
            if matches!(next.operators[0], Operator::Idle(_)) {
                match setting.converge(&next, &mut known_ends) {
                    Ok(found) => end = Some(found),
                    Err(violation) => {
                        let way = describe::way(setting, &ways, index, None);
                        let on = describe::convergence(setting, &next);
                        seen.broken = Some((violation, way + &on));
                        break 'all;
                    }
                }
            }
            seen.count(&next, end);
            if !is_over(&next) {
                front.push_back((index, next));
            }
        }
    }
    seen.time = began.elapsed();
    seen
}

/// Nothing of interest can follow: the object is gone, and nothing that it left behind has to be
/// ours.
fn is_over(state: &State) -> bool {
    state.object.is_none() && (state.orphaned || state.released != 0 || state.session_gone)
}
