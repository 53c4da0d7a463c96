//! What somebody writes in another namespace, without a key of the account, concerns nobody else.

use serde_json::{Value, json};

use crate::harness::{Lab, SESSION, set};

/// A lab, and the namespace of a stranger that its operator sees, too.
async fn lab_and_stranger() -> (Lab, Lab) {
    let mut lab = Lab::without_operator().await;
    let stranger = lab.in_another_namespace().await;
    lab.options.namespaces.push(stranger.namespace.clone());
    lab.start_operator().await;
    (lab, stranger)
}

/// A status of that object which says that these are attached, and that a call for them is open.
async fn forge(lab: &Lab, stranger: &Lab, ids: &[&str], call: Option<&str>) {
    let uid = stranger.get("stranger").await.metadata.uid;
    let pending: Value = call.map_or(Value::Null, |id| {
        json!({
            "id": id,
            "operation": "Detach",
            "instanceIds": ids,
            "startTime": "2026-01-01T00:00:00Z",
        })
    });
    let status = json!({
        "objectUID": uid,
        "observedGeneration": 1,
        "target": {
            "sessionId": SESSION,
            "endpoint": lab.simulator.url(),
            "credential": "AKIDEXAMPLE",
            "account": "100000000001",
            "credentialProven": true,
        },
        "attachedInstanceIds": ids,
        "pendingCall": pending,
    });
    stranger.edit_status("stranger", status).await;
}

/// The victim has two phones; the stranger, who is older, names the same session and forges.
async fn nothing_happens_to_the_victim(secret: Option<(&str, &str)>) {
    let (lab, stranger) = lab_and_stranger().await;
    if let Some((id, key)) = secret {
        stranger.create_secret("forged", id, key).await;
    }
    let credentials = json!({"credentialsRef": {"name": "forged"}});
    stranger.create("stranger", &["a", "b"], credentials).await;
    lab.create_ready("victim", &["a", "b"]).await;
    // The audit log lags: two of the status, one of the finalizer.
    lab.until_written("victim", 3).await;
    let before = lab.writes_of("victim").len();
    let calls_that_did_something =
        || lab.calls().iter().filter(|call| !call.succeeded.is_empty()).count();
    let calls = calls_that_did_something();

    for round in 0..4 {
        let id = format!("{round:032x}");
        let pending = (round % 2 == 0).then_some(&*id);
        forge(&lab, &stranger, &["a", "b"], pending).await;
        let marker = format!("marker-{round}");
        lab.create_apart(&marker, &["marked"]).await;
        lab.until_attached(&marker, &["marked"]).await;
    }

    lab.until_condition_ready("victim").await;
    assert_eq!(lab.writes_of("victim").len(), before, "not even a write");
    assert_eq!(calls_that_did_something(), calls + 4, "those of the markers");
    assert_eq!(lab.members(), set(&["a", "b"]));
    lab.delete("victim").await;
    lab.until_gone("victim").await;
    assert_eq!(lab.members(), set(&[]), "nothing is handed over to a forger");
}

#[tokio::test]
async fn one_without_a_key_forges_for_nothing() {
    nothing_happens_to_the_victim(None).await;
}

#[tokio::test]
async fn one_with_a_key_that_the_service_does_not_know_forges_for_nothing() {
    nothing_happens_to_the_victim(Some(("AKIDWRONG", "WRONG"))).await;
}

#[tokio::test]
async fn one_that_knows_the_id_of_the_victims_key_forges_for_nothing() {
    nothing_happens_to_the_victim(Some(("AKIDEXAMPLE", "GUESSED"))).await;
}

/// Its Secret is missing, and what the victim's ledger holds is merely assumed.
#[tokio::test]
async fn a_restored_object_is_deleted_beside_a_stranger() {
    let (mut lab, stranger) = lab_and_stranger().await;
    lab.create_ready("victim", &["a", "b"]).await;
    lab.stop_operator().await;
    let missing = json!({"credentialsRef": {"name": "missing"}});
    stranger.create("stranger", &[], missing.clone()).await;
    stranger.create("another", &["a"], missing).await;
    lab.edit_status(
        "victim",
        json!({
            "objectUID": null,
            "observedGeneration": null,
            "target": null,
            "attachedInstanceIds": [],
            "conditions": [],
            "lastCall": null,
        }),
    )
    .await;

    lab.delete("victim").await;
    lab.start_operator().await;

    lab.until_gone("victim").await;
    assert_eq!(lab.members(), set(&[]));
}
