//! Batches that fail as a whole for one invalid id, or for none: what the bisection costs, and what
//! is left of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use gs_simulator::Faults;
use serde_json::{Value, json};
use streamsession_operator::api::v1alpha1::{FailureReason, StreamSession};
use streamsession_operator::gs::Endpoint;

use crate::harness::{Lab, errors, eventually, ready, serve};

/// What is in an id that [`StrictService`] refuses.
const POISON: &str = "-poison";
const COUNT: usize = 100;
/// ⌈log2 [`COUNT`]⌉.
const HALVINGS: usize = 7;

/// A service that refuses a call as a whole, with `InvalidParameterValue`, if one of its ids
/// contains [`POISON`]. It believes every signature.
#[derive(Debug, Default)]
struct StrictService {
    /// Session, attach or detach, and ids; oldest first.
    calls: Mutex<Vec<(String, bool, Vec<String>)>>,
}

impl StrictService {
    /// Where it listens. It ends with the test's runtime.
    async fn start(self: &Arc<Self>) -> Endpoint {
        let answer =
            async |State(service): State<Arc<Self>>,
                   headers: HeaderMap,
                   Json(body): Json<Value>| { service.answer(&headers, &body) };
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(self));
        Endpoint::parse(&serve(router).await).expect("an endpoint")
    }

    fn answer(&self, headers: &HeaderMap, body: &Value) -> Json<Value> {
        let error = |code: &str| {
            let error = json!({"Code": code, "Message": "No."});
            Json(json!({"Response": {"Error": error, "RequestId": "r-1"}}))
        };
        if !headers.contains_key("authorization") {
            return error("AuthFailure.InvalidAuthorization");
        }
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let ids: Vec<_> =
            body["SlaveInstanceIds"].as_array().expect("a list").iter().map(text).collect();
        let poisoned = ids.iter().any(|id| id.contains(POISON));
        let answer = json!({"Response": {"SuccessInstanceIds": ids, "RequestId": "r-2"}});
        self.calls.lock().expect("no panic").push((
            text(&body["SessionId"]),
            body["Type"] == 1,
            ids,
        ));
        if poisoned { error("InvalidParameterValue") } else { Json(answer) }
    }

    /// The calls of a session.
    fn calls(&self, session: &str) -> Vec<(bool, Vec<String>)> {
        let calls = self.calls.lock().expect("no panic");
        calls
            .iter()
            .filter(|(of, ..)| of == session)
            .map(|(_, attach, ids)| (*attach, ids.clone()))
            .collect()
    }

    /// Who is in the session, by what was answered.
    fn members(&self, session: &str) -> BTreeSet<String> {
        let mut members = BTreeSet::new();
        for (attach, ids) in self.calls(session) {
            if ids.iter().any(|id| id.contains(POISON)) {
                continue;
            }
            if attach {
                members.extend(ids);
            } else {
                members.retain(|id| !ids.contains(id));
            }
        }
        members
    }
}

/// A lab whose operator calls a strict service.
async fn strict_lab() -> (Lab, Arc<StrictService>) {
    strict_lab_with_retry_base(Duration::from_millis(200)).await
}

async fn strict_lab_with_retry_base(retry_base: Duration) -> (Lab, Arc<StrictService>) {
    let service = Arc::new(StrictService::default());
    let mut lab = Lab::without_operator().await;
    lab.options.retry_base = retry_base;
    lab.options.gs_endpoint = service.start().await;
    lab.start_operator().await;
    (lab, service)
}

/// [`COUNT`] ids in their order, with poisoned ones at these positions.
fn ids(is_poisoned: impl Fn(usize) -> bool) -> Vec<String> {
    let id = |n| format!("phone-{n:02}{}", if is_poisoned(n) { POISON } else { "" });
    (0..COUNT).map(id).collect()
}

fn strs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

/// Creates an object with a poisoned id at `position`, and waits until all others are attached and
/// that one is reported.
async fn until_reported(lab: &Lab, session: &str, position: usize) -> StreamSession {
    lab.create_apart(session, &strs(&ids(|n| n == position))).await;
    until_counted(lab, session, 99, 1).await
}

async fn until_counted(lab: &Lab, name: &str, attached: i32, failed: i32) -> StreamSession {
    lab.until_status(name, &format!("{attached} attached, {failed} failed"), |status| {
        status.attached_instances == Some(attached)
            && status.failed_instances == Some(failed)
            && status.pending_call.is_none()
    })
    .await
}

#[tokio::test]
async fn a_poisoned_id_of_a_hundred_is_bisected_and_reported_alone_and_the_others_are_attached() {
    let (lab, service) = strict_lab().await;

    for position in [0, 50, 99] {
        let session = format!("at-{position}");
        let object = until_reported(&lab, &session, position).await;

        let poisoned = &ids(|n| n == position)[position];
        let calls = service.calls(&session);
        let found = calls
            .iter()
            .position(|(_, ids)| ids.len() == 1 && ids[0] == *poisoned)
            .expect("called alone");
        let with_it = calls[..=found].iter().filter(|(_, ids)| ids.contains(poisoned)).count();
        assert!(with_it <= HALVINGS + 1, "{position}: {with_it} calls with it until it was alone");
        // Each halving may try the good half first.
        assert!(found <= 2 * HALVINGS, "{position}: {found} calls before it was alone");
        println!("at {position}: alone in call {}, {with_it} of them with it", found + 1);
        assert_eq!(service.members(&session).len(), COUNT - 1);
        let status = object.status.clone().expect("a status");
        let [record] = status.unsettled_instances.as_slice() else {
            panic!("{position}: {:?}", status.unsettled_instances)
        };
        let failure = record.last_failure.as_ref().expect("a failure");
        assert_eq!(
            (&record.instance_id, failure.reason, failure.code.as_str()),
            (poisoned, FailureReason::Refused, "InvalidParameterValue")
        );
        let (_, reason, message) = ready(&object);
        assert_eq!(reason, "ProgressingWithRetry");
        assert!(message.contains(poisoned.as_str()) && !message.contains("phone-01,"), "{message}");
    }
}

