//! The ledger: what the service may hold because of one object. It is the only memory there is; the
//! service can't be asked.
//!
//! ```text
//!  settle ──▶ rule ──▶ record      an outcome changes a record
//!  plan ────▶ rule, due            what is due, and when what has failed is
//!  resync ──▶ plan                 what is attached is attached again
//!  recovery                        a ledger that was lost; what a person says of instances
//!  desired                         what the spec wants, and of which session
//! ```

pub mod desired;
pub mod due;
pub mod plan;
pub mod record;
pub mod recovery;
pub mod resync;
pub mod rule;
pub mod settle;

use std::collections::BTreeMap;

use crate::answer::{CallResult, Operation};
use crate::identity::Identity;
use crate::ids::{InstanceId, JournalId};
use crate::ledger::desired::{Desired, DesiredMembers, Target};
use crate::ledger::record::Record;
use crate::time::{ServiceTime, Validity};

/// A call that is about to be made, written before it is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Journal {
    /// Random.
    pub id: JournalId,
    /// What the call does.
    pub operation: Operation,
    /// To whom; sorted.
    pub instances: Vec<InstanceId>,
    /// The time that the request is signed with: so the journal alone says until when it can take
    /// effect.
    pub start_time: ServiceTime,
    /// It attaches again what is attached: only a success, or that the session is gone, says
    /// anything.
    pub resync: bool,
}

/// The last call that came to an end, for people and for the conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LastCall {
    /// What it did.
    pub operation: Operation,
    /// The service's id of the request.
    pub request_id: String,
    /// When it was signed.
    pub time: ServiceTime,
    /// How many ids it named that are now as wanted.
    pub succeeded: usize,
    /// How many it named that are not.
    pub failed: usize,
    /// What came of the call as a whole.
    pub result: CallResult,
    /// The error code of the call as a whole; empty if it was processed.
    pub code: String,
}

/// The numbers that the protocol depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// How long a request can take effect.
    pub validity: Validity,
    /// Ids in a call, at most. The service's own limit is published nowhere; 100 is that of its
    /// siblings.
    pub batch_size_max: usize,
    /// Codes that mean that the session is gone, besides the documented one.
    pub session_gone_codes: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { validity: Validity::default(), batch_size_max: 100, session_gone_codes: Vec::new() }
    }
}

/// Everything that the service may hold because of this object: attached ∪ unsettled ∪ pending
/// (I1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// What it is about; absent before the first journal, unless it was made anew or told of.
    pub target: Option<Target>,
    /// One record an instance. An id without one is detached, and nothing is open about it.
    pub records: BTreeMap<InstanceId, Record>,
    /// The call that is under way, or was when its writer died.
    pub journal: Option<Journal>,
    /// The last call that came to an end.
    pub last_call: Option<LastCall>,
}

impl Ledger {
    /// Records in a ledger, at most: what a status can hold. No attach is journalled that would
    /// make more.
    pub const RECORDS_MAX: usize = 2000;
    /// Characters of a code that are kept: a code is a name, and a settle must never fail for size.
    pub const CODE_LENGTH_MAX: usize = 64;
    /// Characters of a request id that are kept; the service's are 36.
    pub const REQUEST_ID_LENGTH_MAX: usize = 128;

    /// Instances that are wanted and of which nothing is known, in ascending order.
    pub fn missing<'a>(
        &'a self,
        members: DesiredMembers<'a>,
    ) -> impl Iterator<Item = &'a InstanceId> {
        let mut known = self.records.keys().peekable();
        members.instances().filter(move |id| {
            while known.next_if(|known| known < id).is_some() {}
            known.peek() != Some(id)
        })
    }

    /// Whether the service may hold anything because of this object.
    #[must_use]
    pub fn tracks_nothing(&self) -> bool {
        self.journal.is_none() && !self.records.values().any(Record::is_tracked)
    }

    /// What the service may hold because of this object; what is in the open call may come twice.
    pub fn tracked(&self) -> impl Iterator<Item = &InstanceId> {
        let records = self.records.iter().filter(|(_, record)| record.is_tracked());
        let in_call = self.journal.iter().flat_map(|journal| &journal.instances);
        records.map(|(id, _)| id).chain(in_call)
    }

    /// Whether a call is open that changes who is in: one that attaches again what is attached
    /// keeps nobody waiting.
    #[must_use]
    pub fn has_open_change(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| !journal.resync)
    }

    /// The session of the ledger, or that of a ledger that starts now.
    #[must_use]
    pub fn target_for(&self, desired: &Desired, identity: &Identity) -> Target {
        match &self.target {
            // A name that has never worked is nobody's once there is nothing to protect.
            Some(target)
                if self.records.values().any(Record::is_tracked)
                    || (target.credential_proven && Self::same_place(target, desired)) =>
            {
                target.clone().journalled_by(identity)
            }
            _ => desired.target(Some(identity)),
        }
    }

    fn same_place(target: &Target, desired: &Desired) -> bool {
        let region = desired.region.as_ref().or(desired.default_region.as_ref());
        target.session == desired.session
            && target.region.as_ref() == region
            && target.endpoint == desired.endpoint
    }

    /// The ledger without what can't matter any more at `now`. One that holds nothing of a session
    /// that the spec has left is about no session.
    #[must_use]
    pub fn tidied(mut self, desired: &Desired, now: Option<ServiceTime>) -> Self {
        let mut wanted = desired.at(self.target.as_ref()).in_order();
        self.records.retain(|id, record| {
            let want = wanted(id);
            record.tidy(want, now);
            !record.is_void(want)
        });
        if self.records.is_empty()
            && self.journal.is_none()
            && self.target.as_ref().is_some_and(|target| desired.moves_from(target))
        {
            return Self::default();
        }
        self
    }
}
