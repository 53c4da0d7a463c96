//! What a person can do where the operator can't know better: forget, adopt, orphan; and deletions
//! that meet an obstacle (design 3.3, 3.8, 3.9).

use std::collections::BTreeSet;

use gs_simulator::{ErrorFault, Faults, InstanceFault, Key, Keys, Operation};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use streamsession_core::answer::Operation as Call;
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_operator::api::v1alpha1::StreamSessionStatus;
use streamsession_operator::gs::{Client, Endpoint, Settings, Switch};

use crate::harness::{Lab, SESSION, eventually, example_credentials, slow};

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// The service lets go of no phone that fits.
fn keeping(pattern: &str) -> Faults {
    Faults {
        instance_faults: vec![InstanceFault {
            pattern: pattern.into(),
            tries: None,
            operation: Operation::Detach,
        }],
        ..Faults::default()
    }
}

fn errors(codes: &[(&str, u32)]) -> Faults {
    Faults {
        errors: codes
            .iter()
            .map(|(code, times)| ErrorFault { code: (*code).into(), times: *times })
            .collect(),
        ..Faults::default()
    }
}

/// A lab whose session `lobby` holds `a` and `b`.
async fn lab_with_a_and_b() -> Lab {
    let lab = Lab::start().await;
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_ready("lobby", &["a", "b"]).await;
    lab
}

async fn ask(lab: &Lab, annotation: &str, value: &str) {
    lab.edit_metadata(
        "lobby",
        json!({"annotations": {format!("gs.tencentcloud.dev/{annotation}"): value}}),
    )
    .await;
}

async fn until_forgotten(lab: &Lab, value: &str) {
    lab.until_status("lobby", "it was acted on", |status| {
        status.last_handled_forget_instances.as_deref() == Some(value)
    })
    .await;
}

