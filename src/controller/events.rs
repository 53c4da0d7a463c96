//! Events on transitions and notices, best effort: one that can't be written never fails a reconcile.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Resource, ResourceExt};
use streamsession_core::answer::CallResult;
use streamsession_core::conditions::{Conditions, Mode, Reason};
use streamsession_core::ids::InstanceId;
use streamsession_core::reconcile::Notice;
use streamsession_core::scheduler::resync::ResyncFailure;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use crate::api::FIELD_MANAGER;
use crate::api::v1alpha1::StreamSession;

/// An event is not worth more.
const DEADLINE: Duration = Duration::from_secs(5);
/// The API server takes no longer note.
const NOTE_MAX: usize = 1000;

/// Where events go.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    client: kube::Client,
}

/// The name of the object in the log.
fn full_name(object: &StreamSession) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Of the object that a notice speaks of: the event's type, reason and note.
fn told(before: &StreamSession, notice: &Notice) -> (EventType, &'static str, String) {
    let session = before.status.as_ref().and_then(|status| status.target.as_ref());
    let session = session.map_or("", |target| target.session_id.as_str());
    let ids = notice.instances();
    let names = streamsession_core::conditions::names(&ids.iter().collect::<Vec<_>>());
    match notice {
        Notice::Rebuilt(why) => (
            EventType::Warning,
            "LedgerRebuilt",
            format!(
                "{why}. Its instances are attached or detached again, as the spec says. Instances that were attached before and are not in the ledger can't be known."
            ),
        ),
        Notice::Forgotten(_) => (
            EventType::Warning,
            "InstancesForgotten",
            format!(
                "Taken as detached from session {session}, though the service never said so: {names}. Check in the console whether they are still in it."
            ),
        ),
        Notice::HandedOver(_) => (
            EventType::Normal,
            "InstancesHandedOver",
            format!("Left to the StreamSession that owns session {session}: {names}."),
        ),
        Notice::Unproven(_) => (
            EventType::Warning,
            "InstancesDropped",
            format!(
                "Dropped from a rebuilt ledger: {names}. The service says that session {session} does not exist, but never did anything for these credentials. If it does exist, nothing detaches them."
            ),
        ),
        Notice::Orphaned(_) => (
            EventType::Normal,
            "InstancesOrphaned",
            format!("Left in session {session}, as spec.deletionPolicy says: {names}."),
        ),
        Notice::Violated(violation) => {
            (EventType::Warning, "InvariantViolated", violation.to_string())
        }
    }
}

fn event(type_: EventType, reason: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(NOTE_MAX).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// What is told of a resync that did not confirm these members.
fn resync_failed(failure: &ResyncFailure, instances: &[InstanceId]) -> String {
    let names = streamsession_core::conditions::names(&instances.iter().collect::<Vec<_>>());
    let what = match failure.result {
        CallResult::Processed => "The service did not name them as attached. Some services refuse to attach what is attached".to_owned(),
        CallResult::Unanswered => format!("It ended with {}: the attach may still arrive, until the time in status.unsettledInstances", failure.code),
        _ => format!("It ended with {}", failure.code),
    };
    format!(
        "A resync did not confirm {names}. {what}. Ready goes on saying what the service confirmed last. The next resync tries again; this is told once, until one goes well."
    )
}

impl Events {
    /// Events of this operator.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { recorder: Self::recorder(client.clone()), client }
    }

    fn recorder(client: kube::Client) -> Recorder {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: None };
        Recorder::new(client, reporter)
    }

    /// Tells people of a change of the conditions; being on the way is no news.
    pub fn transition(
        &self,
        object: &StreamSession,
        before: Option<&Conditions>,
        after: &Conditions,
    ) {
        let reason_before = before.map(|conditions| conditions.reason);
        if reason_before == Some(after.reason) || after.reason == Reason::Progressing {
            return;
        }
        let type_ = match (after.mode, after.reason) {
            (Mode::Ready, _) | (_, Reason::Deleting) => EventType::Normal,
            _ => EventType::Warning,
        };
        Self::publish(&self.recorder, object, type_, after.reason.as_str(), &after.message);
    }

    /// Tells the log of something that is about to be written: the answer to that may be lost. The
    /// event names some instances, the log all.
    pub fn log(&self, before: &StreamSession, notice: &Notice) {
        let (object, (type_, reason, note)) = (full_name(before), told(before, notice));
        let ids: Vec<_> = notice.instances().iter().map(InstanceId::as_str).collect();
        match (type_, notice) {
            (_, Notice::Violated(_)) => {
                error!(object, violation = note, "the work on this object stops");
            }
            (EventType::Warning, _) => warn!(object, ?ids, reason, note),
            (EventType::Normal, _) => info!(object, ?ids, reason, note),
        }
    }

    /// Tells people of something that happened once. `before`: the object that `notice` speaks of;
    /// `object`: as it was written then.
    pub fn notice(&self, before: &StreamSession, object: &StreamSession, notice: &Notice) {
        let (type_, reason, note) = told(before, notice);
        self.publish_apart(object.object_ref(&()), type_, reason, &note);
    }

    /// Tells people that another object of another session wants an instance of this one, too.
    pub fn wanted_twice(&self, object: ObjectReference, note: &str) {
        warn!(namespace = object.namespace, object = object.name, "{note}");
        self.publish_apart(object, EventType::Warning, "InstancesWantedTwice", note);
    }

    /// Tells people, and the log, that a resync did not confirm these members.
    pub fn resync_failed(
        &self,
        object: &StreamSession,
        failure: &ResyncFailure,
        instances: &[InstanceId],
    ) {
        let ids: Vec<_> = instances.iter().map(InstanceId::as_str).collect();
        let (result, code) = (<&str>::from(failure.result), &failure.code);
        warn!(object = full_name(object), ?ids, result, code, "a resync did not confirm members");
        let note = resync_failed(failure, instances);
        self.publish_apart(object.object_ref(&()), EventType::Warning, "ResyncFailed", &note);
    }

    /// A recorder counts events of one reason under the first one's note; each of these names
    /// something of its own.
    fn publish_apart(&self, object: ObjectReference, type_: EventType, reason: &str, note: &str) {
        Self::send(Self::recorder(self.client.clone()), event(type_, reason, note), object);
    }

    fn publish(
        recorder: &Recorder,
        object: &StreamSession,
        type_: EventType,
        reason: &str,
        note: &str,
    ) {
        Self::send(recorder.clone(), event(type_, reason, note), object.object_ref(&()));
    }

    fn send(recorder: Recorder, event: Event, reference: ObjectReference) {
        tokio::spawn(async move {
            match timeout(DEADLINE, recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "an event could not be written"),
                Err(_) => debug!("an event could not be written in time"),
            }
        });
    }
}
