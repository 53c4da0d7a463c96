//! The longer sentences of the conditions.

use super::{ConditionInputs, Conditions, Open, Reason, names, reconciling, stalled};
use crate::ids::{InstanceId, SessionId};
use crate::ledger::Ledger;
use crate::ledger::desired::Desired;
use crate::ledger::record::{Failure, FailureReason, Record, Want};
use crate::object::ObjectKey;
use crate::ownership::claims::Ownership;
use crate::time::over;

/// From which session to which one the object moves; the region is named where nothing else tells
/// them apart.
pub(super) fn way(desired: &Desired, ledger: &Ledger) -> Option<(String, String)> {
    let target =
        ledger.target.as_ref().filter(|target| desired.moves_from(target) && !desired.deleting)?;
    let named = |session: &SessionId, region: &Option<String>| {
        let region = region.as_deref().unwrap_or("no region");
        if target.session == desired.session {
            format!("{session} in {region}")
        } else {
            session.to_string()
        }
    };
    Some((named(&target.session, &target.region), named(&desired.session, &desired.region)))
}

/// Another object names the session, and one of the two has to wait.
pub(super) fn conflict(
    inputs: &ConditionInputs<'_>,
    session: &SessionId,
    open: &Open<'_>,
) -> Option<Conditions> {
    match inputs.ownership {
        Ownership::Contender(owner) => {
            let part = if inputs.desired.deleting {
                "this one goes, and touches nothing that is the other's."
            } else {
                "this one attaches nothing, and takes over by itself when that one is deleted or names another session. Name all instances in one of them."
            };
            let message = format!(
                "Session {session} is driven by the StreamSession {owner}: {part}{}",
                stale_members(inputs, owner)
            );
            Some(stalled(Reason::SessionConflict, message))
        }
        Ownership::Owner(other) if inputs.held_back_assumed => Some(stalled(
            Reason::SessionConflict,
            format!(
                "The StreamSession {other} names session {session} too. Of {} it is not known who attached them, so they are not detached before {other} is deleted or names another session.",
                names(&open.held_back_assumed)
            ),
        )),
        Ownership::Uncontested | Ownership::Owner(_) => None,
    }
}

/// What an object that does not drive the session still has there and does not want.
fn stale_members(inputs: &ConditionInputs<'_>, owner: &ObjectKey) -> String {
    let members = inputs.desired.at(inputs.ledger.target.as_ref());
    let left = inputs
        .ledger
        .records
        .iter()
        .filter(|(id, record)| record.is_tracked() && members.want(id) == Want::Out);
    let left: Vec<&Record> = left.map(|(_, record)| record).collect();
    if left.is_empty() {
        return String::new();
    }
    let until = left
        .iter()
        .flat_map(|record| [record.attach_until, record.detach_until])
        .flatten()
        .filter(|until| !over(Some(*until), inputs.now))
        .max();
    let what = match until {
        Some(until) => format!("no earlier call for them can arrive any more ({until})"),
        None => format!("{owner} has them or does not want them"),
    };
    format!(" {} of its instances wait until {what}.", left.len())
}

/// As long as there are instances that nobody saw us attach.
pub(super) fn ledger_lost(open: &Open<'_>) -> Option<Conditions> {
    if open.assumed.is_empty() || open.nothing_but_stuck() {
        return None;
    }
    Some(reconciling(
        Reason::LedgerLost,
        format!(
            "In the record without evidence, since it was lost, is a copy, or was told of by the annotation adopt: {}. They are attached or detached anew, as the spec says; what was attached before and is not among them can't be known.",
            names(&open.assumed)
        ),
    ))
}

pub(super) fn failing(ids: &[(&InstanceId, &Failure)], first: &Failure) -> String {
    let code = first.code.as_str();
    let is_alike = |failure: &Failure| failure.reason == first.reason && failure.code == first.code;
    let alike: Vec<_> =
        ids.iter().filter(|(_, failure)| is_alike(failure)).map(|(id, _)| *id).collect();
    let names = names(&alike);
    let others = ids.len() - alike.len();
    let what = match first.reason {
        FailureReason::Refused if code.is_empty() => format!("The service refused {names}"),
        FailureReason::Refused | FailureReason::Unclear | FailureReason::SessionGone
            if !code.is_empty() =>
        {
            format!("The service answered {code} to the last call for {names}")
        }
        FailureReason::Refused | FailureReason::Unclear | FailureReason::SessionGone => {
            format!("The service did not say what became of {names}")
        }
        FailureReason::Unanswered if code.is_empty() => {
            format!("The last call for {names} was not answered")
        }
        FailureReason::Unanswered => format!(
            "The last call for {names} ended with {code}, and nobody knows whether it was done"
        ),
    };
    let more = if others > 0 { format!(", and {others} failed otherwise") } else { String::new() };
    format!("{what}{more}; the operator tries again.")
}

impl Open<'_> {
    pub(super) fn nothing_but_attaches(&self) -> bool {
        self.detach == 0 && self.waiting.is_none() && self.failing.is_empty()
    }
}

pub(super) fn work(open: &Open<'_>) -> String {
    let stuck: Vec<_> = open.stuck_outside.iter().chain(&open.stuck_inside).copied().collect();
    let refused = if stuck.is_empty() {
        String::new()
    } else {
        format!(" The service refuses {}.", names(&stuck))
    };
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

fn kept(session: &SessionId, open: &Open<'_>) -> String {
    format!(
        "The service refuses to detach {} from session {session}. Look in the console whether it is still there; let go of what is out with the annotation gs.tencentcloud.dev/forget-instances or with spec.detachFailurePolicy.",
        names(&open.stuck_inside)
    )
}

pub(super) fn refused(session: &SessionId, open: &Open<'_>) -> String {
    let mut said = Vec::new();
    if !open.stuck_outside.is_empty() {
        let code = open.stuck_code.map_or_else(String::new, |code| format!(" ({code})"));
        said.push(format!(
            "The service refuses to attach {}{code}. Check that each exists, belongs to this account and is in no other session, or take it out of spec.slaveInstanceIds.",
            names(&open.stuck_outside)
        ));
    }
    if !open.stuck_inside.is_empty() {
        said.push(kept(session, open));
    }
    said.push("It is tried again every few minutes.".to_owned());
    said.join(" ")
}

pub(super) fn full(session: &SessionId, open: &Open<'_>) -> String {
    let full = format!(
        "The ledger is full ({} instances): more are attached or adopted once others could be detached.",
        Ledger::RECORDS_MAX
    );
    if open.stuck_inside.is_empty() { full } else { format!("{full} {}", kept(session, open)) }
}
