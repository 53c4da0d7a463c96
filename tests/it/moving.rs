//! An object whose `spec.sessionId` or `spec.region` changes in place: it leaves the old session
//! before it enters the new one (design 3.7).

use std::collections::BTreeSet;

use gs_simulator::{Call, Faults, InstanceFault, Operation, Simulator};
use serde_json::json;
use streamsession_operator::api::v1alpha1::StreamSession;
use streamsession_operator::gs::Endpoint;

use crate::harness::{Lab, SESSION, eventually, ready};

const NEXT: &str = "1326515201117065299";

/// A lab whose session `lobby` holds `a` and `b`.
async fn lab_with_a_and_b() -> Lab {
    let lab = Lab::start().await;
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_ready("lobby", &["a", "b"]).await;
    lab
}

/// A lab that loses the answer to the first detach of the move to [`NEXT`], and waits for the doubt
/// to end.
async fn lab_that_waits() -> Lab {
    let lab = lab_with_a_and_b().await;
    lab.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
    lab.edit("lobby", json!({"sessionId": NEXT})).await;
    let message = lab.until_reason("lobby", "OutcomeUnknown").await;
    let (before, after) = message.split_once(" until ").expect("a deadline");
    assert_eq!(
        before,
        format!(
            "All instances are detached from session {SESSION}; an earlier detach may still arrive"
        )
    );
    assert!(
        after.ends_with(&format!(", and the move to session {NEXT} waits for that.")),
        "{message}"
    );
    lab
}

/// Waits until the message of Ready begins so.
async fn until_message(lab: &Lab, name: &str, beginning: &str) {
    eventually(&format!("{name} says {beginning}"), async || {
        let (_, _, message) = ready(&lab.get(name).await);
        if message.starts_with(beginning) { Ok(()) } else { Err(message) }
    })
    .await;
}

/// As `Attach SESSION a,b`, with the region if one was sent.
fn short(call: Call) -> String {
    let region = call.region.map(|region| format!(" {region}")).unwrap_or_default();
    format!(
        "{:?} {}{region} {}",
        call.operation.expect("well-formed"),
        call.session_id.expect("well-formed"),
        call.instance_ids.join(",")
    )
}

fn history(lab: &Lab) -> Vec<String> {
    lab.calls().into_iter().map(short).collect()
}

fn deadline(object: &StreamSession) -> jiff::Timestamp {
    let status = object.status.clone().unwrap_or_default();
    status
        .unsettled_instances
        .iter()
        .filter_map(|record| record.detach_may_arrive_until.as_ref())
        .map(|until| until.0)
        .max()
        .expect("a doubt")
}

#[tokio::test]
async fn a_session_is_left_before_the_next_one_is_entered() {
    let lab = lab_with_a_and_b().await;

    lab.edit("lobby", json!({"sessionId": NEXT, "slaveInstanceIds": ["b", "c"]})).await;

    let object = lab.until_ready_at("lobby", NEXT, &["b", "c"]).await;
    assert_eq!(lab.members(), BTreeSet::new());
    assert_eq!(object.status.unwrap().target.unwrap().session_id, NEXT);
    assert_eq!(
        history(&lab),
        [
            format!("Attach {SESSION} a,b"),
            format!("Detach {SESSION} a,b"),
            format!("Attach {NEXT} b,c")
        ]
    );
    // First status, finalizer, settle; then a journal and an outcome in each session.
    lab.until_writes(3 + 4).await;
}

#[tokio::test]
async fn a_session_that_is_gone_is_left_at_once() {
    let lab = lab_with_a_and_b().await;
    lab.simulator.end_session(SESSION);

    lab.edit("lobby", json!({"sessionId": NEXT})).await;

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;
    assert_eq!(
        history(&lab),
        [
            format!("Attach {SESSION} a,b"),
            format!("Detach {SESSION} a,b"),
            format!("Attach {NEXT} a,b")
        ]
    );
}

