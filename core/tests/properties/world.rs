//! An API server with one object, a service in which everything can go wrong, operators that may
//! die at each effect.

use std::collections::BTreeSet;
use std::time::Duration;

use streamsession_core::answer::{Answer, Operation};
use streamsession_core::conditions::Mode;
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::Record;
use streamsession_core::reconcile::{
    Effect, Journalled, Reconcile, ReconcileState, Requeue, Response, StepContext, View,
};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{context, desired, error, id, new_object, session};
use streamsession_testkit::service::{
    CallFault, Caller, Request, Service, Session, UnspecifiedBehaviour,
};

use crate::driver::{VALIDITY, settings};

pub const IDS: [&str; 3] = ["a", "b", "c"];

/// What goes wrong with an effect, if it is one that this can happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The operator dies before it.
    Crash,
    /// The operator dies during the call, which may arrive later.
    CrashDuringCall,
    NoPermit,
    /// The write is not done.
    WriteFails,
    /// The write is done, and nobody says so.
    WriteUnanswered,
    /// The call is not answered, and may arrive later.
    CallUnanswered,
    /// The call is served, and its answer is lost.
    AnswerLost,
    Call(CallFault),
}

impl Fault {
    /// A choice is a byte, so that proptest can shrink a history.
    pub fn of(choice: u8) -> Self {
        const FAULTS: [Fault; 14] = [
            Fault::None,
            Fault::Crash,
            Fault::NoPermit,
            Fault::CrashDuringCall,
            Fault::WriteFails,
            Fault::WriteUnanswered,
            Fault::Call(CallFault::Throttle),
            Fault::Call(CallFault::Unclear { done: 0 }),
            Fault::CallUnanswered,
            Fault::Call(CallFault::Refuse(1)),
            Fault::AnswerLost,
            Fault::Call(CallFault::Unclear { done: u8::MAX }),
            Fault::Call(CallFault::Omit(u8::MAX)),
            Fault::None,
        ];
        FAULTS[usize::from(choice) % FAULTS.len()]
    }
}

struct Operator {
    state: ReconcileState,
    reconcile: Option<(Reconcile, Effect)>,
    due: Duration,
    /// The version of the object that it has read or written last.
    version: Option<u64>,
}

impl Operator {
    fn new() -> Self {
        let state = ReconcileState::new(&settings());
        Self { state, reconcile: None, due: Duration::ZERO, version: None }
    }
}

pub struct World {
    pub object: Option<View>,
    version: u64,
    pub service: Service,
    /// Calls that nobody waits for any more.
    in_flight: Vec<Request>,
    pub clock: i64,
    operators: Vec<Operator>,
    nonce: u128,
    pub calls: usize,
    pub writes: usize,
}

impl World {
    pub fn new(behaviour: UnspecifiedBehaviour, operators: usize) -> Self {
        let mut service = Service::new(behaviour, VALIDITY.signature_seconds);
        service.sessions.insert(session("1"), Session::default());
        Self {
            object: Some(new_object(desired("1", &["a", "b"]))),
            version: 1,
            service,
            in_flight: Vec::new(),
            clock: 1_000,
            operators: (0..operators).map(|_| Operator::new()).collect(),
            nonce: 0,
            calls: 0,
            writes: 0,
        }
    }

    /// A world in which nobody's behaviour is doubtful, and one operator.
    pub fn simple() -> Self {
        Self::new(UnspecifiedBehaviour { add_present_ok: true, remove_absent_ok: true }, 1)
    }

    pub fn members(&self) -> &BTreeSet<InstanceId> {
        &self.service.sessions[&session("1")].members
    }

    fn context(&mut self) -> StepContext {
        self.nonce += 1;
        let elapsed = Duration::from_secs(u64::try_from(self.clock).unwrap());
        let service = Some(ServiceTime(self.clock));
        StepContext { service, elapsed, nonce: self.nonce, ..context() }
    }

    fn ledger(&self) -> Ledger {
        self.object.as_ref().and_then(View::own_ledger).cloned().unwrap_or_default()
    }

