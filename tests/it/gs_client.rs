//! The service's client against a server that misbehaves byte by byte, as the simulator does not.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use streamsession_core::answer::{Answer, NothingDone, Operation, Verdict};
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_operator::gs::{AskTimeError, Client, Endpoint, Settings, Switch};

use crate::harness::{SESSION, example_credentials, install_crypto};

const DATE: &str = "Date: Thu, 08 Jan 2026 02:40:00 GMT";
const DATE_SECONDS: i64 = 1_767_840_000;
const DONE: &str = r#"{"Response":{"SessionId":"","SuccessInstanceIds":["a"],"RequestId":"r-1"}}"#;
const REFUSED: &str =
    r#"{"Response":{"Error":{"Code":"AuthFailure","Message":"no signature"},"RequestId":"r-2"}}"#;
/// Of an answer's body, the client reads so many bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What the server does with a request that it has read.
enum Reply {
    /// Writes it and keeps the connection.
    Answer(String),
    /// Writes it and closes the connection.
    AnswerAndClose(String),
    /// Closes the connection without a byte.
    Drop,
    /// An answer whose body does not end.
    Endless,
}

/// An HTTP/1.1 server of a few lines. Blocking threads, so that no runtime hides what happens.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

type Script = dyn Fn(usize, &str) -> Reply + Send + Sync;

impl Server {
    /// The script is given the number of requests before this one, and the request.
    fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&requests));
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Self { address, requests, connections }
    }

    /// One that always answers this.
    fn answering(answer: String) -> Self {
        Self::start(move |_, _| Reply::Answer(answer.clone()))
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("http://{}", self.address)).expect("an endpoint")
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

/// A whole answer with these header lines and this body.
fn http(status: &str, headers: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    let head = [&[&*format!("HTTP/1.1 {status}")], headers, &[&*length]].concat().join("\r\n");
    format!("{head}\r\n\r\n{body}")
}

fn done() -> String {
    http("200 OK", &[DATE], DONE)
}

fn serve(mut stream: TcpStream, script: &Script, seen: &Mutex<Vec<String>>) -> Option<()> {
    loop {
        let request = read_request(&mut stream)?;
        let number = {
            let mut seen = seen.lock().expect("no panic");
            seen.push(request.clone());
            seen.len() - 1
        };
        match script(number, &request) {
            Reply::Answer(answer) => stream.write_all(answer.as_bytes()).ok()?,
            Reply::AnswerAndClose(answer) => return stream.write_all(answer.as_bytes()).ok(),
            Reply::Drop => return None,
            Reply::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"Response\":{\"X\":\"").ok()?;
                loop {
                    stream.write_all(&[b'x'; 1 << 14]).ok()?;
                }
            }
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        if body.len() >= length {
            return Some(text);
        }
    }
}

fn client() -> Client {
    install_crypto();
    Client::new(Settings::default()).expect("a client")
}