#[tokio::test]
async fn another_region_is_another_session_and_none_is_the_one_that_is_bound() {
    let lab = lab_with_a_and_b().await;
    let until = async |generation: i64| {
        eventually("Ready for the newest spec", async || {
            let object = lab.get("lobby").await;
            if ready(&object).0 && object.metadata.generation == Some(generation) {
                Ok(())
            } else {
                Err(format!("{:?}", object.status))
            }
        })
        .await;
    };

    lab.edit("lobby", json!({"region": "ap-guangzhou"})).await;
    until(2).await;
    lab.edit("lobby", json!({"region": "ap-shanghai"})).await;
    until(3).await;
    lab.edit("lobby", json!({"region": null})).await;
    until(4).await;
    lab.edit_ids("lobby", &["a"]).await;
    until(5).await;

    let expected =
        ["Attach", "Detach", "Attach ap-guangzhou", "Detach ap-guangzhou", "Attach ap-shanghai"]
            .map(|start| {
                start.split_once(' ').map_or(format!("{start} {SESSION} a,b"), |(start, region)| {
                    format!("{start} {SESSION} {region} a,b")
                })
            });
    assert_eq!(history(&lab)[..5], expected);
    assert_eq!(history(&lab)[5..], [format!("Detach {SESSION} ap-shanghai b")]);
    assert_eq!(
        lab.get("lobby").await.status.unwrap().target.unwrap().region.as_deref(),
        Some("ap-shanghai")
    );
}

