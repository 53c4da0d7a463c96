//! What goes wrong between the operator and the service: refusals, lost answers, late arrivals, a
//! session that ends. What each error code does is in `errors`.

use std::net::SocketAddr;

use gs_simulator::{Faults, Outcome, Simulator};
use serde_json::json;
use streamsession_operator::api::v1alpha1::{
    FailureReason, InstanceState, StreamSession, UnsettledInstance,
};
use streamsession_operator::gs::Endpoint;
use tokio::net::TcpSocket;

use crate::harness::{Lab, SESSION, detach_deadline, errors, set};

fn refuse(id: &str) -> Faults {
    Faults { fail_instances: set(&[id]), ..Faults::default() }
}

/// The next call is not answered, and arrives after a second.
fn late() -> Faults {
    Faults { late_arrivals: 1, late_arrival_ms: 1000, ..Faults::default() }
}

/// What the call that arrived late did.
fn arrived_late(lab: &Lab) -> Vec<String> {
    let late = lab.simulator.calls().into_iter().find(|call| call.outcome == Outcome::LateApplied);
    late.expect("a late arrival").succeeded
}

fn unsettled(object: &StreamSession) -> Vec<UnsettledInstance> {
    object.status.clone().unwrap_or_default().unsettled_instances
}

#[tokio::test]
async fn a_refused_instance_is_reported_while_its_neighbours_are_attached() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(refuse("bad"));

    lab.create("lobby", &["a", "bad", "c"], json!({})).await;

    let message = lab.until_reason("lobby", "ProgressingWithRetry").await;
    assert!(message.contains("bad"), "{message}");
    let object = lab.get("lobby").await;
    let status = object.status.clone().unwrap();
    assert_eq!(
        (status.desired_instances, status.attached_instances, status.failed_instances),
        (Some(3), Some(2), Some(1))
    );
    assert_eq!(status.attached_instance_ids, ["a", "c"]);
    assert_eq!(unsettled(&object)[0].instance_id, "bad");
    assert_eq!(unsettled(&object)[0].last_failure.as_ref().unwrap().reason, FailureReason::Refused);
    assert_eq!(lab.members(), set(&["a", "c"]));
}

#[tokio::test]
async fn an_instance_that_is_refused_for_long_stalls_the_object_and_is_named() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(refuse("bad"));

    lab.create("lobby", &["a", "bad", "c"], json!({})).await;

    let message = lab.until_reason("lobby", "InstancesRefused").await;
    assert!(message.starts_with("The service refuses to attach bad."), "{message}");
    let object = lab.get("lobby").await;
    let conditions = &object.status.as_ref().unwrap().conditions;
    let stalled = conditions.iter().find(|condition| condition.type_ == "Stalled");
    assert_eq!(stalled.expect("Stalled").status, "True");
    assert!(unsettled(&object)[0].last_failure.as_ref().unwrap().attempts >= 5);
}

#[tokio::test]
async fn a_refused_instance_is_attached_once_the_service_accepts_it() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(refuse("bad"));
    lab.create("lobby", &["a", "bad"], json!({})).await;
    lab.until_reason("lobby", "InstancesRefused").await;

    lab.simulator.set_faults(Faults::default());

    let object = lab.until_ready("lobby", &["a", "bad"]).await;
    assert_eq!(object.status.unwrap().failed_instances, Some(0));
}

#[tokio::test]
async fn a_corrected_typing_error_leaves_nothing_behind() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(refuse("typo"));
    lab.create("lobby", &["a", "typo"], json!({})).await;
    lab.until_status("lobby", "the typing error is reported", |status| {
        status.failed_instances == Some(1)
    })
    .await;

    lab.edit_ids("lobby", &["a", "b"]).await;

    let object = lab.until_ready("lobby", &["a", "b"]).await;
    let status = serde_json::to_string(&object.status).unwrap();
    assert!(!status.contains("typo"), "{status}");
}

#[tokio::test]
async fn an_error_that_may_be_one_instances_fault_is_bisected_at_once() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(errors(&[("FailedOperation", 1)]));

    lab.create("lobby", &["a", "b"], json!({})).await;

    let object = lab.until_condition_ready("lobby").await;
    assert_eq!(unsettled(&object), []);
    assert_eq!(lab.history(), ["Attach a,b", "Attach a", "Attach b"]);
}

