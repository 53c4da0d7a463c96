//! Every state that can be reached, the nearest first; and that each of them comes to an end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use streamsession_core::reconcile::LedgerState;
use streamsession_testkit::service::UnspecifiedBehaviour;

use crate::fingerprint;
use crate::world::{Budgets, Call, Move, Object, Omission, STRANGER, State, new, stranger};

/// Moves of a run that nothing disturbs, at most.
const MOVES_MAX: usize = 400;

/// What is searched.
pub struct Setting {
    pub budgets: Budgets,
    /// Objects that there may be, and those that there are.
    pub objects: usize,
    pub created: usize,
    pub behaviour: UnspecifiedBehaviour,
    pub omission: Option<Omission>,
}

/// How a run without disturbance ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Converged,
    /// A user has to look: the service refuses to remove what it does not hold.
    NeedsUser,
}

/// What was seen.
pub struct Seen {
    pub states: usize,
    transitions: usize,
    need_user: usize,
    time: Duration,
    /// The promise that is broken, and the way there.
    pub broken: Option<String>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, need_user, time, .. } = self;
        write!(f, "{states} states, {transitions} transitions, needs a user {need_user}, ")?;
        write!(f, "{:.1} s", time.as_secs_f64())
    }
}

/// Visits every state.
pub fn search(setting: &Setting) -> Seen {
    let began = Instant::now();
    let namespace = match setting.omission {
        Some(Omission::BelievesStrangers) => "arcade",
        _ => "elsewhere",
    };
    let object = |which| {
        let is_stranger = setting.budgets.forgeries > 0 && which == STRANGER;
        if is_stranger { stranger(namespace) } else { new(which) }
    };
    let objects =
        (0..setting.objects).map(|which| (which < setting.created).then(|| object(which)));
    let start = State {
        objects: objects.collect(),
        is_member: false,
        in_flight: Vec::new(),
        now: 1_000,
        budgets: setting.budgets,
    };
    let mut known = HashMap::new();
    let mut prints = HashSet::from([fingerprint::of(&start, true)]);
    let mut ways: Vec<(usize, Move)> = vec![(0, Move::Tick)];
    let mut front = VecDeque::from([(0, start.clone())]);
    let (mut transitions, mut need_user, mut broken) = (0, 0, None);
    'all: while let Some((at, state)) = front.pop_front() {
        for step in state.moves() {
            let tell = |why: String| Some(why + &way(setting, &start, &ways, at, step));
            let next = match state.after(step, setting.behaviour, setting.omission) {
                Ok(Some(next)) => next,
                Ok(None) => continue,
                Err(why) => {
                    broken = tell(why);
                    break 'all;
                }
            };
            transitions += 1;
            if !prints.insert(fingerprint::of(&next, true)) {
                continue;
            }
            let end = match next.broken() {
                Some(why) => Err(why),
                None => converge(setting, &next, &mut known),
            };
            match end {
                Ok(end) => need_user += usize::from(end == End::NeedsUser),
                Err(why) => {
                    broken = tell(why);
                    break 'all;
                }
            }
            front.push_back((ways.len(), next));
            ways.push((at, step));
        }
    }
    Seen { states: prints.len(), transitions, need_user, time: began.elapsed(), broken }
}

/// How it came to that: each move, and what there is then.
fn way(
    setting: &Setting,
    start: &State,
    ways: &[(usize, Move)],
    mut at: usize,
    last: Move,
) -> String {
    let mut steps = vec![last];
    while at > 0 {
        let (before, step) = ways[at];
        steps.push(step);
        at = before;
    }
    let mut state = start.clone();
    let mut told = String::new();
    for step in steps.into_iter().rev() {
        if let Ok(Some(next)) = state.after(step, setting.behaviour, setting.omission) {
            state = next;
        }
        let _ = write!(told, "\n{step:?}\n{}", describe(&state));
    }
    told
}

fn describe(state: &State) -> String {
    let mut told = format!("  at {}: in {}, {:?}", state.now, state.is_member, state.in_flight);
    for (which, object) in state.objects.iter().enumerate() {
        let Some(object) = object else { continue };
        let reason = object.view.status.conditions.as_ref().map(|conditions| conditions.reason);
        let records = match &object.view.status.ledger {
            LedgerState::Current(ledger) => format!("{:?}", ledger.records.values()),
            other => format!("{other:?}"),
        };
        let _ = write!(
            told,
            "\n  {}: wants {}, deleting {}, keys {}, {reason:?} {records}",
            state.key(which),
            object.wants(),
            object.view.desired.deleting,
            object.has_keys,
        );
    }
    told
}

/// Nothing goes wrong any more, and every object has its keys: it comes to rest, as it should be.
fn converge(
    setting: &Setting,
    from: &State,
    known: &mut HashMap<u128, End>,
) -> Result<End, String> {
    let mut state = State { budgets: Budgets::NONE, in_flight: Vec::new(), ..from.clone() };
    for object in state.objects.iter_mut().flatten() {
        object.has_keys = !object.is_stranger;
    }
    let mut passed = Vec::new();
    let end = loop {
        let print = fingerprint::of(&state, false);
        if let Some(end) = known.get(&print) {
            break *end;
        }
        if passed.contains(&print) || passed.len() > MOVES_MAX {
            break at_rest(setting, &state)?;
        }
        passed.push(print);
        for which in 0..state.objects.len() {
            if state.objects[which].is_some() {
                let step = Move::Reconcile(which, Call::Answered);
                let next = state.after(step, setting.behaviour, setting.omission)?;
                state = next.unwrap_or(state);
                if let Some(why) = state.broken() {
                    return Err(why + ", while nothing disturbs it");
                }
            }
        }
        if fingerprint::of(&state, false) == print {
            let next = state.after(Move::Tick, setting.behaviour, setting.omission)?;
            state = next.unwrap_or(state);
        }
    };
    known.extend(passed.into_iter().map(|print| (print, end)));
    Ok(end)
}

/// It goes round in circles, or does nothing: only where it should.
fn at_rest(setting: &Setting, state: &State) -> Result<End, String> {
    let claims = state.claims();
    let present = || {
        state
            .objects
            .iter()
            .enumerate()
            .filter_map(|(which, object)| Some((state.key(which), object.as_ref()?)))
            .filter(|(_, object)| !object.is_stranger)
    };
    let remembers = present().any(|(_, object)| object.wants() && object.tracks());
    let owner =
        present().find(|(key, object)| claims.owner(key, &object.view.place()) == Some(key));
    let is_right = match &owner {
        Some((_, owner)) if owner.wants() => state.is_member && owner.says_ready(),
        // One that waits put it in while it owned the session, and remembers.
        _ => !state.is_member || remembers,
    };
    let is_deleting = present().any(|(_, object)| object.view.desired.deleting);
    if is_right && !is_deleting {
        return Ok(End::Converged);
    }
    let is_stuck = |object: &Object| !object.wants() && object.tracks();
    if !setting.behaviour.remove_absent_ok && present().any(|(_, object)| is_stuck(object)) {
        return Ok(End::NeedsUser);
    }
    Err(format!("it does not converge; it ends so:\n{}\n", describe(state)))
}
