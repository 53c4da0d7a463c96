//! What people are told: one pure function from what is known to the conditions (kstatus, design
//! 2).

mod messages;

use std::fmt::Write as _;

use crate::answer::{NothingDone, Verdict};
use crate::ids::InstanceId;
use crate::ledger::desired::{DeletionPolicy, Desired};
use crate::ledger::record::{Failure, FailureReason, Next, Record, Want};
use crate::ledger::{Ledger, Rules};
use crate::ownership::claims::Ownership;
use crate::time::ServiceTime;

/// Failed attempts after which an instance counts as stuck: it is still tried, slowly, but a person
/// should look.
pub const ATTEMPTS_BEFORE_STUCK: u32 = 5;
/// Our own words for a call that did not leave this machine.
const NEVER_SENT: [&str; 4] = ["ConnectFailed", "UnsendableRequest", "InvalidEndpoint", "NotReady"];
/// Ids that a message names; the rest is a count.
const IDS_NAMED_MAX: usize = 5;

/// Why `Ready` is what it is; closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation; docs/api lists them for users")]
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
    InvariantViolated,
    Deleting,
}

impl Reason {
    const ALL: [Self; 14] = [
        Self::UpToDate,
        Self::Progressing,
        Self::ProgressingWithRetry,
        Self::OutcomeUnknown,
        Self::InstancesRefused,
        Self::CredentialsNotFound,
        Self::CredentialsRejected,
        Self::SessionNotFound,
        Self::SessionConflict,
        Self::TargetMismatch,
        Self::LedgerLost,
        Self::TooManyInstances,
        Self::InvariantViolated,
        Self::Deleting,
    ];

    /// As it stands in the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::Progressing => "Progressing",
            Self::ProgressingWithRetry => "ProgressingWithRetry",
            Self::OutcomeUnknown => "OutcomeUnknown",
            Self::InstancesRefused => "InstancesRefused",
            Self::CredentialsNotFound => "CredentialsNotFound",
            Self::CredentialsRejected => "CredentialsRejected",
            Self::SessionNotFound => "SessionNotFound",
            Self::SessionConflict => "SessionConflict",
            Self::TargetMismatch => "TargetMismatch",
            Self::LedgerLost => "LedgerLost",
            Self::TooManyInstances => "TooManyInstances",
            Self::InvariantViolated => "InvariantViolated",
            Self::Deleting => "Deleting",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
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
                .filter(|record| record.state == crate::ledger::record::State::Attached)
                .count(),
            failed: ledger
                .records
                .iter()
                .filter(|(id, record)| record.failure(wanted(id)).is_some())
                .count(),
        }
    }
}

/// An outage is nobody's refusal, however long it lasts.
fn is_stuck(failure: &Failure) -> bool {
    failure.attempts >= ATTEMPTS_BEFORE_STUCK
        && matches!(failure.reason, FailureReason::Refused | FailureReason::Unclear)
}

#[derive(Default)]
struct Open<'a> {
    attach: usize,
    detach: usize,
    waiting: Option<(&'a InstanceId, Want, ServiceTime)>,
    failing: Vec<(&'a InstanceId, &'a Failure)>,
    stuck_outside: Vec<&'a InstanceId>,
    /// What the service answered for one of them, if it refused the whole call.
    stuck_code: Option<&'a str>,
    stuck_inside: Vec<&'a InstanceId>,
    leaving: Option<ServiceTime>,
    assumed: Vec<&'a InstanceId>,
    /// Those of them that are not wanted.
    held_back_assumed: Vec<&'a InstanceId>,
}

impl<'a> Open<'a> {
    fn of(
        desired: &'a Desired,
        ledger: &'a Ledger,
        now: Option<ServiceTime>,
        rules: &Rules,
    ) -> Self {
        let mut open = Self::default();
        let members = desired.at(ledger.target.as_ref());
        let mut wanted = members.in_order();
        for (id, record) in &ledger.records {
            let want = wanted(id);
            if record.assumed {
                open.assumed.push(id);
                open.held_back_assumed.extend((want == Want::Out).then_some(id));
            }
            open.leaving = open.leaving.max(record.detach_until);
            let failure = record.failure(want);
            match record.next(want, now) {
                Next::Wait(until) if open.waiting.is_none_or(|(_, _, latest)| latest < until) => {
                    open.waiting = Some((id, want, until))
                }
                Next::Done | Next::Wait(_) => {}
                Next::Send(_) if want == Want::Out && record.cannot_leave(now, rules.validity) => {
                    open.stuck_inside.push(id)
                }
                Next::Send(_) if want == Want::In && failure.is_some_and(is_stuck) => {
                    open.stuck_outside.push(id);
                    open.stuck_code = failure
                        .map(|failure| failure.code.as_str())
                        .filter(|code| !code.is_empty());
                }
                Next::Send(_) => match failure {
                    Some(failure) if failure.reason != FailureReason::SessionGone => {
                        open.failing.push((id, failure))
                    }
                    _ if want == Want::In => open.attach += 1,
                    _ => open.detach += 1,
                },
            }
        }
        open.attach += ledger.missing(members).count();
        open
    }

