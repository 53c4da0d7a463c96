//! From the first look to the deletion: finalizers, credentials, and edits at awkward moments.

use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};
use streamsession_operator::api::FINALIZER;
use streamsession_operator::api::v1alpha1::StreamSession;

use crate::harness::{Lab, eventually, kubectl, slow, spec};

fn is_stalled(object: &StreamSession) -> bool {
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == "Stalled" && condition.status == "True")
}

#[tokio::test]
async fn a_deletion_detaches_all_and_then_the_object_goes() {
    let lab = Lab::with_members(&["a", "b"]).await;

    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert!(lab.members().is_empty());
    assert_eq!(lab.history(), ["Attach a,b", "Detach a,b"]);
}

#[tokio::test]
async fn a_deletion_with_orphan_ends_at_once_and_the_members_stay() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;

    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.members().len(), 2);
    assert_eq!(lab.history(), ["Attach a,b"]);
}

#[tokio::test]
async fn an_object_that_was_deleted_before_the_first_look_is_left_alone() {
    let mut lab = Lab::without_operator().await;
    let metadata = json!({"name": "lobby", "finalizers": ["example.com/hold"]});
    lab.create_with(metadata, spec("guarded", ["g"])).await;
    lab.delete("lobby").await;

    lab.start_operator().await;
    lab.until_marked().await;

    lab.until_writes(3).await;
    assert_eq!(lab.history(), ["Attach marked"]);
    lab.edit_metadata("lobby", json!({"finalizers": null})).await;
    lab.until_gone("lobby").await;
}

#[tokio::test]
async fn a_missing_secret_is_named_and_used_once_it_is_there() {
    let lab = Lab::start().await;
    lab.create("lobby", &["a"], json!({"credentialsRef": {"name": "later"}})).await;
    let message = lab.until_reason("lobby", "CredentialsNotFound").await;
    assert!(
        message.starts_with(&format!("Secret {}/later does not exist", lab.namespace)),
        "{message}"
    );
    assert!(is_stalled(&lab.get("lobby").await) && lab.calls().is_empty());

    lab.create_secret("later", "AKIDEXAMPLE", "SECRETEXAMPLE").await;

    lab.until_ready("lobby", &["a"]).await;
}

#[tokio::test]
async fn a_wrong_key_is_reported_and_the_corrected_one_is_used() {
    let lab = Lab::start().await;
    lab.create_secret("mine", "AKIDEXAMPLE", "WRONG").await;
    lab.create("lobby", &["a"], json!({"credentialsRef": {"name": "mine"}})).await;
    let message = lab.until_reason("lobby", "CredentialsRejected").await;
    assert!(message.contains("AuthFailure.SignatureFailure"), "{message}");
    assert!(is_stalled(&lab.get("lobby").await));

    lab.change_secret("mine", "AKIDEXAMPLE", "SECRETEXAMPLE").await;

    lab.until_ready("lobby", &["a"]).await;
}

#[tokio::test]
async fn a_finalizer_that_was_replaced_away_comes_back() {
    let lab = Lab::with_members(&["a", "b"]).await;
    let text = kubectl(&["-n", &lab.namespace, "get", "streamsession", "lobby", "-o", "json"], "");
    let mut object: Value = serde_json::from_str(&text).expect("JSON");
    object["metadata"]["finalizers"] = json!([]);

    kubectl(&["replace", "-f", "-"], &object.to_string());

    eventually("the finalizer is back", async || match lab.get("lobby").await.finalizers() {
        [finalizer] if finalizer == FINALIZER => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(lab.history(), ["Attach a,b"]);
}

#[tokio::test]
async fn an_answer_for_an_object_that_is_gone_does_not_touch_the_next_one_of_its_name() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(slow());
    let old = lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_calls(1).await;

    let exactly = Preconditions { uid: old.uid(), ..Preconditions::default() };
    lab.sessions
        .delete("lobby", &DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() })
        .await
        .expect("deleted");
    lab.edit_metadata("lobby", json!({"finalizers": null})).await;
    let new = lab.create("lobby", &["c"], json!({"sessionId": "next"})).await;

    let object = lab.until_attached("lobby", &["c"]).await;
    let status = object.status.clone().unwrap();
    assert_ne!(old.uid(), new.uid());
    assert_eq!((object.uid(), status.object_uid), (new.uid(), new.uid()));
    assert_eq!(status.target.expect("a target").session_id, "next");
    assert_eq!((status.unsettled_instances, status.pending_call), (Vec::new(), None));
    assert_eq!(lab.history(), ["Attach a,b", "Attach c"]);
}

#[tokio::test]
async fn an_edit_between_journal_and_settle_keeps_the_answer() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(slow());
    lab.create("lobby", &["a"], json!({})).await;
    lab.until_calls(1).await;
    assert!(lab.get("lobby").await.status.unwrap().pending_call.is_some());

    lab.edit_ids("lobby", &["a", "b"]).await;

    lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(lab.history(), ["Attach a", "Attach b"]);
}

#[tokio::test]
async fn a_deletion_between_journal_and_settle_detaches_what_the_call_attached() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(slow());
    lab.create("lobby", &["a"], json!({})).await;
    lab.until_calls(1).await;

    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert!(lab.members().is_empty());
    assert_eq!(lab.history(), ["Attach a", "Detach a"]);
}
