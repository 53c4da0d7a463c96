//! The words of the conditions: modes, reasons, what they are made from.

use strum::{EnumString, IntoStaticStr};

use crate::ids::InstanceId;
use crate::ledger::desired::Desired;
use crate::ledger::record::State;
use crate::ledger::{Ledger, Rules};
use crate::ownership::claims::Ownership;
use crate::time::ServiceTime;

/// Why `Ready` is what it is; closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Reason {
    UpToDate,
    Progressing,
    ProgressingWithRetry,
    OutcomeUnknown,
    InstancesRefused,
    CredentialsNotFound,
    CredentialsRejected,
    SessionNotFound,
    SessionConflict,
    TargetMismatch,
    LedgerLost,
    TooManyInstances,
    ActionUnavailable,
    InvariantViolated,
    Deleting,
}

impl Reason {
    /// As it stands in the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The reason of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Which of the three conditions hold. `Ready` is always there; never both others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `Ready` is True.
    Ready,
    /// `Ready` is False and `Reconciling` True: the operator works, or will soon.
    Reconciling,
    /// `Ready` is False and `Stalled` True: a person has to act.
    Stalled,
}

/// The conditions; all of them share reason and message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// Which hold.
    pub mode: Mode,
    /// Why.
    pub reason: Reason,
    /// What is wrong, for whom, what to do.
    pub message: String,
}

/// What keeps the operator from making any call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// No credentials; the text says which were looked for, and what to do.
    Credentials(String),
    /// The service can't be reached; the text says where and why.
    Unreachable(String),
}

/// How many instances are as wanted, and how many were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Named by the spec.
    pub desired: usize,
    /// In the session, as far as the service said.
    pub attached: usize,
    /// The last call for it failed.
    pub failed: usize,
    /// Named by the ledger: if it names others, somebody has changed it.
    pub recorded: usize,
}

impl Counts {
    /// Counts the ledger.
    #[must_use]
    pub fn of(desired: &Desired, ledger: &Ledger) -> Self {
        let mut wanted = desired.at(ledger.target.as_ref()).in_order();
        Self {
            desired: desired.instances.len(),
            attached: ledger
                .records
                .values()
                .filter(|record| record.state == State::Attached)
                .count(),
            failed: ledger
                .records
                .iter()
                .filter(|(id, record)| record.failure(wanted(id)).is_some())
                .count(),
            recorded: ledger.records.len(),
        }
    }
}

/// All that the conditions speak of.
#[derive(Clone, Copy, Debug)]
pub struct ConditionInputs<'a> {
    /// What the object asks for.
    pub desired: &'a Desired,
    /// What is known.
    pub ledger: &'a Ledger,
    /// What keeps the operator from any call.
    pub problem: Option<&'a Problem>,
    /// Attaches, or instances that a person told of, wait because the ledger has no room.
    pub full: bool,
    /// Instances that a person told of are not in the ledger yet.
    pub adoption_pending: bool,
    /// These of them, since there is no room.
    pub no_room_for: &'a [InstanceId],
    /// Instances that wait until the ledger of another object does not say Attached of them.
    pub left_to_others: &'a [InstanceId],
    /// Its deletion has waited for longer than any doubt takes.
    pub deletion_is_late: bool,
    /// How the object stands among those that name the session.
    pub ownership: &'a Ownership,
    /// The service's time.
    pub now: Option<ServiceTime>,
    /// The numbers.
    pub rules: &'a Rules,
}

impl Conditions {
    /// The operator works, or will soon.
    pub(super) fn reconciling(reason: Reason, message: String) -> Self {
        Self { mode: Mode::Reconciling, reason, message }
    }

    /// A person has to act.
    pub(super) fn stalled(reason: Reason, message: String) -> Self {
        Self { mode: Mode::Stalled, reason, message }
    }
}
