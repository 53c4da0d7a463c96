//! The real reconciles, driven up to the next effect that others can see.

use std::sync::Arc;
use std::time::Duration;

use streamsession_core::ledger::plan::Priority;
use streamsession_core::reconcile::{
    Effect, LedgerState, Reconcile, ReconcileState, Requeue, Response, Resync, Status, StepContext,
    View,
};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::context;

use crate::check;
use crate::fingerprint;
use crate::omission::Omission;
use crate::setting::{Kind, Setting, settings};
use crate::world::{Busy, Keys, Object, Operator, State, Violation};

/// A reconcile that is being driven on.
pub struct Running {
    reconcile: Reconcile,
    pub copy: Option<Arc<View>>,
    pub version: u64,
    pub has_permit: bool,
    pub bisection: bool,
    pub wrote_journal: bool,
    pub answered: bool,
    pub resync: bool,
    pub keys: Option<Keys>,
}

impl Running {
    pub fn of(busy: &Busy) -> Self {
        let Busy { reconcile, copy, version, has_permit, bisection, resync, keys, .. } = busy;
        let wrote_journal = busy.wrote_journal || wrote_journal(&busy.effect);
        Self {
            reconcile: reconcile.clone(),
            copy: Some(Arc::clone(copy)),
            version: *version,
            has_permit: *has_permit,
            bisection: *bisection,
            wrote_journal,
            answered: false,
            resync: *resync,
            keys: *keys,
        }
    }

    /// The response to a read that finds this.
    pub fn reads(&mut self, object: Option<&Object>) -> Response {
        self.copy = object.map(|object| Arc::clone(&object.view));
        self.wrote_journal = false;
        self.version = object.map_or(0, |object| object.version);
        Response::Object(self.copy.as_ref().map(|copy| Box::new(View::clone(copy))))
    }
}

impl Setting {
    /// A write whose object has changed since can only end in a conflict, or with its writer: what
    /// it would have written does not matter any more.
    pub fn meet_conflicts(&self, state: &mut State) {
        let Some(object) = state.object.clone() else { return };
        for which in 0..state.operators.len() {
            let Operator::Busy(busy) = &state.operators[which] else { continue };
            if matches!(busy.effect, Effect::Call(_) | Effect::Read)
                || self.would_hit(&object, busy)
            {
                continue;
            }
            let mut busy = Busy::clone(busy);
            busy.wrote_journal = wrote_journal(&busy.effect);
            let context = Self::context(state, 0, false, false);
            busy.effect = busy.reconcile.step(Response::Conflict, &context);
            state.operators[which] = if let Effect::Done(_) = busy.effect {
                // It has lost so often that it comes back later.
                let keeps = busy.wrote_journal || busy.bisection || journal_of(&busy.copy);
                Operator::Idle(keeps.then(|| Arc::new(busy.reconcile.into_state())))
            } else {
                Operator::Busy(Arc::new(busy))
            };
        }
    }

    /// Whether a write would find the object that it was meant for.
    fn would_hit(&self, object: &Object, busy: &Busy) -> bool {
        let foreign = object.view.uid != busy.copy.uid;
        object.version == busy.version
            || match self.omission {
                Some(Omission::NoPrecondition) => !foreign,
                Some(Omission::NoUid) => foreign,
                Some(Omission::NoUidOfFinalizer) => {
                    foreign && busy.effect == Effect::RemoveFinalizer
                }
                _ => false,
            }
    }

    fn context(state: &mut State, which: u8, lags: bool, resync: bool) -> StepContext {
        state.nonce += 1;
        let service = Some(ServiceTime(state.now - i64::from(lags && which == 1)));
        let resync = if resync { Resync::Due(None) } else { Resync::NotDue };
        StepContext { service, nonce: state.nonce, resync, ..context() }
    }

