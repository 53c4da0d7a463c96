//! A world for the protocol: an API server with one object, a service in which everything can go
//! wrong, operators that may die at each effect. Shared by the tests of this folder; a choice is a
//! byte, so that proptest can shrink a history.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use streamsession_core::answer::{Answer, NothingDone, Operation, Verdict};
use streamsession_core::conditions::{Counts, Mode};
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_core::ledger::desired::{DeletionPolicy, Desired};
use streamsession_core::ledger::{Ledger, Rules};
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::{
    Asked, Effect, Handled, Journalled, LedgerState, Reconcile, ReconcileState, Requeue, Response,
    Settings, Status, StepContext, View,
};
use streamsession_core::time::{ServiceTime, Validity};

pub const IDS: [&str; 3] = ["a", "b", "c"];
const VALIDITY: Validity = Validity { signature_seconds: 10, margin_seconds: 2 };

pub fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

pub fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        rules: Rules { validity: VALIDITY, batch_size_max: 2, ..Rules::default() },
        journal_age_max_seconds: 3,
        patience: Duration::from_secs(8),
        retry_base: Duration::from_secs(1),
    })
}

#[derive(Clone, Debug)]
struct Request {
    operation: Operation,
    instances: Vec<InstanceId>,
    start_time: ServiceTime,
}

struct Operator {
    state: ReconcileState,
    reconcile: Option<(Reconcile, Effect)>,
    due: Duration,
}

pub struct World {
    settings: Arc<Settings>,
    pub add_present_ok: bool,
    /// An id that makes a whole call of it an invalid one.
    pub poison: Option<InstanceId>,
    pub remove_absent_ok: bool,
    pub object: Option<View>,
    version: u64,
    seen: [Option<u64>; 2],
    pub members: BTreeSet<InstanceId>,
    on_the_way: Vec<Request>,
    pub clock: i64,
    operators: Vec<Operator>,
    nonce: u128,
    pub calls: usize,
    pub writes: usize,
}

impl World {
    pub fn new(add_present_ok: bool, remove_absent_ok: bool, operators: usize) -> Self {
        let settings = settings();
        let operators = (0..operators)
            .map(|_| Operator {
                state: ReconcileState::new(&settings),
                reconcile: None,
                due: Duration::ZERO,
            })
            .collect();
        let desired = Desired {
            session: SessionId::parse("1326515201117065216").unwrap(),
            region: None,
            default_region: None,
            endpoint: "gs.tencentcloudapi.com".into(),
            instances: [id("a"), id("b")].into(),
            deleting: false,
            deletion_policy: DeletionPolicy::Delete,
            forgets_failures: false,
        };
        let status = Status {
            observed_generation: -1,
            conditions: None,
            counts: Counts::default(),
            handled: Handled::default(),
            ledger: LedgerState::New,
        };
        Self {
            settings,
            poison: None,
            add_present_ok,
            remove_absent_ok,
            object: Some(View {
                version: "1".into(),
                created: 0,
                uid: "1".into(),
                generation: 1,
                finalizer: false,
                desired,
                asked: Asked::default(),
                status,
            }),
            version: 1,
            seen: [None, None],
            members: BTreeSet::new(),
            on_the_way: Vec::new(),
            clock: 1_000,
            operators,
            nonce: 0,
            calls: 0,
            writes: 0,
        }
    }

    fn context(&mut self) -> StepContext {
        self.nonce += 1;
        let elapsed = Duration::from_secs(u64::try_from(self.clock).unwrap());
        StepContext {
            service: Some(ServiceTime(self.clock)),
            elapsed,
            nonce: self.nonce,
            ownership: Ownership::Uncontested,
            lost_ownership: false,
            may_act: true,
        }
    }

    pub fn ledger(&self) -> Ledger {
        match self.object.as_ref().map(|object| &object.status.ledger) {
            Some(LedgerState::Current(ledger)) => ledger.clone(),
            _ => Ledger::default(),
        }
    }

    /// Somebody edits the spec: bit `n` says whether instance `n` is wanted.
    pub fn edit(&mut self, bits: u8) {
        if let Some(object) = self.object.as_mut().filter(|object| !object.desired.deleting) {
            object.desired.instances = IDS
                .iter()
                .enumerate()
                .filter(|(n, _)| bits & (1 << n) != 0)
                .map(|(_, text)| id(text))
                .collect();
            object.generation += 1;
            self.touched();
        }
    }

    /// A deletion; but one right after somebody stripped the finalizer leaves nobody who could act
    /// (out of reach, and said in the docs).
    pub fn delete(&mut self) {
        if self.object.as_ref().is_some_and(|object| !object.finalizer)
            && !self.ledger().tracks_nothing()
        {
            return;
        }
        if let Some(object) = self.object.as_mut().filter(|object| !object.desired.deleting) {
            object.desired.deleting = true;
            object.generation += 1;
            if !object.finalizer {
                self.object = None;
            }
            self.touched();
        }
    }