    fn nothing_but_stuck(&self) -> bool {
        self.attach == 0 && self.detach == 0 && self.waiting.is_none() && self.failing.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.nothing_but_stuck() && self.stuck_inside.is_empty() && self.stuck_outside.is_empty()
    }
}

/// At most five ids, then a count.
#[must_use]
pub fn names(ids: &[&InstanceId]) -> String {
    let mut text = String::new();
    for (position, id) in ids.iter().take(IDS_NAMED_MAX).enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{id}");
    }
    if ids.len() > IDS_NAMED_MAX {
        let _ = write!(text, " and {} more", ids.len() - IDS_NAMED_MAX);
    }
    text
}

const LET_GO: &str = "To let the object go and leave the instances where they are, set spec.deletionPolicy to Orphan";

fn stalled(reason: Reason, message: String) -> Conditions {
    Conditions { mode: Mode::Stalled, reason, message }
}

fn reconciling(reason: Reason, message: String) -> Conditions {
    Conditions { mode: Mode::Reconciling, reason, message }
}

/// What to say of an object whose ledger is lost, as long as it can't be made anew; `why` names the
/// evidence.
#[must_use]
pub fn ledger_unreadable(why: &str, problem: Option<&Problem>) -> Conditions {
    let held_back = match problem {
        Some(Problem::Credentials(text) | Problem::Unreachable(text)) => format!(" {text}"),
        None => String::new(),
    };
    reconciling(
        Reason::LedgerLost,
        format!("{why}. The record is made anew once the service has told its time.{held_back}"),
    )
}

/// What to say of an object on which the work has stopped, since a promise would have been broken.
#[must_use]
pub fn invariant_violated(violation: &dyn std::fmt::Display) -> Conditions {
    stalled(
        Reason::InvariantViolated,
        format!(
            "The work on this object has stopped, since going on would break a promise of the operator ({violation}). Please report it with the operator's log; an edit of the spec makes it try again. {LET_GO}."
        ),
    )
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
    /// Detaches of assumed instances wait because another object names the session.
    pub held_back_assumed: bool,
    /// How the object stands among those that name the session.
    pub ownership: &'a Ownership,
    /// The service's time.
    pub now: Option<ServiceTime>,
    /// The numbers.
    pub rules: &'a Rules,
}

/// What to say of an object.
#[must_use]
pub fn conditions(inputs: &ConditionInputs<'_>) -> Conditions {
    let ConditionInputs { desired, ledger, .. } = inputs;
    let open = Open::of(desired, ledger, inputs.now, inputs.rules);
    if open.is_empty()
        && ledger.journal.is_none()
        && !inputs.adoption_pending
        && !matches!(inputs.ownership, Ownership::Contender(_))
    {
        return at_rest(desired, ledger, &open);
    }
    let mut said = unfinished(inputs, &open);
    if let Some((_, next)) = messages::way(desired, ledger)
        && said.reason != Reason::Progressing
    {
        let _ = write!(said.message, " The move to session {next} waits for that.");
    }
    if desired.deleting
        && desired.deletion_policy == DeletionPolicy::Delete
        && said.mode == Mode::Stalled
    {
        let _ = write!(said.message, " {LET_GO}.");
    }
    said
}

fn at_rest(desired: &Desired, ledger: &Ledger, open: &Open<'_>) -> Conditions {
    if desired.deleting {
        let message = match open.leaving {
            Some(until) => {
                format!(
                    "All instances are detached; an earlier detach may still arrive until {until}, and the object waits for that."
                )
            }
            None => "All instances are detached.".to_owned(),
        };
        return reconciling(Reason::Deleting, message);
    }
    if let (Some((left, next)), Some(until)) = (messages::way(desired, ledger), open.leaving) {
        return reconciling(
            Reason::OutcomeUnknown,
            format!(
                "All instances are detached from session {left}; an earlier detach may still arrive until {until}, and the move to session {next} waits for that."
            ),
        );
    }
    let message = match desired.instances.len() {
        0 => "No slave instance is wanted, and none is attached.".to_owned(),
        1 => "The slave instance is attached.".to_owned(),
        count => format!("All {count} slave instances are attached."),
    };
    Conditions { mode: Mode::Ready, reason: Reason::UpToDate, message }
}