#[tokio::test]
async fn with_orphan_the_old_session_keeps_its_instances_and_an_event_names_them() {
    let lab = lab_with_a_and_b().await;
    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;

    lab.edit("lobby", json!({"sessionId": NEXT, "slaveInstanceIds": ["c"]})).await;

    lab.until_ready_at("lobby", NEXT, &["c"]).await;
    assert_eq!(lab.members(), ["a", "b"].map(String::from).into());
    assert_eq!(history(&lab), [format!("Attach {SESSION} a,b"), format!("Attach {NEXT} c")]);
    let note = lab.until_event("lobby", "InstancesOrphaned").await;
    assert_eq!(note, format!("Left in session {SESSION}, as spec.deletionPolicy says: a, b."));
    lab.until_metric(r#"streamsession_instances_released_total{outcome="orphaned"} 2"#).await;
}

#[tokio::test]
async fn a_doubt_keeps_the_move_waiting_and_ready_says_until_when() {
    let lab = lab_that_waits().await;
    let until = deadline(&lab.get("lobby").await);

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;

    assert_eq!(lab.members(), BTreeSet::new());
    let entered = lab
        .calls()
        .into_iter()
        .find(|call| call.session_id.as_deref() == Some(NEXT))
        .expect("a call");
    assert!(entered.time >= until, "{entered:?} before {until}");
    // First status, finalizer, settle; two journals and what came of them; nothing while it waited;
    // what is left, then a journal and its outcome.
    lab.until_writes(3 + 4 + 3).await;
}

#[tokio::test]
async fn a_move_that_is_taken_back_before_its_end_leaves_the_object_where_it_was() {
    let lab = lab_that_waits().await;

    lab.edit("lobby", json!({"sessionId": SESSION})).await;

    until_message(&lab, "lobby", "An earlier detach of a may still take effect until ").await;
    lab.until_ready("lobby", &["a", "b"]).await;
    assert!(history(&lab).iter().all(|call| call.contains(SESSION)), "{:?}", history(&lab));
}

#[tokio::test]
async fn the_ids_may_be_edited_and_the_destination_too_while_a_move_waits() {
    let lab = lab_that_waits().await;

    lab.edit_ids("lobby", &["b", "c"]).await;
    lab.edit("lobby", json!({"sessionId": "third"})).await;

    lab.until_ready_at("lobby", "third", &["b", "c"]).await;
    assert_eq!((lab.members(), lab.simulator.members(NEXT)), (BTreeSet::new(), BTreeSet::new()));
    assert!(!history(&lab).iter().any(|call| call.contains(NEXT)), "{:?}", history(&lab));
}

#[tokio::test]
async fn an_object_that_is_deleted_while_it_moves_leaves_nothing_in_either_session() {
    let lab = lab_that_waits().await;
    let until = deadline(&lab.get("lobby").await);

    lab.delete("lobby").await;

    let message = lab.until_reason("lobby", "Deleting").await;
    assert!(
        message
            .starts_with("All instances are detached; an earlier detach may still arrive until "),
        "{message}"
    );
    lab.until_gone("lobby").await;
    assert!(lab.simulator.now() >= until);
    assert_eq!((lab.members(), lab.simulator.members(NEXT)), (BTreeSet::new(), BTreeSet::new()));
}

#[tokio::test]
async fn an_object_that_is_orphaned_while_its_move_waits_goes_at_once() {
    let lab = lab_that_waits().await;
    let until = deadline(&lab.get("lobby").await);

    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;
    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert!(lab.simulator.now() < until);
}

#[tokio::test]
async fn a_mistyped_session_is_named_and_its_correction_goes_on_at_once() {
    let known = [SESSION, NEXT].map(String::from).into();
    let validity = std::time::Duration::from_secs(4);
    let mut lab = Lab::with(gs_simulator::Options {
        known_sessions: known,
        signature_validity: validity,
        ..gs_simulator::Options::default()
    })
    .await;
    lab.start_operator().await;
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_ready("lobby", &["a", "b"]).await;

    lab.edit("lobby", json!({"sessionId": "mistyped"})).await;

    let message = lab.until_reason("lobby", "SessionNotFound").await;
    assert!(message.contains("mistyped") && message.contains("spec.sessionId"), "{message}");
    assert_eq!(lab.members(), BTreeSet::new());
    lab.edit("lobby", json!({"sessionId": NEXT})).await;
    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;
    let calls = history(&lab);
    assert_eq!(calls.last().unwrap(), &format!("Attach {NEXT} a,b"));
    assert!(!calls.iter().any(|call| call.starts_with("Detach mistyped")), "{calls:?}");
}

#[tokio::test]
async fn an_instance_that_can_not_leave_keeps_the_move_waiting_and_the_policy_ends_that() {
    let lab = lab_with_a_and_b().await;
    let failing = InstanceFault { pattern: "b".into(), tries: None, operation: Operation::Detach };
    lab.simulator.set_faults(Faults { instance_faults: vec![failing], ..Faults::default() });
    lab.edit("lobby", json!({"sessionId": NEXT})).await;
    let message = lab.until_reason("lobby", "InstancesRefused").await;
    for said in [
        "refuses to detach b",
        SESSION,
        NEXT,
        "gs.tencentcloud.dev/forget-instances",
        "spec.detachFailurePolicy",
    ] {
        assert!(message.contains(said), "no {said:?} in {message}");
    }
    assert_eq!(lab.simulator.members(NEXT), BTreeSet::new());

    lab.edit("lobby", json!({"detachFailurePolicy": "Forget"})).await;

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;
    assert_eq!(lab.members(), ["b".to_owned()].into());
    let note = lab.until_event("lobby", "InstancesForgotten").await;
    assert!(note.contains(": b."), "{note}");
}

#[tokio::test]
async fn other_defaults_of_the_operator_move_nothing() {
    let mut lab = Lab::without_operator().await;
    lab.options.region = Some("ap-guangzhou".into());
    lab.start_operator().await;
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_ready("lobby", &["a", "b"]).await;
    lab.until_writes(3).await;
    lab.stop_operator().await;
    let validity = lab.options.signature_validity;
    let options =
        gs_simulator::Options { signature_validity: validity, ..gs_simulator::Options::default() };
    let elsewhere = Simulator::start(options).await.expect("a simulator");
    lab.options.region = Some("ap-shanghai".into());
    lab.options.gs_endpoint = Endpoint::parse(&elsewhere.url()).expect("an endpoint");

    lab.start_operator().await;
    lab.create("marker", &["marked"], json!({"sessionId": "marker"})).await;
    lab.until_status("marker", "is attached", |status| status.attached_instance_ids == ["marked"])
        .await;

    assert_eq!(elsewhere.members("marker").len(), 1, "a new session is bound to the new defaults");
    lab.until_writes(3 + 3).await;
    assert_eq!(history(&lab), [format!("Attach {SESSION} ap-guangzhou a,b")]);
    lab.edit_ids("lobby", &["a"]).await;
    lab.until_ready("lobby", &["a"]).await;
    assert_eq!(history(&lab).last().unwrap(), &format!("Detach {SESSION} ap-guangzhou b"));
    assert_eq!(elsewhere.members(SESSION), BTreeSet::new());
}

#[tokio::test]
async fn a_move_that_has_to_wait_for_a_permit_doubts_no_answer() {
    let mut lab = Lab::without_operator().await;
    lab.options.gs_qps = 1.try_into().expect("not 0");
    lab.options.gs_burst = 1.try_into().expect("not 0");
    lab.start_operator().await;
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_ready("lobby", &["a", "b"]).await;

    lab.edit("lobby", json!({"sessionId": NEXT})).await;

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;
    assert_eq!(
        history(&lab),
        [
            format!("Attach {SESSION} a,b"),
            format!("Detach {SESSION} a,b"),
            format!("Attach {NEXT} a,b")
        ]
    );
}
