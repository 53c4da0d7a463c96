//! The texts of the conditions: what is wrong, for which ids, what to do. Each is a few short main
//! clauses. What changes at every try (request ids, counters, times of tries) is left out: it would
//! make the object hot.

use std::fmt::{Display, Write as _};

use crate::answer::CallResult;
use crate::conditions::open::Open;
use crate::conditions::types::{ConditionInputs, Conditions, Problem, Reason};
use crate::ids::{InstanceId, SessionId};
use crate::ledger::desired::Desired;
use crate::ledger::record::{Failure, FailureReason, Record, Want};
use crate::ledger::{LastCall, Ledger};
use crate::object::ObjectKey;
use crate::time::{ServiceTime, over};

/// Ids that a message names; the rest is a count.
const IDS_NAMED_MAX: usize = 5;

/// What an access policy has to allow.
const CAM_ACTION: &str = "gs:SwitchCloudPhoneMultipleStreamSessionSlaves";

/// How to end a deletion that waits.
const HOW_TO_ORPHAN: &str = "To delete the object now and leave its instances attached, set \
                             spec.deletionPolicy to Orphan.";

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

/// The conditions of an object whose ledger is lost, as long as it can't be rebuilt; `why` names
/// the evidence, `deletion_is_late` says that its deletion has waited for long.
#[must_use]
pub fn ledger_unreadable(
    why: &str,
    problem: Option<&Problem>,
    deletion_is_late: bool,
) -> Conditions {
    let problem = match problem {
        Some(Problem::Credentials(text) | Problem::Unreachable(text)) => format!(" {text}"),
        None => String::new(),
    };
    let how_to_end = if deletion_is_late { how_to_orphan() } else { String::new() };
    let message = format!(
        "{why}. The ledger is rebuilt once the service has told its time.{problem}{how_to_end}"
    );
    Conditions::reconciling(Reason::LedgerLost, message)
}

/// The conditions of an object on which the work has stopped: the next step would break a promise.
#[must_use]
pub fn invariant_violated(violation: &dyn Display) -> Conditions {
    let message = format!(
        "The operator has stopped working on this object: the next step would break a promise \
         ({violation}). Report this with the operator's log. An edit of the spec makes it try \
         again. {HOW_TO_ORPHAN}"
    );
    Conditions::stalled(Reason::InvariantViolated, message)
}

/// The conditions of an object whose ledger is about another service than the one that is called.
#[must_use]
pub fn another_service(service: &str, desired: &Desired) -> Conditions {
    let how_to_end = if desired.deleting { how_to_orphan() } else { String::new() };
    let message = format!(
        "The instances were attached at the service {service}, and the operator calls {} \
         (--gs-endpoint). Nothing is sent. Let the operator call that service again.{how_to_end}",
        desired.endpoint
    );
    Conditions::stalled(Reason::TargetMismatch, message)
}

/// From which session to which one an object moves; the region is named where nothing else tells
/// them apart.
pub(super) struct Move {
    from: String,
    to: String,
}

impl Move {
    /// None if the object stays, or is deleted.
    pub(super) fn of(desired: &Desired, ledger: &Ledger) -> Option<Self> {
        let target = ledger.target.as_ref().filter(|target| desired.moves_from(target))?;
        let named = |session: &SessionId, region: &Option<String>| {
            let region = region.as_deref().unwrap_or("no region");
            if target.session == desired.session {
                format!("{session} in {region}")
            } else {
                session.to_string()
            }
        };
        let from = named(&target.session, &target.region);
        let to = named(&desired.session, &desired.region);
        (!desired.deleting).then_some(Self { from, to })
    }
}

pub(super) fn move_waits(Move { to, .. }: &Move) -> String {
    format!(" The move to session {to} waits for that.")
}

/// Whether users are told already how to end the deletion.
pub(crate) fn says_how_to_orphan(conditions: &Conditions) -> bool {
    conditions.message.ends_with(HOW_TO_ORPHAN)
}

pub(super) fn how_to_orphan() -> String {
    format!(" {HOW_TO_ORPHAN}")
}

pub(super) fn deleted(detach_until: Option<ServiceTime>) -> String {
    match detach_until {
        Some(until) => format!(
            "All instances are detached. An earlier detach may still take effect until {until}; \
             the object waits for that."
        ),
        None => "All instances are detached.".to_owned(),
    }
}

pub(super) fn left(Move { from, to }: &Move, until: ServiceTime) -> String {
    format!(
        "All instances are detached from session {from}. An earlier detach may still take effect \
         until {until}; the move to session {to} waits for that."
    )
}

