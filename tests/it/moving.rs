//! An object whose `spec.sessionId` or `spec.region` changes in place: all are detached from the
//! old session before any is attached to the new one.

use std::collections::BTreeSet;

use gs_simulator::{Call, Faults, Simulator};
use serde_json::json;
use streamsession_operator::gs::Endpoint;

use crate::harness::{Lab, SESSION, detach_deadline, eventually, ready, refuse_detach, set};

const NEXT: &str = "1326515201117065299";

/// A lab that loses the answer to the first detach of the move to [`NEXT`], and waits for the doubt
/// to end.
async fn lab_with_a_move_in_doubt() -> Lab {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
    lab.edit("lobby", json!({"sessionId": NEXT})).await;
    let message = lab.until_reason("lobby", "OutcomeUnknown").await;
    let (before, after) = message.split_once(" until ").expect("a deadline");
    assert_eq!(
        before,
        format!(
            "All instances are detached from session {SESSION}. An earlier detach may still take \
             effect"
        )
    );
    assert!(after.ends_with(&format!("; the move to session {NEXT} waits for that.")), "{message}");
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
    let (operation, session) = call.operation.zip(call.session_id).expect("well-formed");
    let region = call.region.map(|region| format!(" {region}")).unwrap_or_default();
    format!("{operation:?} {session}{region} {}", call.instance_ids.join(","))
}

fn history(lab: &Lab) -> Vec<String> {
    lab.calls().into_iter().map(short).collect()
}

/// The calls of a move of `a` and `b` to [`NEXT`] without faults.
fn calls_of_a_move() -> [String; 3] {
    [format!("Attach {SESSION} a,b"), format!("Detach {SESSION} a,b"), format!("Attach {NEXT} a,b")]
}

#[tokio::test]
async fn all_are_detached_from_a_session_before_any_is_attached_to_the_next_one() {
    let lab = Lab::with_members(&["a", "b"]).await;

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
async fn a_move_from_a_session_that_is_gone_does_not_wait() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.end_session(SESSION);

    lab.edit("lobby", json!({"sessionId": NEXT})).await;

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;
    assert_eq!(history(&lab), calls_of_a_move());
}

#[tokio::test]
async fn another_region_is_another_session_and_no_region_keeps_the_one_of_the_ledger() {
    let lab = Lab::with_members(&["a", "b"]).await;

    lab.edit("lobby", json!({"region": "ap-guangzhou"})).await;
    lab.until_condition_ready("lobby").await;
    lab.edit("lobby", json!({"region": "ap-shanghai"})).await;
    lab.until_condition_ready("lobby").await;
    lab.edit("lobby", json!({"region": null})).await;
    lab.until_condition_ready("lobby").await;
    lab.edit_ids("lobby", &["a"]).await;
    lab.until_condition_ready("lobby").await;

    let expected = [
        "Attach {SESSION} a,b",
        "Detach {SESSION} a,b",
        "Attach {SESSION} ap-guangzhou a,b",
        "Detach {SESSION} ap-guangzhou a,b",
        "Attach {SESSION} ap-shanghai a,b",
        "Detach {SESSION} ap-shanghai b",
    ];
    assert_eq!(history(&lab), expected.map(|call| call.replace("{SESSION}", SESSION)));
    assert_eq!(
        lab.get("lobby").await.status.unwrap().target.unwrap().region.as_deref(),
        Some("ap-shanghai")
    );
}

#[tokio::test]
async fn with_orphan_the_old_session_keeps_its_instances_and_an_event_names_them() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;

    lab.edit("lobby", json!({"sessionId": NEXT, "slaveInstanceIds": ["c"]})).await;

    lab.until_ready_at("lobby", NEXT, &["c"]).await;
    assert_eq!(lab.members(), set(&["a", "b"]));
    assert_eq!(history(&lab), [format!("Attach {SESSION} a,b"), format!("Attach {NEXT} c")]);
    let note = lab.until_event("lobby", "InstancesOrphaned").await;
    assert_eq!(note, format!("Left in session {SESSION}, as spec.deletionPolicy says: a, b."));
    lab.until_metric(r#"streamsession_instances_released_total{outcome="orphaned"} 2"#).await;
}

