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
use crate::api::{self, FIELD_MANAGER, FINALIZER};

/// What came of it.
#[derive(Debug)]
pub enum RequestResult {
    /// The copy that the API server holds now.
    Copy(Box<StreamSession>),
    /// There is no such object.
    Gone,
    /// It is not the copy any more; nothing was written.
    Conflict,
    /// Nobody knows: a time-out, or an error of the API server.
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Read,
    WriteStatus,
    WriteFinalizers,
}

impl Request {
    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::WriteStatus => "write the status of",
            Self::WriteFinalizers => "write the finalizers of",
        }
    }
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
    pub async fn read(&self) -> RequestResult {
        self.within(Request::Read, self.api.get(&self.key.name)).await
    }

    /// Writes the whole status over that of `copy`.
    pub async fn write_status(&self, copy: &StreamSession, status: &Status) -> RequestResult {
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
            status: Some(api::status(status, &uid, &stored, Timestamp::now())),
        };
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.within(
            Request::WriteStatus,
            self.api.replace_status(&self.key.name, &parameters, &body),
        )
        .await
    }

    /// Puts the finalizer on `copy`, or takes it off.
    pub async fn write_finalizer(&self, copy: &StreamSession, present: bool) -> RequestResult {
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
            Request::WriteFinalizers,
            self.api.patch(&self.key.name, &parameters, &Patch::Merge(body)),
        )
        .await
    }

    /// A 404 that names the object. Without a name it is of a server that does not know the kind,
    /// yet or just now: that says nothing about the object.
    fn is_missing(&self, status: &kube::core::Status) -> bool {
        status.is_not_found()
            && status.details.as_ref().is_some_and(|details| details.name == *self.key.name)
    }

    async fn within(
        &self,
        request: Request,
        response: impl Future<Output = kube::Result<StreamSession>>,
    ) -> RequestResult {
        let (object, verb) = (&self.key, request.verb());
        match timeout(self.deadline, response).await {
            Ok(Ok(copy)) => RequestResult::Copy(Box::new(copy)),
            Ok(Err(kube::Error::Api(status))) if self.is_missing(&status) => RequestResult::Gone,
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => RequestResult::Conflict,
            // The merge patch met another uid, or the object began to terminate; or an admission
            // policy denies it, which the log should show.
            Ok(Err(kube::Error::Api(status)))
                if status.is_invalid() && request == Request::WriteFinalizers =>
            {
                warn!(%object, message = %status.message, "could not {verb} the object; reading it again");
                RequestResult::Conflict
            }
            Ok(Err(error)) => {
                warn!(%object, %error, "could not {verb} the object; trying again");
                RequestResult::Failed
            }
            Err(_) => {
                let deadline_seconds = self.deadline.as_secs_f32();
                warn!(%object, deadline_seconds, "could not {verb} the object in time; trying again");
                RequestResult::Failed
            }
        }
    }
}
