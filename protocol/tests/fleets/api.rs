//! An API server in memory: objects with uid, resourceVersion, generation and finalizer, and the
//! log that watches read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use streamsession_protocol::claims::{Claim, Place, Stake};
use streamsession_protocol::conditions::{Conditions, Counts, Mode, Reason};
use streamsession_protocol::desired::{DeletionPolicy, Desired};
use streamsession_protocol::ids::{InstanceId, SessionId};
use streamsession_protocol::ledger::Ledger;
use streamsession_protocol::record::{Record, State};
use streamsession_protocol::step::{Asked, Found, Handled, Status, View};

use crate::queue;

/// The only endpoint.
pub const ENDPOINT: &str = "gs.tencentcloudapi.com";
const NAMESPACES: [&str; 4] = ["n0", "n1", "n2", "n3"];

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

impl queue::Key for Name {
    fn group(&self) -> &str {
        NAMESPACES[usize::from(self.namespace)]
    }
}

impl Name {
    /// The name that a text of [`Display`](fmt::Display) stands for.
    pub fn parse(text: &str) -> Self {
        let (namespace, number) = text.split_once('/').unwrap();
        Self { namespace: namespace[1..].parse().unwrap(), number: number[1..].parse().unwrap() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub session: SessionId,
    pub region: Option<String>,
    pub instances: BTreeSet<InstanceId>,
    pub policy: DeletionPolicy,
    pub forgets_failures: bool,
}

/// What stands in the status: of whom, and what.
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
        let found = match &self.status.owner {
            Some(owner) if *owner == self.uid => Found::Ours(self.status.ledger.clone()),
            Some(owner) => Found::Lost {
                why: format!("The status is that of {owner}"),
                remains: self.status.ledger.clone(),
            },
            None if self.finalizer => {
                Found::Lost { why: "Our finalizer, no record".into(), remains: Ledger::default() }
            }
            None => Found::New,
        };
        View {
            uid: self.uid.clone(),
            generation: self.generation,
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
            },
            asked: self.asked.clone(),
            status: Status {
                observed_generation: self.status.observed_generation,
                conditions: self.status.conditions.clone(),
                counts: self.status.counts,
                handled: self.status.handled.clone(),
                found,
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

    /// Ready, as a person who knows the generation reads it.
    pub fn is_ready(&self) -> bool {
        self.mode() == Some(Mode::Ready) && self.status.observed_generation == self.generation
    }

    fn converged(&self) -> bool {
        let asked = |request: &Option<streamsession_protocol::step::Request>| {
            request.as_ref().map(|request| request.value.clone())
        };
        let handled = asked(&self.asked.forget)
            .is_none_or(|value| self.status.handled.forget.as_ref() == Some(&value))
            && asked(&self.asked.adopt)
                .is_none_or(|value| self.status.handled.adopt.as_ref() == Some(&value));
        let settled = |ledger: &Ledger| {
            ledger.journal.is_none()
                && ledger.records.values().all(|record| *record == Record::attached())
                && ledger.records.keys().eq(self.spec.instances.iter())
                && (ledger.records.is_empty() || self.finalizer)
        };
        !self.deleting && handled && self.is_ready() && self.ledger().is_some_and(settled)
    }

    /// What the object claims (design 3.8): its spec's session and, until its ledger is empty, the
    /// one that the ledger is about.
    fn claim(&self) -> Claim {
        let ledger = &self.status.ledger;
        let target = ledger
            .target
            .as_ref()
            .filter(|_| !ledger.records.is_empty() || ledger.journal.is_some());
        let place =
            |session: &SessionId| Place { endpoint: ENDPOINT.into(), session: session.clone() };
        let holds = self.ledger().is_some_and(|ledger| {
            ledger.journal.is_some()
                || ledger.records.values().any(|record| record.holds() && !record.assumed)
        });
        let stirs = self.ledger().is_some_and(|ledger| {
            let in_doubt = |record: &Record| {
                !record.assumed && (record.attach_until.is_some() || record.detach_until.is_some())
            };
            ledger.journal.is_some() || ledger.records.values().any(in_doubt)
        });
        let here = target.is_some_and(|target| target.session == self.spec.session);
        let mut stakes = vec![Stake {
            place: place(&self.spec.session),
            holds: here && holds,
            stirs: here && stirs,
            leaving: self.deleting,
        }];
        if let Some(target) = target.filter(|_| !here) {
            stakes.push(Stake { place: place(&target.session), holds, stirs, leaving: true });
        }
        let credentials = matches!(
            self.reason(),
            Some(Reason::CredentialsNotFound | Reason::CredentialsRejected)
        );
        Claim {
            uid: self.uid.as_str().into(),
            created: self.created,
            hindered: credentials && self.mode() == Some(Mode::Stalled),
            stakes,
        }
    }

    pub fn digest(&self) -> Digest {
        Digest { version: self.version, converged: self.converged(), claim: self.claim() }
    }
}

/// What a watch hands on of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    pub version: u64,
    pub converged: bool,
    pub claim: Claim,
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
                if let Found::Ours(ledger) = status.found {
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
        let said = changed.clone();
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
        Written::Copy(Box::new(Object { version: self.version, ..said }))
    }
}

/// The instances that a ledger says may be in, now or later.
pub fn tracked(ledger: &Ledger) -> impl Iterator<Item = &InstanceId> {
    let records = ledger.records.iter().filter(|(_, record)| record.may_be_in()).map(|(id, _)| id);
    records.chain(ledger.journal.iter().flat_map(|journal| &journal.instances))
}

/// The session that a ledger is about.
pub fn session_of(ledger: &Ledger) -> Option<&SessionId> {
    ledger.target.as_ref().map(|target| &target.session)
}
