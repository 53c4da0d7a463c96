//! Batches in which one id is to blame, or none: what it costs to find out, and what is left
//! behind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use gs_simulator::{ErrorFault, Faults};
use serde_json::{Value, json};
use streamsession_operator::api::v1alpha1::{FailureReason, StreamSession};
use streamsession_operator::gs::Endpoint;
use tokio::net::TcpListener;

use crate::harness::{Lab, eventually, ready};

/// As [`Picky`] spells an id that it can't read.
const POISON: &str = "poison";
const COUNT: usize = 100;
/// ⌈log2 [`COUNT`]⌉.
const HALVINGS: usize = 7;

/// A service that refuses a call as a whole, with `InvalidParameterValue`, if one of its ids
/// contains [`POISON`]. It believes every signature.
#[derive(Debug, Default)]
struct Picky {
    /// Session, attach or detach, and ids; oldest first.
    calls: Mutex<Vec<(String, bool, Vec<String>)>>,
}

impl Picky {
    /// Where it listens. It ends with the test's runtime.
    async fn start(self: &Arc<Self>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new()
            .route(
                "/",
                post(
                    async |State(picky): State<Arc<Self>>,
                           headers: HeaderMap,
                           Json(body): Json<Value>| {
                        picky.answer(&headers, &body)
                    },
                ),
            )
            .with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Endpoint::parse(&url).expect("an endpoint")
    }