#[tokio::test]
async fn a_move_waits_for_a_doubt_to_end_and_ready_tells_until_when() {
    let lab = lab_with_a_move_in_doubt().await;
    let until = detach_deadline(&lab.get("lobby").await);

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;

    assert_eq!(lab.members(), BTreeSet::new());
    let calls = lab.calls();
    let first = calls.iter().find(|call| call.session_id.as_deref() == Some(NEXT));
    let first = first.expect("a call");
    assert!(first.time >= until, "{first:?} before {until}");
    // First status, finalizer, settle; two journals and what came of them; nothing while it waited;
    // what is left, then a journal and its outcome.
    lab.until_writes(3 + 4 + 3).await;
}

#[tokio::test]
async fn a_move_that_is_reverted_before_its_end_leaves_the_object_where_it_was() {
    let lab = lab_with_a_move_in_doubt().await;

    lab.edit("lobby", json!({"sessionId": SESSION})).await;

    until_message(&lab, "lobby", "An earlier detach of a may still take effect until ").await;
    lab.until_ready("lobby", &["a", "b"]).await;
    assert!(history(&lab).iter().all(|call| call.contains(SESSION)), "{:?}", history(&lab));
}

#[tokio::test]
async fn the_ids_may_be_edited_and_the_destination_too_while_a_move_waits() {
    let lab = lab_with_a_move_in_doubt().await;

    lab.edit_ids("lobby", &["b", "c"]).await;
    lab.edit("lobby", json!({"sessionId": "third"})).await;

    lab.until_ready_at("lobby", "third", &["b", "c"]).await;
    assert_eq!((lab.members(), lab.simulator.members(NEXT)), (BTreeSet::new(), BTreeSet::new()));
    assert!(!history(&lab).iter().any(|call| call.contains(NEXT)), "{:?}", history(&lab));
}

#[tokio::test]
async fn an_object_that_is_deleted_while_it_moves_leaves_nothing_in_either_session() {
    let lab = lab_with_a_move_in_doubt().await;
    let until = detach_deadline(&lab.get("lobby").await);

    lab.delete("lobby").await;

    let message = lab.until_reason("lobby", "Deleting").await;
    assert!(
        message.starts_with(
            "All instances are detached. An earlier detach may still take effect until "
        ),
        "{message}"
    );
    lab.until_gone("lobby").await;
    assert!(lab.simulator.now() >= until);
    assert_eq!((lab.members(), lab.simulator.members(NEXT)), (BTreeSet::new(), BTreeSet::new()));
}

#[tokio::test]
async fn a_deletion_with_orphan_ends_at_once_while_a_move_waits() {
    let lab = lab_with_a_move_in_doubt().await;
    let until = detach_deadline(&lab.get("lobby").await);

    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;
    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert!(lab.simulator.now() < until);
}

#[tokio::test]
async fn a_mistyped_session_is_named_and_its_correction_continues_the_move_at_once() {
    let mut lab = Lab::with(gs_simulator::Options {
        known_sessions: set(&[SESSION, NEXT]),
        signature_validity: std::time::Duration::from_secs(4),
        ..gs_simulator::Options::default()
    })
    .await;
    lab.start_operator().await;
    lab.create_ready("lobby", &["a", "b"]).await;

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
async fn a_move_waits_for_an_instance_that_can_not_be_detached_and_the_policy_forget_ends_that() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(refuse_detach("b"));
    lab.edit("lobby", json!({"sessionId": NEXT})).await;
    let message = lab.until_reason("lobby", "InstancesRefused").await;
    for part in [
        "refuses to detach b",
        SESSION,
        NEXT,
        "gs.tencentcloud.dev/forget-instances",
        "spec.detachFailurePolicy",
    ] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    assert_eq!(lab.simulator.members(NEXT), BTreeSet::new());

    lab.edit("lobby", json!({"detachFailurePolicy": "Forget"})).await;

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;
    assert_eq!(lab.members(), set(&["b"]));
    let note = lab.until_event("lobby", "InstancesForgotten").await;
    assert!(note.contains(": b."), "{note}");
}

