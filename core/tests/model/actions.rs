//! What comes of a move: what users do, what the service and the API server do, and how a reconcile
//! goes on.

use std::sync::Arc;

use streamsession_core::answer::{Answer, Operation, Outcome, Verdict};
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::reconcile::{Effect, LedgerState, Response, View};
use streamsession_testkit::fixtures::{self, error, new_status, with_status};
use streamsession_testkit::service::CallFault;

use crate::check;
use crate::drive::Running;
use crate::omission::Omission;
use crate::service::{CallResult, Request};
use crate::setting::{Kind, STUCK, Setting};
use crate::world::{Busy, DetachRefusals, Move, Object, Operator, State, Violation};

/// What came of a write.
enum Written {
    /// The writer's copy, and the version that it believes to have seen.
    Done(Arc<View>, u64),
    Gone,
}

impl Setting {
    /// What comes of a move; `None` if it is no other than one without the next journal.
    pub fn after(&self, state: &State, step: Move) -> Result<Option<State>, Violation> {
        let mut next = State { ended: None, ..state.clone() };
        match step {
            Move::Tick => {
                next.now += 1;
                let now = next.now;
                next.in_flight.retain(|request| request.is_alive(now));
            }
            Move::Arrive(n) => {
                let request = next.in_flight.remove(usize::from(n));
                next.members = next.service.serve(next.members, &request, None).0;
            }
            Move::SessionEnds => {
                next.budgets.spend(Kind::SessionEnds);
                (next.members, next.session_gone) = (0, true);
                next.in_flight.clear();
            }
            Move::RotateKey => {
                next.budgets.spend(Kind::RotateKey);
                next.keys.rotated ^= true;
            }
            Move::Sts => {
                next.budgets.spend(Kind::Sts);
                next.keys.sts_is_down ^= true;
            }
            Move::Reveal(question, ok) => next.service = next.service.answers(question, ok),
            Move::Edit(_)
            | Move::Delete
            | Move::Orphan
            | Move::Recreate
            | Move::Touch
            | Move::StripFinalizer
            | Move::WipeStatus => {
                self.user_acts(&mut next, step);
            }
            Move::Begin(which) => self.begin(&mut next, which, false, false)?,
            Move::BeginWithResync(which) => {
                next.budgets.spend(Kind::Resync);
                self.begin(&mut next, which, false, true)?;
            }
            Move::BeginWithStaleRead(which) => {
                next.budgets.spend(Kind::StaleRead);
                self.begin(&mut next, which, true, false)?;
            }
            Move::Crash(which) => {
                next.budgets.spend(Kind::Crash);
                next.operators[usize::from(which)] = Operator::Idle(None);
            }
            Move::CrashDuringCall(which) => {
                next.budgets.spend(Kind::Crash);
                let request = self.request(state, next.busy(which));
                next.send(request);
                next.operators[usize::from(which)] = Operator::Idle(None);
            }
            Move::CrashAfterFinalizer(which) => {
                next.budgets.spend(Kind::Crash);
                next.operators[usize::from(which)] = Operator::Idle(None);
                next.edit(|view| view.finalizer = true);
            }
            Move::Call(which, result) => {
                self.call(&mut next, which, result, false)?;
            }
            Move::CallAndNextJournal(which, result) => {
                next.budgets.spend(Kind::NextJournal);
                if !self.call(&mut next, which, result, true)? {
                    return Ok(None);
                }
            }
            Move::Write(which) | Move::WriteFails(which) | Move::WriteUnanswered(which) => {
                self.write(&mut next, which, step)?;
            }
        }
        self.meet_conflicts(&mut next);
        check::state(self, &next)?;
        Ok(Some(next))
    }

