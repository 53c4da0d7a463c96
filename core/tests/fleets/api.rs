//! An API server in memory: objects with uid, resourceVersion, generation and finalizer, and the
//! log that watches read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use streamsession_core::conditions::{Conditions, Counts, Mode, Reason};
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::desired::{DeletionPolicy, Desired};
use streamsession_core::ledger::record::State;
use streamsession_core::object::ObjectKey;
use streamsession_core::reconcile::{Asked, Handled, LedgerState, Status, View};
use streamsession_core::scheduler::Digest;

/// The only endpoint.
pub const ENDPOINT: &str = "gs.tencentcloudapi.com";

/// The name of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub namespace: u8,
    pub number: u8,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}/o{}", self.namespace, self.number)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Name {
    /// The name that the product knows it by.
    pub fn key(self) -> ObjectKey {
        static KEYS: LazyLock<BTreeMap<Name, ObjectKey>> = LazyLock::new(|| {
            let names =
                (0..4).flat_map(|namespace| (0..8).map(move |number| Name { namespace, number }));
            let key = |name: Name| {
                ObjectKey::new(format!("n{}", name.namespace), format!("o{}", name.number))
            };
            names.map(|name| (name, key(name))).collect()
        });
        KEYS[&self].clone()
    }

    /// The name of the object that the product knows by `key`.
    pub fn of(key: &ObjectKey) -> Self {
        let number = |text: &str| text[1..].parse().unwrap();
        Self { namespace: number(&key.namespace), number: number(&key.name) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub session: SessionId,
    pub region: Option<String>,
    pub instances: BTreeSet<InstanceId>,
    pub policy: DeletionPolicy,
    pub forgets_failures: bool,
    pub resync_interval: Option<Duration>,
}

/// The status as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// `status.objectUID`.
    pub owner: Option<String>,
    pub observed_generation: i64,
    pub conditions: Option<Conditions>,
    pub counts: Counts,
    pub handled: Handled,
    pub ledger: Ledger,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            owner: None,
            observed_generation: -1,
            conditions: None,
            counts: Counts::default(),
            handled: Handled::default(),
            ledger: Ledger::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub uid: String,
    pub version: u64,
    pub generation: i64,
    /// Seconds.
    pub created: i64,
    pub finalizer: bool,
    pub deleting: bool,
    pub spec: Spec,
    pub asked: Asked,
    pub status: Stored,
}

impl Object {
    /// As the operator's `api::ledger::view` reads it.
    pub fn view(&self) -> View {
        let ledger = match &self.status.owner {
            Some(owner) if *owner == self.uid => LedgerState::Current(self.status.ledger.clone()),
            Some(owner) => LedgerState::Lost {
                why: format!("The status is that of {owner}"),
                remains: self.status.ledger.clone(),
            },
            None if self.finalizer => LedgerState::Lost {
                why: "Our finalizer, no record".into(),
                remains: Ledger::default(),
            },
            None => LedgerState::New,
        };
        View {
            uid: self.uid.as_str().into(),
            version: self.version.to_string().into(),
            created: self.created,
            finalizer: self.finalizer,
            desired: Desired {
                session: self.spec.session.clone(),
                region: self.spec.region.clone(),
                default_region: None,
                endpoint: ENDPOINT.into(),
                instances: self.spec.instances.clone(),
                deleting: self.deleting,
                deletion_policy: self.spec.policy,
                forgets_failures: self.spec.forgets_failures,
                resync_interval: self.spec.resync_interval,
                generation: self.generation,
            },
            asked: self.asked.clone(),
            status: Status {
                observed_generation: self.status.observed_generation,
                conditions: self.status.conditions.clone(),
                counts: self.status.counts,
                handled: self.status.handled.clone(),
                ledger,
            },
        }
    }

    /// The ledger, if it is the object's own.
    pub fn ledger(&self) -> Option<&Ledger> {
        (self.status.owner.as_ref() == Some(&self.uid)).then_some(&self.status.ledger)
    }

    /// Whether the ledger is lost or another object's.
    pub fn is_lost(&self) -> bool {
        self.status.owner.as_ref().map_or(self.finalizer, |owner| *owner != self.uid)
    }

    pub fn mode(&self) -> Option<Mode> {
        self.status.conditions.as_ref().map(|conditions| conditions.mode)
    }

    pub fn reason(&self) -> Option<Reason> {
        self.status.conditions.as_ref().map(|conditions| conditions.reason)
    }

