//! Reads and writes of one object. Every write carries uid and resourceVersion: a late one never
//! hits another copy, or another object of the name.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use streamsession_core::object::ObjectKey;
use streamsession_core::reconcile::Status;
use tokio::time::timeout;
use tracing::warn;

use crate::api::v1alpha1::StreamSession;
use crate::api::{FIELD_MANAGER, FINALIZER, ledger};

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// The copy that the API server holds now.
    Copy(Box<StreamSession>),
    /// There is no such object.
    Gone,
    /// It is not the copy any more; nothing was written.
    Conflict,
    /// Nobody knows: a time-out, or an error of the API server.
    Failed,
}

/// One object at the API server.
pub struct Object {
    api: Api<StreamSession>,
    key: ObjectKey,
    deadline: Duration,
}

impl Object {
    /// The object of that name.
    #[must_use]
    pub fn new(client: kube::Client, key: ObjectKey, deadline: Duration) -> Self {
        Self { api: Api::namespaced(client, &key.namespace), key, deadline }
    }

    /// Reads it fresh, from the quorum.
    pub async fn read(&self) -> Outcome {
        self.within("read", self.api.get(&self.key.name)).await
    }

    /// Writes the whole status over that of `copy`.
    pub async fn write_status(&self, copy: &StreamSession, status: &Status) -> Outcome {
        let uid = copy.uid().unwrap_or_default();
        let stored = copy.status.clone().unwrap_or_default();
        let body = StreamSession {
            metadata: ObjectMeta {
                name: Some(self.key.name.to_string()),
                namespace: Some(self.key.namespace.to_string()),
                resource_version: copy.resource_version(),
                uid: copy.uid(),
                ..ObjectMeta::default()
            },
            spec: copy.spec.clone(),
            status: Some(ledger::status(status, &uid, &stored, Timestamp::now())),
        };
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.within(
            "write the status of",
            self.api.replace_status(&self.key.name, &parameters, &body),
        )
        .await
    }

    /// Puts the finalizer on `copy`, or takes it off.
    pub async fn write_finalizer(&self, copy: &StreamSession, present: bool) -> Outcome {
        let mut finalizers: Vec<&str> = copy
            .finalizers()
            .iter()
            .map(String::as_str)
            .filter(|name| *name != FINALIZER)
            .collect();
        if present {
            finalizers.push(FINALIZER);
        }
        let body = json!({"metadata": {"uid": copy.uid(), "resourceVersion": copy.resource_version(), "finalizers": finalizers}});
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.within(
            "write the finalizers of",
            self.api.patch(&self.key.name, &parameters, &Patch::Merge(body)),
        )
        .await
    }

    /// A 404 that names the object. Without a name it is of a server that does not know the kind,
    /// yet or just now: that says nothing about the object.
    fn is_missing(&self, status: &kube::core::Status) -> bool {
        status.code == 404
            && status.details.as_ref().is_some_and(|details| details.name == *self.key.name)
    }

    async fn within(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<StreamSession>>,
    ) -> Outcome {
        match timeout(self.deadline, request).await {
            Ok(Ok(copy)) => Outcome::Copy(Box::new(copy)),
            Ok(Err(kube::Error::Api(status))) if self.is_missing(&status) => Outcome::Gone,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Outcome::Conflict,
            // The merge patch met another uid, or the object began to terminate; or an admission
            // policy denies it, which the log should show.
            Ok(Err(kube::Error::Api(status)))
                if status.code == 422 && what.contains("finalizers") =>
            {
                warn!(object = %self.key, message = %status.message, "could not {what} the object; reading it anew");
                Outcome::Conflict
            }
            Ok(Err(error)) => {
                warn!(object = %self.key, error = %error, "could not {what} the object; trying again");
                Outcome::Failed
            }
            Err(_) => {
                warn!(object = %self.key, deadline_seconds = self.deadline.as_secs_f32(), "could not {what} the object in time; trying again");
                Outcome::Failed
            }
        }
    }
}