    /// What users do to the object.
    fn user_acts(&self, state: &mut State, step: Move) {
        match step {
            Move::Edit(n) => {
                state.budgets.spend(Kind::Edit);
                let id = self.ids[usize::from(n)].clone();
                state.edit(|view| {
                    if !view.desired.instances.remove(&id) {
                        view.desired.instances.insert(id);
                    }
                    view.desired.generation += 1;
                });
            }
            Move::Delete => {
                state.budgets.spend(Kind::Delete);
                state.edit(|view| {
                    view.desired.deleting = true;
                    view.desired.generation += 1;
                });
            }
            Move::Orphan => {
                state.budgets.spend(Kind::Orphan);
                state.edit(|view| {
                    view.desired.deletion_policy = DeletionPolicy::Orphan;
                    view.desired.generation += 1;
                });
            }
            Move::Touch => {
                state.budgets.spend(Kind::Touch);
                state.change(|_| ());
            }
            Move::StripFinalizer => {
                state.budgets.spend(Kind::StripFinalizer);
                state.change(|object| {
                    Arc::make_mut(&mut object.view).finalizer = false;
                    object.stripped = true;
                });
            }
            Move::WipeStatus => {
                state.budgets.spend(Kind::WipeStatus);
                state.change(|object| {
                    object.lost = true;
                    Arc::make_mut(&mut object.view).status = new_status();
                });
            }
            _ => {
                state.budgets.spend(Kind::Recreate);
                let fresh = Self { stuck: false, ..self.clone() }.start();
                let mut object = Arc::unwrap_or_clone(fresh.object.unwrap());
                Arc::make_mut(&mut object.view).uid = "2".into();
                object.version = state.version() + 1;
                state.object = Some(Arc::new(object));
                state.tried = 0;
            }
        }
    }

    /// The request of a call that is about to be made.
    pub fn request(&self, state: &State, busy: &Busy) -> Request {
        let Effect::Call(call) = &busy.effect else { panic!("{:?} is no call", busy.effect) };
        let journal = call.journal();
        let start = if self.omits(Omission::SignsNow) { state.now } else { journal.start_time.0 };
        Request { operation: journal.operation, ids: self.bits(&journal.instances), start }
    }

    fn call(
        &self,
        state: &mut State,
        which: u8,
        result: CallResult,
        permit: bool,
    ) -> Result<bool, Violation> {
        let mut running = Running::of(state.busy(which));
        let request = self.request(state, state.busy(which));
        match result {
            CallResult::Answered(None) => {}
            CallResult::Answered(Some(CallFault::Refuse(_))) => state.budgets.spend(Kind::Refusal),
            _ => state.budgets.spend(Kind::BadAnswer),
        }
        let mut answer = match result {
            CallResult::Unanswered => {
                state.send(request);
                error("Timeout")
            }
            CallResult::Answered(_) if !request.is_alive(state.now) => {
                error("AuthFailure.SignatureExpire")
            }
            CallResult::Answered(_) if state.session_gone => {
                error("ResourceNotFound.SessionNotFound")
            }
            CallResult::Answered(fault) => self.serve(state, &request, fault),
        };
        if self.omits(Omission::UnclearIsRefused) && answer.verdict == Verdict::Unclear {
            let refused = self.set(request.ids);
            answer = fixtures::answer(Verdict::Processed { succeeded: [].into(), refused });
        }
        running.answered = true;
        running.resync = false;
        running.has_permit = false;
        running.bisection |= request.ids.count_ones() > 1
            && matches!(answer.verdict, Verdict::Unclear | Verdict::Rejected);
        self.drive(state, which, running, Response::Answer(answer), permit)
    }

    fn serve(&self, state: &mut State, request: &Request, fault: Option<CallFault>) -> Answer {
        let quiet = state.coming(self, Some(Operation::Attach)) == 0;
        let (members, served) = state.service.serve(state.members, request, fault);
        let answer = served.reply.answer(|bits| self.set(bits.0));
        state.members = members;
        for (id, (n, refused)) in self.ids.iter().zip(state.refused.iter_mut().enumerate()) {
            if request.ids & (1 << n) != 0 {
                refused.note_answer(request, answer.outcome(id, self.ids.len()), quiet);
            }
        }
        answer
    }

    fn write(&self, state: &mut State, which: u8, step: Move) -> Result<(), Violation> {
        let busy = Arc::clone(state.busy(which));
        let mut running = Running::of(&busy);
        if !matches!(step, Move::Write(_)) {
            state.budgets.spend(Kind::FailedWrite);
        }
        let response = if let Move::WriteFails(_) = step {
            Response::Failed
        } else if busy.effect == Effect::Read {
            running.reads(state.object.clone().as_deref())
        } else {
            let written = self.store(state, &busy)?;
            match written {
                _ if matches!(step, Move::WriteUnanswered(_)) => Response::Failed,
                Written::Gone => Response::Object(None),
                Written::Done(copy, version) => {
                    running.wrote_journal = false;
                    running.version = version;
                    running.copy = Some(Arc::clone(&copy));
                    Response::Object(Some(Box::new(View::clone(&copy))))
                }
            }
        };
        self.drive(state, which, running, response, false)?;
        Ok(())
    }

