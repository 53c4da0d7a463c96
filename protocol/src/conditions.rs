//! What people are told: one pure function from what is known to the conditions (kstatus, design 2).

use std::fmt::Write as _;

use crate::answer::{NothingDone, Verdict};
use crate::ids::InstanceId;
use crate::ledger::{DeletionPolicy, Desired, Ledger, Rules};
use crate::record::{Failure, FailureReason, Next, Want};
use crate::time::ServiceTime;

/// Failed attempts after which an instance counts as stuck: it is still tried, slowly, but a person should look.
pub const ATTEMPTS_BEFORE_STUCK: u32 = 5;
/// Our own words for a call that did not leave this machine.
const NEVER_SENT: [&str; 4] = ["ConnectFailed", "UnsendableRequest", "InvalidEndpoint", "NotReady"];
/// Ids that a message names; the rest is a count.
const IDS_NAMED_MAX: usize = 5;

/// Why `Ready` is what it is; closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    TargetMismatch,
    LedgerLost,
    TooManyInstances,
    Deleting,
}

impl Reason {
    const ALL: [Self; 12] = [
        Self::UpToDate,
        Self::Progressing,
        Self::ProgressingWithRetry,
        Self::OutcomeUnknown,
        Self::InstancesRefused,
        Self::CredentialsNotFound,
        Self::CredentialsRejected,
        Self::SessionNotFound,
        Self::TargetMismatch,
        Self::LedgerLost,
        Self::TooManyInstances,
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
            Self::TargetMismatch => "TargetMismatch",
            Self::LedgerLost => "LedgerLost",
            Self::TooManyInstances => "TooManyInstances",
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `Ready` is True.
    Ready,
    /// `Ready` is False and `Reconciling` True: the operator works, or will soon.
    Reconciling,
    /// `Ready` is False and `Stalled` True: a person has to act.
    Stalled,
}

/// The conditions; all of them share reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Which hold.
    pub mode: Mode,
    /// Why.
    pub reason: Reason,
    /// What is wrong, for whom, what to do.
    pub message: String,
}

/// What keeps the operator from making any call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No credentials; the text says which were looked for, and what to do.
    Credentials(String),
    /// The service can't be reached; the text says where and why.
    Unreachable(String),
}

/// How many instances are as wanted, and how many were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        Self {
            desired: desired.instances.len(),
            attached: ledger.records.values().filter(|record| record.state == crate::record::State::Attached).count(),
            failed: ledger.records.iter().filter(|(id, record)| record.failure(desired.want(id)).is_some()).count(),
        }
    }
}

/// An outage is nobody's refusal, however long it lasts.
fn is_stuck(failure: &Failure) -> bool {
    failure.attempts >= ATTEMPTS_BEFORE_STUCK && matches!(failure.reason, FailureReason::Refused | FailureReason::Unclear)
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
}

impl<'a> Open<'a> {
    fn of(desired: &'a Desired, ledger: &'a Ledger, now: ServiceTime, rules: &Rules) -> Self {
        let mut open = Self::default();
        for (id, record) in &ledger.records {
            let want = desired.want(id);
            open.leaving = open.leaving.max(record.detach_until);
            let failure = record.failure(want);
            match record.next(want, now) {
                Next::Wait(until) if open.waiting.is_none_or(|(_, _, latest)| latest < until) => open.waiting = Some((id, want, until)),
                Next::Done | Next::Wait(_) => {}
                Next::Send(_) if want == Want::Out && record.cannot_leave(now, rules.validity) => open.stuck_inside.push(id),
                Next::Send(_) if want == Want::In && failure.is_some_and(is_stuck) => {
                    open.stuck_outside.push(id);
                    open.stuck_code = failure.map(|failure| failure.code.as_str()).filter(|code| !code.is_empty());
                }
                Next::Send(_) => match failure {
                    Some(failure) if failure.reason != FailureReason::SessionGone => open.failing.push((id, failure)),
                    _ if want == Want::In => open.attach += 1,
                    _ => open.detach += 1,
                },
            }
        }
        if !desired.deleting {
            open.attach += desired.instances.iter().filter(|id| !ledger.records.contains_key(*id)).count();
        }
        open
    }