#[tokio::test]
async fn two_poisoned_ids_of_a_hundred_are_both_found() {
    let (lab, service) = strict_lab().await;
    let ids = ids(|n| n == 3 || n == 77);

    lab.create_apart("lobby", &strs(&ids)).await;

    let object = until_counted(&lab, "lobby", 98, 2).await;
    let unsettled = object.status.expect("a status").unsettled_instances;
    assert_eq!(
        unsettled.iter().map(|record| record.instance_id.as_str()).collect::<Vec<_>>(),
        [&ids[3], &ids[77]]
    );
    assert_eq!(service.members("lobby").len(), COUNT - 2);
}

#[tokio::test]
async fn eight_poisoned_ids_of_a_hundred_are_retried_as_soon_as_one() {
    let (lab, service) = strict_lab().await;
    lab.create_apart("lobby", &strs(&ids(|n| n % 12 == 5))).await;
    until_counted(&lab, "lobby", 92, 8).await;
    let reported = Instant::now();
    let calls = service.calls("lobby").len();

    eventually("they are tried again", async || {
        if service.calls("lobby").len() > calls { Ok(()) } else { Err("no call".into()) }
    })
    .await;

    // One alone is tried again after the lab's 200 ms.
    assert!(
        reported.elapsed() < Duration::from_secs(5),
        "tried again after {:?}",
        reported.elapsed()
    );
}

#[tokio::test]
async fn a_corrected_id_of_a_hundred_leaves_no_record_and_no_retry() {
    // The poisoned id is not tried again before the edit.
    let (lab, service) = strict_lab_with_retry_base(Duration::from_mins(1)).await;
    until_reported(&lab, "lobby", 42).await;
    let corrected = ids(|_| false);
    let before = service.calls("lobby").len();

    lab.edit_ids("lobby", &strs(&corrected)).await;

    lab.until_condition_ready("lobby").await;
    let object = lab
        .until_status("lobby", "nothing is open", |status| {
            status.pending_call.is_none() && status.unsettled_instances.is_empty()
        })
        .await;
    let status = object.status.expect("a status");
    assert_eq!((status.attached_instances, status.failed_instances), (Some(100), Some(0)));
    assert!(!serde_json::to_string(&status).expect("JSON").contains(POISON), "{status:?}");
    assert_eq!(service.members("lobby"), corrected.into_iter().collect());
    lab.until_marked().await;
    let after = service.calls("lobby").split_off(before);
    let about_it: Vec<_> =
        after.iter().filter(|(_, ids)| ids.iter().any(|id| id.contains(POISON))).collect();
    // Whether it is attached was not known: the service answered every call about it with an error.
    // One detach finds that it can't be.
    assert!(
        about_it.len() <= 1 && about_it.iter().all(|(attach, ids)| !attach && ids.len() == 1),
        "{about_it:?}"
    );
    assert!(after.iter().any(|(attach, ids)| *attach && *ids == ["phone-42"]), "{after:?}");
    assert!(after.len() <= 2, "{after:?}");
}

/// Answers each call of a hundred ids with this code: how many calls are made before the first
/// pause.
async fn calls_before_a_pause(code: &str) -> usize {
    let mut lab = Lab::without_operator().await;
    lab.options.retry_base = Duration::from_secs(6);
    lab.start_operator().await;
    lab.simulator.set_faults(errors(&[(code, u32::MAX)]));
    let ids = ids(|_| false);

    lab.create("lobby", &strs(&ids), json!({})).await;

    let calls = eventually("a pause", async || {
        let calls = lab.calls();
        // 6 s, less a quarter at most; no healthy call takes so long.
        let paused =
            calls.windows(2).position(|pair| pair[1].arrival_ms - pair[0].arrival_ms >= 4490.0);
        paused.map(|last| last + 1).ok_or_else(|| format!("{} calls", calls.len()))
    })
    .await;
    println!("{code}: {calls} calls in a row, then a pause");
    lab.simulator.set_faults(Faults::default());
    // An edit ends the backoff.
    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;
    lab.until_ready("lobby", &strs(&ids)).await;
    calls
}

#[tokio::test]
async fn a_call_that_is_invalid_for_no_single_id_costs_sixteen_calls_and_then_a_pause() {
    assert_eq!(calls_before_a_pause("InvalidParameterValue").await, 16);
}

#[tokio::test]
async fn a_call_that_fails_unclearly_for_no_single_id_costs_sixteen_calls_and_then_a_pause() {
    assert_eq!(calls_before_a_pause("FailedOperation").await, 16);
}
