//! A state of everything: the API server's object, the service, the requests between, the
//! operators. [`Setting::moves`] says what may happen next, [`Setting::after`] what comes of it.

use std::sync::Arc;

use streamsession_core::answer::Operation;
use streamsession_core::identity::Identity;
use streamsession_core::ledger::desired::Desired;
use streamsession_core::ledger::record::Refusals;
use streamsession_core::reconcile::{
    Effect, LedgerState, Reconcile, ReconcileState, Requeue, View,
};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{attached_at, desired, new_object};
use streamsession_testkit::service::CallFault;

use crate::omission::Omission;
use crate::service::{CallResult, Ids, Question, Request, Service};
use crate::setting::{Budgets, Kind, STUCK, Setting};

/// When each search begins: a midnight, so that times in messages are easily read.
pub const EPOCH: i64 = 86_400 * 10_000;

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Something is in, or will be, and nobody remembers it.
    I1NothingLeaks,
    /// Without faults it does not come to rest in the truth.
    I2ItConverges,
    /// The object went, and a detach of it may still hit the next one.
    I3DeletionIsHonest,
    I4HandsOff,
    I6NoHarm,
    /// Ready, and it is not true.
    NoFalseReady,
    /// A lost ledger that was never lost.
    NoFalseLoss,
    /// Released without the refusals that the policy asks for.
    NoHastyRelease,
    /// The code's own checks stopped the work.
    NeverHalted,
}

/// Which promise, and how.
pub type Violation = (Promise, String);

/// The object at the API server.
#[derive(Clone, Debug)]
pub struct Object {
    pub view: Arc<View>,
    pub version: u64,
    /// Its status was lost once.
    pub lost: bool,
    /// Somebody took its finalizer off, and no operator has put it back yet.
    pub stripped: bool,
}

/// An operator in the middle of a reconcile, at an effect that is not performed yet.
#[derive(Clone, Debug)]
pub struct Busy {
    pub reconcile: Reconcile,
    pub effect: Effect,
    /// The copy that the effect was decided on, and its version.
    pub copy: Arc<View>,
    pub version: u64,
    /// The fingerprint of what the reconcile remembers.
    pub state_print: u64,
    /// It has a permit.
    pub has_permit: bool,
    /// A batch was split: what the reconcile remembers is needed after it.
    pub bisection: bool,
    /// Likewise if it was about to write a journal, as long as it does not know what became of
    /// that.
    pub wrote_journal: bool,
    /// It is about to settle an answer that it has just got; for the rules that are left out.
    pub answered: bool,
    /// A resync is due.
    pub resync: bool,
    /// What it found in the Secret.
    pub keys: Option<Keys>,
}

/// An operator. Without an open journal of its own (and without a split) what it remembers is worth
/// no more than a pause, and it is forgotten.
#[derive(Clone, Debug)]
pub enum Operator {
    Idle(Option<Arc<ReconcileState>>),
    Busy(Arc<Busy>),
}

/// Quiet detaches that the service refused in a row, as it happened.
#[derive(Clone, Copy, Debug)]
pub struct DetachRefusals {
    pub count: u8,
    pub since: i64,
}

/// What the Secret holds, and whether STS tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keys {
    pub rotated: bool,
    pub sts_is_down: bool,
}

