//! What there is: the objects, whether the phone is in the session, calls on their way.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use streamsession_core::answer::{Answer, Operation};
use streamsession_core::conditions::Mode;
use streamsession_core::ledger::desired::Desired;
use streamsession_core::ledger::plan::Priority;
use streamsession_core::ledger::record::{Record, State as Known};
use streamsession_core::ledger::{Ledger, Rules};
use streamsession_core::object::ObjectKey;
use streamsession_core::ownership::claims::{Claims, Ownership};
use streamsession_core::reconcile::{
    Effect, LedgerState, Reconcile, ReconcileState, Response, Settings, Status, StepContext, View,
};
use streamsession_core::time::{ServiceTime, Validity};
use streamsession_testkit::fixtures::{
    answer, context, desired, id, journal, key, ledger, new_object, new_status, processed, status,
};
use streamsession_testkit::service::UnspecifiedBehaviour;

/// How long a call that nobody answered may take.
pub const VALIDITY: Validity = Validity { signature_seconds: 2, margin_seconds: 0 };

static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(|| {
    Arc::new(Settings {
        rules: Rules { validity: VALIDITY, ..Rules::default() },
        journal_age_max_seconds: 5,
        foreign_journal_timeout: Duration::from_secs(20),
        retry_base: Duration::from_millis(1),
    })
});

/// How much may still go wrong, and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budgets {
    /// Calls that nobody answers.
    pub losses: u8,
    /// Edits, deletions, keys that come and go, an object that is created.
    pub edits: u8,
    /// A status that is lost.
    pub wipes: u8,
    /// Statuses that a stranger forges.
    pub forgeries: u8,
}

impl Budgets {
    pub const NONE: Self = Self { losses: 0, edits: 0, wipes: 0, forgeries: 0 };

    fn spend(&mut self, step: Move) {
        match step {
            Move::Turn(_) | Move::Delete(_) | Move::Keys(_) | Move::Create(_) => self.edits -= 1,
            Move::Wipe(_) => self.wipes -= 1,
            Move::Forge(_) => self.forgeries -= 1,
            Move::Reconcile(_, Call::Unanswered | Call::Late) => self.losses -= 1,
            Move::Reconcile(_, Call::Answered) | Move::Tick | Move::Arrive(_) => {}
        }
    }
}

/// A rule that is left out: what an object stores or shows is something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    /// Who loses the session does not give way in writing.
    KeepsAttached,
    /// Nobody sees what another ledger says Attached of.
    HidesAttached,
    /// Nobody sees a detach of another one that may still arrive.
    HidesDetaches,
    /// What another one does not know counts as remembered.
    ShowsUnknownAsAttached,
    /// A claim of another namespace is believed, whoever makes it.
    BelievesStrangers,
}

#[derive(Clone, Debug)]
pub struct Object {
    pub view: View,
    pub has_keys: bool,
    /// It has no key that the service accepts.
    pub is_stranger: bool,
    pub namespace: &'static str,
}

#[derive(Clone, Debug)]
pub struct State {
    pub objects: Vec<Option<Object>>,
    pub is_member: bool,
    /// Calls that are on their way, until their signature ends.
    pub in_flight: Vec<(Operation, i64)>,
    pub now: i64,
    pub budgets: Budgets,
}

/// What becomes of the call of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Answered,
    /// It is done, and nobody answers.
    Unanswered,
    /// Nobody answers, and it comes later.
    Late,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Reconcile(usize, Call),
    Tick,
    Arrive(usize),
    Turn(usize),
    Delete(usize),
    Keys(usize),
    Create(usize),
    Wipe(usize),
    Forge(Forged),
}

/// What the stranger's status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forged {
    Attached,
    Detached,
    Open,
}

/// The one that may be a stranger.
pub const STRANGER: usize = 1;

pub fn name(which: usize) -> ObjectKey {
    key(&format!("o{which}"))
}

fn spec(wanted: bool) -> Desired {
    desired("1", if wanted { &["p"] } else { &[] })
}

