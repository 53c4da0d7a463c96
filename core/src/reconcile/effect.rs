//! What a reconcile and its driver say to each other: the effect that is due, the response to it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::answer::Answer;
use crate::identity::Identity;
use crate::ids::InstanceId;
use crate::ledger::Journal;
use crate::ledger::desired::Target;
use crate::ledger::plan::Priority;
use crate::object::ObjectKey;
use crate::ownership::claims::Ownership;
use crate::reconcile::invariants::Violation;
use crate::reconcile::view::{Status, View};
use crate::time::ServiceTime;

/// A call whose journal stands in the object. Only a reconcile makes one, and only from the copy
/// that the journal's write returned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Journalled {
    journal: Journal,
    target: Target,
}

impl Journalled {
    pub(super) fn new(journal: Journal, target: Target) -> Self {
        Self { journal, target }
    }

    /// What to call, and the time to sign with.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// What people are told besides the conditions, once the write has succeeded that it came with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The ledger was rebuilt from what can be known, and why.
    Rebuilt(String),
    /// Released though the service never said that they are out: by the policy or by a person's
    /// word.
    Forgotten(Vec<InstanceId>),
    /// Released to the object that owns the session.
    HandedOver(Vec<InstanceId>),
    /// Released without evidence that they ever were in.
    Unproven(Vec<InstanceId>),
    /// Left in a session that the object has left, since its deletion policy is Orphan.
    Orphaned(Vec<InstanceId>),
    /// A promise would have been broken: the work on the object stops.
    Violated(Violation),
}

impl Notice {
    /// The instances that it is about, if it is about some by name.
    #[must_use]
    pub fn instances(&self) -> &[InstanceId] {
        match self {
            Self::Forgotten(ids)
            | Self::HandedOver(ids)
            | Self::Unproven(ids)
            | Self::Orphaned(ids) => ids,
            Self::Rebuilt(_) | Self::Violated(_) => &[],
        }
    }
}

/// What the controller is to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read the object fresh: [`Response::Object`] or [`Response::Failed`].
    Read,
    /// Find the credentials: [`Response::Credentials`].
    Credentials,
    /// Ask the service for its time: [`Response::Time`].
    AskTime,
    /// Take a permit for a call of that priority if one is at hand; never wait:
    /// [`Response::Permit`].
    Permit(Priority),
    /// Read the object of that name, which claims the session too: [`Response::Claimant`].
    ReadClaimant(ObjectKey),
    /// Write the status, whole, if the object is still the copy that was read:
    /// [`Response::Object`], [`Response::Conflict`] or [`Response::Failed`]. The notices are for
    /// people, once it is written.
    WriteStatus(Box<Status>, Vec<Notice>),
    /// Put the finalizer on, likewise.
    AddFinalizer,
    /// Take the finalizer off, likewise.
    RemoveFinalizer,
    /// Make the call, with the permit: [`Response::Answer`].
    Call(Box<Journalled>),
    /// The reconcile is over.
    Done(Requeue),
}

/// When the object is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Requeue {
    /// Never: it is gone, or no business of ours.
    Never,
    /// When it changes.
    OnChange,
    /// After that time, or when it changes.
    After(Duration),
    /// When a permit is granted.
    OnPermit(Priority),
    /// When a permit for a resync is granted; or after that time, since something else is due then.
    OnResyncPermit(Option<Duration>),
}

/// Whether confirmed members are to be attached again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resync {
    /// Not now.
    #[default]
    NotDue,
    /// Those behind this one; without one, all.
    Due(Option<InstanceId>),
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing yet: the reconcile begins.
    Started,
    /// The object's copy, or that it does not exist. `None` after [`Effect::RemoveFinalizer`] too,
    /// if that was the last one.
    Object(Option<Box<View>>),
    /// The object is not the copy any more; nothing was written.
    Conflict,
    /// The API server did not answer, or not well: a write may have happened.
    Failed,
    /// Whose credentials they are, or why there are none.
    Credentials(Result<Identity, String>),
    /// Whether the service's time is known now, or why not.
    Time(Result<(), String>),
    /// For which priority there is a permit, if there is one.
    Permit(Option<Priority>),
    /// The service's answer.
    Answer(Answer),
    /// The object of that name, which claims the session too; none if it is gone, or could not be
    /// read.
    Claimant(ObjectKey, Option<Box<View>>),
}

/// What a step knows besides the response.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// The lower bound of the service's clock at the reconcile's endpoint; none if it is not known,
    /// or known too badly.
    pub service: Option<ServiceTime>,
    /// Monotonic time since the start of the process.
    pub elapsed: Duration,
    /// Random: the name of a journal that is written now.
    pub nonce: u128,
    /// Who owns the session of [`View::place`].
    pub ownership: Ownership,
    /// Who else claims that session, as far as this object believes.
    pub others: Vec<ObjectKey>,
    /// Instances that another object has detached since an attach of this one failed.
    pub freed: BTreeSet<InstanceId>,
    /// Whether confirmed members are to be attached again.
    pub resync: Resync,
    /// Another namespace claims a session of the object, too, and that is not believed: whose keys
    /// this object has is found out anew.
    pub must_identify: bool,
    /// Whether this process may still act. It saves calls; no promise rests on it.
    pub may_act: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::id;

    #[test]
    fn a_notice_names_whom_it_is_about() {
        let ids = vec![id("a")];
        for notice in [Notice::Forgotten, Notice::HandedOver, Notice::Unproven, Notice::Orphaned] {
            assert_eq!(notice(ids.clone()).instances(), ids);
        }
        assert!(Notice::Rebuilt("lost".into()).instances().is_empty());
    }
}