    /// Ready, as one who knows the generation reads it.
    pub fn is_ready(&self) -> bool {
        self.mode() == Some(Mode::Ready) && self.status.observed_generation == self.generation
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.view())
    }
}

/// What a write asks for.
#[derive(Clone, Debug)]
pub enum Change {
    Status(Box<Status>),
    Finalizer(bool),
}

/// What came of a write.
pub enum Written {
    Copy(Box<Object>),
    Conflict,
    Gone,
}

/// A way in which the server is broken on purpose, so that the checks are seen to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Says that it stored the journal, and did not.
    JournalNotStored,
    /// Takes every write, whatever the copy.
    PreconditionIgnored,
    /// Says that it stored the deadlines, and did not.
    DeadlinesStripped,
    /// Says that it stored the instances of which nobody knows where they are, and did not.
    DoubtForgotten,
}

/// A line of the log that watches read: the object, or that it is gone.
pub type Line = (Name, Option<Arc<Digest>>);

#[derive(Default)]
pub struct Api {
    pub objects: BTreeMap<Name, Object>,
    pub log: Vec<Line>,
    pub broken: Option<Broken>,
    version: u64,
    uids: u64,
}

impl Api {
    /// Puts an object there, new or changed: it gets a new resourceVersion, and watches will see
    /// it.
    pub fn put(&mut self, name: Name, mut object: Object) {
        self.version += 1;
        object.version = self.version;
        if object.deleting && !object.finalizer {
            self.objects.remove(&name);
            self.log.push((name, None));
        } else {
            self.log.push((name, Some(Arc::new(object.digest()))));
            self.objects.insert(name, object);
        }
    }

    /// A new object. Uids do not sort by age.
    pub fn create(
        &mut self,
        name: Name,
        created: i64,
        finalizer: bool,
        spec: Spec,
        status: Stored,
    ) {
        self.uids += 1;
        let uid = format!("{:x}-{}", self.uids.wrapping_mul(7) % 16, self.uids);
        let asked = Asked::default();
        self.put(
            name,
            Object {
                uid,
                version: 0,
                generation: 1,
                created,
                finalizer,
                deleting: false,
                spec,
                asked,
                status,
            },
        );
    }

    /// A write of an operator, on the copy with that uid and version. One that changes nothing is
    /// no new version.
    pub fn write(&mut self, name: Name, uid: &str, version: u64, change: Change) -> Written {
        let Some(object) = self.objects.get(&name) else { return Written::Gone };
        if (object.uid != uid || object.version != version)
            && self.broken != Some(Broken::PreconditionIgnored)
        {
            return Written::Conflict;
        }
        let mut changed = object.clone();
        match change {
            Change::Finalizer(present) => changed.finalizer = present,
            Change::Status(status) => {
                if let LedgerState::Current(ledger) = status.ledger {
                    changed.status.owner = Some(uid.to_owned());
                    changed.status.ledger = ledger;
                }
                changed.status.observed_generation = status.observed_generation;
                changed.status.conditions = status.conditions;
                changed.status.counts = status.counts;
                changed.status.handled = status.handled;
            }
        }
        if changed == *object {
            return Written::Copy(Box::new(changed));
        }
        let answered = changed.clone();
        match self.broken {
            Some(Broken::JournalNotStored) => changed.status.ledger.journal = None,
            Some(Broken::DeadlinesStripped) => {
                for record in changed.status.ledger.records.values_mut() {
                    (record.attach_until, record.detach_until) = (None, None);
                }
            }
            Some(Broken::DoubtForgotten) => {
                changed.status.ledger.records.retain(|_, record| record.state != State::Unknown);
            }
            Some(Broken::PreconditionIgnored) | None => {}
        }
        self.put(name, changed);
        Written::Copy(Box::new(Object { version: self.version, ..answered }))
    }
}

/// The instances that a ledger says may be in, now or later.
pub fn tracked(ledger: &Ledger) -> impl Iterator<Item = &InstanceId> {
    let records =
        ledger.records.iter().filter(|(_, record)| record.may_be_attached()).map(|(id, _)| id);
    records.chain(ledger.journal.iter().flat_map(|journal| &journal.instances))
}

/// The session that a ledger is about.
pub fn session_of(ledger: &Ledger) -> Option<&SessionId> {
    ledger.target.as_ref().map(|target| &target.session)
}