pub fn new(which: usize) -> Object {
    let uid = format!("u{which}").into();
    let created = i64::try_from(which).unwrap();
    let view = View { uid, created, ..new_object(spec(true)) };
    Object { view, has_keys: true, is_stranger: false, namespace: "arcade" }
}

/// One that is older than all others, in that namespace.
pub fn stranger(namespace: &'static str) -> Object {
    let object = new(STRANGER);
    let view = View { created: -1, ..object.view };
    Object { view, has_keys: false, is_stranger: true, namespace }
}

impl Object {
    pub fn wants(&self) -> bool {
        !self.view.desired.deleting && !self.view.desired.instances.is_empty()
    }

    fn edit(&mut self, desired: Desired) {
        let generation = self.view.desired.generation + 1;
        self.view.desired = Desired { generation, ..desired };
    }

    /// Whether the object will not forget the phone.
    pub fn tracks(&self) -> bool {
        // One whose status is lost is asked about by its spec.
        let is_lost = matches!(self.view.status.ledger, LedgerState::Lost { .. });
        if self.is_stranger {
            return false;
        }
        (is_lost && !self.view.desired.instances.is_empty())
            || self.view.ledger().is_some_and(|ledger| ledger.tracked().next().is_some())
    }

    /// Its status says that the phone is in.
    pub fn says_ready(&self) -> bool {
        let conditions = self.view.status.conditions.as_ref();
        self.wants()
            && !self.is_stranger
            && self.view.status.observed_generation == self.view.desired.generation
            && conditions.is_some_and(|conditions| conditions.mode == Mode::Ready)
    }
}

impl State {
    pub fn key(&self, which: usize) -> ObjectKey {
        let object = self.objects[which].as_ref();
        let namespace = object.map_or("arcade", |object| object.namespace).into();
        ObjectKey { namespace, ..name(which) }
    }