    fn nothing_but_stuck(&self) -> bool {
        self.attach == 0 && self.detach == 0 && self.waiting.is_none() && self.failing.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.nothing_but_stuck() && self.stuck_inside.is_empty() && self.stuck_outside.is_empty()
    }
}

/// At most [`IDS_NAMED_MAX`] ids, then a count.
fn names(ids: &[&InstanceId]) -> String {
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

/// What to say of an object whose ledger is lost; `why` names the evidence.
#[must_use]
pub fn ledger_lost(why: &str, deleting: bool) -> Conditions {
    let way_out = if deleting { format!(" {LET_GO}.") } else { String::new() };
    stalled(
        Reason::LedgerLost,
        format!("{why}: which instances this object has attached can't be known, so nothing is attached or detached.{way_out}"),
    )
}

/// What to say of an object. `full`: attaches wait because the ledger has no room.
#[must_use]
pub fn conditions(
    desired: &Desired,
    ledger: &Ledger,
    problem: Option<&Problem>,
    full: bool,
    now: ServiceTime,
    rules: &Rules,
) -> Conditions {
    let open = Open::of(desired, ledger, now, rules);
    if open.is_empty() && ledger.journal.is_none() {
        return at_rest(desired, &open);
    }
    let mut said = unfinished(desired, ledger, problem, full, &open, rules);
    if desired.deleting && desired.deletion_policy == DeletionPolicy::Delete && said.mode == Mode::Stalled {
        let _ = write!(said.message, " {LET_GO}.");
    }
    said
}

fn at_rest(desired: &Desired, open: &Open<'_>) -> Conditions {
    if desired.deleting {
        let message = match open.leaving {
            Some(until) => {
                format!("All instances are detached; an earlier detach may still arrive until {until}, and the object waits for that.")
            }
            None => "All instances are detached.".to_owned(),
        };
        return reconciling(Reason::Deleting, message);
    }
    let message = match desired.instances.len() {
        0 => "No slave instance is wanted, and none is attached.".to_owned(),
        1 => "The slave instance is attached.".to_owned(),
        count => format!("All {count} slave instances are attached."),
    };
    Conditions { mode: Mode::Ready, reason: Reason::UpToDate, message }
}

fn unfinished(desired: &Desired, ledger: &Ledger, problem: Option<&Problem>, full: bool, open: &Open<'_>, rules: &Rules) -> Conditions {
    match problem {
        Some(Problem::Credentials(text)) => return stalled(Reason::CredentialsNotFound, text.clone()),
        Some(Problem::Unreachable(text)) => return reconciling(Reason::ProgressingWithRetry, text.clone()),
        None => {}
    }
    let code = ledger.last_call.as_ref().map_or("", |call| call.code.as_str());
    let verdict = if code.is_empty() { None } else { Some(Verdict::of_code(code, &rules.session_gone_codes)) };
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
        Some(Verdict::SessionGone) if ledger.records.values().any(crate::record::Record::holds) => {
            return stalled(
                Reason::TargetMismatch,
                format!(
                    "The service says that session {session} does not exist ({code}), but to other credentials than those that attached the instances, so this is not believed. Give the credentials back that were used before."
                ),
            );
        }
        Some(Verdict::SessionGone) => {
            return stalled(
                Reason::SessionNotFound,
                format!(
                    "The service says that session {session} does not exist ({code}): nothing is attached any more. Create the session again, or delete this object and declare the new session."
                ),
            );
        }
        _ => {}
    }
    if full && open.nothing_but_attaches() {
        return stalled(
            Reason::TooManyInstances,
            format!("The ledger is full ({} instances): more are attached once others could be detached.", Ledger::RECORDS_MAX),
        );
    }
    if !open.is_empty() && open.nothing_but_stuck() {
        return stalled(Reason::InstancesRefused, refused(open));
    }
    if let (0, 0, true, Some((id, want, until))) = (open.attach, open.detach, open.failing.is_empty(), open.waiting) {
        let (earlier, again) = match want {
            Want::In => ("detach", "attaches it again"),
            Want::Out => ("attach", "detaches it again"),
        };
        return reconciling(
            Reason::OutcomeUnknown,
            format!("An earlier {earlier} of {id} was not answered and may still take effect until {until}; the operator {again} then."),
        );
    }
    if let Some((_, first)) = open.failing.first() {
        return reconciling(Reason::ProgressingWithRetry, failing(&open.failing, first));
    }
    if verdict.is_some() {
        return reconciling(
            Reason::ProgressingWithRetry,
            if NEVER_SENT.contains(&code) {
                format!(
                    "The last call could not be sent ({code}): look at the network between and at the operator's log. It is tried again. {}",
                    work(open)
                )
            } else {
                format!("The service answered {code} to the last call; the operator tries again. {}", work(open))
            },
        );
    }
    let reason = if desired.deleting { Reason::Deleting } else { Reason::Progressing };
    reconciling(reason, work(open))
}

