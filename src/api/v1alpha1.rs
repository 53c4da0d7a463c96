//! `StreamSession`, `gs.tencentcloud.dev/v1alpha1`.
//!
//! The schema says as much as a schema can, so that `kubectl apply` refuses what could never work
//! and says why; CEL says the rest. The field docs are the descriptions that `kubectl explain`
//! prints: they begin with the field's name and give units and limits.

#![allow(unreachable_pub, reason = "the derive puts the types into a module of its own")]
#![allow(clippy::duplicated_attributes, reason = "printer columns share values")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The desired slave cloud phones of one multi-stream session of Tencent Cloud GS.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "gs.tencentcloud.dev",
    version = "v1alpha1",
    kind = "StreamSession",
    plural = "streamsessions",
    shortname = "gss",
    category = "tencentcloud",
    namespaced,
    status = "StreamSessionStatus",
    derive = "PartialEq",
    doc = "StreamSession declares which slave cloud phones are in a multi-stream (same-screen) session of Tencent Cloud GS. The operator attaches and detaches them with SwitchCloudPhoneMultipleStreamSessionSlaves.",
    selectable = ".spec.sessionId",
    selectable = ".spec.region",
    printcolumn(name = "Session", type_ = "string", json_path = ".spec.sessionId"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredInstances"),
    printcolumn(name = "Attached", type_ = "integer", json_path = ".status.attachedInstances"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failedInstances"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Region",
        type_ = "string",
        json_path = ".status.target.region",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    description = "spec says which slave cloud phones shall be in which multi-stream session of Tencent Cloud GS."
)]
pub struct StreamSessionSpec {
    /// sessionId is the id of the multi-stream session, as the service gave it: a number of about
    /// 19 digits that must be quoted. If it changes, all instances are first detached from the old
    /// session (deletionPolicy Orphan: left there), then attached to the new one.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[!-~]+$"))]
    pub session_id: String,

    /// region is sent as X-TC-Region, such as ap-guangzhou. Default: the operator's --region;
    /// without one no region is sent. Another region is another session; taking the field out moves
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: Option<String>,

    /// slaveInstanceIds are the instances that shall be slaves of the session: at most 1000, each
    /// once, each 1 to 128 printable characters without a space. May be empty.
    #[schemars(
        length(max = 1000),
        inner(length(min = 1, max = 128), regex(pattern = r"^[!-~]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub slave_instance_ids: Vec<String>,

    /// credentialsRef names a Secret of the same namespace with the keys secretId, secretKey and,
    /// for temporary keys, token. Without it the operator's own credentials count, where its
    /// --default-credentials-namespaces names the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<CredentialsRef>,

    /// deletionPolicy says what happens to the instances when the StreamSession is deleted. Delete
    /// (the default): all are detached first. Orphan: they stay in the session, and nobody
    /// remembers them. It may be changed while the deletion waits.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// detachFailurePolicy says what happens to an instance whose detachment the service keeps
    /// refusing: five times, over ten minutes at least. Retain (the default): it stays in the
    /// status, and a person has to look. Forget: it is taken for detached, with a Warning event.
    #[serde(default)]
    pub detach_failure_policy: DetachFailurePolicy,

    /// resyncInterval is how often the members are attached again, such as 30m: 30s to 24h, or 0s
    /// for never. Nothing reads the membership back, so only that puts back what somebody took out,
    /// and tells that the session has ended. What it does to a running stream is published nowhere.
    /// Default: the operator's --resync-interval, which is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 16),
        regex(pattern = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$")
    )]
    #[x_kube(validation = Rule::new("duration(self) == duration('0s') || (duration(self) >= duration('30s') && duration(self) <= duration('24h'))").message("`resyncInterval` must be `0s` (never), or from `30s` to `24h`"))]
    pub resync_interval: Option<String>,
}

/// A Secret of the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CredentialsRef {
    /// name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// What happens to the instances when the object is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema's description is the field's")]
pub enum DeletionPolicy {
    #[default]
    Delete,
    Orphan,
}

/// What happens to an instance that the service does not let go of.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema's description is the field's")]
pub enum DetachFailurePolicy {
    #[default]
    Retain,
    Forget,
}

/// What the operator knows. It is the only memory of what is attached: the service can't be asked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(
    description = "status is what the operator knows. It is the only memory of what is attached: the service can't be asked.",
    extend("default" = {"observedGeneration": -1})
)]
pub struct StreamSessionStatus {
    /// conditions are Ready (always), Reconciling (only while the operator works or retries) and
    /// Stalled (only while a person has to act).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), transform = bound_conditions)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// observedGeneration is the generation of the spec that this status speaks of; -1 before the
    /// first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = GENERATION_MAX))]
    pub observed_generation: Option<i64>,

