//! Events on transitions, best effort: one that can't be written never fails a round.

use std::time::Duration;

use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use streamsession_protocol::conditions::{Conditions, Mode, Reason};
use tokio::time::timeout;
use tracing::debug;

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
}

impl Events {
    /// Events of this operator.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: None };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells people of a change of the conditions; being on the way is no news.
    pub fn transition(&self, object: &StreamSession, before: Option<&Conditions>, after: &Conditions) {
        let reason_before = before.map(|conditions| conditions.reason);
        if reason_before == Some(after.reason) || after.reason == Reason::Progressing {
            return;
        }
        let type_ = match (after.mode, after.reason) {
            (Mode::Ready, _) | (_, Reason::Deleting) => EventType::Normal,
            _ => EventType::Warning,
        };
        let event = Event {
            type_,
            reason: after.reason.as_str().to_owned(),
            note: Some(after.message.chars().take(NOTE_MAX).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            match timeout(DEADLINE, recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "an event could not be written"),
                Err(_) => debug!("an event could not be written in time"),
            }
        });
    }
}