/// Attaches `a`.
fn call(endpoint: Endpoint) -> Switch {
    Switch {
        endpoint,
        region: None,
        session: SessionId::parse(SESSION).expect("an id"),
        operation: Operation::Attach,
        instances: vec![InstanceId::parse("a").expect("an id")],
        timestamp: DATE_SECONDS,
        credentials: example_credentials(),
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

/// One call to this server.
async fn answer_of(server: &Server) -> Answer {
    client().switch(&call(server.endpoint())).await
}

fn assert_unanswered(answer: &Answer, code: &str) {
    assert_eq!((&answer.verdict, &*answer.code), (&Verdict::Unanswered, code), "{answer:?}");
}

fn assert_not_sent(answer: &Answer, code: &str) {
    let not_sent = Verdict::NothingDone(NothingDone::NotSent);
    assert_eq!((&answer.verdict, &*answer.code), (&not_sent, code), "{answer:?}");
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::answering(done());
    let client = client();

    for _ in 0..3 {
        client.switch(&call(server.endpoint())).await;
    }

    assert_eq!((server.requests().len(), server.connections()), (3, 1));
}

#[tokio::test]
async fn a_kept_connection_that_is_dropped_after_the_request_is_unanswered_and_sent_once() {
    let server =
        Server::start(|number, _| if number == 0 { Reply::Answer(done()) } else { Reply::Drop });
    let client = client();
    client.switch(&call(server.endpoint())).await;

    let answer = client.switch(&call(server.endpoint())).await;

    assert_unanswered(&answer, "ConnectionLost");
    assert_eq!((server.requests().len(), server.connections()), (2, 1));
}

#[tokio::test]
async fn a_call_is_never_sent_twice_when_the_server_closes_idle_connections() {
    let server = Server::start(|_, _| Reply::AnswerAndClose(done()));
    let client = client();

    let calls = 200;
    for number in 0..calls {
        let answer = client.switch(&Switch { timestamp: number, ..call(server.endpoint()) }).await;
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
async fn an_answer_that_breaks_off_is_unanswered() {
    let torn = done().replace("Content-Length: ", "Content-Length: 9");
    let server = Server::start(move |_, _| Reply::AnswerAndClose(torn.clone()));

    let answer = answer_of(&server).await;

    assert_unanswered(&answer, "ConnectionLost");
}

#[tokio::test]
async fn what_is_not_http_is_unanswered() {
    let server = Server::start(|_, _| Reply::AnswerAndClose("SSH-2.0-OpenSSH\r\n".into()));

    let answer = answer_of(&server).await;

    assert_unanswered(&answer, "ConnectionLost");
}

#[tokio::test]
async fn an_answer_is_read_up_to_the_cap() {
    let padded = |bytes: usize| {
        Server::answering(http(
            "200 OK",
            &[DATE],
            &format!("{DONE}{}", " ".repeat(bytes - DONE.len())),
        ))
    };

    let longest = answer_of(&padded(BODY_BYTES_MAX)).await;
    let too_long = answer_of(&padded(BODY_BYTES_MAX + 1)).await;
    let endless = answer_of(&Server::start(|_, _| Reply::Endless)).await;

    assert!(matches!(longest.verdict, Verdict::Processed { .. }), "{longest:?}");
    for answer in [too_long, endless] {
        assert_unanswered(&answer, "OversizedAnswer");
        assert_eq!(answer.message, "the answer has more than 1048576 bytes");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::answering(done());
    let location = format!("Location: http://{}/", elsewhere.address);

    let server = Server::answering(http("307 Temporary Redirect", &[&location], ""));

    let answer = answer_of(&server).await;

    assert_unanswered(&answer, "HTTP 307");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn an_unknown_host_and_a_failed_tls_handshake_are_calls_that_were_not_sent() {
    let no_tls = Server::start(|_, _| Reply::Drop);
    let settings = Settings { call_deadline: Duration::from_millis(300), ..Settings::default() };
    install_crypto();
    let impatient = Client::new(settings).expect("a client");

    for url in ["https://gs.tencentcloudapi.invalid", &format!("https://{}", no_tls.address)] {
        let answer = impatient.switch(&call(Endpoint::parse(url).expect("an endpoint"))).await;

        assert_not_sent(&answer, "ConnectFailed");
    }
    assert_eq!(no_tls.requests().len(), 0);
}

#[tokio::test]
async fn a_request_that_no_header_can_carry_is_not_sent() {
    let server = Server::start(|_, _| Reply::Drop);
    let mut bad_region = call(server.endpoint());
    bad_region.region = Some("ap\nguangzhou".into());
    let mut bad_time = call(server.endpoint());
    bad_time.timestamp = i64::MAX;

    for request in [bad_region, bad_time] {
        let answer = client().switch(&request).await;

        assert_not_sent(&answer, "UnsendableRequest");
    }

    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_readable_answer_sets_the_endpoints_clock() {
    let server = Server::answering(http("200 OK", &[DATE], REFUSED));
    let client = client();
    assert_eq!(client.now(&server.endpoint()), None);

    client.switch(&call(server.endpoint())).await;

    let now = client.now(&server.endpoint()).unwrap();
    assert!((DATE_SECONDS..DATE_SECONDS + 60).contains(&now));
    assert_eq!(
        client.now(&Endpoint::parse("https://gs.tencentcloudapi.com").unwrap()),
        None,
        "another endpoint, another clock"
    );
}

#[tokio::test]
async fn a_page_of_a_proxy_does_not_set_the_clock() {
    for answer in [
        http("502 Bad Gateway", &[DATE], REFUSED),
        http("200 OK", &[DATE], "<html>"),
        http("200 OK", &[], DONE),
    ] {
        let server = Server::answering(answer);
        let client = client();

        client.switch(&call(server.endpoint())).await;

        assert_eq!(client.now(&server.endpoint()), None);
    }
}

#[tokio::test]
async fn the_time_is_asked_for_once_without_a_signature() {
    let server = Server::answering(http("200 OK", &[DATE], REFUSED));
    let (client, endpoint) = (client(), server.endpoint());

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
    let server = Server::start(|number, _| match number {
        0 => Reply::Answer(http("502 Bad Gateway", &[DATE], "<html>")),
        _ => Reply::Answer(http("200 OK", &[DATE], REFUSED)),
    });
    let (client, endpoint) = (client(), server.endpoint());

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
        let server = Server::start(|_, _| Reply::Answer(http("200 OK", headers, REFUSED)));

        let error = client().ask_time(&server.endpoint()).await.unwrap_err();

        assert_eq!(error, AskTimeError::NoDate { endpoint: server.endpoint() });
    }
}
