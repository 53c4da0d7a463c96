//! The object as the API server stores it, read into the core's [`View`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use streamsession_core::conditions::{Conditions, Counts, Mode, Reason};
use streamsession_core::ids::{InstanceId, InvalidId, JournalId, SessionId};
use streamsession_core::ledger::desired::{DeletionPolicy, Desired, Target};
use streamsession_core::ledger::record::{self, Record, State};
use streamsession_core::ledger::{Journal, LastCall, Ledger};
use streamsession_core::reconcile::{Asked, Handled, LedgerState, Request, Status, View};
use streamsession_core::time::ServiceTime;

use crate::gs::endpoint;

use super::v1alpha1::{self as api, StreamSession, StreamSessionStatus};
use super::{ADOPT, FINALIZER, FORGET_INSTANCES, READY, RECONCILING, STALLED};

/// What an object takes from the operator's settings where its spec is silent.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// `--region`.
    pub region: Option<String>,
    /// The service at `--gs-endpoint`, as `status.target.endpoint` spells it.
    pub endpoint: Arc<str>,
    /// `--resync-interval`.
    pub resync_interval: Option<Duration>,
}

impl Defaults {
    /// The service of a target; shared if it is the one of all, since there is one for each object.
    fn endpoint_of(&self, target: &api::Target) -> Arc<str> {
        let service = endpoint::service(&target.endpoint);
        if *service == *self.endpoint { Arc::clone(&self.endpoint) } else { service.into() }
    }
}

/// Why an object can't be read. The schema keeps such objects out; an object stored before a schema
/// can be one.
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

/// The object's copy as the core sees it.
pub fn view(object: &StreamSession, defaults: &Defaults) -> Result<View, Unreadable> {
    let uid = object.uid().unwrap_or_default();
    let deleting = object.metadata.deletion_timestamp.is_some();
    let finalizer = object.finalizers().iter().any(|name| name == FINALIZER);
    let asked = Asked { forget: request(object, FORGET_INSTANCES), adopt: request(object, ADOPT) };
    // A deletion needs the ledger alone: a broken spec never blocks it.
    let instances = if deleting {
        object.spec.slave_instance_ids.iter().filter_map(|id| InstanceId::parse(id).ok()).collect()
    } else {
        object
            .spec
            .slave_instance_ids
            .iter()
            .map(|id| instance(id, "spec.slaveInstanceIds"))
            .collect::<Result<_, _>>()?
    };
    let empty = StreamSessionStatus::default();
    let status = object.status.as_ref().unwrap_or(&empty);
    let wanted_session = match (session(&object.spec.session_id, "spec.sessionId"), &status.target)
    {
        (Err(_), Some(target)) if deleting => {
            session(&target.session_id, "status.target.sessionId")?
        }
        (parsed, _) => parsed?,
    };
    Ok(View {
        desired: Desired {
            generation: object.metadata.generation.unwrap_or(0),
            session: wanted_session,
            region: object.spec.region.clone(),
            default_region: defaults.region.clone(),
            endpoint: Arc::clone(&defaults.endpoint),
            instances,
            deleting,
            deletion_policy: match object.spec.deletion_policy {
                api::DeletionPolicy::Delete => DeletionPolicy::Delete,
                api::DeletionPolicy::Orphan => DeletionPolicy::Orphan,
            },
            forgets_failures: object.spec.detach_failure_policy == api::DetachFailurePolicy::Forget,
            resync_interval: match &object.spec.resync_interval {
                Some(text) => interval(text),
                None => defaults.resync_interval,
            },
        },
        asked,
        status: Status {
            observed_generation: status.observed_generation.unwrap_or(-1),
            conditions: conditions(status),
            counts: Counts {
                desired: count(status.desired_instances),
                attached: count(status.attached_instances),
                failed: count(status.failed_instances),
                recorded: count(status.recorded_instances),
            },
            handled: Handled {
                forget: status.last_handled_forget_instances.clone(),
                adopt: status.last_handled_adopt.clone(),
            },
            ledger: ledger_state(status, &uid, finalizer, defaults),
        },
        uid: uid.into(),
        version: object.resource_version().unwrap_or_default().into(),
        created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
        finalizer,
    })
}

/// A duration of the spec; none if it is never. The schema keeps out what is no duration.
fn interval(text: &str) -> Option<Duration> {
    let parsed = text.parse::<SignedDuration>().ok()?;
    Duration::try_from(parsed).ok().filter(|interval| !interval.is_zero())
}

