//! The client against a server that misbehaves.

use std::net::TcpListener;

use streamsession_protocol::answer::{NothingDone, Outcome, Verdict};

use super::super::credentials::Source;
use super::super::test_server::{Reply, TestServer, http};
use super::*;

const DATE: &str = "Date: Thu, 08 Jan 2026 02:40:00 GMT";
const DATE_SECONDS: i64 = 1_767_840_000;
const DONE: &str = r#"{"Response":{"SessionId":"","SuccessInstanceIds":["a"],"RequestId":"r-1"}}"#;
const REFUSED: &str =
    r#"{"Response":{"Error":{"Code":"AuthFailure","Message":"no signature"},"RequestId":"r-2"}}"#;

fn client() -> Client {
    Client::new(Settings::default()).unwrap()
}

fn impatient_client() -> Client {
    Client::new(Settings { call_deadline: Duration::from_millis(300), ..Settings::default() })
        .unwrap()
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

fn endpoint(server: &TestServer) -> Endpoint {
    Endpoint::parse(&format!("http://{}", server.address)).unwrap()
}

fn call(endpoint: Endpoint) -> Switch {
    Switch {
        endpoint,
        region: None,
        session: SessionId::parse("1326515201117065216").unwrap(),
        operation: Operation::Attach,
        instances: vec![id("a")],
        timestamp: DATE_SECONDS,
        credentials: Credentials {
            secret_id: "AKIDEXAMPLE".into(),
            secret_key: "SECRETEXAMPLE".into(),
            token: None,
            source: Source::Environment,
        },
    }
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request
        .lines()
        .find_map(|line| {
            line.split_once(": ").filter(|(given, _)| given.eq_ignore_ascii_case(name))
        })
        .map(|(_, value)| value)
}

/// One call to a server that does always the same.
async fn answer_of(
    client: Client,
    script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> (Answer, usize) {
    let server = TestServer::start(script);
    let answer = client.switch(&call(endpoint(&server))).await;
    (answer, server.requests().len())
}

fn is_unanswered(answer: &Answer, code: &str) -> bool {
    (&answer.verdict, answer.code.as_str()) == (&Verdict::Unanswered, code)
}

fn is_not_sent(answer: &Answer, code: &str) -> bool {
    (&answer.verdict, answer.code.as_str()) == (&Verdict::NothingDone(NothingDone::NotSent), code)
}

#[tokio::test]
async fn a_call_is_sent_as_the_reference_says_and_signed_with_its_timestamp() {
    let server = TestServer::start(|_, _| Reply::Answer(http("200 OK", &[DATE], DONE)));
    let request = call(endpoint(&server));

    let answer = client().switch(&request).await;

    assert_eq!((answer.outcome(&id("a"), 1), answer.request_id.as_str()), (Outcome::Done, "r-1"));
    let sent = server.requests().remove(0);
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST / HTTP/1.1\r\n"));
    assert_eq!(body, r#"{"SessionId":"1326515201117065216","Type":1,"SlaveInstanceIds":["a"]}"#);
    assert_eq!(header(head, "Host"), Some(server.address.to_string().as_str()));
    assert_eq!(header(head, "Content-Type"), Some("application/json"));
    assert_eq!(header(head, "X-TC-Action"), Some("SwitchCloudPhoneMultipleStreamSessionSlaves"));
    assert_eq!(header(head, "X-TC-Version"), Some("2019-11-18"));
    assert_eq!(header(head, "X-TC-Timestamp"), Some("1767840000"));
    assert_eq!(header(head, "X-TC-Language"), Some("en-US"));
    assert_eq!((header(head, "X-TC-Region"), header(head, "X-TC-Token")), (None, None));
    let signable = Signable {
        host: &server.address.to_string(),
        service: "gs",
        content_type: "application/json",
        extra_headers: &[],
        body: body.as_bytes(),
        timestamp: DATE_SECONDS,
    };
    assert_eq!(
        header(head, "Authorization"),
        Some(signable.authorization("AKIDEXAMPLE", "SECRETEXAMPLE").unwrap().as_str())
    );
}

#[tokio::test]
async fn region_and_token_are_sent_if_there_are_any() {
    let server = TestServer::start(|_, _| Reply::Answer(http("200 OK", &[DATE], DONE)));
    let mut request = call(endpoint(&server));
    request.region = Some("ap-guangzhou".into());
    request.credentials.token = Some("TOKEN".into());

    client().switch(&request).await;

    let sent = server.requests().remove(0);
    assert_eq!(
        (header(&sent, "X-TC-Region"), header(&sent, "X-TC-Token")),
        (Some("ap-guangzhou"), Some("TOKEN"))
    );
}

#[tokio::test]
async fn connections_are_kept() {
    let server = TestServer::start(|_, _| Reply::Answer(http("200 OK", &[DATE], DONE)));
    let client = client();

    for _ in 0..3 {
        client.switch(&call(endpoint(&server))).await;
    }

    assert_eq!((server.requests().len(), server.connections()), (3, 1));
}

#[tokio::test]
async fn a_connection_that_is_dropped_after_the_request_is_unanswered_and_sent_once() {
    let (answer, requests) = answer_of(client(), |_, _| Reply::Drop).await;

    assert!(is_unanswered(&answer, "ConnectionLost"), "{answer:?}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_kept_connection_that_is_dropped_after_the_request_is_unanswered_and_sent_once() {
    let server = TestServer::start(|number, _| {
        if number == 0 { Reply::Answer(http("200 OK", &[DATE], DONE)) } else { Reply::Drop }
    });
    let client = client();
    client.switch(&call(endpoint(&server))).await;

    let answer = client.switch(&call(endpoint(&server))).await;

    assert!(is_unanswered(&answer, "ConnectionLost"), "{answer:?}");
    assert_eq!((server.requests().len(), server.connections()), (2, 1));
}

#[tokio::test]
async fn a_call_is_never_sent_twice_when_the_server_closes_idle_connections() {
    let server = TestServer::start(|_, _| Reply::AnswerAndClose(http("200 OK", &[DATE], DONE)));
    let client = client();

    let calls = 200;
    for number in 0..calls {
        let answer = client.switch(&Switch { timestamp: number, ..call(endpoint(&server)) }).await;
        // A write that races with the closing is honestly unknown.
        assert!(
            matches!(answer.verdict, Verdict::Processed { .. } | Verdict::Unanswered),
            "{answer:?}"
        );
    }

    let requests = server.requests();
    let different: BTreeSet<_> =
        requests.iter().map(|request| header(request, "X-TC-Timestamp")).collect();
    assert_eq!(different.len(), requests.len());
}

#[tokio::test]
async fn an_answer_after_the_deadline_is_unanswered() {
    let (answer, _) = answer_of(impatient_client(), |_, _| Reply::Silence).await;

    assert!(is_unanswered(&answer, "DeadlineExceeded"), "{answer:?}");
}

#[tokio::test]
async fn a_gateways_page_is_unanswered() {
    let (answer, _) = answer_of(client(), |_, _| {
        Reply::Answer(http("502 Bad Gateway", &[DATE], "<html>502</html>"))
    })
    .await;

    assert!(is_unanswered(&answer, "HTTP 502"), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unanswered() {
    let torn = http("200 OK", &[DATE], DONE).replace("Content-Length: ", "Content-Length: 9");
    let (answer, _) = answer_of(client(), move |_, _| Reply::AnswerAndClose(torn.clone())).await;

    assert!(is_unanswered(&answer, "ConnectionLost"), "{answer:?}");
}

#[tokio::test]
async fn what_is_not_http_is_unanswered() {
    let (answer, _) =
        answer_of(client(), |_, _| Reply::AnswerAndClose("SSH-2.0-OpenSSH\r\n".into())).await;

    assert!(is_unanswered(&answer, "ConnectionLost"), "{answer:?}");
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_at_the_cap() {
    let (answer, _) = answer_of(client(), |_, _| Reply::Endless).await;

    assert!(is_unanswered(&answer, "OversizedAnswer"), "{answer:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TestServer::start(|_, _| Reply::Answer(http("200 OK", &[DATE], DONE)));
    let location = format!("Location: http://{}/", elsewhere.address);

    let (answer, _) = answer_of(client(), move |_, _| {
        Reply::Answer(http("307 Temporary Redirect", &[&location], ""))
    })
    .await;

    assert!(is_unanswered(&answer, "HTTP 307"), "{answer:?}");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn a_refused_connection_is_not_sent() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    let answer =
        client().switch(&call(Endpoint::parse(&format!("http://{address}")).unwrap())).await;

    assert!(is_not_sent(&answer, "ConnectFailed"), "{answer:?}");
    assert!(answer.message.contains("refused"), "{answer:?}");
}

#[tokio::test]
async fn an_unknown_host_is_not_sent() {
    let answer = client()
        .switch(&call(Endpoint::parse("https://gs.tencentcloudapi.invalid").unwrap()))
        .await;

    assert!(is_not_sent(&answer, "ConnectFailed"), "{answer:?}");
}

#[tokio::test]
async fn a_failed_tls_handshake_is_not_sent() {
    let server = TestServer::start(|_, _| Reply::Drop);

    let answer = impatient_client()
        .switch(&call(Endpoint::parse(&format!("https://{}", server.address)).unwrap()))
        .await;

    assert!(is_not_sent(&answer, "ConnectFailed"), "{answer:?}");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_request_that_no_header_can_carry_is_not_sent() {
    let server = TestServer::start(|_, _| Reply::Drop);
    let mut bad_region = call(endpoint(&server));
    bad_region.region = Some("ap\nguangzhou".into());
    let mut bad_time = call(endpoint(&server));
    bad_time.timestamp = i64::MAX;

    for request in [bad_region, bad_time] {
        let answer = client().switch(&request).await;
        assert!(is_not_sent(&answer, "UnsendableRequest"), "{answer:?}");
    }

    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_readable_answer_sets_the_endpoints_clock() {
    let server = TestServer::start(|_, _| Reply::Answer(http("200 OK", &[DATE], REFUSED)));
    let client = client();
    assert_eq!(client.now(&endpoint(&server)), None);

    client.switch(&call(endpoint(&server))).await;

    let now = client.now(&endpoint(&server)).unwrap();
    assert!((DATE_SECONDS..DATE_SECONDS + 60).contains(&now));
    assert_eq!(
        client.now(&Endpoint::parse("https://gs.tencentcloudapi.com").unwrap()),
        None,
        "another endpoint, another clock"
    );
}

#[tokio::test]
async fn a_proxys_page_does_not_set_the_clock() {
    for answer in [
        http("502 Bad Gateway", &[DATE], REFUSED),
        http("200 OK", &[DATE], "<html>"),
        http("200 OK", &[], DONE),
    ] {
        let server = TestServer::start(move |_, _| Reply::Answer(answer.clone()));
        let client = client();

        client.switch(&call(endpoint(&server))).await;

        assert_eq!(client.now(&endpoint(&server)), None);
    }
}

#[tokio::test]
async fn the_time_is_asked_for_once_without_a_signature() {
    let server = TestServer::start(|_, _| Reply::Answer(http("200 OK", &[DATE], REFUSED)));
    let (client, endpoint) = (client(), endpoint(&server));

    let (first, second, third) = tokio::join!(
        client.ask_time(&endpoint),
        client.ask_time(&endpoint),
        client.ask_time(&endpoint)
    );

    for now in [first, second, third] {
        assert!((DATE_SECONDS..DATE_SECONDS + 60).contains(&now.unwrap()));
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (header(&requests[0], "Authorization"), header(&requests[0], "X-TC-Timestamp")),
        (None, None)
    );
    assert!(header(&requests[0], "X-TC-Action").is_some());
}

#[tokio::test]
async fn a_failed_question_fails_all_who_waited_for_it_and_the_next_one_asks_again() {
    let server = TestServer::start(|number, _| match number {
        0 => Reply::Answer(http("502 Bad Gateway", &[DATE], "<html>")),
        _ => Reply::Answer(http("200 OK", &[DATE], REFUSED)),
    });
    let (client, endpoint) = (client(), endpoint(&server));

    let (first, second) = tokio::join!(client.ask_time(&endpoint), client.ask_time(&endpoint));

    assert_eq!(first, second);
    let message = first.unwrap_err().to_string();
    assert!(message.contains("could not be asked for its time: HTTP 502:"), "{message}");
    assert!(client.ask_time(&endpoint).await.is_ok());
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_endpoint_without_a_date_is_an_error_that_says_so() {
    for headers in [&[][..], &["Date: yesterday"][..]] {
        let server = TestServer::start(|_, _| Reply::Answer(http("200 OK", headers, REFUSED)));

        let error = client().ask_time(&endpoint(&server)).await.unwrap_err();

        assert_eq!(error, AskTimeError::NoDate { endpoint: endpoint(&server) });
    }
}