pub(super) fn up_to_date(instances: usize) -> String {
    match instances {
        0 => "No slave instance is wanted, and none is attached.".to_owned(),
        1 => "The slave instance is attached.".to_owned(),
        count => format!("All {count} slave instances are attached."),
    }
}

pub(super) fn credentials_rejected(code: &str) -> String {
    let what = if code.starts_with("UnauthorizedOperation") {
        format!(
            "The credentials may not make the call ({code}). Allow them the CAM action {CAM_ACTION}."
        )
    } else {
        format!("The service rejects the credentials ({code}). Check the key.")
    };
    format!("{what} The operator tries again every minute, and at once after an edit of the spec.")
}

pub(super) fn action_unavailable(code: &str, ledger: &Ledger) -> String {
    let region = ledger.target.as_ref().and_then(|target| target.region.as_deref());
    let region = region.map_or_else(String::new, |region| format!(" in region {region}"));
    let what = match code {
        "IpInBlacklist" | "IpNotInWhitelist" => {
            format!("The service refuses calls from the operator's address ({code}).")
        }
        _ => format!("The service does not offer the call to this account{region} ({code})."),
    };
    let then = match code {
        "IpInBlacklist" | "IpNotInWhitelist" => "Let the address in.",
        "UnsupportedRegion" => "Set spec.region, or the operator's --region.",
        _ => "Ask Tencent Cloud for it, or check spec.region and the operator's --gs-endpoint.",
    };
    format!(
        "{what} Nothing was done. {then} The operator tries again every few minutes, and at once \
         after an edit of the spec."
    )
}

pub(super) fn target_mismatch(session: &SessionId, code: &str, ledger: &Ledger) -> String {
    let target = ledger.target.as_ref();
    let known = target.and_then(|target| target.credential.as_deref());
    let account = target.and_then(|target| target.account.as_deref());
    let account = account.map_or_else(String::new, |account| format!(" of account {account}"));
    let known = known.filter(|known| !known.is_empty());
    let known = known.map_or_else(String::new, |known| format!(" ({known}{account})"));
    format!(
        "The service says that session {session} does not exist ({code}). The operator does not \
         believe it: the instances were attached with other credentials{known}, and nobody says \
         that these are of the same account. Restore those credentials, or give others of that \
         account."
    )
}

pub(super) fn session_not_found(session: &SessionId, code: &str) -> String {
    format!(
        "The service says that session {session} does not exist ({code}). Nothing is attached any \
         more. Create the session again, or set spec.sessionId to a new one."
    )
}

/// [`Reason::SessionConflict`]: another object owns the session.
pub(super) fn contender(
    inputs: &ConditionInputs<'_>,
    session: &SessionId,
    owner: &ObjectKey,
) -> String {
    let here = if inputs.desired.deleting {
        "This object is being deleted, and leaves alone what the owner has.".to_owned()
    } else {
        format!(
            "This object attaches nothing. It takes over when {owner} is deleted or names another \
             session. List all instances in one of the two."
        )
    };
    let stale = stale_members(inputs, owner);
    format!("StreamSession {owner} owns session {session}. {here}{stale}")
}

/// What an object that does not own the session still has there and does not want.
fn stale_members(inputs: &ConditionInputs<'_>, owner: &ObjectKey) -> String {
    let members = inputs.desired.at(inputs.ledger.target.as_ref());
    let stale: Vec<&Record> = inputs
        .ledger
        .records
        .iter()
        .filter(|(id, record)| record.is_tracked() && members.want(id) == Want::Out)
        .map(|(_, record)| record)
        .collect();
    let deadlines = stale.iter().flat_map(|record| [record.attach_until, record.detach_until]);
    let until = deadlines.flatten().filter(|until| !over(Some(*until), inputs.now)).max();
    match (stale.len(), until) {
        (0, _) => String::new(),
        (count, Some(until)) => format!(
            " {count} of its instances wait until {until}: an earlier call may still take effect."
        ),
        (count, None) => {
            format!(" {count} of its instances wait until {owner} has them or does not want them.")
        }
    }
}

/// [`Reason::Progressing`]: the object owns the session, and another one has not given way yet.
pub(super) fn left_to_others(
    session: &SessionId,
    other: &ObjectKey,
    instances: &[InstanceId],
) -> String {
    format!(
        "StreamSession {other} names session {session} too, and gives way to this object. Until it \
         has, it keeps {}.",
        names(&instances.iter().collect::<Vec<_>>())
    )
}

pub(super) fn full(session: &SessionId, open: &Open<'_>, no_room_for: &[InstanceId]) -> String {
    let mut full = format!(
        "The ledger is full ({} instances). More are attached or adopted once others are detached.",
        Ledger::RECORDS_MAX
    );
    if !no_room_for.is_empty() {
        let ids = names(&no_room_for.iter().collect::<Vec<_>>());
        let _ = write!(full, " There is no room for these of the annotation adopt: {ids}.");
    }
    if !open.stuck_inside.is_empty() {
        let _ = write!(full, " {}", detach_refused(session, &open.stuck_inside));
    }
    full
}

