//! What comes of a move: the real reconciles, and the world that they meet.

use std::sync::Arc;
use std::time::Duration;

use streamsession_core::answer::{Operation, Outcome, Verdict};
use streamsession_core::conditions::Counts;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::LedgerState;
use streamsession_core::reconcile::{
    Effect, Handled, Reconcile, ReconcileState, Requeue, Response, Status, StepContext, View,
};
use streamsession_core::time::ServiceTime;

use crate::check;
use crate::fingerprint;
use crate::service::{self, How, Request, serve};
use crate::setting::{Bend, Kind, STUCK, Setting, settings};
use crate::world::{Busy, Move, Object, Operator, Refused, State, Violation};

/// A reconcile that is being driven on.
struct Running {
    reconcile: Reconcile,
    copy: Option<Arc<View>>,
    saw: u64,
    held: bool,
    bisection: bool,
    wrote_journal: bool,
    answered: bool,
}

/// What came of a write.
enum Written {
    /// The writer's copy, and the version that it believes to have seen.
    Done(Arc<View>, u64),
    Gone,
}

impl Setting {
    /// What comes of a move; `None` if it is no other than one without a ride.
    pub fn after(&self, state: &State, step: Move) -> Result<Option<State>, Violation> {
        let mut next = State { ended: None, ..state.clone() };
        match step {
            Move::Tick => {
                next.now += 1;
                let now = next.now;
                next.net.retain(|request| request.is_alive(now));
            }
            Move::Arrive(n) => {
                let request = next.net.remove(usize::from(n));
                next.members = serve(next.service, next.members, &request, 0).0;
            }
            Move::SessionEnds => {
                next.budgets.spend(Kind::Gone);
                (next.members, next.session_gone) = (0, true);
                next.net.clear();
            }
            Move::Reveal(question, ok) => next.service = next.service.answers(question, ok),
            Move::Edit(_)
            | Move::Delete
            | Move::Orphan
            | Move::Recreate
            | Move::Touch
            | Move::Strip
            | Move::Wipe => {
                self.person(&mut next, step);
            }
            Move::Begin(which) => self.begin(&mut next, which, false)?,
            Move::BeginStale(which) => {
                next.budgets.spend(Kind::Stale);
                self.begin(&mut next, which, true)?;
            }
            Move::Crash(which) => {
                next.budgets.spend(Kind::Crash);
                next.operators[usize::from(which)] = Operator::Idle(None);
            }
            Move::CrashCalling(which) => {
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
            Move::Call(which, how) => {
                self.call(&mut next, which, how, false)?;
            }
            Move::CallAndRide(which, how) => {
                next.budgets.spend(Kind::Ride);
                if !self.call(&mut next, which, how, true)? {
                    return Ok(None);
                }
            }
            Move::Write(which) | Move::WriteFails(which) | Move::WriteUnanswered(which) => {
                self.write(&mut next, which, step)?
            }
        }
        self.overtake(&mut next);
        check::state(self, &next)?;
        Ok(Some(next))
    }

    /// A write whose object has changed since can only end in a conflict, or with its writer: what
    /// it would have written does not matter any more.
    fn overtake(&self, state: &mut State) {
        let Some(object) = state.object.clone() else { return };
        for which in 0..state.operators.len() {
            let Operator::Busy(busy) = &state.operators[which] else { continue };
            if matches!(busy.effect, Effect::Call(_) | Effect::Read) || self.hits(&object, busy) {
                continue;
            }
            let mut busy = Busy::clone(busy);
            busy.wrote_journal = wrote_journal(&busy.effect);
            let context = Self::context(state, 0, false);
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
    fn hits(&self, object: &Object, busy: &Busy) -> bool {
        let foreign = object.view.uid != busy.copy.uid;
        object.version == busy.saw
            || match self.bend {
                Some(Bend::NoPrecondition) => !foreign,
                Some(Bend::NoUid) => foreign,
                Some(Bend::NoUidOfFinalizer) => foreign && busy.effect == Effect::RemoveFinalizer,
                _ => false,
            }
    }

    /// What people do to the object.
    fn person(&self, state: &mut State, step: Move) {
        match step {
            Move::Edit(n) => {
                state.budgets.spend(Kind::Edit);
                let id = self.ids[usize::from(n)].clone();
                state.edit(|view| {
                    if !view.desired.instances.remove(&id) {
                        view.desired.instances.insert(id);
                    }
                    view.generation += 1;
                });
            }
            Move::Delete => {
                state.budgets.spend(Kind::Delete);
                state.edit(|view| {
                    view.desired.deleting = true;
                    view.generation += 1;
                });
            }
            Move::Orphan => {
                state.budgets.spend(Kind::Orphan);
                state.edit(|view| {
                    view.desired.deletion_policy = DeletionPolicy::Orphan;
                    view.generation += 1;
                });
            }
            Move::Touch => {
                state.budgets.spend(Kind::Touch);
                state.change(|_| ());
            }
            Move::Strip => {
                state.budgets.spend(Kind::Strip);
                state.change(|object| {
                    Arc::make_mut(&mut object.view).finalizer = false;
                    object.stripped = true;
                });
            }
            Move::Wipe => {
                state.budgets.spend(Kind::Wipe);
                state.change(|object| {
                    object.lost = true;
                    Arc::make_mut(&mut object.view).status = Status {
                        observed_generation: -1,
                        conditions: None,
                        counts: Counts::default(),
                        handled: Handled::default(),
                        ledger: LedgerState::New,
                    };
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

    fn context(state: &mut State, which: u8, lags: bool) -> StepContext {
        state.nonce += 1;
        let service = Some(ServiceTime(state.now - i64::from(lags && which == 1)));
        StepContext {
            service,
            elapsed: Duration::ZERO,
            nonce: state.nonce,
            ownership: Ownership::Uncontested,
            lost_ownership: false,
            may_act: true,
        }
    }

    fn begin(&self, state: &mut State, which: u8, older: bool) -> Result<(), Violation> {
        if which > 0 {
            state.budgets.spend(Kind::Intrude);
        }
        let left = match &state.operators[usize::from(which)] {
            Operator::Idle(Some(left)) => ReconcileState::clone(left),
            _ => ReconcileState::new(settings()),
        };
        let reconcile = Reconcile::new(Arc::clone(settings()), left, true);
        let read = if older { state.previous.clone() } else { state.object.clone() };
        let mut running = Running {
            reconcile,
            copy: None,
            saw: 0,
            held: true,
            bisection: false,
            wrote_journal: false,
            answered: false,
        };
        let context = Self::context(state, which, self.lags);
        let effect = running.reconcile.step(Response::Started, &context);
        assert_eq!(effect, Effect::Read, "a reconcile begins with a look");
        let response = running.meets(read.as_deref());
        self.drive(state, which, running, response, false)?;
        Ok(())
    }

    /// Goes on with a reconcile up to its next effect that others can see. Says whether a permit was
    /// asked for.
    fn drive(
        &self,
        state: &mut State,
        which: u8,
        mut running: Running,
        mut response: Response,
        ride: bool,
    ) -> Result<bool, Violation> {
        let mut asked = false;
        let end = loop {
            let cut_off = matches!(response, Response::Failed);
            let context = Self::context(state, which, self.lags);
            let effect = running.reconcile.step(response, &context);
            response = match effect {
                Effect::Read => {
                    let object = state.object.clone();
                    running.meets(object.as_deref())
                }
                Effect::Credentials => Response::Credentials(Ok("A".into())),
                Effect::AskTime => Response::Time(Ok(())),
                Effect::ReadOwner(_) => Response::Owner(None),
                Effect::Permit => {
                    asked = true;
                    running.held = ride;
                    Response::Permit(ride)
                }
                Effect::Done(end) => break (end, cut_off),
                effect => {
                    let copy =
                        running.copy.clone().expect("a copy was read before anything is done");
                    let Running { reconcile, saw, held, bisection, answered, .. } = running;
                    let left = fingerprint::of_state(reconcile.state(), &copy, &effect);
                    check::effect(self, state, &copy, &effect)?;
                    let busy = Busy {
                        reconcile,
                        effect,
                        copy,
                        saw,
                        left,
                        held,
                        bisection,
                        wrote_journal: false,
                        answered,
                    };
                    state.operators[usize::from(which)] = Operator::Busy(Arc::new(busy));
                    return Ok(asked);
                }
            };
        };
        let (end, cut_off) = end;
        let open = running.copy.as_ref().is_some_and(|copy| journal_of(copy))
            || (cut_off && running.wrote_journal);
        let keeps =
            (open || running.bisection) && !matches!(end, Requeue::Never | Requeue::OnChange);
        let left = keeps.then(|| Arc::new(running.reconcile.into_state()));
        state.operators[usize::from(which)] = Operator::Idle(left);
        // The watch tells of what happened meanwhile.
        let unseen = state.object.as_ref().is_some_and(|object| object.version != running.saw);
        state.ended = Some(if unseen { Requeue::After(Duration::ZERO) } else { end });
        Ok(asked)
    }

    /// The request of a call that is about to be made.
    pub fn request(&self, state: &State, busy: &Busy) -> Request {
        let Effect::Call(call) = &busy.effect else { panic!("{:?} is no call", busy.effect) };
        let journal = call.journal();
        let start = if self.is_bent(Bend::SignsNow) { state.now } else { journal.start_time.0 };
        Request { operation: journal.operation, ids: self.bits(&journal.instances), start }
    }

    fn call(&self, state: &mut State, which: u8, how: How, ride: bool) -> Result<bool, Violation> {
        let mut running = Running::of(state.busy(which));
        let request = self.request(state, state.busy(which));
        match how {
            How::Served { spite: 0 } => {}
            How::Served { .. } => state.budgets.spend(Kind::Refusal),
            _ => state.budgets.spend(Kind::Loss),
        }
        let mut answer = if how == How::Unanswered {
            state.send(request);
            service::call(self, state.service, state.members, &request, how).1
        } else if !request.is_alive(state.now) {
            service::expired()
        } else if state.session_gone {
            service::answer(Verdict::SessionGone, "ResourceNotFound.SessionNotFound")
        } else {
            let quiet = state.coming(self, Some(Operation::Attach)) == 0;
            let (members, answer) =
                service::call(self, state.service, state.members, &request, how);
            state.members = members;
            for (id, (n, refused)) in self.ids.iter().zip(state.refused.iter_mut().enumerate()) {
                if request.ids & (1 << n) != 0 {
                    refused.hear(request, answer.outcome(id, self.ids.len()), quiet);
                }
            }
            answer
        };
        if self.is_bent(Bend::UnclearIsRefused) && answer.verdict == Verdict::Unclear {
            answer = service::answer(
                Verdict::Processed { succeeded: [].into(), refused: self.set(request.ids) },
                "",
            );
        }
        running.answered = true;
        running.held = false;
        running.bisection |= request.ids.count_ones() > 1
            && matches!(answer.verdict, Verdict::Unclear | Verdict::Invalid);
        self.drive(state, which, running, Response::Answer(answer), ride)
    }

    fn write(&self, state: &mut State, which: u8, step: Move) -> Result<(), Violation> {
        let busy = Arc::clone(state.busy(which));
        let mut running = Running::of(&busy);
        if !matches!(step, Move::Write(_)) {
            state.budgets.spend(Kind::Write);
        }
        let response = if let Move::WriteFails(_) = step {
            Response::Failed
        } else if busy.effect == Effect::Read {
            running.meets(state.object.clone().as_deref())
        } else {
            let written = self.store(state, &busy)?;
            match written {
                _ if matches!(step, Move::WriteUnanswered(_)) => Response::Failed,
                Written::Gone => Response::Object(None),
                Written::Done(copy, version) => {
                    running.wrote_journal = false;
                    running.saw = version;
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
                state.given_up |= check::forgotten(self, state, notices)?;
                if let LedgerState::Current(Ledger { journal: Some(journal), .. }) = &status.ledger
                    && journal.operation == Operation::Attach
                {
                    state.tried |= self.bits(&journal.instances);
                }
                Arc::new(with_status(&before, Status::clone(status)))
            }
            Effect::AddFinalizer => Arc::new(View { finalizer: true, ..View::clone(&before) }),
            Effect::RemoveFinalizer => Arc::new(View { finalizer: false, ..View::clone(&before) }),
            effect => panic!("{effect:?} is no write"),
        };
        let mut stored = Arc::clone(&answered);
        if self.bend.is_some()
            && let Effect::WriteStatus(..) = &busy.effect
        {
            let foreign = before.uid != busy.copy.uid;
            self.bend(Arc::make_mut(&mut stored), busy, foreign, state.now);
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

impl Refused {
    /// The service has answered a call of this instance.
    fn hear(&mut self, request: Request, outcome: Outcome, quiet: bool) {
        match (request.operation, outcome) {
            (_, Outcome::Done) => *self = Self { count: 0, since: 0 },
            (Operation::Detach, Outcome::Refused | Outcome::Unclear) if quiet => {
                if self.count == 0 {
                    self.since = request.start;
                }
                self.count = (self.count + 1).min(5);
            }
            _ => {}
        }
    }

    /// Whether the policy may let go.
    pub fn is_enough(&self, now: i64) -> bool {
        self.count >= 5 && now - self.since >= STUCK
    }
}

impl Running {
    fn of(busy: &Busy) -> Self {
        let Busy { reconcile, copy, saw, held, bisection, .. } = busy;
        let wrote_journal = busy.wrote_journal || wrote_journal(&busy.effect);
        Self {
            reconcile: reconcile.clone(),
            copy: Some(Arc::clone(copy)),
            saw: *saw,
            held: *held,
            bisection: *bisection,
            wrote_journal,
            answered: false,
        }
    }

    /// The answer to a read.
    fn meets(&mut self, object: Option<&Object>) -> Response {
        self.copy = object.map(|object| Arc::clone(&object.view));
        self.wrote_journal = false;
        self.saw = object.map_or(0, |object| object.version);
        Response::Object(self.copy.as_ref().map(|copy| Box::new(View::clone(copy))))
    }
}

fn journal_in(status: &Status) -> bool {
    matches!(&status.ledger, LedgerState::Current(ledger) if ledger.journal.is_some())
}

fn with_status(view: &View, status: Status) -> View {
    // Without a clone of the status that there was.
    let View { uid, version, created, generation, finalizer, desired, asked, status: _ } = view;
    View {
        uid: Arc::clone(uid),
        version: Arc::clone(version),
        created: *created,
        generation: *generation,
        finalizer: *finalizer,
        desired: desired.clone(),
        asked: asked.clone(),
        status,
    }
}

fn wrote_journal(effect: &Effect) -> bool {
    matches!(effect, Effect::WriteStatus(status, _) if journal_in(status))
}

fn journal_of(view: &View) -> bool {
    journal_in(&view.status)
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
            self.net.push(request);
            self.net.sort_unstable();
        }
    }

    fn version(&self) -> u64 {
        // A name is given anew only after its object is gone: what the operators saw is older.
        let seen = self
            .operators
            .iter()
            .map(|operator| if let Operator::Busy(busy) = operator { busy.saw } else { 0 });
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
        if self.budgets.has(Kind::Stale) {
            self.previous = Some(before);
        } else {
            self.previous = None;
        }
        // The finalizer without a ledger means that it was lost; neither means that there never was
        // one.
        let found = &object.view.status.ledger;
        if object.view.finalizer && *found == LedgerState::New {
            Arc::make_mut(&mut object.view).status.ledger =
                LedgerState::Lost { why: "no record".into(), remains: Ledger::default() };
        } else if !object.view.finalizer
            && matches!(found, LedgerState::Lost { remains, .. } if *remains == Ledger::default())
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
