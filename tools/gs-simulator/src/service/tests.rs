//! Calls and faults, from the request to the history.

use super::faults::{AnswerFault, ErrorFault, GarbledAnswer};
use super::keys::Key;
use super::*;

const ATTACH: &str = r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a","b"]}"#;
const DETACH: &str = r#"{"SessionId":"s","Type":2,"SlaveInstanceIds":["a"]}"#;

fn service(faults: Faults) -> Service {
    Service::new(ServiceOptions {
        keys: Keys::from([("ID".to_owned(), Key::long_term("SECRET"))]),
        signature_validity: Duration::from_mins(5),
        qps: 20,
        rate_window: RateWindow::Sliding,
        known_sessions: BTreeSet::new(),
        unspecified_behaviour: UnspecifiedBehaviour::default(),
        identity: Identity::default(),
        faults,
        seed: 1,
    })
}

fn after(ms: u64) -> Arrival {
    let since_start = Duration::from_millis(ms);
    Arrival { now: Timestamp::from_second(1_736_312_400).unwrap() + since_start, since_start }
}

fn unsigned(body: &str) -> Request {
    let headers = [
        ("content-type", "application/json"),
        ("host", "localhost"),
        ("x-tc-action", switch::ACTION),
        ("x-tc-version", switch::VERSION),
        ("x-tc-region", "ap-guangzhou"),
    ];
    Request::new(&headers, body)
}

fn signed(body: &str) -> Request {
    let mut request = unsigned(body);
    let now = after(0).now;
    let authorization = tc3::sign(&request.headers, body.as_bytes(), "ID", "SECRET", now);
    request.headers.insert("x-tc-timestamp", now.as_second().into());
    request.headers.insert("authorization", authorization.parse().unwrap());
    request
}

fn outcomes(service: &Service) -> Vec<String> {
    service.calls().map(|call| call.outcome.to_string()).collect()
}

fn members(service: &Service) -> Vec<&str> {
    service.sessions.all().get("s").into_iter().flatten().map(String::as_str).collect()
}

