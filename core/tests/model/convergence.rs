//! I2: without further faults, one operator brings it about.

use std::collections::{HashMap, HashSet};

use streamsession_core::ledger::desired::Target;
use streamsession_core::reconcile::{Effect, LedgerState, Requeue};

use crate::check;
use crate::fingerprint;
use crate::search::Passing;
use crate::service::CallResult;
use crate::setting::{Budgets, Setting};
use crate::world::{Keys, Move, Operator, Promise, State, Violation};

/// Moves that a run may take, at most. The longest take some hundred: a lost ledger, three
/// refusals, two validities.
const MOVES_MAX: usize = 1_000;

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convergence {
    /// In the truth.
    Converged,
    /// With a user who has to look: the service refuses to remove an instance that it does not
    /// hold, and the policy is to wait.
    NeedsUser,
}

/// The ends that are known.
pub type KnownEnds = HashMap<u128, Convergence, Passing>;

/// The move that comes next when nothing goes wrong.
pub fn next(state: &State) -> Move {
    match (&state.operators[0], &state.ended) {
        (Operator::Busy(busy), _) if matches!(busy.effect, Effect::Call(_)) => {
            Move::Call(0, CallResult::Answered(None))
        }
        (Operator::Busy(_), _) => Move::Write(0),
        (Operator::Idle(_), Some(Requeue::After(_) | Requeue::OnPermit(_))) => Move::Tick,
        (Operator::Idle(_), _) => Move::Begin(0),
    }
}

/// The first operator alone, and nothing on its way.
pub fn alone(from: &State) -> State {
    let operators = from.operators[..1].to_vec();
    State {
        in_flight: Vec::new(),
        previous: None,
        budgets: Budgets::NONE,
        keys: Keys { sts_is_down: false, ..from.keys },
        ended: None,
        operators,
        ..from.clone()
    }
}

impl Setting {
    /// Runs the first operator alone until nothing is due. What is on its way is taken for lost,
    /// though its deadlines stand.
    pub fn converge(&self, from: &State, known: &mut KnownEnds) -> Result<Convergence, Violation> {
        let mut state = alone(from);
        let mut passed = HashSet::with_hasher(Passing::default());
        let end = loop {
            // The end of a reconcile is no situation of its own: a tick follows, or a look.
            if state.ended.is_none() && matches!(state.operators[0], Operator::Idle(_)) {
                let print = fingerprint::of(&state, false);
                if let Some(end) = known.get(&print) {
                    break *end;
                }
                if !passed.insert(print) || passed.len() > MOVES_MAX {
                    break self.judge_circle(&state)?;
                }
            }
            if matches!(state.ended, Some(Requeue::OnChange | Requeue::Never)) {
                match check::at_rest(self, &state) {
                    Ok(()) => break Convergence::Converged,
                    Err(how) => {
                        return Err((Promise::I2ItConverges, format!("nothing is due, and {how}")));
                    }
                }
            }
            if let Operator::Busy(busy) = &state.operators[0]
                && matches!(busy.effect, Effect::Call(_))
                && let Some(question) = self.asks(&state, busy)
            {
                let [yes, no] = [true, false].map(|ok| State {
                    service: state.service.answers(question, ok),
                    ..state.clone()
                });
                break match (self.converge(&yes, known)?, self.converge(&no, known)?) {
                    (Convergence::Converged, Convergence::Converged) => Convergence::Converged,
                    _ => Convergence::NeedsUser,
                };
            }
            state = self.after(&state, next(&state))?.expect("a move without the next journal");
        };
        known.extend(passed.into_iter().map(|print| (print, end)));
        Ok(end)
    }

    /// It goes round in circles: only where it has to.
    fn judge_circle(&self, state: &State) -> Result<Convergence, Violation> {
        let endless =
            |how: &str| Err((Promise::I2ItConverges, format!("it goes on for ever: {how}")));
        let Some(object) = &state.object else { return endless("the object is gone") };
        let LedgerState::Current(ledger) = &object.view.status.ledger else {
            return endless("there is no ledger");
        };
        if state.session_gone {
            let holds = !ledger.tracks_nothing();
            let is_believed = |target: &Target| target.believes(&state.keys.identity());
            if holds && !ledger.target.as_ref().is_some_and(is_believed) {
                // Another key says so, and nothing tells that it is of the same account.
                return Ok(Convergence::NeedsUser);
            }
            return if holds || object.view.desired.deleting {
                endless("the session is gone")
            } else {
                Ok(Convergence::Converged)
            };
        }
        let wanted = if object.view.desired.deleting {
            0
        } else {
            self.bits(&object.view.desired.instances)
        };
        let absent =
            ledger.records.iter().filter(|(_, record)| record.may_be_attached()).map(|(id, _)| id);
        let absent = self.bits(absent) & !wanted & !state.members;
        if state.service.remove_absent_ok == Some(false)
            && !self.forgets
            && absent != 0
            && state.members & !state.released == wanted
        {
            return Ok(Convergence::NeedsUser);
        }
        endless("nobody is needed for that")
    }
}
