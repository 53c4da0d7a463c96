//! What must be true after every event, told from outside: by what the API server stores and what
//! the service holds.
//!
//! An instance that the service may hold because of us is *tracked* by the stored ledger of some
//! live object (I1). It may be *excused* from that if it was let go of legitimately: by Orphan, by
//! a person's word, with a ledger that was lost.

use std::collections::{BTreeMap, BTreeSet};

use streamsession_core::answer::Operation;
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::ledger::record::Want;
use streamsession_core::ownership::claims::{Claims, Ownership, Place};
use streamsession_core::reconcile::{LedgerState, Notice};
use streamsession_core::scheduler::Facts;

use crate::api::{ENDPOINT, Name, Object, session_of, tracked};
use crate::service::{MARGIN_SECONDS, Request, SIGNATURE_SECONDS};
use crate::world::{RunId, World};

/// A promise that was broken: which one, and how.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: &'static str,
    pub text: String,
}

type Held = (SessionId, InstanceId);

/// What is known besides what the world shows.
#[derive(Default)]
pub struct Oracle {
    /// In a session, or on the way there, and nobody need answer for it.
    excused: BTreeSet<Held>,
    /// Ids of ledgers that were lost, or of phones that a script attached: that nobody knows of
    /// them may be right.
    doubtful: BTreeSet<Held>,
    /// What each object, by uid, has ever tried to attach or was told of.
    attempted: BTreeMap<String, BTreeSet<Held>>,
    /// What an object tracked when its ledger was lost, until the ledger is made anew.
    limbo: BTreeMap<String, BTreeSet<Held>>,
    /// The version with which an object's ledger was lost.
    pub wiped: BTreeMap<String, u64>,
    /// Objects that went and left everything where it is.
    orphaned: BTreeSet<String>,
    /// Taken out by a call that nobody could know of any more.
    harmed: BTreeSet<Held>,
    /// Sessions that are gone.
    pub ended: BTreeSet<SessionId>,
}

fn held(object: &Object) -> BTreeSet<Held> {
    let ledger = object.ledger();
    let session = ledger.and_then(session_of);
    let pairs = ledger
        .zip(session)
        .into_iter()
        .flat_map(|(ledger, session)| tracked(ledger).map(|id| (session.clone(), id.clone())));
    pairs.collect()
}

impl Oracle {
    pub fn was_scripted(&mut self, session: &SessionId, id: &InstanceId) {
        self.excused.insert((session.clone(), id.clone()));
        self.doubtful.insert((session.clone(), id.clone()));
    }

    /// Whether an instance is out of a session by a call that nobody could know of.
    pub fn is_harmed(&self, session: &SessionId, id: &InstanceId) -> bool {
        self.harmed.contains(&(session.clone(), id.clone()))
    }

    pub fn is_excused(&self, session: &SessionId, id: &InstanceId) -> bool {
        self.excused.contains(&(session.clone(), id.clone()))
    }
}

impl World {
    pub fn fail(&mut self, kind: &'static str, text: String) {
        if self.failure.is_none() {
            self.trace.log(self.now_ms, || format!("FAILURE {kind}: {text}"));
            self.failure = Some(Failure { kind, text });
        }
    }

    /// The ledger of an object is about to be lost.
    pub fn loses(&mut self, object: &Object) {
        let lost = held(object);
        for request in self.requests.values_mut().filter(|request| request.uid == object.uid) {
            request.excused = request.instances.iter().cloned().collect();
        }
        self.oracle.doubtful.extend(lost.iter().cloned());
        self.oracle.limbo.entry(object.uid.clone()).or_default().extend(lost);
    }

    /// What a reconcile has to say to people.
    pub fn heard(&mut self, name: Name, notices: &[Notice]) {
        for notice in notices {
            if let Notice::Violated(text) = notice {
                self.fail("violated", format!("{name}: {text}"));
            }
        }
    }