    /// desiredInstances is the number of instances that the spec names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub desired_instances: Option<i32>,

    /// attachedInstances is the number of instances that the service last said it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2000))]
    pub attached_instances: Option<i32>,

    /// failedInstances is the number of instances whose last call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2000))]
    pub failed_instances: Option<i32>,

    /// recordedInstances is the number of instances in attachedInstanceIds and unsettledInstances
    /// together. Another number there is a sign that somebody has changed the lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2000))]
    pub recorded_instances: Option<i32>,

    /// lastHandledForgetInstances is the value of the annotation
    /// gs.tencentcloud.dev/forget-instances that was acted on last; a long one is shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_forget_instances: Option<String>,

    /// lastHandledAdopt is the value of the annotation gs.tencentcloud.dev/adopt that was acted on
    /// last; a long one is shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_adopt: Option<String>,

    /// objectUID is the uid of the object whose ledger this is: a copied status is recognised by
    /// it.
    #[serde(default, rename = "objectUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub object_uid: Option<String>,

    /// target is the session that this status is about, and who we are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,

    /// attachedInstanceIds are confirmed members about which nothing else is open; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub attached_instance_ids: Vec<String>,

    /// unsettledInstances are all others that the service may hold or was asked for; sorted by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub unsettled_instances: Vec<UnsettledInstance>,

    /// pendingCall is written before a call is made and removed when its outcome is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_call: Option<PendingCall>,

    /// lastCall is the last call that came to an end; of those that attached again what is attached,
    /// the last one that the service confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_call: Option<LastCall>,

    /// What a later version wrote: it is kept.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// The session that the status is about.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// sessionId of the session.
    #[schemars(length(min = 1, max = 128))]
    pub session_id: String,
    /// region that is sent, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub region: Option<String>,
    /// endpoint names the service: gs.tencentcloudapi.com for all its access points, else the
    /// address. Calls go to the operator's --gs-endpoint alone.
    #[schemars(length(max = 300))]
    pub endpoint: String,
    /// credential is the id of the key, never the key; absent before the first call, empty if
    /// several were tried and none has worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub credential: Option<String>,
    /// account is the account behind that key, as STS says; absent if it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub account: Option<String>,
    /// credentialProven says whether the service has done something for that key.
    #[serde(default)]
    pub credential_proven: bool,
    /// What a later version wrote.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// What a call does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema's description is the field's")]
pub enum Operation {
    Attach,
    Detach,
}

/// What is known of an instance.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema's description is the field's")]
pub enum InstanceState {
    Attached,
    Detached,
    Unknown,
}

/// Why an attempt failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema's description is the field's")]
pub enum FailureReason {
    Refused,
    Unclear,
    Unanswered,
    SessionGone,
}

/// What came of a call as a whole.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema's description is the field's")]
pub enum CallResult {
    Processed,
    Throttled,
    CredentialsRejected,
    SignatureExpired,
    ActionUnavailable,
    TooLarge,
    NotSent,
    SessionGone,
    Rejected,
    #[default]
    Unclear,
    Unanswered,
}

/// An instance about which something is open.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UnsettledInstance {
    /// instanceId of the cloud phone.
    #[schemars(length(min = 1, max = 128))]
    pub instance_id: String,
    /// state is what the service said last; Unknown if nobody knows.
    pub state: InstanceState,
    /// attachMayArriveUntil: an earlier attach may still take effect until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_may_arrive_until: Option<Time>,
    /// detachMayArriveUntil: an earlier detach may still take effect until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detach_may_arrive_until: Option<Time>,
    /// refusals in a row of one operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusals: Option<Refusals>,
    /// lastFailure is the last attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
    /// assumed: nobody saw this object attach it; the status was lost or copied, or a person told
    /// of it. A success ends that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
    /// What a later version wrote.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// Refusals in a row.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Refusals {
    /// operation that was refused.
    pub operation: Operation,
    /// count of refusals.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub count: i32,
    /// sinceTime is the time of the first.
    pub since_time: Time,
}

