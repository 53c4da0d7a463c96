//! What is known of one instance.

use crate::answer::Operation;
use crate::time::{ServiceTime, Validity, over};

/// Refused detaches, over at least two signature validities, before a person is asked.
pub const REFUSALS_BEFORE_STUCK: u32 = 5;

/// What is known of an instance. An id without a record is `Detached`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The last word of the service was that it is in.
    Attached,
    /// The last word of the service was that it is out.
    Detached,
    /// Nobody knows.
    Unknown,
}

/// What the spec wants of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// In the session.
    In,
    /// Out of it: not named by the spec, or the object is being deleted.
    Out,
}

impl Want {
    /// The operation that brings it about.
    #[must_use]
    pub fn operation(self) -> Operation {
        match self {
            Self::In => Operation::Attach,
            Self::Out => Operation::Detach,
        }
    }
}

/// Quiet refusals of one operation. They count for nothing while the spec wants the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusals {
    /// What was refused.
    pub operation: Operation,
    /// How often in a row.
    pub count: u32,
    /// Since when.
    pub since: ServiceTime,
}

/// Why the last attempt did not bring about what the spec wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The service would not.
    Refused,
    /// The service answered an error that says nothing about the instance.
    Unclear,
    /// Nobody answered.
    Unanswered,
    /// The session does not exist any more.
    SessionGone,
}

/// The last failed attempt, for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// What was tried.
    pub operation: Operation,
    /// What came of it.
    pub reason: FailureReason,
    /// The service's code, if there was one.
    pub code: String,
    /// How often in a row.
    pub attempts: u32,
    /// When the call was signed.
    pub time: ServiceTime,
    /// The spec that asked for it: an edit is worth another try.
    pub generation: i64,
}

/// Failed attempts after which an instance counts as stuck: it is still tried, slowly, but a person
/// should look.
pub const ATTEMPTS_BEFORE_STUCK: u32 = 5;

impl Failure {
    /// Whether the service keeps refusing it. An outage is nobody's refusal, however long it lasts.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.attempts >= ATTEMPTS_BEFORE_STUCK
            && matches!(self.reason, FailureReason::Refused | FailureReason::Unclear)
    }
}

/// What the ledger holds about one instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// What is known.
    pub state: State,
    /// An earlier attach may still take effect until then.
    pub attach_until: Option<ServiceTime>,
    /// An earlier detach may still take effect until then.
    pub detach_until: Option<ServiceTime>,
    /// The count that the rule acts on.
    pub refusals: Option<Refusals>,
    /// The last failed attempt.
    pub last_failure: Option<Failure>,
    /// Nobody saw us attach it: the ledger was lost, or a person told us. A success
    /// ends that.
    pub assumed: bool,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            state: State::Detached,
            attach_until: None,
            detach_until: None,
            refusals: None,
            last_failure: None,
            assumed: false,
        }
    }
}

impl Record {
    /// A confirmed member about which nothing else is open.
    #[must_use]
    pub fn attached() -> Self {
        Self { state: State::Attached, ..Self::default() }
    }

    /// An instance that may be in because of a ledger that is lost; calls of its writer may still
    /// arrive until `until`.
    #[must_use]
    pub fn assumed(until: ServiceTime) -> Self {
        Self {
            state: State::Unknown,
            attach_until: Some(until),
            detach_until: Some(until),
            assumed: true,
            ..Self::default()
        }
    }

    /// A person, or the spec's policy, says that it is out, whatever the service says. A detach of
    /// ours may still hit who comes next.
    #[must_use]
    pub fn forgotten(self) -> Self {
        Self { detach_until: self.detach_until, ..Self::default() }
    }

    /// Another object owns the session: what the service last said to this one is worth nothing
    /// any more.
    #[must_use]
    pub fn invalidated(self) -> Self {
        let state = if self.state == State::Attached { State::Unknown } else { self.state };
        Self { state, ..self }
    }

    /// Whether the service may hold the instance because of us, or may yet do something to it
    /// because of us.
    #[must_use]
    pub fn is_tracked(&self) -> bool {
        self.state != State::Detached || self.is_in_doubt()
    }

    /// Whether a call for the instance may still take effect.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.attach_until.is_some() || self.detach_until.is_some()
    }

    /// Whether the service may hold the instance, now or later, because of us.
    #[must_use]
    pub fn may_be_attached(&self) -> bool {
        self.state != State::Detached || self.attach_until.is_some()
    }

    /// Whether the record says nothing more than no record would.
    #[must_use]
    pub fn is_void(&self, want: Want) -> bool {
        !self.is_tracked()
            && (want == Want::Out || (self.refusals.is_none() && self.last_failure.is_none()))
    }

    /// The last failure of what the spec wants now.
    #[must_use]
    pub fn failure(&self, want: Want) -> Option<&Failure> {
        self.last_failure.as_ref().filter(|failure| failure.operation == want.operation())
    }

    /// Whether a detach of ours may have taken it out since an attach of it was tried last, though
    /// it is wanted: to know where it stands, or before an edit. It goes back with the next call.
    #[must_use]
    pub fn is_out_by_our_hand(
        &self,
        want: Want,
        now: Option<ServiceTime>,
        validity: Validity,
    ) -> bool {
        let tried = self
            .failure(want)
            .filter(|failure| want == Want::In && failure.reason != FailureReason::SessionGone);
        tried.is_some_and(|failure| {
            let is_found_out = self.state == State::Detached
                && self.refusals.is_none()
                && over(self.detach_until, now);
            let tried_until = validity.end(failure.time);
            is_found_out || self.detach_until.is_some_and(|until| tried_until < until)
        })
    }

    /// When the service has refused to let the instance go for long enough to ask a person; none if
    /// it was not refused often enough yet.
    #[must_use]
    pub fn stuck_at(&self, validity: Validity) -> Option<ServiceTime> {
        let refusals = self.refusals.filter(|refusals| {
            refusals.operation == Operation::Detach && refusals.count >= REFUSALS_BEFORE_STUCK
        })?;
        Some(refusals.since.plus(validity.signature_seconds.saturating_mul(2)))
    }

    /// Whether a person has to act: the service keeps refusing to let the instance go, and no
    /// attach of ours can be the reason.
    #[must_use]
    pub fn cannot_leave(&self, now: Option<ServiceTime>, validity: Validity) -> bool {
        let stuck = self.stuck_at(validity);
        stuck.is_some_and(|at| now.is_some_and(|now| at <= now)) && over(self.attach_until, now)
    }

    /// The next of its deadlines, if any is still to come: something may change then.
    #[must_use]
    pub fn next_deadline(&self, now: Option<ServiceTime>) -> Option<ServiceTime> {
        let deadlines = self.attach_until.into_iter().chain(self.detach_until);
        deadlines.filter(|until| !over(Some(*until), now)).min()
    }

    /// Until when the other operation may still take effect.
    pub(super) fn opposite(&self, operation: Operation) -> Option<ServiceTime> {
        match operation {
            Operation::Attach => self.detach_until,
            Operation::Detach => self.attach_until,
        }
    }

    pub(super) fn opposite_mut(&mut self, operation: Operation) -> &mut Option<ServiceTime> {
        match operation {
            Operation::Attach => &mut self.detach_until,
            Operation::Detach => &mut self.attach_until,
        }
    }

    /// Until when the operation itself may still take effect.
    pub(super) fn own_mut(&mut self, operation: Operation) -> &mut Option<ServiceTime> {
        match operation {
            Operation::Attach => &mut self.attach_until,
            Operation::Detach => &mut self.detach_until,
        }
    }
}