    fn excuse(&mut self, uid: &str, session: &SessionId, ids: &BTreeSet<InstanceId>) {
        for request in self
            .requests
            .values_mut()
            .filter(|request| request.uid == uid && request.session == *session)
        {
            request
                .excused
                .extend(request.instances.iter().filter(|id| ids.contains(*id)).cloned());
        }
        self.oracle.excused.extend(ids.iter().map(|id| (session.clone(), id.clone())));
    }

    /// A write of an operator has changed an object.
    pub fn wrote(&mut self, name: Name, before: Option<&Object>, notices: &[Notice]) {
        self.is_dirty = true;
        self.expire();
        let Some(before) = before else { return };
        let after = self.api.objects.get(&name).cloned();
        self.trace.log(self.now_ms, || crate::trace::wrote(name, after.as_ref()));
        let had = held(before);
        let has = after.as_ref().map(held).unwrap_or_default();
        let fell: BTreeSet<_> = had.difference(&has).cloned().collect();
        let Some(after) = after else {
            self.went(before, fell);
            return;
        };
        if before.is_lost() && !after.is_lost() {
            self.rebuilt(&after, &has);
        }
        for notice in notices {
            let (Notice::Forgotten(ids) | Notice::Orphaned(ids) | Notice::Unproven(ids)) = notice
            else {
                continue;
            };
            // What is orphaned or forgotten may be wanted again at once, in another region of the
            // same session.
            let released = if matches!(notice, Notice::Unproven(_)) { &fell } else { &had };
            for (session, id) in released.iter().filter(|(_, id)| ids.contains(id)) {
                let doubts = matches!(notice, Notice::Unproven(_));
                if !doubts || self.oracle.doubtful.contains(&(session.clone(), id.clone())) {
                    self.excuse(&before.uid, session, &[id.clone()].into());
                }
            }
        }
        if let (Some(ledger), Some(session)) = (after.ledger(), after.ledger().and_then(session_of))
        {
            let attempted = self.oracle.attempted.entry(after.uid.clone()).or_default();
            let assumed =
                ledger.records.iter().filter(|(_, record)| record.assumed).map(|(id, _)| id);
            let attached = ledger
                .journal
                .iter()
                .filter(|journal| journal.operation == Operation::Attach)
                .flat_map(|journal| &journal.instances);
            attempted.extend(assumed.chain(attached).map(|id| (session.clone(), id.clone())));
        }
    }

    /// The object is gone.
    fn went(&mut self, object: &Object, fell: BTreeSet<Held>) {
        let limbo = self.oracle.limbo.remove(&object.uid).unwrap_or_default();
        self.oracle.excused.extend(limbo);
        if object.spec.policy == DeletionPolicy::Orphan {
            self.oracle.excused.extend(fell);
            self.oracle.orphaned.insert(object.uid.clone());
            for request in self.requests.values_mut().filter(|request| request.uid == object.uid) {
                request.excused = request.instances.iter().cloned().collect();
            }
            return;
        }
        let late = self.requests.values().find(|request| {
            request.uid == object.uid && !is_excused(request) && self.service.finds(request)
        });
        if let Some(request) = late.cloned() {
            self.fail(
                "dishonest deletion",
                format!("{request:?} is on its way, and its object is gone"),
            );
        }
    }

    /// A lost ledger was made anew: what it does not name any more can't be known.
    fn rebuilt(&mut self, object: &Object, has: &BTreeSet<Held>) {
        let limbo = self.oracle.limbo.remove(&object.uid).unwrap_or_default();
        self.oracle.excused.extend(limbo.difference(has).cloned());
        for request in self.requests.values_mut().filter(|request| request.uid == object.uid) {
            let session = request.session.clone();
            request.excused.retain(|id| !has.contains(&(session.clone(), id.clone())));
        }
    }

