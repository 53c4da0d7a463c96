//! Resync: what is attached is attached again. It puts back what somebody took out and tells that a
//! session has ended; nothing else comes of it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use streamsession_operator::api::v1alpha1::StreamSession;

use crate::harness::{Lab, SESSION, errors, eventually, set};

/// So often in these tests, where half a minute would be long.
const OFTEN: Duration = Duration::from_secs(1);

/// Since when Ready is as it is.
fn ready_since(object: &StreamSession) -> Time {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.next().expect("Ready").last_transition_time.clone()
}

/// A lab whose operator attaches everything again and again, and has attached these.
async fn lab_with_members(ids: &[&str]) -> Lab {
    let mut lab = Lab::without_operator().await;
    lab.options.resync_interval = OFTEN;
    lab.start_operator().await;
    lab.create("lobby", ids, json!({})).await;
    lab.until_condition_ready("lobby").await;
    lab
}

async fn until_members(lab: &Lab, ids: &[&str]) {
    eventually(&format!("{ids:?} are in"), async || {
        let members = lab.members();
        if members == set(ids) { Ok(()) } else { Err(format!("{members:?}")) }
    })
    .await;
}

#[tokio::test]
async fn within_a_minute_a_phone_is_back_and_the_end_of_a_session_is_told() {
    let lab = Lab::start().await;
    lab.create("lobby", &["a", "b"], json!({"resyncInterval": "30s"})).await;
    let object = lab.until_ready("lobby", &["a", "b"]).await;

    lab.simulator.set_members(SESSION, ["a"]);
    until_members(&lab, &["a", "b"]).await;
    let healed = lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(ready_since(&healed), ready_since(&object), "Ready did not flap");

    lab.simulator.end_session(SESSION);
    lab.until_reason("lobby", "SessionNotFound").await;
}

#[tokio::test]
async fn whatever_it_is_answered_changes_nothing_and_is_told_once() {
    let lab = lab_with_members(&["a", "b"]).await;
    let before = lab.get("lobby").await;
    let codes =
        ["FailedOperation", "InvalidParameterValue", "UnauthorizedOperation", "InternalError"];

    for code in codes {
        let calls = lab.calls().len();
        lab.simulator.set_faults(errors(&[(code, 3)]));
        lab.until_calls(calls + 4).await;
        lab.until_note("lobby", "ResyncFailed", code).await;
    }

    // The doubt of the last one is over, too.
    let after = lab.until_ready("lobby", &["a", "b"]).await;
    assert_eq!(ready_since(&after), ready_since(&before), "Ready did not flap");
    assert!(lab.history().iter().all(|call| call == "Attach a,b"), "{:?}", lab.history());
    lab.until_metric(&format!("streamsession_resync_failures_total {}", codes.len())).await;
}

#[tokio::test]
async fn a_phone_that_the_spec_drops_leaves_though_a_resync_of_it_may_still_arrive() {
    let lab = lab_with_members(&["a", "b"]).await;
    let calls = lab.calls().len();
    lab.simulator.set_faults(errors(&[("InternalError", 1)]));
    lab.until_calls(calls + 1).await;

    lab.edit_ids("lobby", &["b"]).await;

    until_members(&lab, &["b"]).await;
    lab.until_ready("lobby", &["b"]).await;
}

#[tokio::test]
async fn it_takes_a_tenth_of_the_quota() {
    let mut lab = Lab::without_operator().await;
    lab.options.resync_interval = OFTEN;
    lab.start_operator().await;
    let names: Vec<_> = (0..10).map(|number| format!("wall-{number}")).collect();
    for name in &names {
        lab.create_apart(name, &["a"]).await;
    }
    for name in &names {
        lab.until_attached(name, &["a"]).await;
    }

    lab.until_calls(names.len() + 12).await;

    // Each session is attached for the first time once; what follows is resyncs.
    let mut seen = std::collections::BTreeSet::new();
    let resyncs = lab.calls().into_iter().filter(|call| !seen.insert(call.session_id.clone()));
    let times: Vec<_> = resyncs.map(|call| call.arrival_ms).collect();
    for (first, from) in times.iter().enumerate() {
        for (number, to) in times.iter().enumerate().skip(first) {
            let (count, seconds) = (number - first + 1, (to - from) / 1_000.0);
            // A permit is granted on time; its call may take some time to arrive.
            let most = 2.0 * seconds + 3.0;
            assert!(f64::from(u32::try_from(count).unwrap()) <= most, "{count} in {seconds} s");
        }
    }
}