#[tokio::test]
async fn a_lost_answer_of_an_attach_is_asked_again_and_its_deadline_ends_by_itself() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });

    lab.create("lobby", &["a", "b"], json!({})).await;

    let object = lab.until_condition_ready("lobby").await;
    let open = unsettled(&object);
    assert_eq!(open.len(), 2);
    assert!(
        open.iter()
            .all(|open| open.state == InstanceState::Attached
                && open.attach_may_arrive_until.is_some()),
        "{open:?}"
    );
    lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(lab.history(), ["Attach a,b"; 2]);
}

#[tokio::test]
async fn an_instance_whose_detach_may_still_arrive_is_not_ready_before_the_deadline() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
    lab.edit_ids("lobby", &["a"]).await;
    let in_doubt = |unsettled: &UnsettledInstance| {
        unsettled.instance_id == "b" && unsettled.detach_may_arrive_until.is_some()
    };
    lab.until_status("lobby", "b is in doubt", |status| {
        status.unsettled_instances.iter().any(in_doubt)
    })
    .await;

    lab.edit_ids("lobby", &["a", "b"]).await;

    let message = lab.until_reason("lobby", "OutcomeUnknown").await;
    assert!(
        message.starts_with("An earlier detach of b may still take effect until "),
        "{message}"
    );
    let until = detach_deadline(&lab.get("lobby").await);
    lab.until_ready("lobby", &["a", "b"]).await;
    assert!(lab.simulator.now() >= until);
    assert_eq!(lab.history().last().unwrap(), "Attach b", "whether the detach arrived or not");
}

#[tokio::test]
async fn an_attach_that_arrives_after_the_spec_has_changed_is_undone() {
    let lab = Lab::start().await;
    lab.simulator.set_faults(late());
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_calls(1).await;

    lab.edit_ids("lobby", &["b"]).await;

    lab.until_ready("lobby", &["b"]).await;
    assert_eq!(arrived_late(&lab), ["a", "b"]);
}

#[tokio::test]
async fn a_detach_that_arrives_after_the_spec_has_changed_is_undone() {
    let lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(late());
    lab.edit_ids("lobby", &["a"]).await;
    lab.until_calls(2).await;

    lab.edit_ids("lobby", &["a", "b"]).await;

    lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(arrived_late(&lab), ["b"]);
}

/// A port that refuses connections until someone else listens there, as long as the socket exists.
fn reserved_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[tokio::test]
async fn a_service_that_is_down_at_the_start_is_named_and_used_once_it_is_up() {
    let mut lab = Lab::without_operator().await;
    let (_reserved, listen) = reserved_port();
    let endpoint = format!("http://{listen}");
    lab.options.gs_endpoint = Endpoint::parse(&endpoint).expect("an endpoint");
    lab.start_operator().await;
    lab.create("lobby", &["a"], json!({})).await;
    let message = lab.until_reason("lobby", "ProgressingWithRetry").await;
    assert!(message.contains(&endpoint), "{message}");
    assert!(lab.calls().is_empty());

    let validity = lab.options.signature_validity;
    let options = gs_simulator::Options {
        listen,
        signature_validity: validity,
        ..gs_simulator::Options::default()
    };
    lab.simulator = Simulator::start(options).await.expect("a simulator");

    lab.until_ready("lobby", &["a"]).await;
}

#[tokio::test]
async fn a_session_that_has_ended_stalls_its_object() {
    let lab = Lab::with_members(&["a"]).await;
    lab.simulator.end_session(SESSION);

    lab.edit_ids("lobby", &["a", "b"]).await;

    let message = lab.until_reason("lobby", "SessionNotFound").await;
    assert!(message.contains(SESSION), "{message}");
    let status = lab.get("lobby").await.status.unwrap();
    assert_eq!((status.attached_instances, status.attached_instance_ids.len()), (Some(0), 0));
}

#[tokio::test]
async fn an_object_whose_session_has_ended_can_be_deleted() {
    let lab = Lab::with_members(&["a"]).await;
    lab.simulator.end_session(SESSION);

    lab.delete("lobby").await;

    lab.until_gone("lobby").await;
    assert_eq!(lab.history(), ["Attach a", "Detach a"]);
}