    /// A call is being sent.
    pub fn sends(&mut self, run_id: RunId, request: &Request, facts: Facts) {
        let operator = &self.operators[run_id.operator];
        let running = &operator.running[&run_id.run];
        let place = Place { endpoint: ENDPOINT.into(), session: request.session.clone() };
        let ownership = operator.scheduler.shared().claims.ownership(&request.name.key(), &place);
        let view = &running.copy.as_ref().unwrap().1;
        let members = match &view.status.ledger {
            LedgerState::Current(ledger) => view.desired.at(ledger.target.as_ref()),
            _ => view.desired.at(None),
        };
        let mut complaint = None;
        for id in &request.instances {
            let is_known = self
                .oracle
                .attempted
                .get(&request.uid)
                .is_some_and(|known| known.contains(&(request.session.clone(), id.clone())));
            if request.operation == Operation::Attach && members.want(id) == Want::Out {
                complaint =
                    Some(("I6", format!("{id} is attached, and the copy does not want it")));
            } else if request.operation == Operation::Detach && !is_known {
                complaint = Some((
                    "I4",
                    format!("{id} is detached, and {} never tried to attach it", request.name),
                ));
            }
        }
        if request.operation == Operation::Attach && matches!(ownership, Ownership::Contender(_)) {
            complaint = Some(("I5", format!("{} attaches and is {ownership:?}", request.name)));
        }
        if !facts.may_act {
            complaint = Some(("fence", format!("{} calls and may not action", request.name)));
        }
        if let Some((kind, text)) = complaint {
            self.fail(kind, text);
        }
    }

    /// The excuse of a call that was decided on a ledger that is lost meanwhile.
    pub fn excuse_of(&self, run_id: RunId, request: &Request) -> BTreeSet<InstanceId> {
        let running = &self.operators[run_id.operator].running[&run_id.run];
        let version = running.copy.as_ref().map_or(0, |(version, _)| *version);
        let current =
            self.api.objects.get(&request.name).filter(|object| object.uid == request.uid);
        let has = current.map(held).unwrap_or_default();
        let is_lost = self.oracle.wiped.get(&request.uid).is_some_and(|wiped| *wiped > version);
        let is_orphaned = self.oracle.orphaned.contains(&request.uid);
        let ids = request
            .instances
            .iter()
            .filter(|id| !has.contains(&(request.session.clone(), (*id).clone())));
        if is_lost || is_orphaned {
            ids.cloned().collect()
        } else if request.operation == Operation::Detach && self.sights_differ(request) {
            request.instances.iter().cloned().collect()
        } else {
            BTreeSet::new()
        }
    }

    /// Two operators, one of which does not see yet what the other sees, may let two objects of one
    /// session disturb each other (ADR 7): a detach of one that is behind by then may take the
    /// owner's phone out. Leader election is what keeps that from happening.
    fn sights_differ(&self, request: &Request) -> bool {
        let place = Place { endpoint: ENDPOINT.into(), session: request.session.clone() };
        let sights = self.operators.iter().filter(|operator| operator.is_up);
        let standings: Vec<_> = sights
            .map(|operator| {
                operator.scheduler.shared().claims.ownership(&request.name.key(), &place)
            })
            .collect();
        let truth = self.claims().ownership(&request.name.key(), &place);
        self.operators.len() > 1 && standings.iter().any(|ownership| *ownership != truth)
    }

    /// A call was served for these: from now on they are in or out because of it.
    pub fn served(&mut self, request: &Request, ids: &[InstanceId]) {
        for id in ids {
            let held = (request.session.clone(), id.clone());
            match request.operation {
                Operation::Attach => {
                    self.oracle.harmed.remove(&held);
                    if !request.excused.contains(id) {
                        self.oracle.excused.remove(&held);
                    } else if !self.is_tracked(&held) {
                        self.oracle.excused.insert(held);
                    }
                }
                Operation::Detach => {
                    self.oracle.excused.remove(&held);
                    if request.excused.contains(id) {
                        self.oracle.harmed.insert(held);
                    }
                }
            }
        }
    }

    fn is_tracked(&self, (session, id): &Held) -> bool {
        self.api.objects.values().filter_map(Object::ledger).any(|ledger| {
            session_of(ledger) == Some(session) && tracked(ledger).any(|other| other == id)
        })
    }