impl Keys {
    pub fn identity(self) -> Identity {
        let account = (!self.sts_is_down).then(|| "100".into());
        Identity { account, ..if self.rotated { "BKID" } else { "AKID" }.into() }
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub struct State {
    pub now: i64,
    pub object: Option<Arc<Object>>,
    /// The copy before, if a read may still answer it.
    pub previous: Option<Arc<Object>>,
    pub members: Ids,
    pub session_gone: bool,
    pub keys: Keys,
    pub service: Service,
    pub in_flight: Vec<Request>,
    pub operators: Vec<Operator>,
    pub budgets: Budgets,
    /// Instances that this object tried to attach: who finds the journal can't know whether it was
    /// sent.
    pub tried: Ids,
    /// Instances that were released by the policy while they were in.
    pub released: Ids,
    /// The object went, and left what it had attached where it is.
    pub orphaned: bool,
    /// For each instance; only where the policy may release it.
    pub refused: Vec<DetachRefusals>,
    /// The next journal's name; not part of the situation.
    pub nonce: u128,
    /// How the last reconcile ended, if the last move ended one; not part of the situation.
    pub ended: Option<Requeue>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Tick,
    /// An instance joins the spec, or leaves it.
    Edit(u8),
    Delete,
    /// What is attached stays so.
    Orphan,
    Recreate,
    /// It turns out what the service answers to that.
    Reveal(Question, bool),
    /// A request arrives whose caller gave it up.
    Arrive(u8),
    Touch,
    StripFinalizer,
    WipeStatus,
    SessionEnds,
    RotateKey,
    Sts,
    /// A reconcile begins and reads the object.
    Begin(u8),
    /// Likewise, but what it reads is the copy before.
    BeginWithStaleRead(u8),
    /// Likewise, and a resync is due.
    BeginWithResync(u8),
    /// The write is done; or the read, after a conflict.
    Write(u8),
    WriteFails(u8),
    /// It is done, but nobody says so.
    WriteUnanswered(u8),
    Call(u8, CallResult),
    /// Likewise, and the next journal goes out with the settle.
    CallAndNextJournal(u8, CallResult),
    Crash(u8),
    /// The request is on its way, and its sender is no more.
    CrashDuringCall(u8),
    /// Only without the rule: the finalizer first, then a crash.
    CrashAfterFinalizer(u8),
}

impl Setting {
    /// How it begins: a new object that wants every instance; or one that is to release a stuck one.
    pub fn start(&self) -> State {
        let everybody = self.bits(&self.ids);
        let wanted = if self.stuck { 0 } else { everybody };
        let mut view = new_object(Desired {
            instances: self.set(wanted),
            forgets_failures: self.forgets,
            ..desired("1", &[])
        });
        let refused =
            DetachRefusals { count: if self.stuck { 4 } else { 0 }, since: EPOCH - STUCK };
        if self.stuck {
            let operation = Operation::Detach;
            let refusals = Refusals { operation, count: 4, since: ServiceTime(refused.since) };
            let mut ledger = attached_at("1", &self.set(everybody));
            ledger.records.values_mut().for_each(|record| record.refusals = Some(refusals));
            view.status.ledger = LedgerState::Current(ledger);
            view.finalizer = true;
        }
        State {
            now: EPOCH,
            object: Some(Arc::new(Object {
                view: Arc::new(view),
                version: 1,
                lost: false,
                stripped: false,
            })),
            previous: None,
            members: if self.stuck { everybody } else { 0 },
            session_gone: false,
            keys: Keys { rotated: false, sts_is_down: false },
            service: self.service,
            in_flight: Vec::new(),
            operators: vec![Operator::Idle(None); self.operators],
            budgets: self.budgets,
            tried: if self.stuck { everybody } else { 0 },
            released: 0,
            orphaned: false,
            refused: if self.forgets { vec![refused; self.ids.len()] } else { Vec::new() },
            nonce: 0,
            ended: None,
        }
    }

    /// What may happen next.
    pub fn moves(&self, state: &State) -> Vec<Move> {
        let mut moves = vec![Move::Tick];
        let has = |kind| state.budgets.has(kind);
        if let Some(object) = &state.object {
            let desired = &object.view.desired;
            let lost = matches!(object.view.status.ledger, LedgerState::Lost { .. });
            // Who is taken out of the spec while the ledger is lost can't be known: out of reach
            // (docs/design.md, 3.9).
            if has(Kind::Edit) && !desired.deleting && !lost {
                moves.extend((0..self.ids.len()).map(|n| Move::Edit(u8::try_from(n).unwrap())));
            }
            // Likewise a deletion right after somebody took the finalizer off: nobody could act.
            if has(Kind::Delete) && !desired.deleting && !object.stripped {
                moves.push(Move::Delete);
            }
            if has(Kind::Orphan) && desired.deleting {
                moves.push(Move::Orphan);
            }
            if has(Kind::Touch) {
                moves.push(Move::Touch);
            }
            if has(Kind::StripFinalizer) && object.view.finalizer && !desired.deleting && !lost {
                moves.push(Move::StripFinalizer);
            }
            if has(Kind::WipeStatus)
                && object.view.finalizer
                && !lost
                && self.can_be_lost(state, object)
            {
                moves.push(Move::WipeStatus);
            }
        } else if has(Kind::Recreate) && state.released == 0 && !state.session_gone {
            moves.push(Move::Recreate);
        }
        if has(Kind::SessionEnds) && !state.session_gone {
            moves.push(Move::SessionEnds);
        }
        if has(Kind::RotateKey) {
            moves.push(Move::RotateKey);
        }
        if has(Kind::Sts) {
            moves.push(Move::Sts);
        }
        for (request, n) in state.in_flight.iter().zip(0..) {
            match state.service.asks(state.members, request) {
                Some(question) => moves.extend([true, false].map(|ok| Move::Reveal(question, ok))),
                None => moves.push(Move::Arrive(n)),
            }
        }
        for (operator, which) in state.operators.iter().zip(0..) {
            match operator {
                Operator::Idle(_) if which > 0 && !has(Kind::SecondOperator) => {}
                Operator::Idle(_) => {
                    moves.push(Move::Begin(which));
                    if has(Kind::Resync) {
                        moves.push(Move::BeginWithResync(which));
                    }
                    if has(Kind::StaleRead) && state.previous.is_some() {
                        moves.push(Move::BeginWithStaleRead(which));
                    }
                }
                Operator::Busy(busy) => self.moves_of(state, busy, which, &mut moves),
            }
        }
        moves
    }

    /// A ledger can be rebuilt from the spec if that names everybody of whom the ledger or the
    /// service knows; others can't be known.
    fn can_be_lost(&self, state: &State, object: &Object) -> bool {
        let LedgerState::Current(ledger) = &object.view.status.ledger else { return false };
        let known = self.bits(
            ledger
                .records
                .keys()
                .chain(ledger.journal.iter().flat_map(|journal| &journal.instances)),
        );
        let coming = state.coming(self, None);
        (known | state.members | coming) & !self.bits(&object.view.desired.instances) == 0
    }

    fn moves_of(&self, state: &State, busy: &Busy, which: u8, moves: &mut Vec<Move>) {
        let has = |kind| state.budgets.has(kind);
        if let Effect::Call(_) = &busy.effect {
            self.calls(state, busy, which, moves);
        } else {
            moves.push(Move::Write(which));
            if has(Kind::FailedWrite) {
                moves.push(Move::WriteFails(which));
                if busy.effect != Effect::Read {
                    moves.push(Move::WriteUnanswered(which));
                }
            }
            if self.omits(Omission::FinalizerFirst) && has(Kind::Crash) && !busy.copy.finalizer {
                moves.push(Move::CrashAfterFinalizer(which));
            }
        }
        if has(Kind::Crash) {
            moves.push(Move::Crash(which));
        }
    }

    /// What the service has to be asked before that call.
    pub fn asks(&self, state: &State, busy: &Busy) -> Option<Question> {
        let request = self.request(state, busy);
        let is_heard = request.is_alive(state.now) && !state.session_gone;
        state.service.asks(state.members, &request).filter(|_| is_heard)
    }

    fn calls(&self, state: &State, busy: &Busy, which: u8, moves: &mut Vec<Move>) {
        let request = self.request(state, busy);
        if let Some(question) = self.asks(state, busy) {
            return moves.extend([true, false].map(|ok| Move::Reveal(question, ok)));
        }
        // A request that is too old, or comes to a session that is gone, is answered in one way
        // only; the answer may be lost all the same.
        let is_heard = request.is_alive(state.now) && !state.session_gone;
        let faulty = |fault| CallResult::Answered(Some(fault));
        let mut results = vec![CallResult::Answered(None)];
        if state.budgets.has(Kind::Refusal) && is_heard {
            let done = state.service.serve(state.members, &request, None).1.done;
            let able = request.places(done.0);
            let refusable = request.parts().filter(|part| part & !able == 0);
            results.extend(refusable.map(|part| faulty(CallFault::Refuse(part))));
        }
        if state.budgets.has(Kind::BadAnswer) {
            results.push(CallResult::Unanswered);
            if is_heard {
                results.push(faulty(CallFault::Throttle));
                results.push(faulty(CallFault::Unavailable));
                let parts = [0].into_iter().chain(request.parts());
                results.extend(parts.map(|done| faulty(CallFault::Unclear { done })));
                results.push(faulty(CallFault::Rejected));
                if request.ids.count_ones() > 1 {
                    results.push(faulty(CallFault::Omit(u8::MAX)));
                }
            }
        }
        for result in results {
            moves.push(Move::Call(which, result));
            if state.budgets.has(Kind::NextJournal) {
                moves.push(Move::CallAndNextJournal(which, result));
            }
        }
        if state.budgets.has(Kind::Crash) && is_heard {
            moves.push(Move::CrashDuringCall(which));
        }
    }
}

impl State {
    /// Who may still be hit by a request of that operation, or of any: one on its way, or one that
    /// a paused operator is about to send.
    pub fn coming(&self, setting: &Setting, operation: Option<Operation>) -> Ids {
        if self.session_gone {
            return 0;
        }
        let pending = self.operators.iter().filter_map(|operator| match operator {
            Operator::Busy(busy) if matches!(busy.effect, Effect::Call(_)) => {
                Some(setting.request(self, busy))
            }
            _ => None,
        });
        let all = self
            .in_flight
            .iter()
            .copied()
            .chain(pending)
            .filter(|request| request.is_alive(self.now));
        all.filter(|request| operation.is_none_or(|operation| request.operation == operation))
            .fold(0, |ids, request| ids | request.ids)
    }
}
