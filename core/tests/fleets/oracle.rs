//! What is known besides what the world shows: for which instances nobody need answer any more.
//!
//! An instance that the service may hold because of us is *tracked* by the stored ledger of some
//! live object (I1). It may be *excused* from that if it was released legitimately: by Orphan, by a
//! user's word, with a ledger that was lost.

use std::collections::{BTreeMap, BTreeSet};

use streamsession_core::answer::Operation;
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::reconcile::Notice;

use crate::api::{Name, Object, session_of, tracked};
use crate::calls::{MARGIN_SECONDS, SentCall};
use crate::checks::place;
use crate::resync::ResyncProof;
use crate::world::{RunId, World};

/// An instance, and the session that it is in.
pub type Member = (SessionId, InstanceId);

#[derive(Default)]
pub struct Oracle {
    /// In a session, or on the way there, and nobody need answer for it.
    excused: BTreeSet<Member>,
    /// Ids of ledgers that were lost, or that a foreign script attached: that nobody knows of them
    /// may be right.
    unprovable: BTreeSet<Member>,
    /// What each object, by uid, has ever tried to attach or was told of.
    attempted: BTreeMap<String, BTreeSet<Member>>,
    /// What an object tracked when its ledger was lost, until the ledger is made anew.
    lost: BTreeMap<String, BTreeSet<Member>>,
    /// The version with which an object's ledger was lost.
    pub wiped: BTreeMap<String, u64>,
    /// Objects that went and left everything where it is.
    orphaned: BTreeSet<String>,
    /// Taken out by a call that nobody could know of any more.
    detached_unnoticed: BTreeSet<Member>,
    /// Sessions that are gone.
    pub ended: BTreeSet<SessionId>,
}

/// What the object's own ledger tracks.
pub fn members_of(object: &Object) -> BTreeSet<Member> {
    let ledger = object.ledger();
    let session = ledger.and_then(session_of);
    let pairs = ledger
        .zip(session)
        .into_iter()
        .flat_map(|(ledger, session)| tracked(ledger).map(|id| (session.clone(), id.clone())));
    pairs.collect()
}

impl Oracle {
    /// Someone who is no operator has attached it.
    pub fn note_foreign_attach(&mut self, session: &SessionId, id: &InstanceId) {
        self.excused.insert((session.clone(), id.clone()));
        self.unprovable.insert((session.clone(), id.clone()));
    }

    /// Someone who is no operator has taken it out.
    pub fn note_foreign_detach(&mut self, session: &SessionId, id: &InstanceId) {
        self.excused.remove(&(session.clone(), id.clone()));
        self.detached_unnoticed.insert((session.clone(), id.clone()));
    }

    /// Whether an instance is out of a session by a call that nobody could know of.
    pub fn is_detached_unnoticed(&self, session: &SessionId, id: &InstanceId) -> bool {
        self.detached_unnoticed.contains(&(session.clone(), id.clone()))
    }

    pub fn is_excused(&self, session: &SessionId, id: &InstanceId) -> bool {
        self.excused.contains(&(session.clone(), id.clone()))
    }

    /// Whether that object has tried to attach it, or was told of it.
    pub fn was_attempted(&self, uid: &str, session: &SessionId, id: &InstanceId) -> bool {
        let attempted = self.attempted.get(uid);
        attempted.is_some_and(|attempted| attempted.contains(&(session.clone(), id.clone())))
    }

    /// Whether it was tracked by the ledger that the object has lost.
    pub fn is_of_lost_ledger(&self, uid: &str, member: &Member) -> bool {
        self.lost.get(uid).is_some_and(|lost| lost.contains(member))
    }
}

impl World {
    fn calls_of(&mut self, uid: &str) -> impl Iterator<Item = &mut SentCall> {
        self.sent_calls.values_mut().filter(move |call| call.uid == uid)
    }

    /// The ledger of an object is about to be lost.
    pub fn note_ledger_lost(&mut self, object: &Object) {
        let lost = members_of(object);
        self.calls_of(&object.uid).for_each(SentCall::excuse);
        self.oracle.unprovable.extend(lost.iter().cloned());
        self.oracle.lost.entry(object.uid.clone()).or_default().extend(lost);
    }

    fn excuse(&mut self, uid: &str, (session, id): &Member) {
        for call in self.calls_of(uid) {
            if call.session == *session && call.instances.contains(id) {
                call.excused.insert(id.clone());
            }
        }
        self.oracle.excused.insert((session.clone(), id.clone()));
    }

