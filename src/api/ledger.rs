//! The object's copy as the protocol sees it, and the protocol's status as the object stores it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use streamsession_protocol::answer::Operation;
use streamsession_protocol::conditions::{Conditions, Counts, Mode, Reason};
use streamsession_protocol::ids::{InstanceId, InvalidId, JournalId, SessionId};
use streamsession_protocol::ledger::{self as core, Desired, Journal, Ledger};
use streamsession_protocol::record::{self, Record, State};
use streamsession_protocol::step::{Found, Status, View};
use streamsession_protocol::time::ServiceTime;

use super::FINALIZER;
use super::v1alpha1::{self as api, StreamSession, StreamSessionStatus};

/// What an object takes from the operator's settings where its spec is silent.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// `--region`.
    pub region: Option<String>,
    /// `--gs-endpoint`, as `status.target.endpoint` spells it.
    pub endpoint: String,
}

/// Why an object can't be read. The schema keeps such objects out; an object stored before a schema can be one.
#[derive(Debug, thiserror::Error)]
#[error("{field} {text:?} can't be used: {why}")]
pub struct Unreadable {
    field: &'static str,
    text: String,
    why: InvalidId,
}

fn instance(text: &str, field: &'static str) -> Result<InstanceId, Unreadable> {
    InstanceId::parse(text).map_err(|why| Unreadable { field, text: text.to_owned(), why })
}

fn session(text: &str, field: &'static str) -> Result<SessionId, Unreadable> {
    SessionId::parse(text).map_err(|why| Unreadable { field, text: text.to_owned(), why })
}

/// The object's copy as the protocol sees it.
pub fn view(object: &StreamSession, defaults: &Defaults) -> Result<View, Unreadable> {
    let uid = object.uid().unwrap_or_default();
    let deleting = object.metadata.deletion_timestamp.is_some();
    let finalizer = object.finalizers().iter().any(|name| name == FINALIZER);
    // A deletion needs the ledger alone: a broken spec never blocks it.
    let instances = if deleting {
        object.spec.slave_instance_ids.iter().filter_map(|id| InstanceId::parse(id).ok()).collect()
    } else {
        object.spec.slave_instance_ids.iter().map(|id| instance(id, "spec.slaveInstanceIds")).collect::<Result<_, _>>()?
    };
    let empty = StreamSessionStatus::default();
    let status = object.status.as_ref().unwrap_or(&empty);
    let wanted_session = match (session(&object.spec.session_id, "spec.sessionId"), &status.target) {
        (Err(_), Some(target)) if deleting => session(&target.session_id, "status.target.sessionId")?,
        (parsed, _) => parsed?,
    };
    Ok(View {
        desired: Desired {
            session: wanted_session,
            region: object.spec.region.clone().or_else(|| defaults.region.clone()),
            endpoint: defaults.endpoint.clone(),
            instances,
            deleting,
            deletion_policy: match object.spec.deletion_policy {
                api::DeletionPolicy::Delete => core::DeletionPolicy::Delete,
                api::DeletionPolicy::Orphan => core::DeletionPolicy::Orphan,
            },
        },
        status: Status {
            observed_generation: status.observed_generation.unwrap_or(-1),
            conditions: said(status),
            counts: Counts {
                desired: count(status.desired_instances),
                attached: count(status.attached_instances),
                failed: count(status.failed_instances),
            },
            found: found(status, &uid, finalizer),
        },
        uid,
        generation: object.metadata.generation.unwrap_or(0),
        finalizer,
    })
}

