//! The schema on the real API server: what it takes and refuses, in the words that a user reads.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use serde_json::{Value, json};
use streamsession_operator::api::v1alpha1::{
    Failure, FailureReason, InstanceState, Operation, PendingCall, Refusals, StreamSessionStatus,
    UnsettledInstance,
};
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Ledger;

use crate::harness::{Lab, SESSION, kubectl, try_kubectl};

/// A namespace without an operator.
fn namespace() -> String {
    let object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "schema-"}});
    kubectl(&["create", "-f", "-", "-o", "jsonpath={.metadata.name}"], &object.to_string())
}

fn object(spec: &Value) -> String {
    json!({"apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession", "metadata": {"name": "lobby"}, "spec": spec}).to_string()
}

fn apply(namespace: &str, manifest: &str) -> (bool, String) {
    try_kubectl(&["apply", "-n", namespace, "-f", "-"], manifest)
}

/// What `kubectl apply` prints for a spec that must be refused.
fn refusal(spec: &Value) -> String {
    let (ok, text) = apply(&namespace(), &object(spec));
    println!("{text}");
    assert!(!ok, "taken: {text}");
    text
}

fn with_ids(ids: &[&str]) -> Value {
    json!({"sessionId": SESSION, "slaveInstanceIds": ids})
}

