//! Checks from outside, all the while and at the end, that nothing leaks and no ledger and no Ready
//! is false: it compares the objects at the API server with the members at the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gs_simulator::Simulator;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use streamsession_operator::api::v1alpha1::{
    InstanceState, Operation, StreamSession, StreamSessionStatus, UnsettledInstance,
};
use tokio::time::sleep;

use crate::harness::{Lab, ready};

pub type Sessions = BTreeMap<String, BTreeSet<String>>;
pub type Objects = BTreeMap<String, StreamSession>;

/// Between two checks.
const PERIOD: Duration = Duration::from_millis(250);

/// The name of the object number `slot`.
pub fn name(slot: usize) -> String {
    format!("wall-{slot}")
}

/// A session of that object and of no other.
pub fn session(slot: usize, number: usize) -> String {
    format!("{slot}-{number}")
}

fn sessions_of(
    slot: usize,
    sessions: &Sessions,
) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
    let prefix = format!("{slot}-");
    let sessions = sessions.iter().filter(move |(session, _)| session.starts_with(&prefix));
    sessions.map(|(session, members)| (session.as_str(), members))
}

/// Reads all objects, from the quorum.
pub async fn objects(api: &Api<StreamSession>) -> kube::Result<Objects> {
    let objects = api.list(&ListParams::default()).await?;
    Ok(objects.into_iter().map(|object| (object.name_any(), object)).collect())
}

/// Instances that may be attached by what the ledger says, those of an open call included.
fn may_be_attached(status: &StreamSessionStatus) -> BTreeSet<&str> {
    let unsettled = status.unsettled_instances.iter().filter(|record| {
        record.state != InstanceState::Detached || record.attach_may_arrive_until.is_some()
    });
    let attached_by_call =
        status.pending_call.iter().filter(|call| call.operation == Operation::Attach);
    status
        .attached_instance_ids
        .iter()
        .chain(unsettled.map(|record| &record.instance_id))
        .chain(attached_by_call.flat_map(|call| &call.instance_ids))
        .map(String::as_str)
        .collect()
}

/// Instances that are attached by what the ledger says, without doubt.
fn surely_attached(status: &StreamSessionStatus) -> impl Iterator<Item = &String> {
    let pending: BTreeSet<_> =
        status.pending_call.iter().flat_map(|call| &call.instance_ids).collect();
    status.attached_instance_ids.iter().filter(move |id| !pending.contains(id))
}

fn desired(object: &StreamSession) -> BTreeSet<String> {
    object.spec.slave_instance_ids.iter().cloned().collect()
}

fn session_of(status: &StreamSessionStatus) -> &str {
    status.target.as_ref().map_or("", |target| &target.session_id)
}

/// Members that no ledger knows of.
fn leaks(slot: usize, status: &StreamSessionStatus, sessions: &Sessions) -> Vec<String> {
    let known = may_be_attached(status);
    let unknown = |(session, members): (&str, &BTreeSet<String>)| {
        let is_known = |id: &str| session == session_of(status) && known.contains(id);
        let unknown: Vec<_> = members.iter().filter(|id| !is_known(id)).collect();
        (!unknown.is_empty()).then(|| {
            format!("leak: {unknown:?} are in session {session}, and the ledger does not know it")
        })
    };
    sessions_of(slot, sessions).filter_map(unknown).collect()
}

/// Instances that the ledger calls attached, and they are not.
fn false_record(status: &StreamSessionStatus, sessions: &Sessions) -> Option<String> {
    let session = session_of(status);
    let is_member = |id: &str| sessions.get(session).is_some_and(|members| members.contains(id));
    let missing: Vec<_> = surely_attached(status).filter(|id| !is_member(id)).collect();
    (!missing.is_empty()).then(|| {
        format!("false ledger: {missing:?} are not in session {session}, and are called attached")
    })
}

/// Ready is True, and other instances are attached than those that are wanted.
fn false_ready(object: &StreamSession, sessions: &Sessions) -> Option<String> {
    let (session, desired) = (&object.spec.session_id, desired(object));
    let members = sessions.get(session).cloned().unwrap_or_default();
    (ready(object).0 && members != desired)
        .then(|| format!("false Ready: session {session} has {members:?}, wanted are {desired:?}"))
}

/// What is wrong with one object that was the same before and after the sessions were read.
fn violations_of(object: &StreamSession, slot: usize, sessions: &Sessions) -> Vec<String> {
    let status = object.status.clone().unwrap_or_default();
    let mut violations = leaks(slot, &status, sessions);
    violations.extend(false_record(&status, sessions));
    violations.extend(false_ready(object, sessions));
    if !violations.is_empty() {
        let object = serde_json::to_string(object).expect("JSON");
        violations.push(format!("at {}: {object}", Timestamp::now()));
    }
    violations
}

/// What the checks have found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Objects that were checked.
    pub checks: usize,
    /// Of these, with Ready True.
    pub ready: usize,
    pub violations: Vec<String>,
}

