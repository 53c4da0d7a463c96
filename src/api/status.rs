//! The core's [`Status`], written as the API server stores it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;
use streamsession_core::conditions::{Conditions, Mode};
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::record::Record;
use streamsession_core::reconcile::{LedgerState, Status};
use streamsession_core::time::ServiceTime;

use super::v1alpha1::{self as api, StreamSessionStatus};
use super::{READY, RECONCILING, STALLED};

/// The status as it is written, over `stored`: of a lost ledger everything but the
/// conditions stays as it was found.
#[must_use]
pub fn status(
    new: &Status,
    uid: &str,
    stored: &StreamSessionStatus,
    wall_clock: Timestamp,
) -> StreamSessionStatus {
    let conditions = new.conditions.as_ref().map_or_else(Vec::new, |conditions| {
        written_conditions(conditions, new.observed_generation, &stored.conditions, wall_clock)
    });
    let LedgerState::Current(ledger) = &new.ledger else {
        return StreamSessionStatus {
            conditions,
            observed_generation: Some(new.observed_generation),
            ..stored.clone()
        };
    };
    let settled = Record::attached();
    let (attached, unsettled): (Vec<_>, Vec<_>) =
        ledger.records.iter().partition(|(_, record)| **record == settled);
    // What a later version of the operator wrote beside our fields is kept, as long as what it
    // speaks of is there.
    let others: BTreeMap<_, _> = stored
        .unsettled_instances
        .iter()
        .map(|record| (record.instance_id.as_str(), &record.other))
        .collect();
    let other =
        |id: &InstanceId| others.get(id.as_str()).map(|other| (*other).clone()).unwrap_or_default();
    StreamSessionStatus {
        conditions,
        observed_generation: Some(new.observed_generation),
        desired_instances: Some(small(new.counts.desired)),
        attached_instances: Some(small(new.counts.attached)),
        failed_instances: Some(small(new.counts.failed)),
        recorded_instances: Some(small(new.counts.recorded)),
        last_handled_forget_instances: new.handled.forget.clone(),
        last_handled_adopt: new.handled.adopt.clone(),
        object_uid: Some(uid.to_owned()),
        target: ledger.target.as_ref().map(|target| api::Target {
            session_id: target.session.to_string(),
            region: target.region.clone(),
            endpoint: target.endpoint.to_string(),
            credential: target.credential.clone(),
            account: target.account.clone(),
            credential_proven: target.credential_proven,
            other: stored.target.as_ref().map(|target| target.other.clone()).unwrap_or_default(),
        }),
        attached_instance_ids: attached.into_iter().map(|(id, _)| id.to_string()).collect(),
        unsettled_instances: unsettled
            .into_iter()
            .map(|(id, record)| written_record(id, record, other(id)))
            .collect(),
        pending_call: ledger.journal.as_ref().map(|journal| api::PendingCall {
            id: journal.id.0.to_string(),
            operation: journal.operation.into(),
            instance_ids: journal.instances.iter().map(ToString::to_string).collect(),
            start_time: time(journal.start_time),
            resync: journal.resync,
        }),
        last_call: ledger.last_call.as_ref().map(|call| api::LastCall {
            operation: call.operation.into(),
            request_id: call.request_id.clone(),
            time: time(call.time),
            succeeded: small(call.succeeded),
            failed: small(call.failed),
            result: call.result.into(),
            code: call.code.clone(),
        }),
        other: stored.other.clone(),
    }
}

fn written_record(
    id: &InstanceId,
    record: &Record,
    other: BTreeMap<String, Value>,
) -> api::UnsettledInstance {
    api::UnsettledInstance {
        instance_id: id.to_string(),
        state: record.state.into(),
        attach_may_arrive_until: record.attach_until.map(time),
        detach_may_arrive_until: record.detach_until.map(time),
        refusals: record.refusals.map(|refusals| api::Refusals {
            operation: refusals.operation.into(),
            count: refusals.count.try_into().unwrap_or(i32::MAX),
            since_time: time(refusals.since),
        }),
        last_failure: record.last_failure.as_ref().map(|failure| api::Failure {
            operation: failure.operation.into(),
            reason: failure.reason.into(),
            code: failure.code.clone(),
            attempts: failure.attempts.try_into().unwrap_or(i32::MAX),
            time: time(failure.time),
            generation: (failure.generation >= 0).then_some(failure.generation),
        }),
        assumed: record.assumed,
        other,
    }
}

/// The three conditions, each with the time of its last change of status.
fn written_conditions(
    new: &Conditions,
    generation: i64,
    stored: &[Condition],
    wall_clock: Timestamp,
) -> Vec<Condition> {
    let condition = |kind: &str, status: &str| {
        let before =
            stored.iter().find(|condition| condition.type_ == kind && condition.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: new.reason.as_str().to_owned(),
            message: new.message.clone(),
            observed_generation: Some(generation),
            last_transition_time: before
                .map_or(Time(wall_clock), |before| before.last_transition_time.clone()),
        }
    };
    match new.mode {
        Mode::Ready => vec![condition(READY, "True")],
        Mode::Reconciling => vec![condition(READY, "False"), condition(RECONCILING, "True")],
        Mode::Stalled => vec![condition(READY, "False"), condition(STALLED, "True")],
    }
}

fn small(count: usize) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

fn time(time: ServiceTime) -> Time {
    Time(Timestamp::from_second(time.0).unwrap_or(Timestamp::UNIX_EPOCH))
}
