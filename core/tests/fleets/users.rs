//! What users do, and what happens to machines.

use std::collections::BTreeSet;
use std::time::Duration;

use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::reconcile::Request;
use streamsession_testkit::fixtures::{id, session};
use streamsession_testkit::service::Session;

use crate::api::{Name, Object, Spec, Stored};
use crate::operator::Watch;
use crate::scenario::Action;
use crate::world::World;

pub const REGIONS: [&str; 2] = ["east", "west"];

/// The instance of that number.
pub fn instance_of(number: u8) -> InstanceId {
    id(&format!("p{number}"))
}

/// The instances whose bit is set.
pub fn instances_of(bits: u8) -> BTreeSet<InstanceId> {
    (0..8).filter(|number| bits >> number & 1 == 1).map(instance_of).collect()
}

fn policy(orphan: bool) -> DeletionPolicy {
    if orphan { DeletionPolicy::Orphan } else { DeletionPolicy::Delete }
}

impl World {
    /// The session of that number, as it is called now.
    pub fn session(&self, number: u8) -> SessionId {
        session(&format!("s{number}.{}", self.endings[usize::from(number)]))
    }

    /// The number of a session, whatever it is called now.
    pub fn session_number(session: &SessionId) -> u8 {
        session.as_str()[1..].split('.').next().unwrap().parse().unwrap()
    }

    pub fn open_session(&mut self, number: u8) {
        // Every third seed has sessions that a call of another region does not find.
        let region = self
            .scenario
            .seed
            .is_multiple_of(3)
            .then(|| REGIONS[usize::from(number) % 2].to_owned());
        self.service
            .sessions
            .insert(self.session(number), Session { members: BTreeSet::new(), region });
    }

    /// The region that finds a session.
    pub fn region_of(&self, session: &SessionId) -> Option<String> {
        self.service.sessions.get(session).and_then(|session| session.region.clone())
    }

    /// Changes an object as a user does: a new spec has another generation.
    pub fn edit(&mut self, name: Name, change: impl FnOnce(&mut Object)) {
        let Some(before) = self.api.objects.get(&name) else { return };
        let mut object = before.clone();
        change(&mut object);
        if object == *before {
            return;
        }
        if object.spec != before.spec || object.deleting != before.deleting {
            object.generation += 1;
        }
        self.api.put(name, object);
        self.needs_check = true;
    }

    pub fn action(&mut self, action: Action) {
        self.trace.log(self.now_ms, || format!("USER: {action:?}"));
        match action {
            Action::Create { name, session, instances: bits, region, orphan, forgets } => {
                let session = self.session(session);
                let region = if region {
                    self.region_of(&session).or(Some(REGIONS[0].to_owned()))
                } else {
                    self.region_of(&session)
                };
                let spec = Spec {
                    session,
                    region,
                    instances: instances_of(bits),
                    policy: policy(orphan),
                    forgets_failures: forgets,
                    resync_interval: self.scenario.resync_ms.map(Duration::from_millis),
                };
                self.create(name, false, spec, Stored::default());
            }
            Action::Edit { name, instances: bits } => {
                self.edit(name, |object| object.spec.instances = instances_of(bits));
            }
            Action::Move { name, session, region } => {
                let session = self.session(session);
                let region = match region {
                    Some(east) => Some(REGIONS[usize::from(east)].to_owned()),
                    None => self.region_of(&session),
                };
                self.edit(name, |object| {
                    (object.spec.session, object.spec.region) = (session, region);
                });
            }
            Action::Policy { name, orphan } => {
                self.edit(name, |object| object.spec.policy = policy(orphan));
            }
            Action::FailurePolicy { name, forgets } => {
                self.edit(name, |object| object.spec.forgets_failures = forgets);
            }
            Action::Delete { name } => self.delete(name),
            Action::Forget { name, instances: bits } => self.forget(name, instances_of(bits)),
            Action::Adopt { name, instances: bits } => self.adopt(name, instances_of(bits)),
            Action::ForeignAttach { session, instances: bits } => {
                self.foreign_attach(session, &instances_of(bits));
            }
            Action::ForeignDetach { session, instances: bits } => {
                self.foreign_detach(&self.session(session), &instances_of(bits));
            }
            Action::Secret { namespace, key } => {
                self.secrets.insert(namespace, key);
            }
            Action::WipeStatus { name } => self.wipe(name),
            Action::StripFinalizer { name } => self.strip(name),
            Action::Clone { from, to, finalizer, status } => {
                if let Some(original) = self.api.objects.get(&from).cloned() {
                    self.restore(to, original, finalizer, status);
                }
            }
            Action::BackUp { name } => {
                if let Some(object) = self.api.objects.get(&name) {
                    self.backups.insert(name, object.clone());
                }
            }
            Action::Restore { name, finalizer, status } => {
                if let Some(backup) = self.backups.get(&name).cloned() {
                    self.restore(name, backup, finalizer, status);
                }
            }
            Action::SessionEnds { session } => self.end_session(session),
            Action::Poison { instance: number, on: true } => self.poison(&instance_of(number)),
            Action::Poison { instance: number, on: false } => {
                _ = self.service.poisoned.remove(&instance_of(number));
            }
            Action::Unwelcome { instance: number, on: true } => {
                _ = self.service.unwelcome.insert(instance_of(number));
            }
            Action::Unwelcome { instance: number, on: false } => {
                _ = self.service.unwelcome.remove(&instance_of(number));
            }
            Action::Crash { operator } => self.crash(usize::from(operator)),
            Action::Stop { operator } => self.stop(usize::from(operator)),
            Action::Fence { operator, for_ms } => {
                self.operators[usize::from(operator)].fenced_until_ms = self.now_ms + for_ms;
            }
            Action::Freeze { operator, for_ms } => {
                self.operators[usize::from(operator)].frozen_until_ms = self.now_ms + for_ms;
            }
            Action::WatchStalls { operator, for_ms } => {
                self.operators[usize::from(operator)].stalled_until_ms = self.now_ms + for_ms;
            }
            Action::WatchBreaks { operator } => {
                self.operators[usize::from(operator)].watch = Watch::MustList;
            }
        }
    }