#[tokio::test]
async fn another_region_of_the_operator_moves_nothing_and_another_service_is_not_called() {
    let mut lab = Lab::without_operator().await;
    lab.options.region = Some("ap-guangzhou".into());
    lab.start_operator().await;
    lab.create_ready("lobby", &["a", "b"]).await;
    lab.stop_operator().await;
    lab.options.region = Some("ap-shanghai".into());
    lab.start_operator().await;
    lab.edit_ids("lobby", &["a"]).await;
    lab.until_ready("lobby", &["a"]).await;
    let calls =
        [format!("Attach {SESSION} ap-guangzhou a,b"), format!("Detach {SESSION} ap-guangzhou b")];
    assert_eq!(history(&lab), calls);

    lab.stop_operator().await;
    let validity = lab.options.signature_validity;
    let options =
        gs_simulator::Options { signature_validity: validity, ..gs_simulator::Options::default() };
    let elsewhere = Simulator::start(options).await.expect("a simulator");
    let here = lab.options.gs_endpoint.clone();
    lab.options.gs_endpoint = Endpoint::parse(&elsewhere.url()).expect("an endpoint");
    lab.start_operator().await;
    lab.edit_ids("lobby", &["a", "c"]).await;
    lab.until_reason("lobby", "TargetMismatch").await;
    lab.create_apart("marker", &["marked"]).await;
    lab.until_attached("marker", &["marked"]).await;
    assert_eq!(elsewhere.members("marker").len(), 1, "a new session is bound to the new service");
    assert_eq!(elsewhere.members(SESSION), BTreeSet::new());
    assert_eq!(history(&lab), calls);

    lab.stop_operator().await;
    lab.options.gs_endpoint = here;
    lab.start_operator().await;
    lab.until_ready("lobby", &["a", "c"]).await;
}

#[tokio::test]
async fn a_move_that_has_to_wait_for_a_permit_leaves_no_doubt() {
    let mut lab = Lab::without_operator().await;
    lab.options.gs_qps = 1.try_into().expect("not 0");
    lab.options.gs_burst = 1.try_into().expect("not 0");
    lab.start_operator().await;
    lab.create_ready("lobby", &["a", "b"]).await;

    lab.edit("lobby", json!({"sessionId": NEXT})).await;

    lab.until_ready_at("lobby", NEXT, &["a", "b"]).await;
    assert_eq!(history(&lab), calls_of_a_move());
}

/// The attach comes first and is refused, as long as the other session has the phone.
#[tokio::test]
async fn the_detach_that_frees_a_phone_makes_the_other_attach_due_at_once() {
    // No pause is longer than that.
    let mut lab = Lab::with_validity(std::time::Duration::from_mins(2)).await;
    // The pause after a refusal is three quarters of that at least.
    lab.options.retry_base = std::time::Duration::from_secs(40);
    lab.start_operator().await;
    lab.create_apart("old", &["a"]).await;
    lab.until_attached("old", &["a"]).await;
    lab.simulator.set_faults(Faults { fail_instances: set(&["a"]), ..Faults::default() });
    lab.create_apart("new", &["a"]).await;
    lab.until_status("new", "was refused", |status| status.failed_instances == Some(1)).await;
    lab.simulator.set_faults(Faults::default());

    lab.edit_ids("old", &[]).await;

    lab.until_attached("new", &["a"]).await;
    let calls = lab.calls();
    let [_, _, freed, attached] = &calls[..] else { panic!("{:?}", lab.history()) };
    let waited = attached.arrival_ms - freed.arrival_ms;
    assert!(waited < 20_000.0, "attached {waited} ms after it was freed");
}

/// One commit too few: the phone is named in both sessions.
#[tokio::test]
async fn both_are_told_that_they_want_the_same_phone() {
    let lab = Lab::start().await;
    lab.create_apart("has-it", &["a", "b"]).await;
    lab.until_attached("has-it", &["a", "b"]).await;
    lab.simulator.set_faults(Faults { fail_instances: set(&["a"]), ..Faults::default() });

    lab.create_apart("wants-it", &["a", "c"]).await;

    let told = lab.until_event("wants-it", "InstancesWantedTwice").await;
    assert!(told.contains("(StreamSession has-it): a."), "{told}");
    let told = lab.until_event("has-it", "InstancesWantedTwice").await;
    assert!(told.contains("(StreamSession wants-it): a."), "{told}");
}