    /// The spec is edited: bit `n` says whether instance `n` is wanted.
    pub fn edit(&mut self, bits: u8) {
        if let Some(object) = self.object.as_mut().filter(|object| !object.desired.deleting) {
            let wanted = IDS.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
            object.desired.instances = wanted.map(|(_, text)| id(text)).collect();
            object.desired.generation += 1;
            self.object_changed();
        }
    }

    /// A deletion; but one right after somebody stripped the finalizer leaves nobody who could act
    /// (out of reach, as docs/design.md, 3 says).
    pub fn delete(&mut self) {
        let tracks_nothing = self.ledger().tracks_nothing();
        let Some(object) = self.object.as_mut().filter(|object| !object.desired.deleting) else {
            return;
        };
        if object.finalizer {
            object.desired.deleting = true;
            object.desired.generation += 1;
        } else if tracks_nothing {
            self.object = None;
        } else {
            return;
        }
        self.object_changed();
    }

    /// `kubectl replace` with a file that has no finalizers.
    pub fn strip_finalizer(&mut self) {
        if let Some(object) = self.object.as_mut().filter(|object| !object.desired.deleting) {
            object.finalizer = false;
            self.object_changed();
        }
    }

    /// A change makes the operators look again.
    fn object_changed(&mut self) {
        self.version += 1;
        for operator in &mut self.operators {
            operator.due = Duration::ZERO;
        }
    }

    pub fn tick(&mut self, seconds: i64) {
        self.clock += seconds;
        self.in_flight.retain(|request| self.service.takes(request, self.clock));
    }

    /// A call that nobody waits for any more arrives, or gets lost for good.
    pub fn late_arrival(&mut self, arrives: bool) {
        if !self.in_flight.is_empty() {
            let request = self.in_flight.remove(0);
            if arrives {
                self.service.call(&request, None, self.clock);
            }
        }
    }

    /// One effect of one operator. Says whether there was anything to do.
    pub fn operate(&mut self, which: usize, fault: Fault) -> bool {
        let which = which % self.operators.len();
        let context = self.context();
        let operator = &mut self.operators[which];
        let (mut reconcile, effect) = match operator.reconcile.take() {
            Some(under_way) => under_way,
            None if operator.due > context.elapsed => return false,
            None => {
                let state = operator.state.clone();
                operator.state = ReconcileState::new(&settings());
                let mut reconcile = Reconcile::new(settings(), state, None);
                // Which endpoint's clock counts is not known before the object was read.
                let unread = StepContext { service: None, ..context.clone() };
                let effect = reconcile.step(Response::Started, &unread);
                (reconcile, effect)
            }
        };
        if fault == Fault::Crash {
            self.operators[which] = Operator::new();
            return true;
        }
        let response = match effect {
            Effect::Done(requeue) => {
                operator.due = match requeue {
                    // The watch saw a change while the reconcile was under way.
                    _ if operator.version != Some(self.version) && self.object.is_some() => {
                        context.elapsed
                    }
                    Requeue::Never | Requeue::OnChange => Duration::MAX,
                    Requeue::After(pause) => context.elapsed + pause.max(Duration::from_secs(1)),
                    Requeue::OnPermit(_) | Requeue::OnResyncPermit(_) => context.elapsed,
                };
                operator.state = reconcile.into_state();
                return true;
            }
            Effect::Read => {
                operator.version = Some(self.version);
                Response::Object(self.object.clone().map(Box::new))
            }
            Effect::Credentials => Response::Credentials(Ok("AKID".into())),
            Effect::AskTime => Response::Time(Ok(())),
            Effect::Permit(priority) => {
                Response::Permit((fault != Fault::NoPermit).then_some(priority))
            }
            Effect::ReadClaimant(key) => Response::Claimant(key, None),
            Effect::WriteStatus(status, _) => {
                self.write(which, fault, |object| object.status = *status)
            }
            Effect::AddFinalizer => self.write(which, fault, |object| object.finalizer = true),
            Effect::RemoveFinalizer => self.write(which, fault, |object| object.finalizer = false),
            Effect::Call(call) => {
                self.calls += 1;
                let answer = self.call(&call, fault);
                if fault == Fault::CrashDuringCall {
                    self.operators[which] = Operator::new();
                    return true;
                }
                Response::Answer(answer)
            }
        };
        let context = self.context();
        let effect = reconcile.step(response, &context);
        self.operators[which].reconcile = Some((reconcile, effect));
        true
    }