    /// A reconcile begins with a look at the object, or at the copy before.
    pub fn begin(
        &self,
        state: &mut State,
        which: u8,
        older: bool,
        resync: bool,
    ) -> Result<(), Violation> {
        if which > 0 {
            state.budgets.spend(Kind::SecondOperator);
        }
        let left = match &state.operators[usize::from(which)] {
            Operator::Idle(Some(left)) => ReconcileState::clone(left),
            _ => ReconcileState::new(settings()),
        };
        let reconcile = Reconcile::new(Arc::clone(settings()), left, Some(Priority::Resync));
        let read = if older { state.previous.clone() } else { state.object.clone() };
        let mut running = Running {
            reconcile,
            copy: None,
            version: 0,
            has_permit: true,
            bisection: false,
            wrote_journal: false,
            answered: false,
            resync,
            keys: None,
        };
        let context = Self::context(state, which, self.lags, resync);
        let effect = running.reconcile.step(Response::Started, &context);
        assert_eq!(effect, Effect::Read, "a reconcile begins with a look");
        let response = running.reads(read.as_deref());
        self.drive(state, which, running, response, false)?;
        Ok(())
    }

    /// Goes on with a reconcile up to its next effect that others can see; `permit`: whether one is
    /// at hand. Says whether it was asked for.
    pub fn drive(
        &self,
        state: &mut State,
        which: u8,
        mut running: Running,
        mut response: Response,
        permit: bool,
    ) -> Result<bool, Violation> {
        let mut asked = false;
        let (end, cut_off) = loop {
            let cut_off = matches!(response, Response::Failed);
            let context = Self::context(state, which, self.lags, running.resync);
            let effect = running.reconcile.step(response, &context);
            response = match effect {
                Effect::Read => {
                    let object = state.object.clone();
                    running.reads(object.as_deref())
                }
                Effect::Credentials => {
                    running.keys = Some(state.keys);
                    Response::Credentials(Ok(state.keys.identity()))
                }
                Effect::AskTime => Response::Time(Ok(())),
                Effect::ReadClaimant(key) => Response::Claimant(key, None),
                Effect::Permit(priority) => {
                    asked = true;
                    running.has_permit = permit;
                    Response::Permit(permit.then_some(priority))
                }
                Effect::Done(end) => break (end, cut_off),
                effect => {
                    let copy =
                        running.copy.clone().expect("a copy was read before anything is done");
                    let Running {
                        reconcile,
                        version,
                        has_permit,
                        bisection,
                        answered,
                        resync,
                        keys,
                        ..
                    } = running;
                    let state_print = fingerprint::of_state(reconcile.state(), &copy, &effect);
                    check::effect(self, state, &copy, &effect)?;
                    let busy = Busy {
                        reconcile,
                        effect,
                        copy,
                        version,
                        state_print,
                        has_permit,
                        bisection,
                        wrote_journal: false,
                        answered,
                        resync,
                        keys,
                    };
                    state.operators[usize::from(which)] = Operator::Busy(Arc::new(busy));
                    return Ok(asked);
                }
            };
        };
        let open = running.copy.as_ref().is_some_and(|copy| journal_of(copy))
            || (cut_off && running.wrote_journal);
        let keeps =
            (open || running.bisection) && !matches!(end, Requeue::Never | Requeue::OnChange);
        let left = keeps.then(|| Arc::new(running.reconcile.into_state()));
        state.operators[usize::from(which)] = Operator::Idle(left);
        // The watch tells of what happened meanwhile.
        let unseen = state.object.as_ref().is_some_and(|object| object.version != running.version);
        state.ended = Some(if unseen { Requeue::After(Duration::ZERO) } else { end });
        Ok(asked)
    }
}

fn journal_in(status: &Status) -> bool {
    matches!(&status.ledger, LedgerState::Current(ledger) if ledger.journal.is_some())
}

fn wrote_journal(effect: &Effect) -> bool {
    matches!(effect, Effect::WriteStatus(status, _) if journal_in(status))
}

fn journal_of(view: &View) -> bool {
    journal_in(&view.status)
}