impl Findings {
    /// Checks `sessions`, which were read after `before` and before `after`: an object that is the
    /// same in both was so at that moment.
    fn add(&mut self, slots: usize, before: &Objects, sessions: &Sessions, after: &Objects) {
        for slot in 0..slots {
            match (before.get(&name(slot)), after.get(&name(slot))) {
                (None, None) => self.violations.extend(left_behind(slot, sessions)),
                (Some(before), Some(after))
                    if before.uid() == after.uid()
                        && before.resource_version() == after.resource_version() =>
                {
                    self.checks += 1;
                    self.ready += usize::from(ready(after).0);
                    self.violations.extend(violations_of(after, slot, sessions));
                }
                _ => {}
            }
        }
    }
}

/// What is attached though its object is gone.
fn left_behind(slot: usize, sessions: &Sessions) -> Option<String> {
    let mut left = sessions_of(slot, sessions).filter(|(_, members)| !members.is_empty());
    left.next().map(|left| format!("leak: {} is gone, and {left:?} are attached", name(slot)))
}

/// Checks again and again until it is dropped.
pub struct Checker {
    findings: Arc<Mutex<Findings>>,
    task: tokio::task::JoinHandle<()>,
}

impl Checker {
    pub fn start(lab: Arc<Lab>, slots: usize) -> Self {
        let findings = Arc::<Mutex<Findings>>::default();
        let shared = Arc::clone(&findings);
        let task = tokio::spawn(async move {
            let mut before = None;
            loop {
                let sessions = lab.simulator.sessions();
                let after = objects(&lab.sessions).await.ok();
                if let (Some(before), Some(after)) = (&before, &after) {
                    shared.lock().expect("no panic").add(slots, before, &sessions, after);
                }
                before = after;
                sleep(PERIOD).await;
            }
        });
        Self { findings, task }
    }

    pub fn stop(&self) {
        self.task.abort();
    }

    pub fn findings(&self) -> Findings {
        self.findings.lock().expect("no panic").clone()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether the object waits for a person: the service refuses to detach what is not attached, which
/// the operator can't know.
fn waits_for_a_person(object: &StreamSession, sessions: &Sessions, now: Timestamp) -> bool {
    let status = object.status.clone().unwrap_or_default();
    let is_deleted = object.metadata.deletion_timestamp.is_some();
    let is_member =
        |id: &str| sessions.get(session_of(&status)).is_some_and(|members| members.contains(id));
    let is_stuck = |record: &UnsettledInstance| {
        let id = &record.instance_id;
        let is_wanted = !is_deleted && object.spec.slave_instance_ids.contains(id);
        let refusals = record.refusals.as_ref();
        let is_refused = refusals.is_some_and(|refusals| refusals.operation == Operation::Detach);
        let attach_until = record.attach_may_arrive_until.as_ref();
        let can_arrive = attach_until.is_some_and(|until| until.0 > now);
        !is_wanted && is_refused && !can_arrive && !is_member(id)
    };
    // A slow retry may be under way; then the next look decides.
    status.pending_call.is_none()
        && !status.unsettled_instances.is_empty()
        && status.unsettled_instances.iter().all(is_stuck)
}

/// Whether every object is as wanted and every ledger clean. Answers the names of those that wait
/// for a person: there are some only where the service refuses to detach an absent instance.
pub fn converged(
    slots: usize,
    objects: &Objects,
    simulator: &Simulator,
    absent_refused: bool,
) -> Result<Vec<String>, String> {
    let (sessions, now) = (simulator.sessions(), simulator.now());
    let mut stuck = Vec::new();
    for slot in 0..slots {
        let Some(object) = objects.get(&name(slot)) else {
            if let Some(leak) = left_behind(slot, &sessions) {
                return Err(leak);
            }
            continue;
        };
        let status = object.status.clone().unwrap_or_default();
        let exists = object.metadata.deletion_timestamp.is_none();
        let desired = if exists { desired(object) } else { BTreeSet::new() };
        let wanted = (!desired.is_empty()).then_some((object.spec.session_id.as_str(), &desired));
        let attached: Vec<_> =
            sessions_of(slot, &sessions).filter(|(_, members)| !members.is_empty()).collect();
        let as_wanted = attached == Vec::from_iter(wanted);
        if absent_refused && as_wanted && waits_for_a_person(object, &sessions, now) {
            stuck.push(name(slot));
            continue;
        }
        let clean = status.unsettled_instances.is_empty() && status.pending_call.is_none();
        if !(exists && clean && as_wanted && ready(object).0) {
            return Err(format!("{}: wanted {wanted:?}, not {attached:?}; {status:?}", name(slot)));
        }
    }
    let is_unknown =
        |session: &&String| (0..slots).all(|slot| !session.starts_with(&format!("{slot}-")));
    let unknown: Vec<_> = sessions.keys().filter(is_unknown).collect();
    if unknown.is_empty() { Ok(stuck) } else { Err(format!("unknown sessions: {unknown:?}")) }
}