    fn write(&mut self, which: usize, fault: Fault, change: impl FnOnce(&mut View)) -> Response {
        if fault == Fault::WriteFails {
            return Response::Failed;
        }
        let Some(object) = self.object.as_mut() else { return Response::Conflict };
        if self.operators[which].version != Some(self.version) {
            return Response::Conflict;
        }
        change(object);
        self.writes += 1;
        self.object_changed();
        self.operators[which].version = Some(self.version);
        self.object.take_if(|object| object.desired.deleting && !object.finalizer);
        if fault == Fault::WriteUnanswered {
            return Response::Failed;
        }
        Response::Object(self.object.clone().map(Box::new))
    }

    fn call(&mut self, call: &Journalled, fault: Fault) -> Answer {
        let journal = call.journal();
        let request = Request {
            operation: journal.operation,
            instances: journal.instances.clone(),
            session: call.target().session.clone(),
            region: None,
            start_time: journal.start_time.0,
            caller: Caller::Owner,
        };
        if let Fault::CallUnanswered | Fault::CrashDuringCall = fault {
            self.in_flight.push(request);
            self.tick(0); // an expired one never arrives
            return error("Timeout");
        }
        let call_fault = if let Fault::Call(fault) = fault { Some(fault) } else { None };
        let served = self.service.call(&request, call_fault, self.clock);
        if fault == Fault::AnswerLost {
            return Answer::unanswered("ConnectionReset", "");
        }
        served.reply.answer(|ids| ids)
    }

    /// I1, I3 and no false Ready.
    pub fn check(&self) {
        let coming = |operation| {
            let requests = self.in_flight.iter();
            requests
                .filter(move |request| request.operation == operation)
                .flat_map(|request| &request.instances)
        };
        let ledger = self.ledger();
        for held in self.members().iter().chain(coming(Operation::Attach)) {
            let in_journal = ledger.journal.iter().any(|journal| journal.instances.contains(held));
            let tracked = in_journal || ledger.records.get(held).is_some_and(Record::is_tracked);
            assert!(tracked, "I1: {held} may be in, and nobody remembers it: {:?}", self.object);
        }
        let Some(object) = &self.object else {
            let detach = coming(Operation::Detach).next();
            assert_eq!(detach, None, "I3: a detach of a deleted object may still arrive");
            return;
        };
        let conditions = object.status.conditions.as_ref();
        if conditions.is_some_and(|conditions| conditions.mode == Mode::Ready)
            && object.status.observed_generation == object.desired.generation
        {
            let wanted = &object.desired.instances;
            assert_eq!(self.members(), wanted, "Ready, but the service holds others");
            let threat = coming(Operation::Detach).find(|id| wanted.contains(*id));
            assert_eq!(threat, None, "Ready, but a detach may still arrive");
        }
    }

    /// The first operator goes on, with that fault wherever it applies, until something has
    /// happened.
    pub fn until(&mut self, happened: impl Fn(&Self) -> bool, fault: Fault) {
        for _ in 0..1_000 {
            if happened(self) {
                return;
            }
            self.operate(0, fault);
        }
        panic!("it never happened: {:?}", self.object);
    }

    /// No more faults: runs until nothing is due, or for some hours.
    pub fn converge(&mut self) {
        self.in_flight.clear();
        self.run(20_000);
    }

    /// Runs without faults until nothing is due, or for so many effects and seconds.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let mut busy = false;
            for which in 0..self.operators.len() {
                busy |= self.operate(which, Fault::None);
                self.check();
            }
            if !busy {
                if self.operators.iter().all(|operator| operator.due == Duration::MAX) {
                    return;
                }
                self.tick(1);
            }
        }
    }

    pub fn has_converged(&self) -> bool {
        let Some(object) = &self.object else { return self.members().is_empty() };
        let ledger = self.ledger();
        !object.desired.deleting
            && *self.members() == object.desired.instances
            && ledger.journal.is_none()
            && ledger.records.values().all(|record| *record == Record::attached())
    }
}
