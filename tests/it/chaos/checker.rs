//! What is promised at every moment and at the end, judged from outside: the objects at the API
//! server, the members at the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gs_simulator::Simulator;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use streamsession_operator::api::v1alpha1::{
    InstanceState, Operation, StreamSession, StreamSessionStatus,
};
use tokio::time::sleep;

use crate::harness::{Lab, ready};

pub type Sessions = BTreeMap<String, BTreeSet<String>>;
pub type Objects = BTreeMap<String, StreamSession>;

/// Between two looks.
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
    let prefix = session(slot, 0).trim_end_matches('0').to_owned();
    sessions
        .iter()
        .filter(move |(name, _)| name.starts_with(&prefix))
        .map(|(name, members)| (name.as_str(), members))
}

/// Reads all objects, from the quorum.
pub async fn objects(api: &Api<StreamSession>) -> kube::Result<Objects> {
    Ok(api
        .list(&ListParams::default())
        .await?
        .into_iter()
        .map(|object| (object.name_any(), object))
        .collect())
}

/// Ids that the service may hold by what the ledger says, pending ones included.
fn may_hold(status: &StreamSessionStatus) -> BTreeSet<&str> {
    let open = status.unsettled_instances.iter();
    let open = open.filter(|open| {
        open.state != InstanceState::Detached || open.attach_may_arrive_until.is_some()
    });
    let pending = status
        .pending_call
        .iter()
        .filter(|call| call.operation == Operation::Attach)
        .flat_map(|call| &call.instance_ids);
    status
        .attached_instance_ids
        .iter()
        .chain(open.map(|open| &open.instance_id))
        .chain(pending)
        .map(String::as_str)
        .collect()
}

/// Ids that the service holds by what the ledger says, without doubt.
fn holds(status: &StreamSessionStatus) -> BTreeSet<&str> {
    let pending: BTreeSet<_> =
        status.pending_call.iter().flat_map(|call| &call.instance_ids).collect();
    status
        .attached_instance_ids
        .iter()
        .filter(|id| !pending.contains(id))
        .map(String::as_str)
        .collect()
}

/// What is wrong about one object that was the same before and after the look at the sessions.
fn wrong(object: &StreamSession, slot: usize, sessions: &Sessions) -> Vec<String> {
    let status = object.status.clone().unwrap_or_default();
    let target = status.target.as_ref().map_or("", |target| &target.session_id);
    let none = BTreeSet::new();
    let mut wrong = Vec::new();
    for (session, members) in sessions_of(slot, sessions) {
        let may_hold = if session == target { may_hold(&status) } else { BTreeSet::new() };
        let forgotten: Vec<_> =
            members.iter().filter(|id| !may_hold.contains(id.as_str())).collect();
        if !forgotten.is_empty() {
            wrong.push(format!(
                "leak: session {session} holds {forgotten:?}, of which the ledger knows nothing"
            ));
        }
    }
    let members = sessions.get(target).unwrap_or(&none);
    let missing: Vec<_> = holds(&status).into_iter().filter(|id| !members.contains(*id)).collect();
    if !missing.is_empty() {
        wrong.push(format!(
            "false record: session {target} lacks {missing:?}, which the ledger calls attached"
        ));
    }
    let desired: BTreeSet<_> = object.spec.slave_instance_ids.iter().cloned().collect();
    if ready(object).0 {
        let members = sessions.get(&object.spec.session_id).unwrap_or(&none);
        if *members != desired {
            wrong.push(format!(
                "false Ready: {desired:?} are wanted in {}, and it holds {members:?}",
                object.spec.session_id
            ));
        }
    }
    if !wrong.is_empty() {
        let (meta, spec) = (&object.metadata, serde_json::to_string(&object.spec).expect("JSON"));
        let (version, status) =
            (&meta.resource_version, serde_json::to_string(&status).expect("JSON"));
        wrong.push(format!(
            "{} at {}, version {version:?}: {spec} {status}",
            object.name_any(),
            Timestamp::now()
        ));
    }
    wrong
}