async fn until_adopted(lab: &Lab, value: &str) {
    lab.until_status("lobby", "it was acted on", |status| {
        status.last_handled_adopt.as_deref() == Some(value)
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_can_not_leave_is_forgotten_because_a_person_says_so_once() {
    let lab = lab_with_a_and_b().await;
    lab.simulator.set_faults(keeping("b"));
    lab.edit_ids("lobby", &["a"]).await;
    let message = lab.until_reason("lobby", "InstancesRefused").await;
    for said in [
        "refuses to detach b",
        SESSION,
        "gs.tencentcloud.dev/forget-instances",
        "spec.detachFailurePolicy",
    ] {
        assert!(message.contains(said), "no {said:?} in {message}");
    }

    ask(&lab, "forget-instances", "a, b").await;

    until_forgotten(&lab, "a, b").await;
    lab.until_status("lobby", "lets go of b", |status| {
        status.unsettled_instances.is_empty() && status.attached_instance_ids == ["a"]
    })
    .await;
    let note = lab.until_event("lobby", "InstancesForgotten").await;
    assert!(
        note.starts_with(&format!(
            "Taken for detached from session {SESSION} though the service never said so: b."
        )),
        "{note}"
    );
    lab.until_metric(r#"streamsession_instances_released_total{outcome="forgotten"} 1"#).await;
    lab.until_reason("lobby", "UpToDate").await;
    assert_eq!(lab.members(), set(&["a", "b"]));

    // The same value does nothing to what comes later.
    lab.simulator.set_faults(Faults::default());
    lab.edit_ids("lobby", &["a", "b"]).await;
    lab.until_ready("lobby", &["a", "b"]).await;
    lab.edit_ids("lobby", &["a"]).await;
    lab.until_ready("lobby", &["a"]).await;
    assert_eq!(lab.history().last().unwrap(), "Detach b");
}

#[tokio::test]
async fn the_policy_forgets_by_itself_and_the_object_can_be_deleted() {
    let lab = lab_with_a_and_b().await;
    lab.edit("lobby", json!({"detachFailurePolicy": "Forget"})).await;
    lab.simulator.set_faults(keeping("b"));

    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.members(), set(&["b"]));
    let refused =
        lab.history().iter().filter(|call| call.contains("Detach") && call.contains('b')).count();
    assert!(refused >= 5, "{:?}", lab.history());
    lab.until_event("lobby", "InstancesForgotten").await;
    lab.until_metric(r#"streamsession_instances_released_total{outcome="forgotten"} 1"#).await;
}

#[tokio::test]
async fn a_forgotten_instance_may_still_be_hit_by_a_late_detach_and_the_deletion_waits_for_that() {
    let lab = lab_with_a_and_b().await;
    lab.simulator.set_faults(Faults { drop_requests: 1, ..keeping("b") });
    lab.delete("lobby").await;
    let doubtful = |status: &StreamSessionStatus| {
        let doubt = status.unsettled_instances.iter().find(|record| record.instance_id == "b");
        doubt.is_some_and(|record| record.detach_may_arrive_until.is_some())
    };
    let object = lab.until_status("lobby", "b is in doubt", doubtful).await;
    let records = object.status.unwrap().unsettled_instances;
    let until = records
        .iter()
        .filter_map(|record| record.detach_may_arrive_until.as_ref())
        .map(|until| until.0)
        .max()
        .expect("a deadline");

    ask(&lab, "forget-instances", "b").await;

    until_forgotten(&lab, "b").await;
    lab.until_reason("lobby", "Deleting").await;
    lab.until_gone("lobby").await;
    assert!(lab.simulator.now() >= until);
}

/// Attaches these as a script would, beside the operator.
async fn attach_by_hand(lab: &Lab, ids: &[&str]) {
    let call = Switch {
        endpoint: Endpoint::parse(&lab.simulator.url()).expect("an endpoint"),
        region: None,
        session: SessionId::parse(SESSION).expect("an id"),
        operation: Call::Attach,
        instances: ids.iter().map(|id| InstanceId::parse(id).expect("an id")).collect(),
        timestamp: lab.simulator.now().as_second(),
        credentials: example_credentials(),
    };
    Client::new(Settings::default()).expect("a client").switch(&call).await;
    assert!(lab.members().is_superset(&set(ids)));
}

#[tokio::test]
async fn what_a_script_attached_is_adopted_once_and_kept_or_detached_as_the_spec_says() {
    let lab = Lab::start().await;
    attach_by_hand(&lab, &["kept", "old"]).await;
    lab.create("lobby", &["kept", "new"], json!({})).await;
    lab.until_status("lobby", "is attached", |status| {
        status.attached_instance_ids == ["kept", "new"]
    })
    .await;
    assert_eq!(lab.members(), set(&["kept", "new", "old"]), "it can't know of the old one");

    ask(&lab, "adopt", "kept,old").await;

    until_adopted(&lab, "kept,old").await;
    lab.until_ready("lobby", &["kept", "new"]).await;
    let calls = lab.history();
    assert_eq!(calls[..2], ["Attach kept,old", "Attach kept,new"]);
    // The second one makes sure, once an earlier attach of the script can't arrive any more.
    assert_eq!(calls[2..], ["Detach old", "Detach old"]);
    attach_by_hand(&lab, &["old"]).await;
    lab.edit_ids("lobby", &["kept"]).await;
    lab.until_ready("lobby", &["kept", "old"]).await;
    assert_eq!(lab.history().last().unwrap(), "Detach new", "once for each value");
}

#[tokio::test]
async fn an_object_may_be_created_with_what_it_adopts_and_a_long_list_is_shortened_in_the_status() {
    let lab = Lab::start().await;
    let old: Vec<_> = (0..40).map(|number| format!("instance-{number:02}")).collect();
    attach_by_hand(&lab, &old.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let value = old.join("\n");
    let object = json!({
        "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession",
        "metadata": {"name": "lobby", "annotations": {"gs.tencentcloud.dev/adopt": value}},
        "spec": {"sessionId": SESSION, "slaveInstanceIds": ["instance-07", "new"], "credentialsRef": {"name": "tencent"}},
    });
    lab.sessions
        .create(&PostParams::default(), &serde_json::from_value(object).expect("a StreamSession"))
        .await
        .expect("created");

    let object = lab.until_ready("lobby", &["instance-07", "new"]).await;

    let handled = object.status.unwrap().last_handled_adopt.expect("it was acted on");
    assert!(handled.len() <= 256 && handled.starts_with("instance-00\ninstance-01"), "{handled}");
    let calls = lab.calls().len();
    lab.until_marked().await;
    assert_eq!(lab.calls().len(), calls + 1);
}

#[tokio::test]
async fn a_forgotten_instance_can_be_adopted_again() {
    let lab = lab_with_a_and_b().await;
    // Its detach may still arrive: the record stays for that.
    lab.simulator.set_faults(Faults { drop_requests: 1, ..keeping("b") });
    lab.edit_ids("lobby", &["a"]).await;
    ask(&lab, "forget-instances", "b").await;
    until_forgotten(&lab, "b").await;
    lab.simulator.set_faults(Faults::default());

    ask(&lab, "adopt", "b").await;

    until_adopted(&lab, "b").await;
    lab.until_ready("lobby", &["a"]).await;
}

#[tokio::test]
async fn a_deletion_goes_on_with_the_last_keys_when_the_secret_went_first() {
    let lab = lab_with_a_and_b().await;
    lab.delete_secret("tencent").await;
    // The first call is refused, so that the Secret is read again.
    lab.simulator.set_faults(errors(&[("AuthFailure.TokenFailure", 1)]));

    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.members(), BTreeSet::new());
}

#[tokio::test]
async fn after_a_restart_without_its_secret_a_deletion_says_what_is_missing_and_orphan_ends_it() {
    let mut lab = lab_with_a_and_b().await;
    lab.stop_operator().await;
    lab.delete_secret("tencent").await;
    lab.delete("lobby").await;
    lab.start_operator().await;
    let message = lab.until_reason("lobby", "CredentialsNotFound").await;
    assert!(
        message.contains("/tencent does not exist")
            && message.contains("set spec.deletionPolicy to Orphan"),
        "{message}"
    );

    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;

    lab.until_gone("lobby").await;
    assert_eq!((lab.members().len(), lab.calls().len()), (2, 1));
}

/// Does what the namespace controller does, which needs no controller manager: all objects of the
/// namespace are deleted, then its own finalizer goes.
#[tokio::test]
async fn a_namespace_that_is_deleted_takes_its_sessions_with_it_once_all_are_detached() {
    let lab = lab_with_a_and_b().await;
    lab.create("other", &["c"], json!({"sessionId": "other"})).await;
    lab.until_ready_at("other", "other", &["c"]).await;
    // The first answer is lost: its event can't be written any more.
    lab.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
    let namespaces: Api<Namespace> = Api::all(lab.client.clone());
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), &lab.namespace);

    namespaces.delete(&lab.namespace, &DeleteParams::default()).await.expect("deleted");
    secrets
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .expect("deleted");
    lab.sessions
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .expect("deleted");

    lab.until_gone("lobby").await;
    lab.until_gone("other").await;
    assert_eq!((lab.members(), lab.simulator.members("other")), (BTreeSet::new(), BTreeSet::new()));
    let mut namespace = namespaces.get(&lab.namespace).await.expect("a namespace");
    assert_eq!(
        namespace.status.as_ref().and_then(|status| status.phase.as_deref()),
        Some("Terminating")
    );
    namespace.spec.get_or_insert_default().finalizers = None;
    let finalized: Namespace = namespaces
        .replace_subresource("finalize", &lab.namespace, &PostParams::default(), &namespace)
        .await
        .expect("finalized");
    drop(finalized);
    eventually("the namespace is gone", async || {
        match namespaces.get_opt(&lab.namespace).await.expect("an answer") {
            None => Ok(()),
            Some(namespace) => Err(format!("{:?}", namespace.status)),
        }
    })
    .await;
}

#[tokio::test]
async fn an_edit_during_a_deletion_attaches_nobody() {
    let lab = lab_with_a_and_b().await;
    lab.simulator.set_faults(slow());
    lab.delete("lobby").await;
    lab.until_calls(2).await;

    lab.edit_ids("lobby", &["a", "b", "c"]).await;
    lab.edit("lobby", json!({"sessionId": "elsewhere"})).await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.history(), ["Attach a,b", "Detach a,b"]);
    assert_eq!(
        (lab.members(), lab.simulator.members("elsewhere")),
        (BTreeSet::new(), BTreeSet::new())
    );
}

#[tokio::test]
async fn orphan_ends_a_deletion_that_the_service_blocks() {
    let lab = lab_with_a_and_b().await;
    lab.simulator.set_faults(keeping("b"));
    lab.delete("lobby").await;
    let message = lab.until_reason("lobby", "InstancesRefused").await;
    assert!(
        message.contains("refuses to detach b")
            && message.contains("set spec.deletionPolicy to Orphan"),
        "{message}"
    );

    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.members(), set(&["b"]));
}

