//! Waiting for a condition, each with a deadline: nothing sleeps for luck.

use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use streamsession_operator::api::v1alpha1::{StreamSession, StreamSessionStatus};

use super::{Lab, SESSION, set};

/// The longest that anything may take; a healthy run needs a fraction.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Waits for a condition; panics with `what` and the last look when the deadline has passed.
pub async fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) => assert!(
                start.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}; last seen: {seen}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

impl Lab {
    /// Waits until Ready is True for the newest generation, exactly `ids` are members at the
    /// simulator, and nothing is open in the ledger.
    pub async fn until_ready(&self, name: &str, ids: &[&str]) -> StreamSession {
        self.until_ready_at(name, SESSION, ids).await
    }

    /// The same for another session.
    pub async fn until_ready_at(&self, name: &str, session: &str, ids: &[&str]) -> StreamSession {
        let wanted = set(ids);
        eventually(&format!("{name} is Ready with {ids:?} in {session}"), async || {
            let object = self.get(name).await;
            let status = object.status.clone().unwrap_or_default();
            let settled = status.unsettled_instances.is_empty() && status.pending_call.is_none();
            let members = self.simulator.members(session);
            let (ready, _, _) = ready(&object);
            if ready && settled && members == wanted {
                Ok(object)
            } else {
                Err(format!("{}, members {members:?}", brief(&status)))
            }
        })
        .await
    }

    /// Waits until Ready is True for the newest generation, whoever else is in the session, and
    /// whatever is still open in the ledger.
    pub async fn until_condition_ready(&self, name: &str) -> StreamSession {
        eventually(&format!("{name} is Ready"), async || {
            let object = self.get(name).await;
            match ready(&object) {
                (true, ..) => Ok(object),
                (_, reason, message) => Err(format!("{reason}: {message}")),
            }
        })
        .await
    }

    /// Waits until Ready is False for `reason`; answers the message.
    pub async fn until_reason(&self, name: &str, reason: &str) -> String {
        eventually(&format!("{name} has the reason {reason}"), async || {
            let object = self.get(name).await;
            match ready(&object) {
                (_, found, message) if found == reason => Ok(message),
                (_, found, message) => Err(format!("{found}: {message}")),
            }
        })
        .await
    }

    /// Waits until `look` accepts the status.
    pub async fn until_status(
        &self,
        name: &str,
        what: &str,
        look: impl Fn(&StreamSessionStatus) -> bool,
    ) -> StreamSession {
        eventually(&format!("{name}: {what}"), async || {
            let object = self.get(name).await;
            let status = object.status.clone().unwrap_or_default();
            if look(&status) { Ok(object) } else { Err(brief(&status)) }
        })
        .await
    }

    /// Waits until the status says that exactly these, in order, are attached.
    pub async fn until_attached(&self, name: &str, ids: &[&str]) -> StreamSession {
        self.until_status(name, &format!("{ids:?} are attached"), |status| {
            status.attached_instance_ids == ids
        })
        .await
    }

    /// Waits until at least `count` signed calls have reached the simulator.
    pub async fn until_calls(&self, count: usize) {
        eventually(&format!("{count} calls"), async || {
            let calls = self.history();
            if calls.len() >= count { Ok(()) } else { Err(format!("{calls:?}")) }
        })
        .await;
    }

    /// Waits for an event about the object; answers its note.
    pub async fn until_event(&self, name: &str, reason: &str) -> String {
        self.until_note(name, reason, "").await
    }

    /// Likewise, for one whose note has this in it.
    pub async fn until_note(&self, name: &str, reason: &str, part: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        eventually(&format!("an event {reason} about {name}"), async || {
            let events = events.list(&ListParams::default()).await.expect("events").items;
            let about = |event: &&Event| {
                event
                    .regarding
                    .as_ref()
                    .is_some_and(|regarding| regarding.name.as_deref() == Some(name))
            };
            let is_of = |event: &&Event| event.reason.as_deref() == Some(reason);
            let notes = events.iter().filter(about).filter(is_of);
            let mut notes = notes.filter_map(|event| event.note.clone());
            notes.find(|note| note.contains(part)).ok_or_else(|| {
                format!("{:?}", events.iter().map(|event| &event.note).collect::<Vec<_>>())
            })
        })
        .await
    }

    /// Waits until the metrics have this line.
    pub async fn until_metric(&self, line: &str) {
        eventually(&format!("the metric {line}"), async || {
            let text = self.metrics().await;
            if text.lines().any(|found| found == line) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// Waits until the operator has seen all that happened so far: a new object, of a session of
    /// its own, is attached by one call and three writes, and watch events are in order.
    pub async fn until_marked(&self) {
        self.create_apart("marker", &["marked"]).await;
        self.until_attached("marker", &["marked"]).await;
    }

    /// Waits until the object is gone.
    pub async fn until_gone(&self, name: &str) {
        eventually(&format!("{name} is gone"), async || {
            match self.sessions.get_opt(name).await.expect("an answer") {
                None => Ok(()),
                Some(object) => Err(object.status.as_ref().map(brief).unwrap_or_default()),
            }
        })
        .await;
    }
}

/// Ready for the newest generation, its reason and its message.
pub fn ready(object: &StreamSession) -> (bool, String, String) {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == "Ready") else {
        return (false, "no condition".into(), String::new());
    };
    let current = ready.observed_generation == object.metadata.generation;
    (current && ready.status == "True", ready.reason.clone(), ready.message.clone())
}

/// The status with a few of its instances: printing thousands in each look would keep the operator
/// waiting.
fn brief(status: &StreamSessionStatus) -> String {
    let mut status = status.clone();
    let counts = (status.attached_instance_ids.len(), status.unsettled_instances.len());
    status.attached_instance_ids.truncate(5);
    status.unsettled_instances.truncate(5);
    format!("{status:?}, {counts:?} instances attached and unsettled")
}
