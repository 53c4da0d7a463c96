//! The API over HTTP: answers, and those that never come.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{ATTACH, DEADLINE, api_headers, call, date, exchange, split, start};
use crate::service::calls::Outcome;
use crate::service::faults::{AnswerFault, Faults, GarbledAnswer};
use crate::service::request::BODY_BYTES_MAX;
use crate::simulator::{Options, Simulator};

#[tokio::test]
async fn a_signed_call_is_applied_and_answered_with_the_services_date() {
    let options = Options { clock_offset_seconds: -86_400, ..Options::default() };
    let simulator = Simulator::start(options).await.unwrap();
    let before = simulator.now().as_second();

    let (head, body) = split(&call(&simulator, ATTACH).await);

    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!((before..=simulator.now().as_second()).contains(&date(&head).as_second()), "{head}");
    let response = &serde_json::from_str::<Value>(&body).unwrap()["Response"];
    assert_eq!(response["SuccessInstanceIds"], json!(["a", "b"]));
    assert_eq!(response["RequestId"], json!(simulator.calls()[0].request_id));
    assert_eq!(simulator.members("s").into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn an_unsigned_request_is_refused_with_a_readable_answer_and_a_date() {
    let simulator = start(Faults::default()).await;

    let (head, body) =
        split(&exchange(&simulator, "POST", "/", &api_headers(&simulator), "{}").await);

    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(simulator.now().duration_since(date(&head)).unsigned_abs() < DEADLINE, "{head}");
    let response = &serde_json::from_str::<Value>(&body).unwrap()["Response"];
    assert_eq!(response["Error"]["Code"], json!("AuthFailure.InvalidAuthorization"));
    assert!(response["RequestId"].is_string());
}

#[tokio::test]
async fn a_lost_answer_closes_the_connection_without_a_byte_and_the_call_is_applied() {
    let simulator = start(Faults { drop_answers: 1, ..Faults::default() }).await;

    let answer = call(&simulator, ATTACH).await;

    assert_eq!(answer, b"");
    assert_eq!(simulator.members("s").len(), 2);
    assert_eq!(simulator.calls()[0].outcome, Outcome::AppliedUnanswered);
    assert!(!call(&simulator, ATTACH).await.is_empty());
}

#[tokio::test]
async fn a_held_request_arrives_although_its_connection_is_closed() {
    let simulator =
        start(Faults { late_arrivals: 1, late_arrival_ms: 50, ..Faults::default() }).await;

    let answer = call(&simulator, ATTACH).await;

    assert_eq!(answer, b"");
    let arrived = async {
        while simulator.calls().last().unwrap().outcome != Outcome::LateApplied {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, arrived).await.unwrap();
    assert_eq!(simulator.members("s").len(), 2);
}

#[tokio::test]
async fn a_slow_answer_comes_in_pieces_with_its_length_announced() {
    let simulator = start(Faults {
        slow_answers: 1,
        slow_answer_bytes: 40,
        slow_answer_pause_ms: 20,
        ..Faults::default()
    })
    .await;
    let started = Instant::now();

    let (head, body) = split(&call(&simulator, ATTACH).await);

    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(serde_json::from_str::<Value>(&body).is_ok(), "{body}");
    let pieces = u32::try_from(body.len().div_ceil(40)).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(20) * pieces);
}

#[tokio::test]
async fn a_gateways_page_says_its_status_and_its_type() {
    let gateways = vec![AnswerFault { kind: GarbledAnswer::Html502, times: 1 }];
    let simulator = start(Faults { gateways, ..Faults::default() }).await;
    let (head, body) = split(&call(&simulator, ATTACH).await);
    assert!(head.starts_with("HTTP/1.1 502") && head.contains("content-type: text/html"), "{head}");
    assert!(body.starts_with("<html>"), "{body}");
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_by_name() {
    let simulator = start(Faults::default()).await;
    let body = " ".repeat(BODY_BYTES_MAX + 1);

    let (_, body) =
        split(&exchange(&simulator, "POST", "/", &api_headers(&simulator), &body).await);

    assert!(body.contains("RequestSizeLimitExceeded"), "{body}");
}