fn long_ids(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:0length$}")).collect()
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[test]
fn an_id_with_a_space_is_refused() {
    let text = refusal(&with_ids(&["phone-1", "phone 2"]));
    assert_says(&text, &["spec.slaveInstanceIds[1]", r#""phone 2""#]);
}

#[test]
fn an_id_that_stands_twice_is_refused() {
    let text = refusal(&with_ids(&["phone-1", "phone-2", "phone-1"]));
    assert_says(&text, &["spec.slaveInstanceIds[2]: Duplicate value", r#""phone-1""#]);
}

#[test]
fn more_than_1000_ids_are_refused() {
    let text = refusal(&json!({"sessionId": SESSION, "slaveInstanceIds": long_ids(1001, 8)}));
    assert_says(&text, &["spec.slaveInstanceIds: Too many: 1001: must have at most 1000 items"]);
}

#[test]
fn an_id_of_129_characters_is_refused() {
    let text = refusal(&json!({"sessionId": SESSION, "slaveInstanceIds": long_ids(1, 129)}));
    assert_says(&text, &["spec.slaveInstanceIds[0]: Too long: may not be more than 128 bytes"]);
}

#[test]
fn an_empty_id_is_refused() {
    let text = refusal(&with_ids(&["phone-1", ""]));
    assert_says(&text, &["spec.slaveInstanceIds[1]", "should be at least 1 chars long"]);
}

#[test]
fn a_session_id_that_is_not_quoted_is_refused() {
    let text =
        refusal(&json!({"sessionId": 1_326_515_201_117_065_216_u64, "slaveInstanceIds": []}));
    assert_says(&text, &["spec.sessionId", "must be of type string", "integer"]);
}

#[test]
fn an_empty_session_id_is_refused() {
    let text = refusal(&json!({"sessionId": "", "slaveInstanceIds": []}));
    assert_says(&text, &["spec.sessionId", "should be at least 1 chars long"]);
}

#[test]
fn a_region_with_a_capital_is_refused() {
    let text =
        refusal(&json!({"sessionId": SESSION, "region": "ap-Guangzhou", "slaveInstanceIds": []}));
    assert_says(&text, &["spec.region", r#""ap-Guangzhou""#]);
}

#[test]
fn a_spec_without_instance_ids_is_refused() {
    let text = refusal(&json!({"sessionId": SESSION}));
    assert_says(&text, &["spec.slaveInstanceIds: Required value"]);
}

#[test]
fn an_unknown_deletion_policy_is_refused() {
    let text =
        refusal(&json!({"sessionId": SESSION, "slaveInstanceIds": [], "deletionPolicy": "Keep"}));
    assert_says(
        &text,
        &["spec.deletionPolicy: Unsupported value", r#""Keep""#, r#""Delete", "Orphan""#],
    );
}

#[test]
fn an_unknown_field_is_refused_by_strict_validation() {
    // kubectl's own default is strict.
    let text =
        refusal(&json!({"sessionId": SESSION, "slaveInstanceIDs": [], "slaveInstanceIds": []}));
    assert_says(&text, &["unknown field", "spec.slaveInstanceIDs"]);
}

#[test]
fn a_name_that_no_secret_can_have_is_refused() {
    let text = refusal(
        &json!({"sessionId": SESSION, "slaveInstanceIds": [], "credentialsRef": {"name": "../tencent"}}),
    );
    assert_says(&text, &["spec.credentialsRef.name", r#""../tencent""#]);
}

#[test]
fn a_thousand_ids_of_128_characters_are_taken() {
    let (ok, text) = apply(
        &namespace(),
        &object(&json!({"sessionId": SESSION, "slaveInstanceIds": long_ids(1000, 128)})),
    );
    assert!(ok, "{text}");
}

#[test]
fn an_empty_list_is_taken_and_the_new_object_does_not_look_finished() {
    let namespace = namespace();

    let (ok, text) = apply(&namespace, &object(&with_ids(&[])));

    assert!(ok, "{text}");
    let stored: Value = serde_json::from_str(&kubectl(
        &["get", "-n", &namespace, "gss", "lobby", "-o", "json"],
        "",
    ))
    .expect("JSON");
    assert_eq!(stored["status"], json!({"observedGeneration": -1}));
    assert_eq!(stored["spec"]["deletionPolicy"], "Delete");
}

#[test]
fn sessions_are_found_by_session_and_by_region() {
    let namespace = namespace();
    for (name, session, region) in
        [("a", "1", "ap-guangzhou"), ("b", "2", "ap-guangzhou"), ("c", "3", "ap-shanghai")]
    {
        let manifest = json!({
            "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession", "metadata": {"name": name},
            "spec": {"sessionId": session, "region": region, "slaveInstanceIds": []},
        });
        let (ok, text) = apply(&namespace, &manifest.to_string());
        assert!(ok, "{text}");
    }
    let names = |selector: &str| {
        kubectl(
            &[
                "get",
                "-n",
                &namespace,
                "gss",
                "--field-selector",
                selector,
                "-o",
                "jsonpath={.items[*].metadata.name}",
            ],
            "",
        )
    };

    assert_eq!(names("spec.sessionId=2"), "b");
    assert_eq!(names("spec.region=ap-guangzhou"), "a b");
}

#[test]
fn sessions_are_listed_under_short_name_and_category_with_the_columns_of_the_design() {
    let namespace = namespace();
    let (ok, text) = apply(&namespace, &object(&with_ids(&["phone-1"])));
    assert!(ok, "{text}");

    let header = |arguments: &[&str]| {
        let text = kubectl(&[&["get", "-n", &namespace], arguments].concat(), "");
        println!("{text}");
        text.lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };

    let columns = ["NAME", "SESSION", "DESIRED", "ATTACHED", "FAILED", "READY", "STATUS", "AGE"];
    assert_eq!(header(&["gss"]), columns);
    assert_eq!(
        header(&["tencentcloud", "-o", "wide"]),
        [&columns[..], &["REGION", "MESSAGE"]].concat()
    );
}

#[test]
fn kubectl_explain_tells_what_each_field_means() {
    let text = kubectl(&["explain", "streamsession.spec"], "");

    println!("{text}");
    for field in [
        "sessionId",
        "region",
        "slaveInstanceIds",
        "credentialsRef",
        "deletionPolicy",
        "detachFailurePolicy",
    ] {
        // The name with its type, then a description that begins with the name.
        let (_, after) =
            text.split_once(&format!("\n  {field}\t")).unwrap_or_else(|| panic!("no {field}"));
        assert!(after.contains(&format!("\n    {field} ")), "{field}: {after}");
    }
    assert!(!text.contains("<no description>"));
}

/// Attached, then all swapped, and every call for each of them failed: the most that a ledger may
/// hold.
fn full_status(ids: &[String], code_length: usize) -> StreamSessionStatus {
    let time = || Time(Timestamp::from_second(1_767_837_600).expect("a time"));
    let unsettled = |id: &String| UnsettledInstance {
        instance_id: id.clone(),
        state: InstanceState::Detached,
        attach_may_arrive_until: Some(time()),
        detach_may_arrive_until: Some(time()),
        refusals: Some(Refusals { operation: Operation::Attach, count: 1000, since_time: time() }),
        last_failure: Some(Failure {
            operation: Operation::Attach,
            reason: FailureReason::SessionGone,
            code: "C".repeat(code_length),
            attempts: 1000,
            time: time(),
        }),
        assumed: true,
        other: BTreeMap::new(),
    };
    StreamSessionStatus {
        unsettled_instances: ids.iter().map(unsettled).collect(),
        pending_call: Some(PendingCall {
            id: "0".repeat(32),
            operation: Operation::Attach,
            instance_ids: ids[..100].to_vec(),
            start_time: time(),
        }),
        object_uid: Some("0".repeat(36)),
        observed_generation: Some(1),
        ..StreamSessionStatus::default()
    }
}

#[tokio::test]
async fn the_largest_ledger_is_taken_by_api_server_and_etcd() {
    let lab = Lab::without_operator().await;
    let ids = long_ids(Ledger::RECORDS_MAX, InstanceId::LENGTH_MAX);
    let (ok, text) = apply(
        &lab.namespace,
        &object(&json!({"sessionId": SESSION, "slaveInstanceIds": ids[..1000]})),
    );
    assert!(ok, "{text}");
    let mut object = lab.get("lobby").await;
    object.status = Some(full_status(&ids, Ledger::CODE_LENGTH_MAX));

    let written =
        lab.sessions.replace_status("lobby", &PostParams::default(), &object).await.expect("taken");

    assert_eq!(written.status, object.status);
}