    fn is_in_limbo(&self, held: &Held) -> bool {
        self.api.objects.values().filter(|object| object.is_lost()).any(|object| {
            self.oracle.limbo.get(&object.uid).is_some_and(|limbo| limbo.contains(held))
        })
    }

    /// What can't take effect any more is no threat.
    fn expire(&mut self) {
        let now = self.second();
        let is_broken = self.service.broken;
        self.requests.retain(|_, request| {
            is_broken || now < request.start_time + SIGNATURE_SECONDS + MARGIN_SECONDS
        });
    }

    /// The promises that hold at any time.
    pub fn check(&mut self) {
        self.expire();
        if let Some((kind, text)) = self.leak().or_else(|| self.false_ready()) {
            self.fail(kind, text);
        }
    }

    /// I1.
    fn leak(&self) -> Option<(&'static str, String)> {
        let members = self.service.sessions.iter().flat_map(|(session, state)| {
            state.members.iter().map(move |id| (session, id, "is in"))
        });
        let coming = self
            .requests
            .values()
            .filter(|request| request.operation == Operation::Attach && self.service.finds(request))
            .flat_map(|request| {
                let ids = request.instances.iter().filter(|id| !request.excused.contains(*id));
                ids.map(move |id| (&request.session, id, "may come into"))
            });
        for (session, id, how) in members.chain(coming) {
            let held = (session.clone(), id.clone());
            if !self.is_tracked(&held)
                && !self.oracle.excused.contains(&held)
                && !self.is_in_limbo(&held)
            {
                return Some(("I1", format!("{id} {how} {session}, and nobody remembers it")));
            }
        }
        None
    }

    /// The claims as they really are.
    pub fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        for (name, object) in &self.api.objects {
            claims.set(&name.key(), object.view().claimant());
        }
        claims
    }

    /// Whether the object drives the session by what all of them show: what another one says is
    /// stale, and it will say so once it knows.
    fn owns(&self, name: Name, session: &SessionId) -> bool {
        let place = Place { endpoint: ENDPOINT.into(), session: session.clone() };
        self.claims().owner(&place) == Some(&name.key())
    }

    fn false_ready(&self) -> Option<(&'static str, String)> {
        for (name, object) in &self.api.objects {
            let session = &object.spec.session;
            // What a copied status says, nobody of us has said.
            if !object.is_ready()
                || object.is_lost()
                || object.deleting
                || object.spec.instances.is_empty()
                || self.oracle.ended.contains(session)
            {
                continue;
            }
            if object.ledger().and_then(session_of) != Some(session) {
                return Some((
                    "false Ready",
                    format!(
                        "{name} is Ready, and its ledger is about another session than {session}"
                    ),
                ));
            }
            if !self.owns(*name, session) {
                continue;
            }
            let members = &self.service.sessions[session].members;
            if let Some(id) = object
                .spec
                .instances
                .iter()
                .find(|id| !members.contains(*id) && !self.oracle.is_harmed(session, id))
            {
                return Some((
                    "false Ready",
                    format!("{name} is Ready, and {id} is not in {session}"),
                ));
            }
            let detaches = |request: &&Request| {
                request.operation == Operation::Detach && request.session == *session
            };
            for request in self
                .requests
                .values()
                .filter(detaches)
                .filter(|request| self.service.finds(request))
            {
                let threatened = request.instances.iter().find(|id| {
                    object.spec.instances.contains(*id) && !request.excused.contains(*id)
                });
                if let Some(id) = threatened {
                    let kind = if request.uid == object.uid {
                        "threatened Ready"
                    } else {
                        "Ready threatened by a rival"
                    };
                    return Some((
                        kind,
                        format!(
                            "{name} is Ready, and a detach of {id} by {} may arrive",
                            request.name
                        ),
                    ));
                }
            }
        }
        None
    }
}

fn is_excused(request: &Request) -> bool {
    request.instances.iter().all(|id| request.excused.contains(id))
}