#[tokio::test]
async fn a_session_that_ends_while_the_service_blocks_a_deletion_lets_the_object_go() {
    let lab = lab_with_a_and_b().await;
    lab.simulator.set_faults(keeping("b"));
    lab.delete("lobby").await;
    lab.until_status("lobby", "b is refused", |status| status.failed_instances == Some(1)).await;

    lab.simulator.end_session(SESSION);

    lab.until_gone("lobby").await;
}

/// A lab with two keys that the service takes, and a session that the first one has filled; the
/// operator runs with the second one now.
async fn lab_under_another_key() -> Lab {
    let keys = Keys::from([
        ("AKIDEXAMPLE".into(), Key::long_term("SECRETEXAMPLE")),
        ("AKIDOTHER".into(), Key::long_term("OTHER")),
    ]);
    let validity = std::time::Duration::from_secs(4);
    let mut lab = Lab::with(gs_simulator::Options {
        keys,
        signature_validity: validity,
        ..gs_simulator::Options::default()
    })
    .await;
    lab.start_operator().await;
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_ready("lobby", &["a", "b"]).await;
    change_key(&mut lab, "AKIDOTHER", "OTHER").await;
    lab
}

/// Without the minute for which a Secret is remembered.
async fn change_key(lab: &mut Lab, id: &str, key: &str) {
    lab.stop_operator().await;
    lab.change_secret("tencent", id, key).await;
    lab.start_operator().await;
}

