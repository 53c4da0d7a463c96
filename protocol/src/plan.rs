//! What is due: the difference between what the spec wants and what the ledger holds.

use std::collections::BTreeSet;

use crate::answer::Operation;
use crate::ids::InstanceId;
use crate::ledger::{Desired, Ledger};
use crate::record::{Next, Record, Want};
use crate::time::ServiceTime;

/// How much a call matters against those of other objects; the order is that of their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A removal: somebody may wait for the phone.
    Detach,
    /// A first attempt to attach: somebody watches.
    Attach,
    /// Another attempt.
    Retry,
}

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// What it does.
    pub operation: Operation,
    /// To whom; sorted.
    pub instances: Vec<InstanceId>,
    /// How urgent it is.
    pub urgency: Urgency,
}

/// What may be called now; the backoff of the object decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Due {
    /// Instances that were not tried yet, or whose last call was a success.
    pub fresh: bool,
    /// Instances whose last call failed.
    pub failed: bool,
}

impl Due {
    /// Everything.
    pub const ALL: Self = Self { fresh: true, failed: true };
}

/// What may be called at all; how the object stands among those that name the session decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// Anything.
    All,
    /// No detach of an assumed instance: another object names the session too, and may have attached it.
    NoGuesses,
    /// Detaches of these, and nothing else: another object drives the session.
    Only(&'a BTreeSet<InstanceId>),
}

impl Allowed<'_> {
    /// Whether this may be called.
    #[must_use]
    pub fn allows(self, id: &InstanceId, record: Option<&Record>, operation: Operation) -> bool {
        match (self, operation) {
            (Self::All, _) | (Self::NoGuesses, Operation::Attach) => true,
            (Self::NoGuesses, Operation::Detach) => record.is_some_and(|record| !record.assumed),
            (Self::Only(ids), Operation::Detach) => ids.contains(id),
            (Self::Only(_), Operation::Attach) => false,
        }
    }
}

/// What is due for an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The next call, if one is due.
    pub batch: Option<Batch>,
    /// Whether a call is held back by the backoff alone.
    pub held_back: Held,
    /// Whether attaches are held back because the ledger is full.
    pub full: bool,
    /// Whether detaches of assumed instances are held back because another object names the session.
    pub guesses: bool,
    /// When a deadline passes, and something may change without anybody's doing.
    pub wake: Option<ServiceTime>,
}

/// What the backoff holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// Some instance that was not tried yet.
    pub fresh: bool,
    /// Some instance whose last call failed.
    pub failed: bool,
}

impl Ledger {
    /// The next call, of at most `batch_size_max` ids. Removals go before additions: a phone that moves between two sessions must be free first. Fresh ids go before failed ones.
    #[must_use]
    pub fn plan(&self, desired: &Desired, now: ServiceTime, due: Due, batch_size_max: usize, allowed: Allowed<'_>) -> Plan {
        let wish = desired.at(self.target.as_ref());
        let mut plan = Plan { wake: self.records.values().filter_map(|record| record.next_deadline(now)).min(), ..Plan::default() };
        let mut detach = Vec::new();
        let mut only_again = true;
        let mut attach = Vec::new();
        let mut attach_again = Vec::new();
        let mut room = Self::RECORDS_MAX.saturating_sub(self.records.len());

        let mut wanted = wish.in_order();
        let known = self.records.iter().map(|(id, record)| (id, Some(record), wanted(id)));
        for (id, record, want) in known.chain(self.missing(wish).map(|id| (id, None, Want::In))) {
            let next = record.map_or(Next::Send(Operation::Attach), |record| record.next(want, now));
            let Next::Send(operation) = next else { continue };
            if !allowed.allows(id, record, operation) {
                plan.guesses |= allowed == Allowed::NoGuesses;
                continue;
            }
            let failed = record.is_some_and(|record| record.failure(want).is_some());
            if !(if failed { due.failed } else { due.fresh }) {
                plan.held_back.failed |= failed;
                plan.held_back.fresh |= !failed;
                continue;
            }
            if record.is_none() {
                if room == 0 {
                    plan.full = true;
                    continue;
                }
                room -= 1;
            }
            match operation {
                Operation::Detach => {
                    only_again &= failed;
                    detach.push(id);
                }
                Operation::Attach if failed => attach_again.push(id),
                Operation::Attach => attach.push(id),
            }
        }

        let (operation, urgency, ids) = match (detach.is_empty(), attach.is_empty()) {
            (false, _) if only_again => (Operation::Detach, Urgency::Retry, detach),
            (false, _) => (Operation::Detach, Urgency::Detach, detach),
            (true, false) => (Operation::Attach, Urgency::Attach, attach),
            (true, true) => (Operation::Attach, Urgency::Retry, attach_again),
        };
        if !ids.is_empty() {
            let mut instances: Vec<_> = ids.into_iter().take(batch_size_max.max(1)).cloned().collect();
            instances.sort();
            plan.batch = Some(Batch { operation, instances, urgency });
        }
        plan
    }
}