    /// `kubectl replace` with a file that has no finalizers.
    pub fn strip_finalizer(&mut self) {
        if let Some(object) = self.object.as_mut().filter(|object| !object.desired.deleting) {
            object.finalizer = false;
            self.touched();
        }
    }

    /// A change makes the operators look again.
    fn touched(&mut self) {
        self.version += 1;
        for operator in &mut self.operators {
            operator.due = Duration::ZERO;
        }
    }

    pub fn tick(&mut self, seconds: i64) {
        self.clock += seconds;
        let clock = self.clock;
        self.on_the_way
            .retain(|request| clock - request.start_time.0 <= VALIDITY.signature_seconds);
    }

    /// A request that was given up on arrives, or gets lost for good.
    pub fn late(&mut self, arrives: bool) {
        if !self.on_the_way.is_empty() {
            let request = self.on_the_way.remove(0);
            if arrives && !self.is_poisoned(&request) {
                self.serve(&request, &BTreeSet::new());
            }
        }
    }

    fn is_poisoned(&self, request: &Request) -> bool {
        self.poison.as_ref().is_some_and(|poison| request.instances.contains(poison))
    }

    /// The service's work: who succeeded, who was refused.
    fn serve(
        &mut self,
        request: &Request,
        spiteful: &BTreeSet<InstanceId>,
    ) -> (BTreeSet<InstanceId>, BTreeSet<InstanceId>) {
        assert!(
            self.clock - request.start_time.0 <= VALIDITY.signature_seconds,
            "an expired request was served"
        );
        let (mut succeeded, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for id in &request.instances {
            let present = self.members.contains(id);
            let ok = match request.operation {
                Operation::Attach => !present || self.add_present_ok,
                Operation::Detach => present || self.remove_absent_ok,
            };
            if !ok || spiteful.contains(id) {
                refused.insert(id.clone());
                continue;
            }
            match request.operation {
                Operation::Attach => self.members.insert(id.clone()),
                Operation::Detach => self.members.remove(id),
            };
            succeeded.insert(id.clone());
        }
        (succeeded, refused)
    }

    /// One effect of one operator; `fault` 0 is none. Says whether there was anything to do.
    pub fn operate(&mut self, which: usize, fault: u8) -> bool {
        let which = which % self.operators.len();
        let context = self.context();
        let (mut reconcile, effect) = match self.operators[which].reconcile.take() {
            Some(open) => open,
            None if self.operators[which].due > context.elapsed => return false,
            None => {
                let state = std::mem::replace(
                    &mut self.operators[which].state,
                    ReconcileState::new(&self.settings),
                );
                let mut reconcile = Reconcile::new(Arc::clone(&self.settings), state, false);
                // Which endpoint's clock counts is not known before the object was read.
                let effect = reconcile
                    .step(Response::Started, &StepContext { service: None, ..context.clone() });
                (reconcile, effect)
            }
        };
        if fault == 1 {
            self.kill(which);
            return true;
        }
        let response = match effect {
            Effect::Done(end) => {
                self.operators[which].due = match end {
                    // The watch saw a change while the reconcile was under way.
                    _ if self.seen[which] != Some(self.version) && self.object.is_some() => {
                        context.elapsed
                    }
                    Requeue::Never | Requeue::OnChange => Duration::MAX,
                    Requeue::After(pause) => context.elapsed + pause.max(Duration::from_secs(1)),
                    Requeue::OnPermit(_) => context.elapsed,
                };
                self.operators[which].state = reconcile.into_state();
                return true;
            }
            Effect::Read => {
                self.seen[which] = Some(self.version);
                Response::Object(self.object.clone().map(Box::new))
            }
            Effect::Credentials => Response::Credentials(Ok("AKID".into())),
            Effect::AskTime => Response::Time(Ok(())),
            Effect::Permit => Response::Permit(fault != 2),
            Effect::ReadOwner(_) => Response::Owner(None),
            Effect::WriteStatus(status, _) => {
                self.write(which, fault, |object| object.status = *status)
            }
            Effect::AddFinalizer => self.write(which, fault, |object| object.finalizer = true),
            Effect::RemoveFinalizer => self.write(which, fault, |object| object.finalizer = false),
            Effect::Call(call) => {
                self.calls += 1;
                let answer = self.call(&call, fault);
                if fault == 3 {
                    self.kill(which);
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

    fn kill(&mut self, which: usize) {
        self.operators[which].reconcile = None;
        self.operators[which].state = ReconcileState::new(&self.settings);
        self.operators[which].due = Duration::ZERO;
    }

    fn write(&mut self, which: usize, fault: u8, change: impl FnOnce(&mut View)) -> Response {
        if fault == 4 {
            return Response::Failed; // and was not written
        }
        if self.seen[which] != Some(self.version) {
            return Response::Conflict;
        }
        let Some(object) = self.object.as_mut() else { return Response::Conflict };
        change(object);
        self.writes += 1;
        self.touched();
        self.seen[which] = Some(self.version);
        let object =
            self.object.clone().filter(|object| object.finalizer || !object.desired.deleting);
        self.object.clone_from(&object);
        if fault == 5 {
            return Response::Failed; // but was written
        }
        Response::Object(object.map(Box::new))
    }

    fn call(&mut self, call: &Journalled, fault: u8) -> Answer {
        let journal = call.journal();
        let request = Request {
            operation: journal.operation,
            instances: journal.instances.clone(),
            start_time: journal.start_time,
        };
        let error = |verdict, code: &str| Answer {
            verdict,
            code: code.into(),
            message: String::new(),
            request_id: "r".into(),
        };
        match fault {
            6 => {
                return error(Verdict::NothingDone(NothingDone::Throttled), "RequestLimitExceeded");
            }
            7 => return error(Verdict::Unclear, "FailedOperation"),
            8 | 3 => {
                self.on_the_way.push(request);
                self.tick(0); // an expired one never arrives
                return error(Verdict::Unanswered, "Timeout");
            }
            _ => {}
        }
        if self.clock - request.start_time.0 > VALIDITY.signature_seconds {
            return error(
                Verdict::NothingDone(NothingDone::Credentials),
                "AuthFailure.SignatureExpire",
            );
        }
        if self.is_poisoned(&request) {
            return error(Verdict::Invalid, "InvalidParameterValue");
        }
        let spiteful = if fault == 9 {
            request.instances.iter().take(1).cloned().collect()
        } else {
            BTreeSet::new()
        };
        let (succeeded, refused) = self.serve(&request, &spiteful);
        match fault {
            10 => error(Verdict::Unanswered, "ConnectionReset"),
            11 => error(Verdict::Unclear, "FailedOperation"),
            12 => error(Verdict::Processed { succeeded: BTreeSet::new(), refused }, ""),
            _ => error(Verdict::Processed { succeeded, refused }, ""),
        }
    }

    /// I1, I3 and no false Ready.
    pub fn check(&self) {
        let coming = |operation| {
            self.on_the_way
                .iter()
                .filter(move |request| request.operation == operation)
                .flat_map(|request| &request.instances)
        };
        let ledger = self.ledger();
        let pending: BTreeSet<_> =
            ledger.journal.iter().flat_map(|journal| &journal.instances).collect();
        for held in self.members.iter().chain(coming(Operation::Attach)) {
            let tracked = pending.contains(held)
                || ledger
                    .records
                    .get(held)
                    .is_some_and(streamsession_core::ledger::record::Record::is_tracked);
            assert!(
                tracked,
                "I1: {held} may be in the session and nobody remembers it: {:?}",
                self.object
            );
        }
        if self.object.is_none() {
            assert_eq!(
                coming(Operation::Detach).count(),
                0,
                "I3: a detach of a deleted object may still hit the next one"
            );
        }
        if let Some(object) = &self.object
            && object.status.conditions.as_ref().is_some_and(|said| said.mode == Mode::Ready)
            && object.status.observed_generation == object.generation
        {
            assert_eq!(
                self.members, object.desired.instances,
                "Ready, but the service holds others"
            );
            let threat =
                coming(Operation::Detach).find(|id| object.desired.instances.contains(*id));
            assert_eq!(threat, None, "Ready, but a detach may still arrive");
        }
    }

    /// The first operator goes on, with that fault wherever it applies, until something has
    /// happened.
    pub fn until(&mut self, happened: impl Fn(&Self) -> bool, fault: u8) {
        for _ in 0..1_000 {
            if happened(self) {
                return;
            }
            self.operate(0, fault);
        }
        panic!("it never happened: {:?}", self.object);
    }

    /// No more faults: runs until nothing is due, or for some hours.
    pub fn calm(&mut self) {
        while !self.on_the_way.is_empty() {
            self.late(false);
        }
        self.for_a_while(20_000);
    }

    /// Runs without faults until nothing is due, or for so many effects and seconds.
    pub fn for_a_while(&mut self, steps: usize) {
        for _ in 0..steps {
            let mut busy = false;
            for which in 0..self.operators.len() {
                busy |= self.operate(which, 0);
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

    pub fn converged(&self) -> bool {
        match &self.object {
            None => self.members.is_empty(),
            Some(object) => {
                let ledger = self.ledger();
                let clean = ledger.journal.is_none()
                    && ledger.records.values().all(|record| {
                        *record == streamsession_core::ledger::record::Record::attached()
                    });
                !object.desired.deleting && self.members == object.desired.instances && clean
            }
        }
    }
}