fn count(stored: Option<i32>) -> usize {
    stored.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

fn found(status: &StreamSessionStatus, uid: &str, finalizer: bool) -> Found {
    match &status.object_uid {
        Some(owner) if owner == uid => match stored_ledger(status) {
            Ok(ledger) => Found::Ours(ledger),
            Err(error) => Found::Lost(format!("The status was changed by someone else: {error}")),
        },
        Some(owner) => Found::Lost(format!("The status is that of another object (uid {owner}), copied or restored")),
        None if finalizer => {
            Found::Lost("The object has the operator's finalizer but no record in its status, as after a restore".to_owned())
        }
        None => Found::New,
    }
}

fn stored_ledger(status: &StreamSessionStatus) -> Result<Ledger, Unreadable> {
    let mut records = BTreeMap::new();
    for id in &status.attached_instance_ids {
        records.insert(instance(id, "status.attachedInstanceIds")?, Record::attached());
    }
    for unsettled in &status.unsettled_instances {
        records.insert(instance(&unsettled.instance_id, "status.unsettledInstances")?, stored_record(unsettled));
    }
    let target = match &status.target {
        None => None,
        Some(target) => Some(core::Target {
            session: session(&target.session_id, "status.target.sessionId")?,
            region: target.region.clone(),
            endpoint: target.endpoint.clone(),
            credential: target.credential.clone(),
            credential_proven: target.credential_proven,
        }),
    };
    let journal = match &status.pending_call {
        None => None,
        Some(call) => Some(Journal {
            id: JournalId(Arc::from(call.id.as_str())),
            operation: operation(call.operation),
            instances: call.instance_ids.iter().map(|id| instance(id, "status.pendingCall.instanceIds")).collect::<Result<_, _>>()?,
            start_time: seconds(&call.start_time),
        }),
    };
    let last_call = status.last_call.as_ref().map(|call| core::LastCall {
        operation: operation(call.operation),
        request_id: call.request_id.clone(),
        time: seconds(&call.time),
        succeeded: count(Some(call.succeeded)),
        failed: count(Some(call.failed)),
        code: call.code.clone(),
    });
    Ok(Ledger { target, records, journal, last_call })
}

fn stored_record(stored: &api::UnsettledInstance) -> Record {
    Record {
        state: match stored.state {
            api::InstanceState::Attached => State::Attached,
            api::InstanceState::Detached => State::Detached,
            api::InstanceState::Unknown => State::Unknown,
        },
        attach_until: stored.attach_may_arrive_until.as_ref().map(seconds),
        detach_until: stored.detach_may_arrive_until.as_ref().map(seconds),
        refusals: stored.refusals.as_ref().map(|refusals| record::Refusals {
            operation: operation(refusals.operation),
            count: refusals.count.try_into().unwrap_or(0),
            since: seconds(&refusals.since_time),
        }),
        last_failure: stored.last_failure.as_ref().map(|failure| record::Failure {
            operation: operation(failure.operation),
            reason: match failure.reason {
                api::FailureReason::Refused => record::FailureReason::Refused,
                api::FailureReason::Unclear => record::FailureReason::Unclear,
                api::FailureReason::Unanswered => record::FailureReason::Unanswered,
                api::FailureReason::SessionGone => record::FailureReason::SessionGone,
            },
            code: failure.code.clone(),
            attempts: failure.attempts.try_into().unwrap_or(0),
            time: seconds(&failure.time),
        }),
    }
}

/// The protocol's status as it is written, over `stored`: of a lost ledger everything but the conditions stays as it was found.
#[must_use]
pub fn status(said: &Status, uid: &str, stored: &StreamSessionStatus, wall_clock: Timestamp) -> StreamSessionStatus {
    let conditions = said
        .conditions
        .as_ref()
        .map_or_else(Vec::new, |conditions| written(conditions, said.observed_generation, &stored.conditions, wall_clock));
    let Found::Ours(ledger) = &said.found else {
        return StreamSessionStatus { conditions, observed_generation: Some(said.observed_generation), ..stored.clone() };
    };
    let settled = Record::attached();
    let (attached, unsettled): (Vec<_>, Vec<_>) = ledger.records.iter().partition(|(_, record)| **record == settled);
    StreamSessionStatus {
        conditions,
        observed_generation: Some(said.observed_generation),
        desired_instances: Some(small(said.counts.desired)),
        attached_instances: Some(small(said.counts.attached)),
        failed_instances: Some(small(said.counts.failed)),
        object_uid: Some(uid.to_owned()),
        target: ledger.target.as_ref().map(|target| api::Target {
            session_id: target.session.to_string(),
            region: target.region.clone(),
            endpoint: target.endpoint.clone(),
            credential: target.credential.clone(),
            credential_proven: target.credential_proven,
        }),
        attached_instance_ids: attached.into_iter().map(|(id, _)| id.to_string()).collect(),
        unsettled_instances: unsettled.into_iter().map(|(id, record)| written_record(id, record)).collect(),
        pending_call: ledger.journal.as_ref().map(|journal| api::PendingCall {
            id: journal.id.0.to_string(),
            operation: written_operation(journal.operation),
            instance_ids: journal.instances.iter().map(ToString::to_string).collect(),
            start_time: time(journal.start_time),
        }),
        last_call: ledger.last_call.as_ref().map(|call| api::LastCall {
            operation: written_operation(call.operation),
            request_id: call.request_id.clone(),
            time: time(call.time),
            succeeded: small(call.succeeded),
            failed: small(call.failed),
            code: call.code.clone(),
        }),
    }
}

fn written_record(id: &InstanceId, record: &Record) -> api::UnsettledInstance {
    api::UnsettledInstance {
        instance_id: id.to_string(),
        state: match record.state {
            State::Attached => api::InstanceState::Attached,
            State::Detached => api::InstanceState::Detached,
            State::Unknown => api::InstanceState::Unknown,
        },
        attach_may_arrive_until: record.attach_until.map(time),
        detach_may_arrive_until: record.detach_until.map(time),
        refusals: record.refusals.map(|refusals| api::Refusals {
            operation: written_operation(refusals.operation),
            count: refusals.count.try_into().unwrap_or(i32::MAX),
            since_time: time(refusals.since),
        }),
        last_failure: record.last_failure.as_ref().map(|failure| api::Failure {
            operation: written_operation(failure.operation),
            reason: match failure.reason {
                record::FailureReason::Refused => api::FailureReason::Refused,
                record::FailureReason::Unclear => api::FailureReason::Unclear,
                record::FailureReason::Unanswered => api::FailureReason::Unanswered,
                record::FailureReason::SessionGone => api::FailureReason::SessionGone,
            },
            code: failure.code.clone(),
            attempts: failure.attempts.try_into().unwrap_or(i32::MAX),
            time: time(failure.time),
        }),
    }
}

fn small(count: usize) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

fn operation(stored: api::Operation) -> Operation {
    match stored {
        api::Operation::Attach => Operation::Attach,
        api::Operation::Detach => Operation::Detach,
    }
}

fn written_operation(operation: Operation) -> api::Operation {
    match operation {
        Operation::Attach => api::Operation::Attach,
        Operation::Detach => api::Operation::Detach,
    }
}

fn seconds(time: &Time) -> ServiceTime {
    ServiceTime(time.0.as_second())
}

fn time(time: ServiceTime) -> Time {
    Time(Timestamp::from_second(time.0).unwrap_or(Timestamp::UNIX_EPOCH))
}

const READY: &str = "Ready";
const RECONCILING: &str = "Reconciling";
const STALLED: &str = "Stalled";

fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// What the stored conditions say; none if they say nothing that the operator would.
#[must_use]
pub fn said(status: &StreamSessionStatus) -> Option<Conditions> {
    let stored = status.conditions.as_slice();
    let ready = stored.iter().find(|condition| condition.type_ == READY)?;
    let mode = match (holds(stored, READY), holds(stored, RECONCILING), holds(stored, STALLED)) {
        (true, false, false) => Mode::Ready,
        (false, true, false) => Mode::Reconciling,
        (false, false, true) => Mode::Stalled,
        _ => return None,
    };
    Some(Conditions { mode, reason: Reason::parse(&ready.reason)?, message: ready.message.clone() })
}

/// The three conditions, each with the time of its last change of status.
fn written(said: &Conditions, generation: i64, stored: &[Condition], wall_clock: Timestamp) -> Vec<Condition> {
    let condition = |kind: &str, status: &str| {
        let before = stored.iter().find(|condition| condition.type_ == kind && condition.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: said.reason.as_str().to_owned(),
            message: said.message.clone(),
            observed_generation: Some(generation),
            last_transition_time: before.map_or(Time(wall_clock), |before| before.last_transition_time.clone()),
        }
    };
    match said.mode {
        Mode::Ready => vec![condition(READY, "True")],
        Mode::Reconciling => vec![condition(READY, "False"), condition(RECONCILING, "True")],
        Mode::Stalled => vec![condition(READY, "False"), condition(STALLED, "True")],
    }
}