pub(super) fn adoption_pending() -> String {
    "The instances of the annotation adopt are added to the ledger once the service has told its \
     time."
        .to_owned()
}

pub(super) fn ledger_lost(assumed: &[&InstanceId]) -> String {
    format!(
        "The ledger was lost, copied or added to by the annotation adopt. These instances are in \
         it without proof: {}. They are attached or detached again, as the spec says. Instances \
         that were attached before and are not among them can't be known.",
        names(assumed)
    )
}

pub(super) fn refused(session: &SessionId, open: &Open<'_>) -> String {
    let mut text = String::new();
    if !open.stuck_outside.is_empty() {
        let code = open.stuck_code.map_or_else(String::new, |code| format!(" ({code})"));
        let _ = write!(
            text,
            "The service refuses to attach {}{code}. Check that each exists, belongs to this \
             account and is in no other session, or remove it from spec.slaveInstanceIds. ",
            names(&open.stuck_outside)
        );
    }
    if !open.stuck_inside.is_empty() {
        text += &detach_refused(session, &open.stuck_inside);
        text += " ";
    }
    text + "The operator tries again every few minutes."
}

fn detach_refused(session: &SessionId, ids: &[&InstanceId]) -> String {
    format!(
        "The service refuses to detach {} from session {session}. Check in the console whether it \
         is still there. Release what is out with the annotation \
         gs.tencentcloud.dev/forget-instances, or set spec.detachFailurePolicy to Forget.",
        names(ids)
    )
}

pub(super) fn outcome_unknown(id: &InstanceId, want: Want, until: ServiceTime) -> String {
    let (earlier, again) = match want {
        Want::In => ("detach", "attaches"),
        Want::Out => ("attach", "detaches"),
    };
    format!(
        "An earlier {earlier} of {id} may still take effect until {until}: its answer or its \
         ledger was lost. Then the operator {again} it again."
    )
}

pub(super) fn failing(ids: &[(&InstanceId, &Failure)], first: &Failure) -> String {
    let code = first.code.as_str();
    let is_alike = |failure: &Failure| failure.reason == first.reason && failure.code == first.code;
    let alike: Vec<_> =
        ids.iter().filter(|(_, failure)| is_alike(failure)).map(|(id, _)| *id).collect();
    let names = names(&alike);
    let what = match first.reason {
        FailureReason::Refused if code.is_empty() => format!("The service refused {names}."),
        FailureReason::Refused | FailureReason::Unclear | FailureReason::SessionGone
            if !code.is_empty() =>
        {
            format!("The service answered {code} to the last call for {names}.")
        }
        FailureReason::Refused | FailureReason::Unclear | FailureReason::SessionGone => {
            format!("The service did not say what became of {names}.")
        }
        FailureReason::Unanswered if code.is_empty() => {
            format!("The last call for {names} was not answered.")
        }
        FailureReason::Unanswered => {
            format!("The last call for {names} ended with {code}. Its outcome is unknown.")
        }
    };
    let others = match ids.len() - alike.len() {
        0 => String::new(),
        count => format!(" {count} more failed for another reason."),
    };
    format!("{what}{others} The operator tries again.")
}

pub(super) fn call_failed(LastCall { result, code, .. }: &LastCall, open: &Open<'_>) -> String {
    let what = match result {
        CallResult::NotSent => format!(
            "The last call could not be sent ({code}). Check the network and the operator's log."
        ),
        CallResult::Throttled => {
            format!("The service limits the rate of calls ({code}).")
        }
        _ if code.is_empty() => "The service did not answer the last call.".to_owned(),
        _ => format!("The service answered {code} to the last call."),
    };
    format!("{what} The operator tries again. {}", work(open))
}

pub(super) fn moving(Move { from, to }: &Move, open: &Open<'_>) -> String {
    format!("Moving from session {from} to {to}: {}", work(open))
}

pub(super) fn work(open: &Open<'_>) -> String {
    let work = match (open.attach, open.detach) {
        (0, 0) => "Waiting for the answer to the last call.".to_owned(),
        (attach, 0) => format!("{attach} to attach."),
        (0, detach) => format!("{detach} to detach."),
        (attach, detach) => format!("{attach} to attach, {detach} to detach."),
    };
    let stuck: Vec<_> = open.stuck_outside.iter().chain(&open.stuck_inside).copied().collect();
    if stuck.is_empty() { work } else { format!("{work} The service refuses {}.", names(&stuck)) }
}