    fn answer(&self, headers: &HeaderMap, body: &Value) -> Json<Value> {
        let error = |code: &str| {
            Json(
                json!({"Response": {"Error": {"Code": code, "Message": "No."}, "RequestId": "r-1"}}),
            )
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
        for (attach, ids) in self
            .calls(session)
            .into_iter()
            .filter(|(_, ids)| !ids.iter().any(|id| id.contains(POISON)))
        {
            if attach {
                members.extend(ids);
            } else {
                members.retain(|id| !ids.contains(id));
            }
        }
        members
    }
}

/// A lab whose operator calls a picky service.
async fn picky_lab() -> (Lab, Arc<Picky>) {
    picky_lab_with_pauses_of(Duration::from_millis(200)).await
}

async fn picky_lab_with_pauses_of(retry_base: Duration) -> (Lab, Arc<Picky>) {
    let picky = Arc::new(Picky::default());
    let mut lab = Lab::without_operator().await;
    lab.options.retry_base = retry_base;
    lab.options.gs_endpoint = picky.start().await;
    lab.start_operator().await;
    (lab, picky)
}

/// [`COUNT`] ids in their order, with a mistyped one at `position`.
fn with_poison(position: usize) -> Vec<String> {
    (0..COUNT)
        .map(
            |n| {
                if n == position {
                    format!("phone-{n:02}-{POISON}")
                } else {
                    format!("phone-{n:02}")
                }
            },
        )
        .collect()
}

fn strs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

/// Creates an object with a poisoned id at `position`, and waits until all others are attached and
/// that one is reported.
async fn until_reported(lab: &Lab, session: &str, position: usize) -> StreamSession {
    let ids = with_poison(position);
    lab.create(session, &strs(&ids), json!({"sessionId": session})).await;
    lab.until_status(session, "all but one are attached, and that one is reported", |status| {
        status.attached_instances == Some(99)
            && status.pending_call.is_none()
            && status.failed_instances == Some(1)
    })
    .await
}

#[tokio::test]
async fn a_poisoned_id_of_a_hundred_is_found_by_halving_and_reported_alone_while_its_neighbours_are_attached()
 {
    let (lab, picky) = picky_lab().await;

    for position in [0, 50, 99] {
        let session = format!("at-{position}");
        let object = until_reported(&lab, &session, position).await;

        let poisoned = &with_poison(position)[position];
        let calls = picky.calls(&session);
        let found = calls
            .iter()
            .position(|(_, ids)| ids.len() == 1 && ids[0] == *poisoned)
            .expect("called alone");
        let with_it = calls[..=found].iter().filter(|(_, ids)| ids.contains(poisoned)).count();
        assert!(with_it <= HALVINGS + 1, "{position}: {with_it} calls with it until it was alone");
        // Each halving may try the good half first.
        assert!(found <= 2 * HALVINGS, "{position}: {found} calls before it was alone");
        println!("at {position}: alone in call {}, {with_it} of them with it", found + 1);
        assert_eq!(picky.members(&session).len(), COUNT - 1);
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
    let (lab, picky) = picky_lab().await;
    let mut ids = with_poison(3);
    ids[77] = format!("phone-77-{POISON}");

    lab.create("lobby", &strs(&ids), json!({"sessionId": "lobby"})).await;

    let object = lab.until_status("lobby", "98 are attached", |status| {
        status.attached_instances == Some(98)
            && status.pending_call.is_none()
            && status.failed_instances == Some(2)
    });
    let unsettled = object.await.status.expect("a status").unsettled_instances;
    assert_eq!(
        unsettled.iter().map(|record| record.instance_id.as_str()).collect::<Vec<_>>(),
        [&ids[3], &ids[77]]
    );
    assert_eq!(picky.members("lobby").len(), COUNT - 2);
}

#[tokio::test]
async fn eight_poisoned_ids_of_a_hundred_are_tried_again_as_soon_as_one() {
    let (lab, picky) = picky_lab().await;
    let ids: Vec<_> =
        (0..COUNT)
            .map(|n| {
                if n % 12 == 5 { format!("phone-{n:02}-{POISON}") } else { format!("phone-{n:02}") }
            })
            .collect();
    lab.create("lobby", &strs(&ids), json!({"sessionId": "lobby"})).await;
    lab.until_status("lobby", "eight are reported", |status| {
        status.attached_instances == Some(92)
            && status.failed_instances == Some(8)
            && status.pending_call.is_none()
    })
    .await;
    let reported = Instant::now();
    let first_round = picky.calls("lobby").len();

    eventually("they are tried again", async || {
        if picky.calls("lobby").len() > first_round { Ok(()) } else { Err("no call".into()) }
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
    let (lab, picky) = picky_lab_with_pauses_of(Duration::from_mins(1)).await;
    until_reported(&lab, "lobby", 42).await;
    let mut corrected = with_poison(42);
    corrected[42] = "phone-42".to_owned();
    let before = picky.calls("lobby").len();

    lab.edit_ids("lobby", &strs(&corrected)).await;

    let object = eventually("all hundred are attached and nothing is open", async || {
        let object = lab.get("lobby").await;
        let settled = object.status.as_ref().is_some_and(|status| {
            status.pending_call.is_none() && status.unsettled_instances.is_empty()
        });
        if ready(&object).0 && settled { Ok(object) } else { Err(format!("{:?}", object.status)) }
    })
    .await;
    let status = object.status.expect("a status");
    assert_eq!((status.attached_instances, status.failed_instances), (Some(100), Some(0)));
    assert!(!serde_json::to_string(&status).expect("JSON").contains(POISON), "{status:?}");
    assert_eq!(picky.members("lobby"), corrected.into_iter().collect());
    lab.until_marked().await;
    let after = picky.calls("lobby").split_off(before);
    let about_it: Vec<_> =
        after.iter().filter(|(_, ids)| ids.iter().any(|id| id.contains(POISON))).collect();
    // Whether it is in was not known: the service answered no call about it but with an error. One
    // detach finds that it can't be.
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
    let errors = vec![ErrorFault { code: code.into(), times: u32::MAX }];
    lab.simulator.set_faults(Faults { errors, ..Faults::default() });
    let ids: Vec<_> = (0..COUNT).map(|n| format!("phone-{n:02}")).collect();

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
    // An edit tries everything at once.
    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;
    lab.until_ready("lobby", &strs(&ids)).await;
    calls
}

#[tokio::test]
async fn an_invalid_request_that_is_no_ids_fault_costs_sixteen_calls_in_a_row_and_then_a_pause() {
    assert_eq!(calls_before_a_pause("InvalidParameterValue").await, 16);
}

#[tokio::test]
async fn an_unclear_error_that_is_no_ids_fault_costs_no_more_either() {
    assert_eq!(calls_before_a_pause("FailedOperation").await, 16);
}