    /// The API server's part of a write.
    fn store(&self, state: &mut State, busy: &Busy) -> Result<Written, Violation> {
        let Some(object) = &state.object else { return Ok(Written::Gone) };
        check::write(state, object, busy)?;
        let before = Arc::clone(&object.view);
        let answered = match &busy.effect {
            Effect::WriteStatus(status, notices) => {
                state.released |= check::released(self, state, notices)?;
                if let LedgerState::Current(Ledger { journal: Some(journal), .. }) = &status.ledger
                    && journal.operation == Operation::Attach
                {
                    state.tried |= self.bits(&journal.instances);
                }
                Arc::new(with_status(&before, (**status).clone()))
            }
            Effect::AddFinalizer => Arc::new(View { finalizer: true, ..View::clone(&before) }),
            Effect::RemoveFinalizer => Arc::new(View { finalizer: false, ..View::clone(&before) }),
            effect => panic!("{effect:?} is no write"),
        };
        let mut stored = Arc::clone(&answered);
        if self.omission.is_some()
            && let Effect::WriteStatus(..) = &busy.effect
        {
            let foreign = before.uid != busy.copy.uid;
            self.omit(Arc::make_mut(&mut stored), busy, foreign, state.now);
        }
        state.change(|object| {
            object.stripped &= !stored.finalizer;
            object.view = stored;
        });
        Ok(if state.object.is_some() {
            Written::Done(answered, state.version())
        } else {
            Written::Gone
        })
    }
}

impl DetachRefusals {
    /// The service has answered a call of this instance.
    fn note_answer(&mut self, request: &Request, outcome: Outcome, quiet: bool) {
        match (request.operation, outcome) {
            (_, Outcome::Done) => *self = Self { count: 0, since: 0 },
            (Operation::Detach, Outcome::Refused | Outcome::Rejected | Outcome::Unclear)
                if quiet =>
            {
                if self.count == 0 {
                    self.since = request.start;
                }
                self.count = (self.count + 1).min(5);
            }
            _ => {}
        }
    }

    /// Whether the policy may release it.
    pub fn is_enough(&self, now: i64) -> bool {
        self.count >= 5 && now - self.since >= STUCK
    }
}

impl State {
    pub fn busy(&self, which: u8) -> &Arc<Busy> {
        match &self.operators[usize::from(which)] {
            Operator::Busy(busy) => busy,
            Operator::Idle(_) => panic!("operator {which} is idle"),
        }
    }

    fn send(&mut self, request: Request) {
        if request.is_alive(self.now) && !self.session_gone {
            self.in_flight.push(request);
            self.in_flight.sort_unstable();
        }
    }

    fn version(&self) -> u64 {
        // A name is given anew only after its object is gone: what the operators saw is older.
        let seen = self
            .operators
            .iter()
            .map(|operator| if let Operator::Busy(busy) = operator { busy.version } else { 0 });
        seen.chain(self.previous.as_ref().map(|object| object.version))
            .chain(self.object.as_ref().map(|object| object.version))
            .max()
            .unwrap_or(0)
    }

    fn edit(&mut self, change: impl FnOnce(&mut View)) {
        self.change(|object| change(Arc::make_mut(&mut object.view)));
    }

    /// A change of the object, after which it may be gone.
    fn change(&mut self, change: impl FnOnce(&mut Object)) {
        let Some(before) = self.object.take() else { return };
        let mut object = Object::clone(&before);
        change(&mut object);
        object.version += 1;
        if self.budgets.has(Kind::StaleRead) {
            self.previous = Some(before);
        } else {
            self.previous = None;
        }
        // The finalizer without a ledger means that it was lost; neither means that there never was
        // one.
        let ledger = &object.view.status.ledger;
        if object.view.finalizer && *ledger == LedgerState::New {
            Arc::make_mut(&mut object.view).status.ledger =
                LedgerState::Lost { why: "no record".into(), remains: Ledger::default() };
        } else if !object.view.finalizer
            && matches!(ledger, LedgerState::Lost { remains, .. } if *remains == Ledger::default())
        {
            Arc::make_mut(&mut object.view).status.ledger = LedgerState::New;
        }
        if object.view.desired.deleting && !object.view.finalizer {
            self.orphaned = object.view.desired.deletion_policy == DeletionPolicy::Orphan;
        } else {
            self.object = Some(Arc::new(object));
        }
    }
}
