//! A status that is lost, copied, restored or changed by someone else: what can be known is kept,
//! and reported.

use std::io::ErrorKind;
use std::net::TcpListener;

use gs_simulator::Faults;
use kube::api::PostParams;
use serde_json::{Value, json};
use streamsession_operator::api::FINALIZER;
use streamsession_operator::api::v1alpha1::{StreamSession, StreamSessionStatus};
use streamsession_operator::api::{Defaults, status, view};

use crate::harness::{Lab, SESSION, manifest, set, slow, spec};

/// The object as `kubectl get -o yaml` shows it, under another name.
async fn copy_of(lab: &Lab, name: &str, as_name: &str) -> StreamSession {
    let mut copy = lab.get(name).await;
    copy.metadata.name = Some(as_name.to_owned());
    for gone in [&mut copy.metadata.resource_version, &mut copy.metadata.uid] {
        *gone = None;
    }
    copy.metadata.creation_timestamp = None;
    copy.metadata.managed_fields = None;
    copy
}

/// What a backup or a person keeps of an object besides its spec.
#[derive(Clone, Copy)]
struct Kept {
    finalizer: bool,
    status: bool,
}

async fn create_copy(lab: &Lab, copy: &StreamSession, kept: Kept) {
    let mut created = copy.clone();
    if !kept.finalizer {
        created.metadata.finalizers = None;
    }
    lab.sessions.create(&PostParams::default(), &created).await.expect("created");
    if kept.status {
        lab.edit_status(copy.metadata.name.as_deref().expect("a name"), json!(copy.status)).await;
    }
}

/// The object goes without the operator, as with a cluster that is lost.
async fn delete_by_force(lab: &Lab, name: &str) {
    lab.edit_metadata(name, json!({"finalizers": null})).await;
    lab.delete(name).await;
    lab.until_gone(name).await;
}

#[tokio::test]
async fn a_clone_waits_beside_its_original_and_its_deletion_takes_nothing_out() {
    let lab = Lab::with_members(&["a", "b"]).await;
    let clone = copy_of(&lab, "lobby", "clone").await;
    assert_eq!(clone.metadata.finalizers.as_deref(), Some([FINALIZER.to_owned()].as_slice()));

    create_copy(&lab, &clone, Kept { finalizer: true, status: false }).await;

    let message = lab.until_reason("clone", "SessionConflict").await;
    assert!(message.contains(&format!("{}/lobby", lab.namespace)), "{message}");
    let note = lab.until_event("clone", "LedgerRebuilt").await;
    assert!(
        note.starts_with("The object has the operator's finalizer but no ledger in its status"),
        "{note}"
    );
    lab.delete("clone").await;
    lab.until_gone("clone").await;
    lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(lab.history(), ["Attach a,b"], "nothing was taken out, not even for a moment");
}

#[tokio::test]
async fn a_clone_with_the_status_of_its_original_is_known_by_its_uid() {
    let mut lab = Lab::with_members(&["a", "b"]).await;
    let clone = copy_of(&lab, "lobby", "clone").await;
    lab.stop_operator().await;

    create_copy(&lab, &clone, Kept { finalizer: true, status: true }).await;
    lab.start_operator().await;

    lab.until_reason("clone", "SessionConflict").await;
    let note = lab.until_event("clone", "LedgerRebuilt").await;
    assert!(note.starts_with("The status is that of another object (uid "), "{note}");
    lab.edit_ids("clone", &[]).await;
    lab.delete("clone").await;
    lab.until_gone("clone").await;
    lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(lab.history(), ["Attach a,b"]);
}

#[tokio::test]
async fn a_clone_without_the_finalizer_is_a_new_object_and_goes_at_once() {
    let lab = Lab::with_members(&["a", "b"]).await;
    let clone = copy_of(&lab, "lobby", "clone").await;

    create_copy(&lab, &clone, Kept { finalizer: false, status: false }).await;

    lab.until_reason("clone", "SessionConflict").await;
    lab.delete("clone").await;
    lab.until_gone("clone").await;
    lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(lab.history(), ["Attach a,b"]);
}

#[tokio::test]
async fn a_clone_takes_over_when_its_original_goes() {
    let lab = Lab::with_members(&["a", "b"]).await;
    let clone = copy_of(&lab, "lobby", "clone").await;
    create_copy(&lab, &clone, Kept { finalizer: true, status: true }).await;
    lab.until_reason("clone", "SessionConflict").await;

    lab.delete("lobby").await;

    lab.until_ready("clone", &["a", "b"]).await;
    lab.until_gone("lobby").await;
}

