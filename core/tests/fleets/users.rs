//! What people do, and what happens to machines.

use std::collections::BTreeSet;

use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::reconcile::Request;

use crate::api::{Name, Object, Spec, Stored};
use crate::scenario::Action;
use crate::service::Session;
use crate::world::World;

pub const REGIONS: [&str; 2] = ["east", "west"];

/// The phone of that number.
pub fn phone(number: u8) -> InstanceId {
    InstanceId::parse(&format!("p{number}")).unwrap()
}

/// The phones whose bit is set.
pub fn phones(bits: u8) -> BTreeSet<InstanceId> {
    (0..8).filter(|number| bits >> number & 1 == 1).map(phone).collect()
}

fn policy(orphan: bool) -> DeletionPolicy {
    if orphan { DeletionPolicy::Orphan } else { DeletionPolicy::Delete }
}

impl World {
    /// The session of that number, as it is called now.
    pub fn session(&self, number: u8) -> SessionId {
        SessionId::parse(&format!("s{number}.{}", self.endings[usize::from(number)])).unwrap()
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

    /// Changes an object as a person does: `change` answers whether the spec is another one now.
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
        self.is_dirty = true;
    }

    pub fn action(&mut self, action: Action) {
        self.trace.log(self.now_ms, || format!("PEOPLE: {action:?}"));
        match action {
            Action::Create { name, session, phones: bits, region, orphan, forgets } => {
                let session = self.session(session);
                let region = if region {
                    self.region_of(&session).or(Some(REGIONS[0].to_owned()))
                } else {
                    self.region_of(&session)
                };
                let spec = Spec {
                    session,
                    region,
                    instances: phones(bits),
                    policy: policy(orphan),
                    forgets_failures: forgets,
                };
                self.create(name, false, spec, Stored::default());
            }
            Action::Edit { name, phones: bits } => {
                self.edit(name, |object| object.spec.instances = phones(bits))
            }
            Action::Move { name, session, region } => {
                let session = self.session(session);
                let region = match region {
                    Some(east) => Some(REGIONS[usize::from(east)].to_owned()),
                    None => self.region_of(&session),
                };
                self.edit(name, |object| {
                    (object.spec.session, object.spec.region) = (session, region)
                });
            }
            Action::Policy { name, orphan } => {
                self.edit(name, |object| object.spec.policy = policy(orphan))
            }
            Action::FailurePolicy { name, forgets } => {
                self.edit(name, |object| object.spec.forgets_failures = forgets)
            }
            Action::Delete { name } => self.delete(name),
            Action::Forget { name, phones: bits } => self.forget(name, phones(bits)),
            Action::Adopt { name, phones: bits } => self.adopt(name, phones(bits)),
            Action::Script { session, phones: bits } => self.script(session, &phones(bits)),
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
            Action::Poison { phone: number, on: true } => self.poison(&phone(number)),
            Action::Poison { phone: number, on: false } => {
                _ = self.service.poisoned.remove(&phone(number))
            }
            Action::Unwelcome { phone: number, on: true } => {
                _ = self.service.unwelcome.insert(phone(number))
            }
            Action::Unwelcome { phone: number, on: false } => {
                _ = self.service.unwelcome.remove(&phone(number))
            }
            Action::Crash { operator } => self.crash(usize::from(operator)),
            Action::Fence { operator, for_ms } => {
                self.operators[usize::from(operator)].fenced_until_ms = self.now_ms + for_ms
            }
            Action::Freeze { operator, for_ms } => {
                self.operators[usize::from(operator)].frozen_until_ms = self.now_ms + for_ms
            }
            Action::WatchStalls { operator, for_ms } => {
                self.operators[usize::from(operator)].stalled_until_ms = self.now_ms + for_ms
            }
            Action::WatchBreaks { operator } => {
                let operator = &mut self.operators[usize::from(operator)];
                operator.must_list |= operator.is_up;
            }
        }
    }

    fn create(&mut self, name: Name, finalizer: bool, spec: Spec, status: Stored) {
        if !self.api.objects.contains_key(&name) {
            let created = self.second();
            self.api.create(name, created, finalizer, spec, status);
            self.is_dirty = true;
        }
    }

    fn restore(&mut self, name: Name, from: Object, finalizer: bool, status: bool) {
        let status = if status { from.status } else { Stored::default() };
        self.create(name, finalizer, from.spec, status);
    }

    /// A deletion; but not right after somebody stripped the finalizer of an object that holds
    /// something: that leaves nobody who could act (out of reach, and said in the docs).
    pub fn delete(&mut self, name: Name) {
        let Some(object) = self.api.objects.get(&name) else { return };
        let unguarded =
            !object.finalizer && object.ledger().is_some_and(|ledger| !ledger.tracks_nothing());
        if !unguarded {
            self.edit(name, |object| object.deleting = true);
        }
    }

    /// A person's word that these are out, whatever the service says.
    pub fn forget(&mut self, name: Name, instances: BTreeSet<InstanceId>) {
        self.asked += 1;
        let value = self.asked.to_string();
        self.edit(name, |object| object.asked.forget = Some(Request { value, instances }));
    }

    fn adopt(&mut self, name: Name, instances: BTreeSet<InstanceId>) {
        self.asked += 1;
        let value = self.asked.to_string();
        self.edit(name, |object| object.asked.adopt = Some(Request { value, instances }));
    }

    /// Someone who is no operator attaches phones: nobody answers for them before they are adopted.
    fn script(&mut self, number: u8, instances: &BTreeSet<InstanceId>) {
        let id = self.session(number);
        if let Some(session) = self.service.sessions.get_mut(&id) {
            for instance in instances {
                if session.members.insert(instance.clone()) {
                    self.oracle.was_scripted(&id, instance);
                }
            }
            self.is_dirty = true;
        }
    }

    /// An id spoils calls from now on. The protocol takes it that such a one is in no session
    /// (design 3.2).
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
        self.loses(&object);
        self.edit(name, |object| object.status = Stored::default());
        let version = self.api.objects[&name].version;
        self.oracle.wiped.insert(object.uid, version);
    }

    /// The session ends, and comes back under another id.
    fn end_session(&mut self, number: u8) {
        let id = self.session(number);
        self.service.sessions.remove(&id);
        self.oracle.ended.insert(id);
        self.endings[usize::from(number)] += 1;
        self.open_session(number);
        self.is_dirty = true;
    }
}
