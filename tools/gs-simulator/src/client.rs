//! A client for the tests of this crate: bare sockets, so that every byte is seen.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Simulator, tc3, wire};

pub(crate) const ATTACH: &str = r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a","b"]}"#;
/// For things that take milliseconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

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
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
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

pub(crate) fn api_headers(simulator: &Simulator) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("host", simulator.address().to_string().parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("x-tc-action", wire::ACTION.parse().unwrap());
    headers.insert("x-tc-version", wire::VERSION.parse().unwrap());
    headers
}

pub(crate) fn header((name, value): (&str, &str)) -> (HeaderName, HeaderValue) {
    (name.parse().unwrap(), value.parse().unwrap())
}

pub(crate) async fn call(simulator: &Simulator, body: &str) -> Vec<u8> {
    call_with(simulator, body, EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, None).await
}

pub(crate) async fn call_with(
    simulator: &Simulator,
    body: &str,
    secret_id: &str,
    secret_key: &str,
    token: Option<&str>,
) -> Vec<u8> {
    let (mut headers, now) = (api_headers(simulator), simulator.now());
    let authorization = tc3::sign(&headers, body.as_bytes(), secret_id, secret_key, now);
    headers.insert("x-tc-timestamp", now.as_second().into());
    headers.insert("authorization", authorization.parse().unwrap());
    headers.extend(token.map(|token| header(("x-tc-token", token))));
    exchange(simulator, "POST", "/", &headers, body).await
}

pub(crate) async fn admin(
    simulator: &Simulator,
    method: &str,
    path: &str,
    body: &str,
) -> (String, Value) {
    let mut headers = HeaderMap::new();
    headers.insert("host", "localhost".parse().unwrap());
    let (head, body) = split(&exchange(simulator, method, path, &headers, body).await);
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(&body).unwrap_or(Value::Null))
}

pub(crate) fn split(answer: &[u8]) -> (String, String) {
    let answer = str::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    (head.to_owned(), body.to_owned())
}
