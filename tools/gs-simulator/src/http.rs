//! The shell around the service: connections, the API's route, and answers that never come.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::admin;
use crate::drip::Dripping;
use crate::host::Host;
use crate::metadata;
use crate::service::Reaction;
use crate::wire::{self, BODY_BYTES_MAX};

/// "The server closes idle keep-alive connections after about 30 s" (reference, section 3): clients
/// must cope with it here too.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Accepting fails when the process has too many files open. They get closed; until then, retrying
/// at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const HELP: &str = "This is gs-simulator. It has POST / (the API) and, for you: GET /admin/sessions, PUT|DELETE /admin/sessions/{id}, \
                    GET /admin/calls, GET /admin/stats, GET|PUT /admin/world, GET|PUT|DELETE /admin/faults, GET|PUT /admin/identity, POST /admin/issued-keys/expire, POST /admin/reset.\n";

/// Serves until the task is aborted; its connections end with it.
pub(crate) async fn serve(listener: TcpListener, host: Arc<Host>, tls: Option<TlsAcceptor>) {
    let router = routes(Arc::clone(&host));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(welcome(stream, tls.clone(), router.clone(), Arc::clone(&host)));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Marks a response that must not be sent.
#[derive(Clone, Copy, Debug)]
struct NoAnswer;

/// Given to hyper instead of a response, it closes the connection and writes nothing: this is why
/// `axum::serve` is not used here.
#[derive(Debug, thiserror::Error)]
#[error("the simulator hangs up")]
struct HangUp;

async fn welcome(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router, host: Arc<Host>) {
    // Without it, small answers wait for the client's acknowledgement. A socket that refuses the
    // option still works.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return converse(stream, router, host).await };
    // A client that does not trust the certificate says so itself.
    if let Ok(Ok(stream)) = timeout(IDLE_MAX, tls.accept(stream)).await {
        converse(stream, router, host).await;
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, host: Arc<Host>) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request: Request<Incoming>| {
        let response = router.call(request);
        let host = Arc::clone(&host);
        async move {
            let mut response = response.await.unwrap_or_else(|never: Infallible| match never {});
            if response.extensions().get::<NoAnswer>().is_some() {
                return Err(HangUp);
            }
            // Here and not by hyper, whose Date is the machine's: every answer bears the service's.
            response.headers_mut().insert(DATE, host.date());
            Ok(response)
        }
    });
    // An error is a client that went away, or a HangUp.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

fn routes(host: Arc<Host>) -> Router {
    Router::new()
        .route("/", post(api))
        .merge(admin::routes())
        .merge(metadata::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, HELP) })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, HELP) })
        .with_state(host)
}

async fn api(State(host): State<Arc<Host>>, headers: HeaderMap, body: Body) -> Response<Body> {
    // A body that broke off reads like one that is too long; nobody is left to see the difference.
    let request = wire::Request { headers, body: to_bytes(body, BODY_BYTES_MAX).await.ok() };
    match host.with_arrival(|service, at| service.receive(&request, at)) {
        Reaction::Answer(answer) => {
            sleep(answer.delay).await;
            let body = match answer.drip {
                Some(drip) => Body::new(Dripping::new(answer.body.into(), drip)),
                None => answer.body.into(),
            };
            let status =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(CONTENT_TYPE, answer.content_type)], body).into_response()
        }
        Reaction::HangUp => no_answer(),
        Reaction::Hold { request_id, delay } => {
            // Weak: a simulator that was dropped meanwhile is not kept alive for it.
            let host = Arc::downgrade(&host);
            tokio::spawn(async move {
                sleep(delay).await;
                if let Some(host) = host.upgrade() {
                    host.with_arrival(|service, at| service.receive_late(&request, request_id, at));
                }
            });
            no_answer()
        }
    }
}

fn no_answer() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(NoAnswer);
    response
}