/// What was wrong with `sessions`, which were looked at after `before` and before `after` were
/// read: an object that is the same in both was so at the moment of the look. Answers also how many
/// were judged, and of how many of them Ready was True.
fn judge(
    slots: usize,
    before: &Objects,
    sessions: &Sessions,
    after: &Objects,
) -> (Vec<String>, usize, usize) {
    let (mut all, mut judged, mut ready_ones) = (Vec::new(), 0, 0);
    for slot in 0..slots {
        match (before.get(&name(slot)), after.get(&name(slot))) {
            (None, None) => {
                let left: Vec<_> = sessions_of(slot, sessions)
                    .filter(|(_, members)| !members.is_empty())
                    .collect();
                if !left.is_empty() {
                    all.push(format!(
                        "leak: {} is gone, and the service still holds {left:?}",
                        name(slot)
                    ));
                }
            }
            (Some(before), Some(after))
                if before.uid() == after.uid()
                    && before.resource_version() == after.resource_version() =>
            {
                judged += 1;
                ready_ones += usize::from(ready(after).0);
                all.extend(wrong(after, slot, sessions));
            }
            _ => {}
        }
    }
    (all, judged, ready_ones)
}

/// What a watch has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Objects that were judged.
    pub judged: usize,
    /// Of these, with Ready True.
    pub ready: usize,
    pub wrong: Vec<String>,
}

/// Looks at the promise again and again until it is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub fn start(lab: Arc<Lab>, slots: usize) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut last = None;
            loop {
                let sessions = lab.simulator.sessions();
                let now = objects(&lab.sessions).await.ok();
                if let (Some(before), Some(after)) = (&last, &now) {
                    let (wrong, judged, ready) = judge(slots, before, &sessions, after);
                    let mut seen = shared.lock().expect("no panic");
                    seen.judged += judged;
                    seen.ready += ready;
                    seen.wrong.extend(wrong);
                }
                last = now;
                sleep(PERIOD).await;
            }
        });
        Self { seen, task }
    }

    pub fn stop(&self) {
        self.task.abort();
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a record waits for a person: the service refuses to remove what it does not hold, which
/// we can't know (design 3.3).
fn waits_for_a_person(object: &StreamSession, sessions: &Sessions, now: Timestamp) -> bool {
    let Some(status) = &object.status else { return false };
    let Some(target) = &status.target else { return false };
    let none = BTreeSet::new();
    let members = sessions.get(&target.session_id).unwrap_or(&none);
    let wants = |id: &String| {
        object.metadata.deletion_timestamp.is_none() && object.spec.slave_instance_ids.contains(id)
    };
    let stuck = status.unsettled_instances.iter().all(|open| {
        let refused =
            open.refusals.as_ref().is_some_and(|refusals| refusals.operation == Operation::Detach);
        let can_arrive = open.attach_may_arrive_until.as_ref().is_some_and(|until| until.0 > now);
        !wants(&open.instance_id) && refused && !can_arrive && !members.contains(&open.instance_id)
    });
    // A slow retry may be under way; then the next look decides.
    stuck && !status.unsettled_instances.is_empty() && status.pending_call.is_none()
}

/// Whether every object is as asked for and every ledger clean; answers those that wait for a
/// person, which only some unspecified behaviours may lead to.
pub fn converged(
    slots: usize,
    objects: &Objects,
    simulator: &Simulator,
    absent_refused: bool,
) -> Result<Vec<String>, String> {
    let (sessions, now) = (simulator.sessions(), simulator.now());
    let mut stuck = Vec::new();
    for slot in 0..slots {
        let found = objects.get(&name(slot));
        let all: BTreeMap<_, _> =
            sessions_of(slot, &sessions).filter(|(_, members)| !members.is_empty()).collect();
        let Some(object) = found else {
            if all.is_empty() {
                continue;
            }
            return Err(format!("{} is gone, and the service still holds {all:?}", name(slot)));
        };
        let status = object.status.clone().unwrap_or_default();
        let desired: BTreeSet<_> = object.spec.slave_instance_ids.iter().cloned().collect();
        let as_asked = all
            .get(object.spec.session_id.as_str())
            .map_or(desired.is_empty(), |members| **members == desired)
            && all.keys().all(|session| *session == object.spec.session_id);
        let alive = object.metadata.deletion_timestamp.is_none();
        let as_asked = if alive { as_asked } else { all.is_empty() };
        if absent_refused && as_asked && waits_for_a_person(object, &sessions, now) {
            stuck.push(name(slot));
            continue;
        }
        let clean = status.unsettled_instances.is_empty() && status.pending_call.is_none();
        if !(alive && clean && as_asked && ready(object).0) {
            return Err(format!("{}: wanted {desired:?}, held {all:?}, {status:?}", name(slot)));
        }
    }
    let strange: Vec<_> = sessions
        .keys()
        .filter(|session| (0..slots).all(|slot| !session.starts_with(&format!("{slot}-"))))
        .collect();
    if strange.is_empty() {
        Ok(stuck)
    } else {
        Err(format!("sessions that nobody asked for: {strange:?}"))
    }
}