fn unfinished(inputs: &ConditionInputs<'_>, open: &Open<'_>) -> Conditions {
    let ConditionInputs { desired, ledger, rules, .. } = *inputs;
    match inputs.problem {
        Some(Problem::Credentials(text)) => {
            return stalled(Reason::CredentialsNotFound, text.clone());
        }
        // Who only waits for another object needs no service.
        Some(Problem::Unreachable(_)) if matches!(inputs.ownership, Ownership::Contender(_)) => {}
        Some(Problem::Unreachable(text)) => {
            return reconciling(Reason::ProgressingWithRetry, text.clone());
        }
        None => {}
    }
    let code = ledger.last_call.as_ref().map_or("", |call| call.code.as_str());
    let verdict = if code.is_empty() {
        None
    } else {
        Some(Verdict::of_code(code, &rules.session_gone_codes))
    };
    let session = ledger.target.as_ref().map_or(&desired.session, |target| &target.session);
    match verdict {
        Some(Verdict::NothingDone(NothingDone::Credentials)) => {
            return stalled(
                Reason::CredentialsRejected,
                format!(
                    "The service refuses the credentials with {code}. Check the key and its permissions; the operator tries again every minute, and at once after an edit of the spec."
                ),
            );
        }
        _ if matches!(inputs.ownership, Ownership::Contender(_)) => {}
        Some(Verdict::SessionGone) if ledger.records.values().any(Record::is_tracked) => {
            let known = ledger
                .target
                .as_ref()
                .and_then(|target| target.credential.as_deref())
                .filter(|known| !known.is_empty());
            let known = known.map_or_else(String::new, |known| format!(" ({known})"));
            return stalled(
                Reason::TargetMismatch,
                format!(
                    "The service says that session {session} does not exist ({code}), but to other credentials than those that attached the instances{known}, so this is not believed. Give the credentials back that were used before."
                ),
            );
        }
        Some(Verdict::SessionGone) => {
            return stalled(
                Reason::SessionNotFound,
                format!(
                    "The service says that session {session} does not exist ({code}): nothing is attached any more. Create the session again, or set spec.sessionId to the new one."
                ),
            );
        }
        _ => {}
    }
    if let Some(conflict) = messages::conflict(inputs, session, open) {
        return conflict;
    }
    if inputs.full && open.nothing_but_attaches() {
        return stalled(Reason::TooManyInstances, messages::full(session, open));
    }
    if inputs.adoption_pending && open.is_empty() {
        return reconciling(
            Reason::ProgressingWithRetry,
            "The instances that the annotation adopt names are taken into the record once the service has told its time.".into(),
        );
    }
    if let Some(lost) = messages::ledger_lost(open) {
        return lost;
    }
    if !open.is_empty() && open.nothing_but_stuck() {
        return stalled(Reason::InstancesRefused, messages::refused(session, open));
    }
    if let (0, 0, true, Some((id, want, until))) =
        (open.attach, open.detach, open.failing.is_empty(), open.waiting)
    {
        let (earlier, again) = match want {
            Want::In => ("detach", "attaches it again"),
            Want::Out => ("attach", "detaches it again"),
        };
        return reconciling(
            Reason::OutcomeUnknown,
            format!(
                "An earlier {earlier} of {id} may still take effect until {until}, since its answer or its record was lost; the operator {again} then."
            ),
        );
    }
    if let Some((_, first)) = open.failing.first() {
        return reconciling(Reason::ProgressingWithRetry, messages::failing(&open.failing, first));
    }
    if verdict.is_some() {
        return reconciling(
            Reason::ProgressingWithRetry,
            if NEVER_SENT.contains(&code) {
                format!(
                    "The last call could not be sent ({code}): look at the network between and at the operator's log. It is tried again. {}",
                    messages::work(open)
                )
            } else {
                format!(
                    "The service answered {code} to the last call; the operator tries again. {}",
                    messages::work(open)
                )
            },
        );
    }
    if let Some((left, next)) = messages::way(desired, ledger) {
        return reconciling(
            Reason::Progressing,
            format!("Moving from session {left} to {next}: {}", messages::work(open)),
        );
    }
    let reason = if desired.deleting { Reason::Deleting } else { Reason::Progressing };
    reconciling(reason, messages::work(open))
}