fn count(stored: Option<i32>) -> usize {
    stored.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

/// What the annotation asks for: ids, separated by commas or spaces. What is no id names nobody.
fn request(object: &StreamSession, annotation: &str) -> Option<Request> {
    let value = object.annotations().get(annotation)?;
    let words = value.split([',', ' ', '\n', '\t']);
    Some(Request {
        value: short(value),
        instances: words.filter_map(|word| InstanceId::parse(word).ok()).collect(),
    })
}

/// A text that stands for an annotation's value: itself, or its beginning and its hash, since the
/// status is bounded.
fn short(value: &str) -> String {
    const LENGTH_MAX: usize = 256;
    if value.chars().count() <= LENGTH_MAX {
        return value.to_owned();
    }
    let hash = hex::encode(Sha256::digest(value));
    let beginning: String = value.chars().take(LENGTH_MAX - hash.len() - 1).collect();
    format!("{beginning} {hash}")
}

fn ledger_state(
    status: &StreamSessionStatus,
    uid: &str,
    finalizer: bool,
    defaults: &Defaults,
) -> LedgerState {
    let (ledger, damage) = stored_ledger(status, defaults);
    let why = match &status.object_uid {
        Some(owner) if owner == uid => match damage {
            None => return LedgerState::Current(ledger),
            Some(damage) => format!("The status was changed by someone else: {damage}"),
        },
        Some(owner) => format!("The status is that of another object (uid {owner}), copied or restored"),
        None if !ledger.tracks_nothing() => "The status names no object: somebody has changed it".to_owned(),
        None if finalizer => "The object has the operator's finalizer but no ledger in its status, as after a restore".to_owned(),
        None => return LedgerState::New,
    };
    LedgerState::Lost { why, remains: ledger }
}

/// The ledger as far as it can be read, and what can't be.
fn stored_ledger(status: &StreamSessionStatus, defaults: &Defaults) -> (Ledger, Option<String>) {
    let mut damage = None;
    let mut keep = |parsed: Result<InstanceId, Unreadable>| {
        parsed.map_err(|error| damage = Some(error.to_string())).ok()
    };
    let mut records = BTreeMap::new();
    for id in &status.attached_instance_ids {
        records.extend(
            keep(instance(id, "status.attachedInstanceIds")).map(|id| (id, Record::attached())),
        );
    }
    for unsettled in &status.unsettled_instances {
        let id = keep(instance(&unsettled.instance_id, "status.unsettledInstances"));
        records.extend(id.map(|id| (id, stored_record(unsettled))));
    }
    let journal = status.pending_call.as_ref().map(|call| {
        let instances: BTreeSet<_> = call
            .instance_ids
            .iter()
            .filter_map(|id| keep(instance(id, "status.pendingCall.instanceIds")))
            .collect();
        Journal {
            id: JournalId(Arc::from(call.id.as_str())),
            operation: call.operation.into(),
            instances: instances.into_iter().collect(),
            start_time: seconds(&call.start_time),
            resync: call.resync,
        }
    });
    let target = status.target.as_ref().and_then(|target| {
        let session = session(&target.session_id, "status.target.sessionId")
            .map_err(|error| damage = Some(error.to_string()))
            .ok()?;
        Some(Target {
            session,
            region: target.region.clone(),
            endpoint: defaults.endpoint_of(target),
            credential: target.credential.clone(),
            account: target.account.clone(),
            credential_proven: target.credential_proven,
        })
    });
    let last_call = status.last_call.as_ref().map(|call| LastCall {
        operation: call.operation.into(),
        request_id: call.request_id.clone(),
        time: seconds(&call.time),
        succeeded: count(Some(call.succeeded)),
        failed: count(Some(call.failed)),
        result: call.result.into(),
        code: call.code.clone(),
    });
    let ledger = Ledger { target, records, journal, last_call };
    let attached = ledger.records.values().filter(|record| record.state == State::Attached).count();
    let counted = count(status.attached_instances);
    let damage = damage.or_else(|| {
        let too_many = || {
            format!(
                "it names {} instances, which is more than the operator writes",
                ledger.records.len()
            )
        };
        if ledger.target.is_none() && !(ledger.records.is_empty() && ledger.journal.is_none()) {
            Some(
                "status.target is missing, so the session of its instances is not known".to_owned(),
            )
        } else if attached != counted {
            Some(format!("it counts {counted} attached instances and names {attached}"))
        } else if let Some(recorded) = status.recorded_instances.map(|it| count(Some(it)))
            && recorded != ledger.records.len()
        {
            let named = ledger.records.len();
            Some(format!("it counts {recorded} instances in all and names {named}"))
        } else {
            (ledger.records.len() > Ledger::RECORDS_MAX).then(too_many)
        }
    });
    (ledger, damage)
}

fn stored_record(stored: &api::UnsettledInstance) -> Record {
    Record {
        state: stored.state.into(),
        attach_until: stored.attach_may_arrive_until.as_ref().map(seconds),
        detach_until: stored.detach_may_arrive_until.as_ref().map(seconds),
        refusals: stored.refusals.as_ref().map(|refusals| record::Refusals {
            operation: refusals.operation.into(),
            count: refusals.count.try_into().unwrap_or(0),
            since: seconds(&refusals.since_time),
        }),
        last_failure: stored.last_failure.as_ref().map(|failure| record::Failure {
            operation: failure.operation.into(),
            reason: failure.reason.into(),
            code: failure.code.clone(),
            attempts: failure.attempts.try_into().unwrap_or(0),
            time: seconds(&failure.time),
            generation: failure.generation.unwrap_or(-1),
        }),
        assumed: stored.assumed,
    }
}

fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The stored conditions; none if they are none that the operator would write.
#[must_use]
pub fn conditions(status: &StreamSessionStatus) -> Option<Conditions> {
    let stored = status.conditions.as_slice();
    let ready = stored.iter().find(|condition| condition.type_ == READY)?;
    let mode =
        match (is_true(stored, READY), is_true(stored, RECONCILING), is_true(stored, STALLED)) {
            (true, false, false) => Mode::Ready,
            (false, true, false) => Mode::Reconciling,
            (false, false, true) => Mode::Stalled,
            _ => return None,
        };
    Some(Conditions { mode, reason: Reason::parse(&ready.reason)?, message: ready.message.clone() })
}

fn seconds(time: &Time) -> ServiceTime {
    ServiceTime(time.0.as_second())
}
