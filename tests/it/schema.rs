//! The schema on the real API server: what it accepts and refuses, in the words that a user reads.

use serde_json::{Value, json};

use crate::harness::{SESSION, kubectl, manifest, try_kubectl};

/// A namespace without an operator.
fn namespace() -> String {
    let object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "schema-"}});
    kubectl(&["create", "-f", "-", "-o", "jsonpath={.metadata.name}"], &object.to_string())
}

fn object(spec: &Value) -> String {
    manifest(&json!({"name": "lobby"}), spec).to_string()
}

fn apply(namespace: &str, manifest: &str) -> (bool, String) {
    try_kubectl(&["apply", "-n", namespace, "-f", "-"], manifest)
}

/// What `kubectl apply` prints for a spec that must be refused.
fn refusal(spec: &Value) -> String {
    let (ok, text) = apply(&namespace(), &object(spec));
    println!("{text}");
    assert!(!ok, "accepted: {text}");
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
fn an_id_that_is_listed_twice_is_refused() {
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
fn a_resync_interval_is_a_duration_of_half_a_minute_to_a_day_or_never() {
    let with = |interval: &str| json!({"sessionId": SESSION, "slaveInstanceIds": [], "resyncInterval": interval});
    let namespace = namespace();
    for interval in ["0s", "30s", "30m", "1h30m", "24h"] {
        let (ok, text) = apply(&namespace, &object(&with(interval)));
        assert!(ok, "{interval}: {text}");
    }
    for interval in ["1s", "25h", "99999h"] {
        let (ok, text) = apply(&namespace, &object(&with(interval)));
        assert!(!ok, "{interval}");
        assert_says(
            &text,
            &[
                "spec.resyncInterval",
                "`resyncInterval` must be `0s` (never), or from `30s` to `24h`",
            ],
        );
    }
    for interval in ["often", "30", "1.5h", "30 m", "30s1h", "1h1h"] {
        let (ok, text) = apply(&namespace, &object(&with(interval)));
        assert!(!ok, "{interval}");
        assert_says(&text, &["spec.resyncInterval"]);
    }
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
    let text = refusal(&json!({
        "sessionId": SESSION, "slaveInstanceIds": [], "credentialsRef": {"name": "../tencent"},
    }));
    assert_says(&text, &["spec.credentialsRef.name", r#""../tencent""#]);
}

#[test]
fn a_thousand_ids_of_128_characters_are_accepted() {
    let (ok, text) = apply(
        &namespace(),
        &object(&json!({"sessionId": SESSION, "slaveInstanceIds": long_ids(1000, 128)})),
    );
    assert!(ok, "{text}");
}

#[test]
fn an_empty_list_is_accepted_and_the_new_object_does_not_look_finished() {
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
        let spec = json!({"sessionId": session, "region": region, "slaveInstanceIds": []});
        let object = manifest(&json!({"name": name}), &spec);
        let (ok, text) = apply(&namespace, &object.to_string());
        assert!(ok, "{text}");
    }
    let names = |selector: &str| {
        let output = ["-o", "jsonpath={.items[*].metadata.name}", "--field-selector", selector];
        kubectl(&[&["get", "-n", &namespace, "gss"], &output[..]].concat(), "")
    };

    assert_eq!(names("spec.sessionId=2"), "b");
    assert_eq!(names("spec.region=ap-guangzhou"), "a b");
}

#[test]
fn sessions_are_listed_by_short_name_and_category_with_their_columns() {
    let namespace = namespace();
    let (ok, text) = apply(&namespace, &object(&with_ids(&["phone-1"])));
    assert!(ok, "{text}");

    let header = |arguments: &[&str]| {
        let text = kubectl(&[&["get", "-n", &namespace], arguments].concat(), "");
        println!("{text}");
        let header = text.lines().next().unwrap_or_default();
        header.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
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