#[tokio::test]
async fn a_restored_object_converges_whatever_the_backup_kept() {
    let mut lab = Lab::start().await;
    let cases = [false, true]
        .into_iter()
        .flat_map(|finalizer| [false, true].map(|status| Kept { finalizer, status }));
    let mut backups = Vec::new();
    for kept in cases {
        let name = format!("finalizer-{}-status-{}", kept.finalizer, kept.status);
        lab.create_apart(&name, &["a", "b"]).await;
        lab.until_ready_at(&name, &name, &["a", "b"]).await;
        let backup = copy_of(&lab, &name, &name).await;
        // After the backup, c came in.
        lab.edit_ids(&name, &["a", "b", "c"]).await;
        lab.until_ready_at(&name, &name, &["a", "b", "c"]).await;
        backups.push((name, kept, backup));
    }
    lab.stop_operator().await;
    for (name, kept, backup) in &mut backups {
        delete_by_force(&lab, name).await;
        // And what was wanted then is not all that is wanted now.
        if kept.status {
            backup.spec.slave_instance_ids = vec!["a".into()];
        }
        create_copy(&lab, backup, *kept).await;
    }

    lab.start_operator().await;

    for (name, kept, _) in &backups {
        let ids = if kept.status { ["a", "c"].as_slice() } else { &["a", "b", "c"] };
        lab.until_ready_at(name, name, ids).await;
        if kept.finalizer || kept.status {
            let note = lab.until_event(name, "LedgerRebuilt").await;
            assert!(note.contains("can't be known"), "{note}");
        }
    }
    lab.until_metric("streamsession_ledgers_rebuilt_total 3").await;
}

#[tokio::test]
async fn a_lost_ledger_is_reported_as_long_as_something_in_it_is_not_confirmed() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(slow());

    lab.edit_status(
        "lobby",
        json!({
            "objectUID": null, "target": null,
            "attachedInstanceIds": null, "attachedInstances": null,
        }),
    )
    .await;

    let message = lab.until_reason("lobby", "LedgerLost").await;
    assert!(
        message.starts_with("The ledger was lost, ") && message.contains("without proof: a, b. "),
        "{message}"
    );
    lab.simulator.set_faults(Faults::default());
    lab.until_ready("lobby", &["a", "b"]).await;
    assert!(lab.history().iter().all(|call| call == "Attach a,b"), "{:?}", lab.history());
}

