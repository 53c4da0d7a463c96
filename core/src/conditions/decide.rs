//! Which reason holds: the first that applies.

use crate::answer::CallResult;
use crate::conditions::messages;
use crate::conditions::open::Open;
use crate::conditions::types::{ConditionInputs, Conditions, Mode, Problem, Reason};
use crate::ledger::desired::DeletionPolicy;
use crate::ledger::record::Record;
use crate::ownership::claims::Ownership;

/// The conditions of an object.
///
/// ```
/// use streamsession_core::conditions::{ConditionInputs, Mode, conditions};
/// use streamsession_core::ledger::Rules;
/// use streamsession_core::ledger::record::Record;
/// use streamsession_core::ownership::claims::Ownership;
/// use streamsession_testkit::fixtures::{NOW, desired, ledger};
///
/// let told = conditions(&ConditionInputs {
///     desired: &desired("1", &["a", "b"]),
///     ledger: &ledger(&[("a", Record::attached())]),
///     problem: None,
///     full: false,
///     no_room_for: &[],
///     adoption_pending: false,
///     left_to_others: &[],
///     deletion_is_late: false,
///     ownership: &Ownership::Uncontested,
///     now: Some(NOW),
///     rules: &Rules::default(),
/// });
/// assert_eq!((told.mode, told.message.as_str()), (Mode::Reconciling, "1 to attach."));
/// ```
#[must_use]
pub fn conditions(inputs: &ConditionInputs<'_>) -> Conditions {
    let ConditionInputs { desired, ledger, .. } = inputs;
    let open = Open::of(inputs);
    let is_contender = matches!(inputs.ownership, Ownership::Contender(_));
    let is_done = open.is_empty() && !ledger.has_open_change() && !inputs.adoption_pending;
    // Who wants nothing gets that, whoever owns the session.
    let mut conditions = if is_done && (!is_contender || desired.wants_nothing()) {
        at_rest(inputs, &open)
    } else {
        unfinished(inputs, &open)
    };
    if let Some(move_) = messages::Move::of(desired, ledger)
        && !is_done
        && conditions.reason != Reason::Progressing
    {
        conditions.message += &messages::move_waits(&move_);
    }
    let waits = desired.deleting && desired.deletion_policy == DeletionPolicy::Delete;
    if waits && (conditions.mode == Mode::Stalled || inputs.deletion_is_late) {
        conditions.message += &messages::how_to_orphan();
    }
    conditions
}

fn at_rest(inputs: &ConditionInputs<'_>, open: &Open<'_>) -> Conditions {
    let ConditionInputs { desired, ledger, .. } = inputs;
    if desired.deleting {
        return Conditions::reconciling(Reason::Deleting, messages::deleted(open.detach_until));
    }
    if let (Some(move_), Some(until)) = (messages::Move::of(desired, ledger), open.detach_until) {
        return Conditions::reconciling(Reason::OutcomeUnknown, messages::left(&move_, until));
    }
    let message = messages::up_to_date(desired.instances.len());
    Conditions { mode: Mode::Ready, reason: Reason::UpToDate, message }
}

fn unfinished(inputs: &ConditionInputs<'_>, open: &Open<'_>) -> Conditions {
    let ConditionInputs { desired, ledger, .. } = *inputs;
    let is_contender = matches!(inputs.ownership, Ownership::Contender(_));
    match inputs.problem {
        Some(Problem::Credentials(text)) => {
            return Conditions::stalled(Reason::CredentialsNotFound, text.clone());
        }
        // Who only waits for another object needs no service.
        Some(Problem::Unreachable(text)) if !is_contender => {
            return Conditions::reconciling(Reason::ProgressingWithRetry, text.clone());
        }
        Some(Problem::Unreachable(_)) | None => {}
    }
    let last_call = ledger.last_call.as_ref();
    let failed_call = last_call.filter(|call| call.result != CallResult::Processed);
    let session = ledger.target.as_ref().map_or(&desired.session, |target| &target.session);
    if let Some(call) = failed_call {
        let tracks_something = ledger.records.values().any(Record::is_tracked);
        match call.result {
            CallResult::CredentialsRejected => {
                let message = messages::credentials_rejected(&call.code);
                return Conditions::stalled(Reason::CredentialsRejected, message);
            }
            CallResult::ActionUnavailable => {
                let message = messages::action_unavailable(&call.code, ledger);
                return Conditions::stalled(Reason::ActionUnavailable, message);
            }
            CallResult::SessionGone if !is_contender && tracks_something => {
                let message = messages::target_mismatch(session, &call.code, ledger);
                return Conditions::stalled(Reason::TargetMismatch, message);
            }
            CallResult::SessionGone if !is_contender => {
                let message = messages::session_not_found(session, &call.code);
                return Conditions::stalled(Reason::SessionNotFound, message);
            }
            _ => {}
        }
    }
    match inputs.ownership {
        Ownership::Contender(owner) => {
            let message = messages::contender(inputs, session, owner);
            return Conditions::stalled(Reason::SessionConflict, message);
        }
        Ownership::Owner(other) if !inputs.left_to_others.is_empty() => {
            let message = messages::left_to_others(session, other, inputs.left_to_others);
            return Conditions::reconciling(Reason::Progressing, message);
        }
        Ownership::Owner(_) | Ownership::Unresolved(_) | Ownership::Uncontested => {}
    }
    if inputs.full && open.is_nothing_but_attaches() {
        return Conditions::stalled(
            Reason::TooManyInstances,
            messages::full(session, open, inputs.no_room_for),
        );
    }
    if inputs.adoption_pending && open.is_empty() {
        let message = messages::adoption_pending();
        return Conditions::reconciling(Reason::ProgressingWithRetry, message);
    }
    if !open.assumed.is_empty() && !open.is_nothing_but_stuck() {
        return Conditions::reconciling(Reason::LedgerLost, messages::ledger_lost(&open.assumed));
    }
    if !open.is_empty() && open.is_nothing_but_stuck() {
        return Conditions::stalled(Reason::InstancesRefused, messages::refused(session, open));
    }
    if let (true, Some((id, want, until))) = (open.is_nothing_but_waiting(), open.waiting) {
        let message = messages::outcome_unknown(id, want, until);
        return Conditions::reconciling(Reason::OutcomeUnknown, message);
    }
    if let Some((_, first)) = open.failing.first() {
        let message = messages::failing(&open.failing, first);
        return Conditions::reconciling(Reason::ProgressingWithRetry, message);
    }
    if let Some(call) = failed_call {
        let message = messages::call_failed(call, open);
        return Conditions::reconciling(Reason::ProgressingWithRetry, message);
    }
    if let Some(move_) = messages::Move::of(desired, ledger) {
        return Conditions::reconciling(Reason::Progressing, messages::moving(&move_, open));
    }
    let reason = if desired.deleting { Reason::Deleting } else { Reason::Progressing };
    Conditions::reconciling(reason, messages::work(open))
}