    fn create(&mut self, name: Name, finalizer: bool, spec: Spec, status: Stored) {
        if !self.api.objects.contains_key(&name) {
            let created = self.second();
            self.api.create(name, created, finalizer, spec, status);
            self.needs_check = true;
        }
    }

    fn restore(&mut self, name: Name, from: Object, finalizer: bool, status: bool) {
        let status = if status { from.status } else { Stored::default() };
        self.create(name, finalizer, from.spec, status);
    }

    /// A deletion; but not right after somebody stripped the finalizer of an object that holds
    /// something: that leaves nobody who could act (out of reach, as docs/design.md, 3 says).
    pub fn delete(&mut self, name: Name) {
        let Some(object) = self.api.objects.get(&name) else { return };
        let unguarded =
            !object.finalizer && object.ledger().is_some_and(|ledger| !ledger.tracks_nothing());
        if !unguarded {
            self.edit(name, |object| object.deleting = true);
        }
    }

    /// A user's word that these are out, whatever the service says.
    pub fn forget(&mut self, name: Name, instances: BTreeSet<InstanceId>) {
        self.annotations += 1;
        let value = self.annotations.to_string();
        self.edit(name, |object| object.asked.forget = Some(Request { value, instances }));
    }

    fn adopt(&mut self, name: Name, instances: BTreeSet<InstanceId>) {
        self.annotations += 1;
        let value = self.annotations.to_string();
        self.edit(name, |object| object.asked.adopt = Some(Request { value, instances }));
    }

    /// Someone who is no operator attaches instances: nobody answers for them before they are
    /// adopted.
    fn foreign_attach(&mut self, number: u8, instances: &BTreeSet<InstanceId>) {
        let id = self.session(number);
        if let Some(session) = self.service.sessions.get_mut(&id) {
            for instance in instances {
                if session.members.insert(instance.clone()) {
                    self.oracle.note_foreign_attach(&id, instance);
                }
            }
            self.needs_check = true;
        }
    }

    /// Someone who is no operator takes instances out: nobody can know of it.
    pub fn foreign_detach(&mut self, session: &SessionId, instances: &BTreeSet<InstanceId>) {
        if let Some(members) = self.service.sessions.get_mut(session) {
            for instance in instances {
                if members.members.remove(instance) {
                    self.oracle.note_foreign_detach(session, instance);
                }
            }
            self.needs_check = true;
        }
    }

    /// An id spoils calls from now on. The protocol takes it that such a one is in no session
    /// (docs/design.md, 3.2).
    fn poison(&mut self, id: &InstanceId) {
        if !self.service.sessions.values().any(|session| session.members.contains(id)) {
            self.service.poisoned.insert(id.clone());
        }
    }

    /// `kubectl replace` with a file without finalizers. Not of an object whose status is empty
    /// too: then nothing tells that it ever had a ledger (out of reach).
    fn strip(&mut self, name: Name) {
        self.edit(name, |object| object.finalizer &= object.deleting || object.is_lost());
    }

    /// Somebody empties the status; the finalizer stays.
    fn wipe(&mut self, name: Name) {
        let Some(object) = self.api.objects.get(&name).filter(|object| object.finalizer).cloned()
        else {
            return;
        };
        self.note_ledger_lost(&object);
        self.edit(name, |object| object.status = Stored::default());
        let version = self.api.objects[&name].version;
        self.oracle.wiped.insert(object.uid, version);
    }

    /// The session ends, and comes back under another id.
    pub fn end_session(&mut self, number: u8) {
        let id = self.session(number);
        self.service.sessions.remove(&id);
        self.oracle.ended.insert(id);
        self.endings[usize::from(number)] += 1;
        self.open_session(number);
        self.needs_check = true;
    }
}