/// A failed attempt.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// operation that was tried.
    pub operation: Operation,
    /// reason of the failure.
    pub reason: FailureReason,
    /// code that the service gave for the call as a whole, if any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub code: String,
    /// attempts in a row.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub attempts: i32,
    /// time of the last.
    pub time: Time,
    /// generation of the spec that asked for it: after an edit it is tried again at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = GENERATION_MAX))]
    pub generation: Option<i64>,
}

/// A call that is about to be made, or was when its writer stopped.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PendingCall {
    /// id is random.
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    /// operation of the call.
    pub operation: Operation,
    /// instanceIds of the call; sorted.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub instance_ids: Vec<String>,
    /// startTime on the service's clock, in whole seconds; the request is signed with it.
    pub start_time: Time,
    /// resync: it attaches again what is attached. Ready stays as it is meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resync: bool,
}

/// A call that came to an end.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastCall {
    /// operation of the call.
    pub operation: Operation,
    /// requestId for a support ticket; absent if nobody answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub request_id: String,
    /// time that the request was signed with.
    pub time: Time,
    /// succeeded is the number of its instances that are now as wanted.
    #[schemars(range(min = 0, max = 1000))]
    pub succeeded: i32,
    /// failed is the number of its instances that are not.
    #[schemars(range(min = 0, max = 1000))]
    pub failed: i32,
    /// result of the call as a whole.
    #[serde(default)]
    pub result: CallResult,
    /// code of the error; absent if the call was processed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub code: String,
}

/// The largest generation that a JSON number holds exactly, 2^53 - 1.
const GENERATION_MAX: i64 = 9_007_199_254_740_991;

/// The bounds that `metav1.Condition` has in Go and that k8s-openapi leaves out.
fn bound_conditions(conditions: &mut Schema) {
    let bounds = json!({
        "message": {"maxLength": 32_768},
        "observedGeneration": {"minimum": 0, "maximum": GENERATION_MAX},
        "reason": {"minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
        "status": {"enum": ["True", "False", "Unknown"]},
        "type": {"minLength": 1, "maxLength": 316, "pattern": "^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$"},
    });
    for (field, bounds) in bounds.as_object().into_iter().flatten() {
        let schema = conditions
            .pointer_mut(&format!("/items/properties/{field}"))
            .and_then(Value::as_object_mut);
        if let (Some(schema), Some(bounds)) = (schema, bounds.as_object()) {
            schema.extend(bounds.clone());
        }
    }
}

/// The CustomResourceDefinition as it stands in `crds/`.
pub fn crd_yaml() -> Result<String, serde_json::Error> {
    use kube::CustomResourceExt;
    use serde::ser::Error;
    let mut crd = serde_json::to_value(StreamSession::crd())?;
    strip_noise(&mut crd);
    serde_saphyr::to_string(&crd).map_err(serde_json::Error::custom)
}

/// schemars calls every optional field nullable, but an absent field is the one way to say nothing;
/// and it writes 1000 as 1000.0.
fn strip_noise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("nullable");
            for bound in ["minimum", "maximum"] {
                if let Some(number) = fields.get_mut(bound)
                    && let Some(whole) = number
                        .to_string()
                        .strip_suffix(".0")
                        .and_then(|whole| whole.parse::<i64>().ok())
                {
                    *number = whole.into();
                }
            }
            fields.values_mut().for_each(strip_noise);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_noise),
        _ => {}
    }
}