/// The whole simulator over bare sockets, so that every byte is seen.
#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Instant;

    use jiff::Timestamp;
    use jiff::fmt::rfc2822::DateTimeParser;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::client::{self, ATTACH, DEADLINE, admin, api_headers, call, exchange, split};
    use crate::{AnswerFault, EXAMPLE_SECRET_ID, Faults, Garbling, Options, Outcome, Simulator};

    async fn start(faults: Faults) -> Simulator {
        Simulator::start(Options { faults, ..Options::default() }).await.unwrap()
    }

    fn date(head: &str) -> Timestamp {
        let dates: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("date: ")).collect();
        assert_eq!(dates.len(), 1, "{head}");
        assert!(dates[0].ends_with(" GMT"), "{head}");
        DateTimeParser::new().parse_timestamp(dates[0]).unwrap()
    }

    #[tokio::test]
    async fn a_signed_call_is_applied_and_answered_with_the_services_date() {
        let options = Options { clock_offset_seconds: -86_400, ..Options::default() };
        let simulator = Simulator::start(options).await.unwrap();
        let before = simulator.now().as_second();

        let (head, body) = split(&call(&simulator, ATTACH).await);

        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(
            (before..=simulator.now().as_second()).contains(&date(&head).as_second()),
            "{head}"
        );
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
    async fn a_slow_answer_comes_drop_by_drop_with_its_length_announced() {
        let simulator = start(Faults {
            slow_answers: 1,
            drip_bytes: 40,
            drip_pause_ms: 20,
            ..Faults::default()
        })
        .await;
        let started = Instant::now();

        let (head, body) = split(&call(&simulator, ATTACH).await);

        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(serde_json::from_str::<Value>(&body).is_ok(), "{body}");
        let drops = u32::try_from(body.len().div_ceil(40)).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(20) * drops);
    }

    #[tokio::test]
    async fn a_gateways_page_says_its_status_and_its_type() {
        let gateways = vec![AnswerFault { kind: Garbling::Html502, times: 1 }];
        let simulator = start(Faults { gateways, ..Faults::default() }).await;
        let (head, body) = split(&call(&simulator, ATTACH).await);
        assert!(
            head.starts_with("HTTP/1.1 502") && head.contains("content-type: text/html"),
            "{head}"
        );
        assert!(body.starts_with("<html>"), "{body}");
    }

    #[tokio::test]
    async fn the_clock_is_set_while_it_runs() {
        let simulator = start(Faults::default()).await;
        let before = simulator.now();

        admin(&simulator, "PUT", "/admin/faults", r#"{"clockOffsetSeconds":3600}"#).await;

        let (head, _) = split(&call(&simulator, ATTACH).await);
        assert!(date(&head).as_second() >= before.as_second() + 3600, "{head}");
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused_by_name() {
        let simulator = start(Faults::default()).await;
        let body = " ".repeat(BODY_BYTES_MAX + 1);

        let (_, body) =
            split(&exchange(&simulator, "POST", "/", &api_headers(&simulator), &body).await);

        assert!(body.contains("RequestSizeLimitExceeded"), "{body}");
    }

    #[tokio::test]
    async fn the_admin_routes_show_and_change_what_the_methods_do() {
        let simulator = start(Faults::default()).await;

        assert_eq!(
            admin(&simulator, "PUT", "/admin/sessions/s", r#"["z","b"]"#).await.0,
            "HTTP/1.1 204 No Content"
        );
        let (status, faults) =
            admin(&simulator, "PUT", "/admin/faults", r#"{"failInstances":["a"]}"#).await;
        assert_eq!((status.as_str(), &faults["failInstances"]), ("HTTP/1.1 200 OK", &json!(["a"])));
        call(&simulator, ATTACH).await;

        assert_eq!(
            admin(&simulator, "GET", "/admin/sessions", "").await.1,
            json!({"s": ["b", "z"]})
        );
        let calls = admin(&simulator, "GET", "/admin/calls", "").await.1;
        assert_eq!((&calls[0]["outcome"], &calls[0]["failed"]), (&json!("applied"), &json!(["a"])));
        let of_key = json!({"arrivals": 1, "throttled": 0, "maxArrivalsInOneSecond": 1, "maxAcceptedInOneSecond": 1});
        let counts = json!({"calls": 1, "throttled": 0, "keysIssued": 0, "maxArrivalsInOneSecond": 1, "maxAcceptedInOneSecond": 1,
                            "byKey": {EXAMPLE_SECRET_ID: of_key}});
        assert_eq!(admin(&simulator, "GET", "/admin/stats", "").await.1, counts);

        admin(&simulator, "DELETE", "/admin/faults", "").await;
        let world =
            admin(&simulator, "PUT", "/admin/world", r#"{"addPresent":"error:ResourceInUse"}"#)
                .await
                .1;
        assert_eq!(admin(&simulator, "GET", "/admin/world", "").await.1, world);
        assert_eq!(simulator.world().add_present.to_string(), "error:ResourceInUse");
        admin(&simulator, "DELETE", "/admin/sessions/s", "").await;
        assert_eq!(simulator.faults(), Faults::default());
        assert!(
            str::from_utf8(&call(&simulator, ATTACH).await)
                .unwrap()
                .contains("ResourceNotFound.SessionNotFound")
        );

        admin(&simulator, "POST", "/admin/reset", "").await;
        assert_eq!((simulator.calls().len(), simulator.sessions().len()), (0, 0));
    }

    #[tokio::test]
    async fn a_record_has_a_line_for_each_call_and_is_appended_to() {
        let folder =
            std::env::temp_dir().join(format!("gs-simulator-record-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let record = folder.join("calls.jsonl");
        for drop_answers in [0, 1] {
            let options = Options {
                record: Some(record.clone()),
                faults: Faults { drop_answers, ..Faults::default() },
                ..Options::default()
            };
            call(&Simulator::start(options).await.unwrap(), ATTACH).await;
        }

        let lines = std::fs::read_to_string(&record).unwrap();
        std::fs::remove_dir_all(folder).unwrap();

        let outcomes: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["outcome"].clone())
            .collect();
        assert_eq!(outcomes, ["applied", "applied-unanswered"]);
    }

    #[tokio::test]
    async fn a_pods_token_gets_keys_that_sign_calls_and_the_history_shows_both() {
        let simulator = start(Faults::default()).await;
        let headers = [
            ("host", "sts.tencentcloudapi.com"),
            ("content-type", "application/json"),
            ("authorization", "SKIP"),
            ("x-tc-action", "AssumeRoleWithWebIdentity"),
            ("x-tc-version", "2018-08-13"),
            ("x-tc-region", "ap-guangzhou"),
        ];
        let body = r#"{"ProviderId":"p","WebIdentityToken":"jwt","RoleArn":"r","RoleSessionName":"s","DurationSeconds":900}"#;

        let (_, answer) = split(
            &exchange(
                &simulator,
                "POST",
                "/",
                &headers.map(client::header).into_iter().collect(),
                body,
            )
            .await,
        );
        let keys =
            serde_json::from_str::<Value>(&answer).unwrap()["Response"]["Credentials"].clone();
        let text = |name: &str| keys[name].as_str().unwrap();
        client::call_with(
            &simulator,
            ATTACH,
            text("TmpSecretId"),
            text("TmpSecretKey"),
            Some(text("Token")),
        )
        .await;
        client::call_with(&simulator, ATTACH, text("TmpSecretId"), text("TmpSecretKey"), None)
            .await;

        let outcomes: Vec<String> =
            simulator.calls().iter().map(|call| call.outcome.to_string()).collect();
        assert_eq!(outcomes, ["applied", "applied", "refused:AuthFailure.TokenFailure"]);
        assert_eq!(simulator.stats().keys_issued, 1);
    }

    #[tokio::test]
    async fn a_mistake_in_an_admin_body_or_a_path_is_explained() {
        let simulator = start(Faults::default()).await;
        let headers =
            HeaderMap::from_iter([("host".parse().unwrap(), "localhost".parse().unwrap())]);

        let (head, body) = split(
            &exchange(&simulator, "PUT", "/admin/faults", &headers, r#"{"dropAnswer":1}"#).await,
        );
        assert!(
            head.starts_with("HTTP/1.1 400") && body.contains("unknown field `dropAnswer`"),
            "{head}\n{body}"
        );

        for (method, path, status) in
            [("GET", "/", "HTTP/1.1 405"), ("GET", "/admin", "HTTP/1.1 404")]
        {
            let (head, body) = split(&exchange(&simulator, method, path, &headers, "").await);
            assert!(
                head.starts_with(status) && body.contains("GET /admin/sessions"),
                "{head}\n{body}"
            );
        }
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on_by_default() {
        let options = Options { listen: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
        assert_eq!(
            Simulator::start(options.clone()).await.unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(Simulator::start(Options { allow_non_loopback: true, ..options }).await.is_ok());
    }

    #[tokio::test]
    async fn a_dropped_simulator_closes_its_connections_and_frees_its_address() {
        let simulator = start(Faults::default()).await;
        let address = simulator.address();
        let mut idle = TcpStream::connect(address).await.unwrap();
        // Answered, so the connection is known to be accepted and kept alive.
        idle.write_all(b"GET /admin/stats HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_ne!(idle.read(&mut [0; 4096]).await.unwrap(), 0);

        drop(simulator);

        timeout(DEADLINE, idle.read_to_end(&mut Vec::new()))
            .await
            .expect("the connection closes")
            .unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