fn failing(ids: &[(&InstanceId, &Failure)], first: &Failure) -> String {
    let code = first.code.as_str();
    let is_alike = |failure: &Failure| failure.reason == first.reason && failure.code == first.code;
    let alike: Vec<_> = ids.iter().filter(|(_, failure)| is_alike(failure)).map(|(id, _)| *id).collect();
    let names = names(&alike);
    let others = ids.len() - alike.len();
    let what = match first.reason {
        FailureReason::Refused if code.is_empty() => format!("The service refused {names}"),
        FailureReason::Refused | FailureReason::Unclear | FailureReason::SessionGone if !code.is_empty() => {
            format!("The service answered {code} to the last call for {names}")
        }
        FailureReason::Refused | FailureReason::Unclear | FailureReason::SessionGone => {
            format!("The service did not say what became of {names}")
        }
        FailureReason::Unanswered if code.is_empty() => format!("The last call for {names} was not answered"),
        FailureReason::Unanswered => format!("The last call for {names} ended with {code}, and nobody knows whether it was done"),
    };
    let more = if others > 0 { format!(", and {others} failed otherwise") } else { String::new() };
    format!("{what}{more}; the operator tries again.")
}

impl Open<'_> {
    fn nothing_but_attaches(&self) -> bool {
        self.detach == 0 && self.waiting.is_none() && self.failing.is_empty()
    }
}

fn work(open: &Open<'_>) -> String {
    let stuck: Vec<_> = open.stuck_outside.iter().chain(&open.stuck_inside).copied().collect();
    let refused = if stuck.is_empty() { String::new() } else { format!(" The service refuses {}.", names(&stuck)) };
    work_at_hand(open) + &refused
}

fn work_at_hand(open: &Open<'_>) -> String {
    match (open.attach, open.detach) {
        (0, 0) => "Waiting for the answer to the last call.".to_owned(),
        (attach, 0) => format!("{attach} to attach."),
        (0, detach) => format!("{detach} to detach."),
        (attach, detach) => format!("{attach} to attach, {detach} to detach."),
    }
}

fn refused(open: &Open<'_>) -> String {
    let mut message = String::new();
    if !open.stuck_outside.is_empty() {
        let _ = write!(
            message,
            "The service refuses to attach {}{}. Check that each exists, belongs to this account and is in no other session, or take it out of spec.slaveInstanceIds.",
            names(&open.stuck_outside),
            open.stuck_code.map_or_else(String::new, |code| format!(" ({code})"))
        );
    }
    if !open.stuck_inside.is_empty() {
        let separator = if message.is_empty() { "" } else { " " };
        let _ = write!(
            message,
            "{separator}The service refuses to detach {}. Look in the console whether it is still in the session.",
            names(&open.stuck_inside)
        );
    }
    message.push_str(" It is tried again every few minutes.");
    message
}