#[test]
fn a_signed_call_changes_the_session_and_is_remembered() {
    let mut service = service(Faults::default());

    let reply = service.receive(&signed(ATTACH), after(250));
    service.receive(&signed(DETACH), after(300));

    let Reply::Answer(Answer { body, delay: Duration::ZERO, .. }) = reply else {
        panic!("{reply:?}")
    };
    assert!(body.contains(r#""SuccessInstanceIds":["a","b"]"#), "{body}");
    assert_eq!(members(&service), ["b"]);
    let call = service.calls().next().unwrap();
    assert_eq!(
        serde_json::to_value(call).unwrap(),
        serde_json::json!({
            "time": "2025-01-08T05:00:00.250Z", "arrivalMs": 250.0, "secretId": "ID",
            "action": switch::ACTION, "region": "ap-guangzhou", "operation": "Attach",
            "sessionId": "s", "instanceIds": ["a", "b"], "outcome": "applied",
            "succeeded": ["a", "b"], "failed": [], "requestId": call.request_id,
        })
    );
}

#[test]
fn an_unsigned_request_is_refused_and_draws_on_no_quota() {
    let mut service = service(Faults { drop_requests: 1, delay_ms: 9, ..Faults::default() });
    for _ in 0..30 {
        assert!(matches!(
            service.receive(&unsigned(ATTACH), after(0)),
            Reply::Answer(Answer { delay: Duration::ZERO, .. })
        ));
    }
    assert!(
        outcomes(&service)
            .iter()
            .all(|outcome| outcome == "refused:AuthFailure.InvalidAuthorization")
    );
    assert_eq!(service.stats(), Stats { calls: 30, ..Stats::default() });
}

#[test]
fn the_rate_is_checked_before_the_signature() {
    let mut service = service(Faults::default());
    let mut forged = signed(ATTACH);
    forged.headers.insert("host", "elsewhere".parse().unwrap());
    for _ in 0..20 {
        service.receive(&forged, after(0));
    }

    let reply = service.receive(&signed(ATTACH), after(999));

    let Reply::Answer(Answer { body, .. }) = reply else { panic!("{reply:?}") };
    let message = "Your current request times equals to `21` in a second, \
                   which exceeds the frequency limit `20` for a second. ";
    assert!(body.contains(message), "{body}");
    assert_eq!(outcomes(&service).last().unwrap(), "refused:RequestLimitExceeded");
    let stats = service.stats();
    assert_eq!(
        (
            stats.calls,
            stats.throttled,
            stats.max_accepted_in_one_second,
            stats.by_key["ID"].arrivals
        ),
        (21, 1, 20, 21)
    );
    service.receive(&signed(ATTACH), after(1000));
    assert_eq!(outcomes(&service).last().unwrap(), "applied");
}

#[test]
fn the_signature_is_checked_before_the_parameters() {
    let mut service = service(Faults::default());
    service.receive(&unsigned("{}"), after(0));
    service.receive(&signed("{}"), after(0));
    service.receive(&signed("no json"), after(0));
    assert_eq!(
        outcomes(&service),
        [
            "refused:AuthFailure.InvalidAuthorization",
            "refused:MissingParameter",
            "refused:InvalidRequest"
        ]
    );
}

#[test]
fn a_lost_answer_belongs_to_an_applied_call() {
    let mut service = service(Faults { drop_answers: 1, ..Faults::default() });

    service.receive(&signed("{}"), after(0));
    let reply = service.receive(&signed(ATTACH), after(0));

    assert_eq!(reply, Reply::Close);
    assert_eq!(outcomes(&service), ["refused:MissingParameter", "applied-unanswered"]);
    assert_eq!(members(&service), ["a", "b"]);
}

#[test]
fn a_lost_request_changes_and_counts_nothing() {
    let mut service = service(Faults { drop_requests: 1, ..Faults::default() });
    assert_eq!(service.receive(&signed(ATTACH), after(0)), Reply::Close);
    assert_eq!(outcomes(&service), ["dropped"]);
    assert_eq!(members(&service), <[&str; 0]>::default());
    assert_eq!(service.stats().max_arrivals_in_one_second, 0);
}

#[test]
fn an_error_fault_answers_for_the_whole_call_and_is_used_up() {
    let errors = vec![ErrorFault { code: "InternalError".to_owned(), times: 1 }];
    let mut service = service(Faults { errors, ..Faults::default() });
    service.receive(&signed(ATTACH), after(0));
    assert_eq!(members(&service), <[&str; 0]>::default());
    service.receive(&signed(ATTACH), after(0));
    assert_eq!(outcomes(&service), ["refused:InternalError", "applied"]);
}

#[test]
fn a_gateways_answer_changes_nothing_and_a_garbled_one_belongs_to_an_applied_call() {
    let fault = |kind| vec![AnswerFault { kind, times: 1 }];
    let faults = Faults {
        gateways: fault(GarbledAnswer::Html502),
        garbled_answers: fault(GarbledAnswer::NotJson),
        ..Faults::default()
    };
    let mut service = service(faults);

    let first = service.receive(&signed(ATTACH), after(0));
    assert!(matches!(first, Reply::Answer(Answer { status: 502, .. })), "{first:?}");
    assert_eq!(members(&service), <[&str; 0]>::default());
    service.receive(&signed(ATTACH), after(0));

    assert_eq!(outcomes(&service), ["gateway", "applied-garbled"]);
    assert_eq!(members(&service), ["a", "b"]);
}

#[test]
fn a_throttled_call_changes_nothing_whatever_the_rate() {
    let mut service = service(Faults { throttle: 1, ..Faults::default() });
    service.receive(&signed(ATTACH), after(0));
    service.receive(&signed(ATTACH), after(0));
    assert_eq!(outcomes(&service), ["refused:RequestLimitExceeded", "applied"]);
    assert_eq!(service.stats().throttled, 1);
}

#[test]
fn a_held_request_takes_effect_when_it_arrives() {
    let mut service =
        service(Faults { late_arrivals: 1, late_arrival_ms: 300_000, ..Faults::default() });

    let reply = service.receive(&signed(ATTACH), after(0));
    let Reply::DeliverLate { request_id, delay } = reply else { panic!("{reply:?}") };
    service.receive(&signed(DETACH), after(10));
    service.receive_late(&signed(ATTACH), request_id.clone(), after(300_000));

    assert_eq!(delay, Duration::from_mins(5));
    assert_eq!(outcomes(&service), ["held", "applied", "late-applied"]);
    assert_eq!(service.calls().last().unwrap().request_id, request_id);
    assert_eq!(members(&service), ["a", "b"]);
}

#[test]
fn a_held_request_whose_signature_expired_meanwhile_changes_nothing() {
    let mut service = service(Faults { late_arrivals: 1, ..Faults::default() });
    service.receive(&signed(ATTACH), after(0));
    service.receive_late(&signed(ATTACH), "r".to_owned(), after(300_001));
    assert_eq!(outcomes(&service), ["held", "late-refused:AuthFailure.SignatureExpire"]);
    assert_eq!(members(&service), <[&str; 0]>::default());
}

#[test]
fn an_ended_session_is_not_found() {
    let mut service = service(Faults::default());
    service.sessions.end("s");
    service.receive(&signed(ATTACH), after(0));
    service.unspecified_behaviour.gone_code = "ResourceNotFound".to_owned();
    service.receive(&signed(ATTACH), after(0));
    assert_eq!(
        outcomes(&service),
        ["refused:ResourceNotFound.SessionNotFound", "refused:ResourceNotFound"]
    );
}

#[test]
fn limits_on_ids_hold_before_anything_is_looked_up() {
    let mut service = service(Faults::default());
    service.unspecified_behaviour.max_batch = Some(1);
    service.sessions.end("s");
    service.receive(&signed(ATTACH), after(0));
    service.receive(&signed(DETACH), after(0));
    assert_eq!(
        outcomes(&service),
        ["refused:InvalidParameterValue", "refused:ResourceNotFound.SessionNotFound"]
    );
}

#[test]
fn a_reset_forgets_all_but_the_faults() {
    let mut service =
        service(Faults { fail_instances: BTreeSet::from(["a".to_owned()]), ..Faults::default() });
    service.receive(&signed(ATTACH), after(0));
    service.reset();
    assert_eq!(
        (members(&service).len(), service.calls().count(), service.stats()),
        (0, 0, Stats::default())
    );
    assert_eq!(service.faults().fail_instances.len(), 1);
}
