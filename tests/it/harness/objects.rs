//! The objects of a lab, as a person makes and edits them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::{Value, json};
use streamsession_operator::api::v1alpha1::StreamSession;

use super::{Lab, SESSION};

/// These ids as the simulator answers its members.
pub fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// A spec with the Secret `tencent`.
pub fn spec(session: &str, ids: impl Serialize) -> Value {
    json!({
        "sessionId": session, "slaveInstanceIds": ids, "credentialsRef": {"name": "tencent"},
    })
}

/// A StreamSession as a manifest.
pub fn manifest(metadata: &Value, spec: &Value) -> Value {
    json!({
        "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession",
        "metadata": metadata, "spec": spec,
    })
}

/// Until when a detach may still arrive: the last deadline in the status.
pub fn detach_deadline(object: &StreamSession) -> Timestamp {
    let unsettled = object.status.iter().flat_map(|status| &status.unsettled_instances);
    let deadlines = unsettled.filter_map(|record| record.detach_may_arrive_until.as_ref());
    deadlines.map(|until| until.0).max().expect("a doubt")
}

impl Lab {
    /// Creates a StreamSession with this metadata.
    pub async fn create_with(&self, metadata: Value, spec: Value) -> StreamSession {
        let object = serde_json::from_value(manifest(&metadata, &spec)).expect("a StreamSession");
        self.sessions.create(&PostParams::default(), &object).await.expect("created")
    }

    /// A StreamSession of [`SESSION`] with the Secret `tencent`; `extra` is merged into its spec.
    pub async fn create(&self, name: &str, ids: &[&str], extra: Value) -> StreamSession {
        let mut spec = spec(SESSION, ids);
        if let (Some(spec), Some(extra)) = (spec.as_object_mut(), extra.as_object()) {
            spec.extend(extra.clone());
        }
        self.create_with(json!({"name": name}), spec).await
    }

    /// The same, and waits until it is Ready.
    pub async fn create_ready(&self, name: &str, ids: &[&str]) {
        self.create(name, ids, json!({})).await;
        self.until_ready(name, ids).await;
    }

    /// A StreamSession of a session of its own, whose id is its name.
    pub async fn create_apart(&self, name: &str, ids: &[&str]) {
        self.create(name, ids, json!({"sessionId": name})).await;
    }

    pub async fn get(&self, name: &str) -> StreamSession {
        self.sessions.get(name).await.expect("the object")
    }

    /// Merges `spec` into the object's spec.
    pub async fn edit(&self, name: &str, spec: Value) {
        self.patch(name, json!({"spec": spec})).await;
    }

    pub async fn edit_ids(&self, name: &str, ids: &[&str]) {
        self.edit(name, json!({"slaveInstanceIds": ids})).await;
    }

    /// Merges `metadata` into the object's metadata.
    pub async fn edit_metadata(&self, name: &str, metadata: Value) {
        self.patch(name, json!({"metadata": metadata})).await;
    }

    async fn patch(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        self.sessions.patch(name, &PatchParams::default(), &patch).await.expect("edited");
    }

    /// Merges `status` into the object's status, as a person would with `kubectl edit
    /// --subresource=status`.
    pub async fn edit_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.sessions.patch_status(name, &PatchParams::default(), &patch).await.expect("edited");
    }

    pub async fn delete(&self, name: &str) {
        self.sessions.delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create_secret(&self, name: &str, id: &str, key: &str) {
        let secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"secretId": id, "secretKey": key},
        }));
        let secret = secret.expect("a Secret");
        self.secrets().create(&PostParams::default(), &secret).await.expect("a Secret");
    }

    /// Gives an existing Secret other keys.
    pub async fn change_secret(&self, name: &str, id: &str, key: &str) {
        let patch = Patch::Merge(json!({"stringData": {"secretId": id, "secretKey": key}}));
        self.secrets().patch(name, &PatchParams::default(), &patch).await.expect("a Secret");
    }

    pub async fn delete_secret(&self, name: &str) {
        self.secrets().delete(name, &DeleteParams::default()).await.expect("deleted");
    }
}