    pub fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        for (which, object) in self.objects.iter().enumerate() {
            if let Some(object) = object {
                let key = self.key(which);
                claims.set(&key, "1", object.view.claimant());
                claims.identify(&key, (!object.is_stranger).then(|| "AKID".into()));
            }
        }
        claims
    }

    /// The promise that is broken, if one is.
    pub fn broken(&self) -> Option<String> {
        let objects = || self.objects.iter().flatten();
        let comes = |operation| self.in_flight.iter().any(|(other, _)| *other == operation);
        if (self.is_member || comes(Operation::Attach)) && !objects().any(Object::tracks) {
            return Some("a leak: nobody remembers the phone".to_owned());
        }
        let is_threatened = !self.is_member || comes(Operation::Detach);
        let false_ready = objects().any(Object::says_ready) && is_threatened;
        false_ready.then(|| "a false Ready".to_owned())
    }

    /// The moves that are possible.
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = vec![Move::Tick];
        moves.extend((0..self.in_flight.len()).map(Move::Arrive));
        for (which, object) in self.objects.iter().enumerate() {
            let Some(object) = object else {
                if self.budgets.edits > 0 {
                    moves.push(Move::Create(which));
                }
                continue;
            };
            moves.push(Move::Reconcile(which, Call::Answered));
            if self.budgets.losses > 0 {
                moves.push(Move::Reconcile(which, Call::Unanswered));
                moves.push(Move::Reconcile(which, Call::Late));
            }
            if object.is_stranger {
                if self.budgets.forgeries > 0 {
                    let all = [Forged::Attached, Forged::Detached, Forged::Open];
                    moves.extend(all.map(Move::Forge));
                }
                continue;
            }
            if self.budgets.edits > 0 {
                moves.push(Move::Keys(which));
                let is_lost = matches!(object.view.status.ledger, LedgerState::Lost { .. });
                if !object.view.desired.deleting {
                    moves.push(Move::Delete(which));
                    // What was wanted and is written down nowhere, nobody can know.
                    moves.extend((!is_lost).then_some(Move::Turn(which)));
                }
            }
            if self.budgets.wipes > 0 && object.wants() && object.view.finalizer {
                moves.push(Move::Wipe(which));
            }
        }
        moves
    }

    /// What a move makes of it; none if it is no other state. An error is a broken promise.
    pub fn after(
        &self,
        step: Move,
        behaviour: UnspecifiedBehaviour,
        omission: Option<Omission>,
    ) -> Result<Option<Self>, String> {
        let mut next = self.clone();
        next.budgets.spend(step);
        match step {
            Move::Tick => {
                next.now += 1;
                let now = next.now;
                next.in_flight.retain(|(_, until)| now < *until);
            }
            Move::Arrive(place) => {
                let (operation, _) = next.in_flight.remove(place);
                next.serve(operation, behaviour);
            }
            Move::Turn(which) => {
                let object = next.object(which);
                object.edit(spec(!object.wants()));
            }
            Move::Delete(which) => {
                let object = next.object(which);
                object.edit(Desired { deleting: true, ..object.view.desired.clone() });
                if !object.view.finalizer {
                    next.objects[which] = None;
                }
            }
            Move::Keys(which) => {
                let object = next.object(which);
                object.has_keys = !object.has_keys;
            }
            Move::Create(which) => next.objects[which] = Some(new(which)),
            Move::Wipe(which) => {
                let object = next.object(which);
                object.view.status = new_status();
                let (why, remains) = ("Our finalizer, no record".to_owned(), Ledger::default());
                object.view.status.ledger = LedgerState::Lost { why, remains };
            }
            Move::Forge(forged) => {
                let object = next.object(STRANGER);
                let journal = (forged == Forged::Open).then(|| journal(Operation::Detach, &["p"]));
                let known =
                    if forged == Forged::Detached { Known::Detached } else { Known::Attached };
                let record = Record { state: known, ..Record::default() };
                let ledger = Ledger { journal, ..ledger(&[("p", record)]) };
                object.view.status = Status { observed_generation: 1, ..status(ledger) };
            }
            Move::Reconcile(which, call) => {
                let called = next.reconcile(which, call, behaviour, omission)?;
                if call != Call::Answered && !called {
                    return Ok(None);
                }
            }
        }
        Ok(Some(next))
    }

    fn object(&mut self, which: usize) -> &mut Object {
        self.objects[which].as_mut().expect("moves are of objects that there are")
    }

    fn serve(&mut self, operation: Operation, behaviour: UnspecifiedBehaviour) -> bool {
        let does = behaviour.does(operation, self.is_member);
        if does {
            self.is_member = operation == Operation::Attach;
        }
        does
    }

    /// One reconcile, with a permit for one call. Says whether it made that.
    fn reconcile(
        &mut self,
        which: usize,
        call: Call,
        behaviour: UnspecifiedBehaviour,
        omission: Option<Omission>,
    ) -> Result<bool, String> {
        let fresh = ReconcileState::new(&SETTINGS);
        let mut reconcile = Reconcile::new(Arc::clone(&SETTINGS), fresh, Some(Priority::Resync));
        let (mut called, mut nonce) = (false, 0);
        let mut response = Response::Started;
        loop {
            nonce += 1;
            let effect = reconcile.step(response, &self.context(which, nonce));
            let Some(object) = &mut self.objects[which] else { return Ok(called) };
            response = match effect {
                Effect::Done(_) => return Ok(called),
                Effect::Read => Response::Object(Some(Box::new(object.view.clone()))),
                Effect::Credentials if object.has_keys => Response::Credentials(Ok("AKID".into())),
                Effect::Credentials => Response::Credentials(Err("there is no Secret".into())),
                Effect::AskTime => Response::Time(Ok(())),
                Effect::Permit(priority) => Response::Permit((!called).then_some(priority)),
                Effect::ReadClaimant(other) => {
                    let place = (0..self.objects.len()).find(|place| name(*place) == other);
                    let object = place.and_then(|place| self.objects[place].as_ref());
                    let shown = object.map(|object| Box::new(shown(&object.view, omission)));
                    Response::Claimant(other, shown)
                }
                Effect::WriteStatus(status, _) => {
                    let before = std::mem::replace(&mut object.view.status, *status);
                    let written = Box::new(object.view.clone());
                    if omission == Some(Omission::KeepsAttached) {
                        keep_attached(&before.ledger, &mut object.view.status.ledger);
                    }
                    Response::Object(Some(written))
                }
                Effect::AddFinalizer => {
                    object.view.finalizer = true;
                    Response::Object(Some(Box::new(object.view.clone())))
                }
                Effect::RemoveFinalizer => {
                    self.objects[which] = None;
                    Response::Object(None)
                }
                Effect::Call(journalled) => {
                    called = true;
                    let operation = journalled.journal().operation;
                    if operation == Operation::Detach {
                        self.check_detach(which)?;
                    }
                    Response::Answer(self.call(operation, call, behaviour))
                }
            };
        }
    }

    /// A detach of what the owner wants, and is able to attach, is none of another one's business.
    fn check_detach(&self, which: usize) -> Result<(), String> {
        let claims = self.claims();
        let me = self.objects[which].as_ref().unwrap();
        let my_name = self.key(which);
        let place = me.view.place();
        let owner = claims.owner(&my_name, &place);
        let owner = (0..self.objects.len()).find(|place| Some(&name(*place)) == owner);
        let owner = owner.and_then(|place| self.objects[place].as_ref().map(|it| (place, it)));
        match owner {
            Some((place, owner)) if place != which && owner.wants() && owner.has_keys => {
                let is_known_unable = owner.view.claimant().is_unable;
                let why = "it takes out what the owner wants";
                if is_known_unable { Ok(()) } else { Err(why.to_owned()) }
            }
            _ => Ok(()),
        }
    }

    fn call(
        &mut self,
        operation: Operation,
        call: Call,
        behaviour: UnspecifiedBehaviour,
    ) -> Answer {
        match call {
            Call::Late => self.in_flight.push((operation, VALIDITY.end(ServiceTime(self.now)).0)),
            Call::Answered | Call::Unanswered => {
                let done = self.serve(operation, behaviour);
                if call == Call::Answered {
                    let verdict =
                        if done { processed(&["p"], &[]) } else { processed(&[], &["p"]) };
                    return answer(verdict);
                }
            }
        }
        Answer::unanswered("NoAnswer", "")
    }

    fn context(&self, which: usize, nonce: u128) -> StepContext {
        let (claims, me) = (self.claims(), self.key(which));
        let place = self.objects[which].as_ref().map(|object| object.view.place());
        let ownership = place.as_ref().map(|place| claims.ownership(&me, place));
        StepContext {
            service: Some(ServiceTime(self.now)),
            nonce,
            ownership: ownership.unwrap_or(Ownership::Uncontested),
            must_identify: claims.must_identify(&me),
            others: place.iter().flat_map(|place| claims.others(&me, place)).cloned().collect(),
            ..context()
        }
    }
}

/// What others see of the object.
fn shown(view: &View, omission: Option<Omission>) -> View {
    let mut view = view.clone();
    if let LedgerState::Current(ledger) = &mut view.status.ledger {
        for record in ledger.records.values_mut() {
            match omission {
                Some(Omission::HidesAttached) if record.state == Known::Attached => {
                    record.state = Known::Unknown;
                }
                Some(Omission::HidesDetaches) => record.detach_until = None,
                Some(Omission::ShowsUnknownAsAttached) if record.state == Known::Unknown => {
                    record.state = Known::Attached;
                }
                _ => {}
            }
        }
    }
    view
}

fn keep_attached(before: &LedgerState, after: &mut LedgerState) {
    if let (LedgerState::Current(before), LedgerState::Current(after)) = (before, after)
        && before.journal.is_none()
        && after.journal.is_none()
        && let (Some(before), Some(after)) =
            (before.records.get(&id("p")), after.records.get_mut(&id("p")))
        && before.state == Known::Attached
        && after.state == Known::Unknown
    {
        after.state = Known::Attached;
    }
}