    /// A write of an operator has changed an object.
    pub fn note_write(&mut self, name: Name, before: Option<&Object>, notices: &[Notice]) {
        self.needs_check = true;
        self.expire();
        let Some(before) = before else { return };
        let after = self.api.objects.get(&name).cloned();
        self.trace.log(self.now_ms, || crate::trace::written(name, after.as_ref()));
        if self.resync_proof == ResyncProof::UnderWay
            && let Some(after) = &after
            && after.status.conditions != before.status.conditions
        {
            let (before, after) = (&before.status.conditions, &after.status.conditions);
            self.fail("flapping", format!("{name}: {before:?} becomes {after:?}"));
        }
        let had = members_of(before);
        let has = after.as_ref().map(members_of).unwrap_or_default();
        let dropped: BTreeSet<_> = had.difference(&has).cloned().collect();
        let Some(after) = after else {
            self.note_object_gone(before, dropped);
            return;
        };
        if before.is_lost() && !after.is_lost() {
            self.note_ledger_rebuilt(&after, &has);
        }
        for notice in notices {
            // What is released may be wanted again at once, in another region of the same session.
            let (Notice::Forgotten(ids) | Notice::Orphaned(ids) | Notice::Unproven(ids)) = notice
            else {
                continue;
            };
            for member in had.iter().filter(|(_, id)| ids.contains(id)) {
                if !matches!(notice, Notice::Unproven(_)) || self.oracle.unprovable.contains(member)
                {
                    self.excuse(&before.uid, member);
                }
            }
        }
        if let Some(ledger) = after.ledger()
            && let Some(session) = session_of(ledger)
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

    fn note_object_gone(&mut self, object: &Object, dropped: BTreeSet<Member>) {
        let lost = self.oracle.lost.remove(&object.uid).unwrap_or_default();
        self.oracle.excused.extend(lost);
        if object.spec.policy == DeletionPolicy::Orphan {
            self.oracle.excused.extend(dropped);
            self.oracle.orphaned.insert(object.uid.clone());
            self.calls_of(&object.uid).for_each(SentCall::excuse);
            return;
        }
        let late = self
            .sent_calls
            .values()
            .find(|call| call.uid == object.uid && !call.is_excused() && self.service.finds(call));
        if let Some(call) = late.cloned() {
            self.fail(
                "dishonest deletion",
                format!("{call:?} is on its way, and its object is gone"),
            );
        }
    }

    /// A lost ledger was made anew: what it does not name any more can't be known.
    fn note_ledger_rebuilt(&mut self, object: &Object, has: &BTreeSet<Member>) {
        let lost = self.oracle.lost.remove(&object.uid).unwrap_or_default();
        self.oracle.excused.extend(lost.difference(has).cloned());
        for call in self.calls_of(&object.uid) {
            let session = call.session.clone();
            call.excused.retain(|id| !has.contains(&(session.clone(), id.clone())));
        }
    }

    /// The excuse of a call that was decided on a ledger that is lost meanwhile.
    pub fn excuse_of(&self, run_id: RunId, call: &SentCall) -> BTreeSet<InstanceId> {
        let running = &self.operators[run_id.operator].running[&run_id.run];
        let version = running.copy.as_ref().map_or(0, |(version, _)| *version);
        let is_lost = self.oracle.wiped.get(&call.uid).is_some_and(|wiped| *wiped > version);
        let ids = call.instances.iter();
        if is_lost || self.oracle.orphaned.contains(&call.uid) {
            let current = self.api.objects.get(&call.name).filter(|object| object.uid == call.uid);
            let has = current.map(members_of).unwrap_or_default();
            ids.filter(|id| !has.contains(&(call.session.clone(), (*id).clone())))
                .cloned()
                .collect()
        } else if call.operation == Operation::Detach && self.views_differ(call) {
            ids.cloned().collect()
        } else if call.operation == Operation::Detach {
            // Who has no key of the account, or none any more, is not listened to.
            let claims = &self.operators[run_id.operator].scheduler.shared().claims;
            let (key, place) = (call.name.key(), place(&call.session));
            let believed: BTreeSet<_> = claims.others(&key, &place).map(Name::of).collect();
            let is_deaf_to =
                |name: &Name| name.namespace != call.name.namespace && !believed.contains(name);
            let ignored = |id: &&InstanceId| {
                let wants_or_has = |object: &Object| {
                    let has = || object.ledger().is_some_and(|it| it.records.contains_key(*id));
                    object.spec.instances.contains(*id) || has()
                };
                let mut objects = self.api.objects.iter();
                objects.any(|(name, object)| is_deaf_to(name) && wants_or_has(object))
            };
            ids.filter(ignored).cloned().collect()
        } else {
            BTreeSet::new()
        }
    }

    /// A call was served for these: from now on they are in or out because of it.
    pub fn note_served(&mut self, call: &SentCall, ids: &BTreeSet<InstanceId>) {
        for id in ids {
            let member = (call.session.clone(), id.clone());
            let is_excused = call.excused.contains(id);
            match call.operation {
                Operation::Attach => {
                    self.oracle.detached_unnoticed.remove(&member);
                    if !is_excused {
                        self.oracle.excused.remove(&member);
                    } else if !self.is_tracked(&member) {
                        self.oracle.excused.insert(member);
                    }
                }
                Operation::Detach => {
                    self.oracle.excused.remove(&member);
                    if is_excused {
                        self.oracle.detached_unnoticed.insert(member);
                    }
                }
            }
        }
    }

    pub fn is_tracked(&self, (session, id): &Member) -> bool {
        self.api.objects.values().filter_map(Object::ledger).any(|ledger| {
            session_of(ledger) == Some(session) && tracked(ledger).any(|other| other == id)
        })
    }

    /// What can't take effect any more is no threat.
    pub fn expire(&mut self) {
        let now = self.second();
        // The margin is for the service's own work, and for what its clocks differ by.
        let work_seconds = MARGIN_SECONDS - self.clocks_differ_seconds();
        let validity_seconds = self.service.signature_seconds.saturating_add(work_seconds);
        self.sent_calls.retain(|_, call| now.saturating_sub(call.start_time) < validity_seconds);
    }
}