/// Edits of a status, after each of which exactly `a` and `b` must be attached again.
fn edits() -> Vec<(&'static str, Value)> {
    let record = |id: &str| json!({"instanceId": id, "state": "Unknown"});
    let many: Vec<_> = (0..2000).map(|number| format!("many-{number}")).collect();
    let more: Vec<_> = (0..2000).map(|number| record(&format!("more-{number}"))).collect();
    vec![
        ("removed", Value::Null),
        ("truncated", json!({"attachedInstanceIds": ["a"]})),
        ("recounted", json!({"attachedInstances": 7})),
        ("no-target", json!({"target": null})),
        ("no-uid", json!({"objectUID": null})),
        ("other-uid", json!({"objectUID": "5d2c0f6a-0000-4000-8000-000000000001"})),
        (
            "garbage",
            json!({"attachedInstanceIds": ["a", "b", "not an id"], "attachedInstances": 3}),
        ),
        ("no-conditions", json!({"conditions": null})),
        (
            "false-conditions",
            json!({"conditions": [{
                "type": "Ready", "status": "False", "reason": "Nonsense", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}),
        ),
        ("unknown-fields", json!({"futureField": {"a": 1}, "target": {"futureField": 2}})),
        ("stranger", json!({"unsettledInstances": [record("stranger")]})),
        (
            "other-counts",
            json!({"desiredInstances": 0, "failedInstances": 12, "observedGeneration": 900}),
        ),
        (
            "too-many",
            json!({
                "attachedInstanceIds": many, "unsettledInstances": more,
                "attachedInstances": 2000,
            }),
        ),
    ]
}

#[tokio::test]
async fn an_object_whose_status_was_edited_converges_and_leaks_nothing() {
    let mut lab = Lab::without_operator().await;
    lab.options.gs_qps = 1000.try_into().expect("not 0");
    lab.start_operator().await;
    let edits = edits();
    for (name, _) in &edits {
        lab.create_apart(name, &["a", "b"]).await;
    }
    for (name, _) in &edits {
        lab.until_ready_at(name, name, &["a", "b"]).await;
    }

    for (name, edit) in &edits {
        lab.edit_status(name, edit.clone()).await;
    }

    for (name, _) in &edits {
        lab.until_status(name, "is written anew", |status| {
            status.object_uid.is_some() && status.desired_instances == Some(2)
        })
        .await;
        lab.until_ready_at(name, name, &["a", "b"]).await;
    }
}

#[tokio::test]
async fn an_entry_that_somebody_removes_is_noticed() {
    let lab = Lab::with_members(&["a"]).await;
    lab.simulator.set_faults(Faults { fail_instances: set(&["b"]), ..Faults::default() });
    lab.edit_ids("lobby", &["a", "b"]).await;
    let refused = |status: &StreamSessionStatus| {
        status.unsettled_instances.len() == 1 && status.pending_call.is_none()
    };
    lab.until_status("lobby", "b is refused", refused).await;

    lab.edit_status("lobby", json!({"unsettledInstances": []})).await;

    let note = lab.until_event("lobby", "LedgerRebuilt").await;
    assert!(note.contains("it counts 2 instances in all and names 1"), "{note}");
}

#[tokio::test]
async fn a_status_that_is_removed_during_a_call_loses_nothing_of_it() {
    let lab = Lab::start().await;
    for (name, edit) in [("removed", Value::Null), ("call-removed", json!({"pendingCall": null}))] {
        lab.simulator.set_faults(slow());
        let calls = lab.calls().len();
        lab.create_apart(name, &["a", "b"]).await;
        lab.until_calls(calls + 1).await;

        lab.edit_status(name, edit).await;
        lab.edit_ids(name, &["b"]).await;
        lab.simulator.set_faults(Faults::default());
        lab.until_ready_at(name, name, &["b"]).await;
    }
}

#[test]
fn what_a_later_version_wrote_beside_our_fields_is_kept() {
    let stored = json!({
        "observedGeneration": 1, "objectUID": "u",
        "desiredInstances": 2, "attachedInstances": 1, "failedInstances": 0,
        "recordedInstances": 2,
        "futureField": {"x": [1]},
        "target": {
            "sessionId": SESSION, "endpoint": "gs.tencentcloudapi.com", "credentialProven": true,
            "futureField": "t",
        },
        "attachedInstanceIds": ["a"],
        "unsettledInstances": [{"instanceId": "b", "state": "Unknown", "futureField": true}],
    });
    let metadata = json!({"name": "lobby", "uid": "u", "generation": 1, "finalizers": [FINALIZER]});
    let mut object = manifest(&metadata, &spec(SESSION, ["a", "b"]));
    object["status"] = stored.clone();
    let object: StreamSession = serde_json::from_value(object).expect("a StreamSession");
    let defaults =
        Defaults { region: None, endpoint: "gs.tencentcloudapi.com".into(), resync_interval: None };

    let read = view(&object, &defaults).expect("readable").status;
    let written =
        status(&read, "u", object.status.as_ref().expect("a status"), jiff::Timestamp::UNIX_EPOCH);

    assert_eq!(serde_json::to_value(written).expect("JSON"), stored);
}

/// A stranger's object that wants nothing is no owner: it must not keep the phones in.
#[tokio::test]
async fn a_restored_object_beside_an_empty_one_is_deleted_with_its_members() {
    let mut lab = Lab::with_members(&["a", "b"]).await;
    lab.create("stranger", &[], json!({})).await;
    lab.until_reason("stranger", "UpToDate").await;
    let backup = copy_of(&lab, "lobby", "lobby").await;
    lab.stop_operator().await;
    delete_by_force(&lab, "lobby").await;
    create_copy(&lab, &backup, Kept { finalizer: true, status: false }).await;
    lab.delete("lobby").await;

    lab.start_operator().await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.members(), set(&[]));
}

#[tokio::test]
async fn a_status_that_names_another_service_sends_nothing_anywhere() {
    let lab = Lab::with_members(&["a"]).await;
    let calls = lab.history().len();
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    other.set_nonblocking(true).expect("not blocking");
    let address = format!("http://{}", other.local_addr().expect("an address"));
    let target = json!({
        "sessionId": SESSION, "endpoint": address,
        "credential": "AKIDEXAMPLE", "credentialProven": true,
    });
    lab.edit_status("lobby", json!({"target": target})).await;
    lab.edit_ids("lobby", &["a", "b"]).await;

    let message = lab.until_reason("lobby", "TargetMismatch").await;
    assert!(message.contains(&address), "{message}");
    lab.delete("lobby").await;
    lab.until_status("lobby", "it says how to end that", |status| {
        status.conditions.iter().any(|condition| condition.message.ends_with("to Orphan."))
    })
    .await;
    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;
    lab.until_gone("lobby").await;

    let came = other.accept().map(|(_, from)| from).map_err(|error| error.kind());
    assert_eq!(came, Err(ErrorKind::WouldBlock));
    assert_eq!(lab.history().len(), calls);
}
