//! A client for the tests of this crate: bare sockets, so that every byte is seen.

use std::time::Duration;

use axum::http::HeaderMap;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::service::faults::Faults;
use crate::service::keys::Key;
use crate::service::{switch, tc3};
use crate::simulator::{EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Options, Simulator};

pub(crate) const ATTACH: &str = r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a","b"]}"#;
/// For things that take milliseconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) async fn start(faults: Faults) -> Simulator {
    Simulator::start(Options { faults, ..Options::default() }).await.unwrap()
}

/// Sends a request on a connection of its own and returns every byte until the server closes it.
pub(crate) async fn exchange(
    simulator: &Simulator,
    method: &str,
    path: &str,
    headers: &HeaderMap,
    body: &str,
) -> Vec<u8> {
    let headers: String = headers
        .iter()
        .flat_map(|(name, value)| [name.as_str(), ": ", value.to_str().unwrap(), "\r\n"])
        .collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection")
        .unwrap();
    answer
}

pub(crate) fn headers(headers: &[(&str, &str)]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

pub(crate) fn api_headers(simulator: &Simulator) -> HeaderMap {
    headers(&[
        ("host", &simulator.address().to_string()),
        ("content-type", "application/json"),
        ("x-tc-action", switch::ACTION),
        ("x-tc-version", switch::VERSION),
    ])
}

/// A call that is signed with the example key.
pub(crate) async fn call(simulator: &Simulator, body: &str) -> Vec<u8> {
    let key = Key::long_term(EXAMPLE_SECRET_KEY);
    call_with(simulator, body, EXAMPLE_SECRET_ID, &key).await
}

pub(crate) async fn call_with(
    simulator: &Simulator,
    body: &str,
    secret_id: &str,
    key: &Key,
) -> Vec<u8> {
    let (mut headers, now) = (api_headers(simulator), simulator.now());
    let authorization = tc3::sign(&headers, body.as_bytes(), secret_id, &key.secret_key, now);
    headers.insert("x-tc-timestamp", now.as_second().into());
    headers.insert("authorization", authorization.parse().unwrap());
    if let Some(token) = &key.token {
        headers.insert("x-tc-token", token.parse().unwrap());
    }
    exchange(simulator, "POST", "/", &headers, body).await
}

/// A request with no headers but Host: head and body of the answer.
pub(crate) async fn plain(
    simulator: &Simulator,
    method: &str,
    path: &str,
    body: &str,
) -> (String, String) {
    split(&exchange(simulator, method, path, &headers(&[("host", "localhost")]), body).await)
}

/// Status line and JSON of the answer.
pub(crate) async fn admin(
    simulator: &Simulator,
    method: &str,
    path: &str,
    body: &str,
) -> (String, Value) {
    let (head, body) = plain(simulator, method, path, body).await;
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(&body).unwrap_or(Value::Null))
}

pub(crate) fn split(answer: &[u8]) -> (String, String) {
    let answer = str::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    (head.to_owned(), body.to_owned())
}

/// The one Date header.
pub(crate) fn date(head: &str) -> Timestamp {
    let dates: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("date: ")).collect();
    assert_eq!(dates.len(), 1, "{head}");
    assert!(dates[0].ends_with(" GMT"), "{head}");
    DateTimeParser::new().parse_timestamp(dates[0]).unwrap()
}
