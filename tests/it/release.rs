//! How instances are released or taken over by a person's word (forget, adopt, orphan), and
//! deletions that meet an obstacle.

use std::collections::BTreeSet;

use gs_simulator::{Faults, Key, Keys};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use streamsession_operator::api::v1alpha1::StreamSessionStatus;
use streamsession_operator::gs::{Client, Settings};

use crate::harness::{
    Lab, SESSION, attach_call, detach_deadline, errors, eventually, refuse_detach, set, slow, spec,
};

async fn annotate(lab: &Lab, annotation: &str, value: &str) {
    let annotations = json!({format!("gs.tencentcloud.dev/{annotation}"): value});
    lab.edit_metadata("lobby", json!({"annotations": annotations})).await;
}

async fn until_forget_is_handled(lab: &Lab, value: &str) {
    lab.until_status("lobby", "the annotation is handled", |status| {
        status.last_handled_forget_instances.as_deref() == Some(value)
    })
    .await;
}

async fn until_adopt_is_handled(lab: &Lab, value: &str) {
    lab.until_status("lobby", "the annotation is handled", |status| {
        status.last_handled_adopt.as_deref() == Some(value)
    })
    .await;
}

#[tokio::test]
async fn an_annotation_forgets_an_instance_that_can_not_be_detached_once_for_each_value() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(refuse_detach("b"));
    lab.edit_ids("lobby", &["a"]).await;
    let message = lab.until_reason("lobby", "InstancesRefused").await;
    for part in [
        "refuses to detach b",
        SESSION,
        "gs.tencentcloud.dev/forget-instances",
        "spec.detachFailurePolicy",
    ] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }

    annotate(&lab, "forget-instances", "a, b").await;

    until_forget_is_handled(&lab, "a, b").await;
    lab.until_status("lobby", "b is forgotten", |status| {
        status.unsettled_instances.is_empty() && status.attached_instance_ids == ["a"]
    })
    .await;
    let note = lab.until_event("lobby", "InstancesForgotten").await;
    assert!(
        note.starts_with(&format!(
            "Taken as detached from session {SESSION}, though the service never said so: b."
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
async fn with_the_policy_forget_a_deletion_ends_though_an_instance_can_not_be_detached() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.edit("lobby", json!({"detachFailurePolicy": "Forget"})).await;
    lab.simulator.set_faults(refuse_detach("b"));

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
async fn a_deletion_waits_for_a_late_detach_of_a_forgotten_instance() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(Faults { drop_requests: 1, ..refuse_detach("b") });
    lab.delete("lobby").await;
    let in_doubt = |status: &StreamSessionStatus| {
        let record = status.unsettled_instances.iter().find(|record| record.instance_id == "b");
        record.is_some_and(|record| record.detach_may_arrive_until.is_some())
    };
    let object = lab.until_status("lobby", "b is in doubt", in_doubt).await;
    let until = detach_deadline(&object);

    annotate(&lab, "forget-instances", "b").await;

    until_forget_is_handled(&lab, "b").await;
    lab.until_reason("lobby", "Deleting").await;
    lab.until_gone("lobby").await;
    assert!(lab.simulator.now() >= until);
}

/// Attaches these as a script would, beside the operator.
async fn attach_by_script(lab: &Lab, ids: &[&str]) {
    let call = attach_call(&lab.simulator.url(), ids, lab.simulator.now());
    Client::new(Settings::default()).expect("a client").switch(&call).await;
    assert!(lab.members().is_superset(&set(ids)));
}

#[tokio::test]
async fn what_a_script_attached_is_adopted_once_and_kept_or_detached_as_the_spec_says() {
    let lab = Lab::start().await;
    attach_by_script(&lab, &["kept", "old"]).await;
    lab.create("lobby", &["kept", "new"], json!({})).await;
    lab.until_attached("lobby", &["kept", "new"]).await;
    assert_eq!(lab.members(), set(&["kept", "new", "old"]), "it can't know of the old one");

    annotate(&lab, "adopt", "kept,old").await;

    until_adopt_is_handled(&lab, "kept,old").await;
    lab.until_ready("lobby", &["kept", "new"]).await;
    let calls = lab.history();
    assert_eq!(calls[..2], ["Attach kept,old", "Attach kept,new"]);
    // The second one makes sure, once an earlier attach of the script can't arrive any more.
    assert_eq!(calls[2..], ["Detach old", "Detach old"]);
    attach_by_script(&lab, &["old"]).await;
    lab.edit_ids("lobby", &["kept"]).await;
    lab.until_ready("lobby", &["kept", "old"]).await;
    assert_eq!(lab.history().last().unwrap(), "Detach new", "once for each value");
}

#[tokio::test]
async fn an_object_may_be_created_with_what_it_adopts_and_a_long_list_is_shortened_in_the_status() {
    let lab = Lab::start().await;
    let old: Vec<_> = (0..40).map(|number| format!("instance-{number:02}")).collect();
    attach_by_script(&lab, &old.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let annotations = json!({"gs.tencentcloud.dev/adopt": old.join("\n")});
    let metadata = json!({"name": "lobby", "annotations": annotations});
    lab.create_with(metadata, spec(SESSION, ["instance-07", "new"])).await;

    let object = lab.until_ready("lobby", &["instance-07", "new"]).await;

    let handled = object.status.unwrap().last_handled_adopt.expect("it was handled");
    assert!(handled.len() <= 256 && handled.starts_with("instance-00\ninstance-01"), "{handled}");
    let calls = lab.calls().len();
    lab.until_marked().await;
    assert_eq!(lab.calls().len(), calls + 1);
}

#[tokio::test]
async fn a_forgotten_instance_can_be_adopted_again() {
    let lab = Lab::with_members(&["a", "b"]).await;
    // Its detach may still arrive: the record stays for that.
    lab.simulator.set_faults(Faults { drop_requests: 1, ..refuse_detach("b") });
    lab.edit_ids("lobby", &["a"]).await;
    annotate(&lab, "forget-instances", "b").await;
    until_forget_is_handled(&lab, "b").await;
    lab.simulator.set_faults(Faults::default());

    annotate(&lab, "adopt", "b").await;

    until_adopt_is_handled(&lab, "b").await;
    lab.until_ready("lobby", &["a"]).await;
}

#[tokio::test]
async fn a_deletion_continues_with_the_last_keys_when_the_secret_is_deleted_first() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.delete_secret("tencent").await;
    // The first call is refused, so that the Secret is read again.
    lab.simulator.set_faults(errors(&[("AuthFailure.TokenFailure", 1)]));

    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.members(), BTreeSet::new());
}

#[tokio::test]
async fn after_a_restart_without_its_secret_a_deletion_says_what_is_missing_and_orphan_ends_it() {
    let mut lab = Lab::with_members(&["a", "b"]).await;
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
async fn a_namespace_is_deleted_once_all_its_sessions_are_detached() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.create_apart("other", &["c"]).await;
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
async fn an_edit_during_a_deletion_attaches_nothing() {
    let lab = Lab::with_members(&["a", "b"]).await;
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
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(refuse_detach("b"));
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
async fn a_deletion_that_the_service_blocks_ends_when_the_session_ends() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(refuse_detach("b"));
    lab.delete("lobby").await;
    lab.until_status("lobby", "b is refused", |status| status.failed_instances == Some(1)).await;

    lab.simulator.end_session(SESSION);

    lab.until_gone("lobby").await;
}

/// The account of the first key.
const ACCOUNT: &str = "100000000001";

/// A lab with two keys that the service accepts, and a session that the first one has filled; the
/// operator runs with the second one now, which is of that account.
async fn lab_under_another_key(account: &str) -> Lab {
    let keys = Keys::from([
        ("AKIDEXAMPLE".into(), Key::long_term("SECRETEXAMPLE")),
        ("AKIDOTHER".into(), Key::long_term("OTHER").of_account(account)),
    ]);
    let mut lab = Lab::with(gs_simulator::Options {
        keys,
        signature_validity: std::time::Duration::from_secs(4),
        ..gs_simulator::Options::default()
    })
    .await;
    lab.start_operator().await;
    lab.create_ready("lobby", &["a", "b"]).await;
    change_key(&mut lab, "AKIDOTHER", "OTHER").await;
    lab
}

/// With a restart, as the operator remembers a Secret for a minute.
async fn change_key(lab: &mut Lab, id: &str, key: &str) {
    lab.stop_operator().await;
    lab.change_secret("tencent", id, key).await;
    lab.start_operator().await;
}

#[tokio::test]
async fn that_the_session_is_gone_is_not_believed_of_another_account() {
    let mut lab = lab_under_another_key("another").await;
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
async fn a_deletion_with_another_accounts_key_waits_and_continues_with_the_first_one() {
    let mut lab = lab_under_another_key("another").await;
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
async fn that_the_session_is_gone_is_believed_of_another_key_of_the_account() {
    let lab = lab_under_another_key(ACCOUNT).await;

    lab.simulator.end_session(SESSION);
    lab.edit("lobby", json!({"sessionId": "next"})).await;

    lab.until_ready_at("lobby", "next", &["a", "b"]).await;
    let target = lab.get("lobby").await.status.unwrap().target.unwrap();
    assert_eq!(
        (target.credential.as_deref(), target.account.as_deref()),
        (Some("AKIDOTHER"), Some(ACCOUNT))
    );
}

#[tokio::test]
async fn an_object_is_deleted_with_another_key_of_the_account_once_its_session_is_gone() {
    let lab = lab_under_another_key(ACCOUNT).await;

    lab.simulator.end_session(SESSION);
    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
}

/// Nobody says that the new key is of the same account: then only its success proves it.
#[tokio::test]
async fn without_sts_another_key_is_believed_after_its_first_success() {
    let lab = lab_under_another_key("another").await;
    lab.edit_ids("lobby", &["a", "b", "c"]).await;
    lab.until_ready("lobby", &["a", "b", "c"]).await;

    lab.simulator.end_session(SESSION);
    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
}

#[tokio::test]
async fn an_invalid_parameter_proves_nothing_whoever_asks() {
    let mut lab = lab_under_another_key("another").await;
    lab.simulator
        .set_faults(errors(&[("FailedOperation", 1), ("InvalidParameterValue", u32::MAX)]));
    lab.edit_ids("lobby", &["a"]).await;
    for key in ["another one", "its own"] {
        let calls = lab.calls().len();
        let object = lab
            .until_status("lobby", "it was rejected", |status| {
                let call = status.last_call.as_ref().filter(|_| status.pending_call.is_none());
                call.is_some_and(|call| call.code == "InvalidParameterValue")
                    && lab.calls().len() > calls
            })
            .await;
        let unsettled = object.status.unwrap().unsettled_instances;
        assert_eq!(unsettled[0].instance_id, "b", "under {key}");
        change_key(&mut lab, "AKIDEXAMPLE", "SECRETEXAMPLE").await;
    }
    lab.simulator.set_faults(Faults::default());
    lab.until_ready("lobby", &["a"]).await;
}

/// A key that never worked, then the right one, and a session that does not exist: there is nothing
/// to protect.
#[tokio::test]
async fn a_mistyped_session_is_named_after_a_mistyped_key_too() {
    let mut lab = Lab::with(gs_simulator::Options {
        known_sessions: set(&["another"]),
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

/// What a deletion leaves behind is told, and two releases are two events.
#[tokio::test]
async fn what_a_deletion_orphans_is_told_and_each_release_names_its_own_instances() {
    let lab = Lab::with_members(&["a", "b", "c"]).await;
    lab.simulator.set_faults(refuse_detach("*"));
    for (wanted, forgotten) in [(&["b", "c"][..], "a"), (&["c"], "b")] {
        lab.edit_ids("lobby", wanted).await;
        annotate(&lab, "forget-instances", forgotten).await;
        until_forget_is_handled(&lab, forgotten).await;
    }
    for forgotten in ["a", "b"] {
        lab.until_note("lobby", "InstancesForgotten", &format!("said so: {forgotten}.")).await;
    }

    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;
    lab.delete("lobby").await;
    lab.until_gone("lobby").await;

    let note = format!("Left in session {SESSION}, as spec.deletionPolicy says: c.");
    lab.until_note("lobby", "InstancesOrphaned", &note).await;
    lab.until_metric(r#"streamsession_instances_released_total{outcome="orphaned"} 1"#).await;
    assert!(lab.members().contains("c"));
}