#[tokio::test]
async fn another_accounts_word_that_the_session_is_gone_is_not_believed() {
    let mut lab = lab_under_another_key().await;
    lab.simulator.set_faults(errors(&[("ResourceNotFound.SessionNotFound", u32::MAX)]));
    lab.edit_ids("lobby", &["a", "b", "c"]).await;
    let message = lab.until_reason("lobby", "TargetMismatch").await;
    assert!(message.contains(SESSION) && message.contains("AKIDEXAMPLE"), "{message}");
    let status = lab.get("lobby").await.status.unwrap();
    assert_eq!(status.attached_instance_ids, ["a", "b"], "nothing is forgotten");

    lab.simulator.set_faults(Faults::default());
    change_key(&mut lab, "AKIDEXAMPLE", "SECRETEXAMPLE").await;

    lab.until_ready("lobby", &["a", "b", "c"]).await;
}

#[tokio::test]
async fn a_deletion_under_another_account_waits_and_goes_on_with_the_first_one() {
    let mut lab = lab_under_another_key().await;
    lab.simulator.set_faults(errors(&[("ResourceNotFound.SessionNotFound", u32::MAX)]));
    lab.delete("lobby").await;
    let message = lab.until_reason("lobby", "TargetMismatch").await;
    assert!(message.contains("set spec.deletionPolicy to Orphan"), "{message}");

    lab.simulator.set_faults(Faults::default());
    change_key(&mut lab, "AKIDEXAMPLE", "SECRETEXAMPLE").await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.members(), BTreeSet::new());
}

#[tokio::test]
async fn an_invalid_parameter_says_that_an_instance_is_out_to_the_proven_account_alone() {
    let mut lab = lab_under_another_key().await;
    lab.simulator
        .set_faults(errors(&[("FailedOperation", 1), ("InvalidParameterValue", u32::MAX)]));
    lab.edit_ids("lobby", &["a"]).await;
    let tried = |status: &StreamSessionStatus| {
        status.last_call.as_ref().is_some_and(|call| call.code == "InvalidParameterValue")
    };
    let object = lab
        .until_status("lobby", "it was refused", |status| {
            tried(status) && status.pending_call.is_none()
        })
        .await;
    assert_eq!(object.status.unwrap().unsettled_instances[0].instance_id, "b", "not believed");

    change_key(&mut lab, "AKIDEXAMPLE", "SECRETEXAMPLE").await;

    lab.until_status("lobby", "it is believed", |status| status.unsettled_instances.is_empty())
        .await;
}

/// A key that never worked, then the right one, and a session that does not exist: there is nothing
/// to protect.
#[tokio::test]
async fn a_mistyped_session_is_named_after_a_mistyped_key_too() {
    let known = set(&["another"]);
    let mut lab = Lab::with(gs_simulator::Options {
        known_sessions: known,
        ..gs_simulator::Options::default()
    })
    .await;
    lab.create_secret("typo", "AKIDTYPO", "TYPO").await;
    lab.start_operator().await;
    lab.create("lobby", &["a"], json!({"credentialsRef": {"name": "typo"}})).await;
    lab.until_reason("lobby", "CredentialsRejected").await;

    lab.edit("lobby", json!({"credentialsRef": {"name": "tencent"}})).await;

    lab.until_reason("lobby", "SessionNotFound").await;
    lab.delete("lobby").await;
    lab.until_gone("lobby").await;
}
