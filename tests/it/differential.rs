//! The signature against the official Python SDK's: a thousand random requests, byte for byte.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use streamsession_core::answer::Operation;
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_operator::gs::sign::Signable;
use streamsession_operator::gs::{Credentials, Endpoint, HIDDEN, Source, Switch};
use streamsession_testkit::rng::Rng;

use crate::sdk::{REMEDY, are_there, python};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdks/python");
const REQUESTS: usize = 1000;
/// 2019-01-01 and 2033-05-18.
const TIMES: (u64, u64) = (1_546_300_800, 2_000_000_000);

/// The headers that the SDK gives to each of these requests.
fn sdk(requests: &[Value]) -> Vec<Value> {
    let mut command = Command::new(python());
    command
        .arg(Path::new(FOLDER).join("sign.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1")
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME");
    let mut child = command.spawn().expect("Python runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines = requests.iter().map(|request| format!("{request}\n")).collect::<Vec<_>>().concat();
    let writing = thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("Python ends");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complained}");
    writing.join().expect("no panic").expect("Python reads");
    let headers: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    assert_eq!(headers.len(), requests.len(), "{complained}");
    headers
}

/// The same requests in each run, so that a difference can be looked into.
struct Requests(Rng);

impl Requests {
    /// Printable ASCII without a space: quotes and backslashes too.
    fn word(&mut self, longest: u64) -> String {
        let length = self.0.between(1, longest);
        (0..length).map(|_| char::from(0x21 + self.0.small(0x7F - 0x21))).collect()
    }

    /// Any characters there are: control, Chinese, beyond the basic plane.
    fn text(&mut self, longest: u64) -> String {
        let length = self.0.below(longest);
        (0..length)
            .filter_map(|_| {
                let end = self.0.pick(&[0x20, 0x80, 0x800, 0xA000, 0x11_0000]);
                u32::try_from(self.0.below(end)).ok().and_then(char::from_u32)
            })
            .collect()
    }

    fn time(&mut self) -> i64 {
        i64::try_from(self.0.between(TIMES.0, TIMES.1)).expect("small")
    }

    fn host(&mut self) -> String {
        let hosts = [
            "gs.tencentcloudapi.com",
            "gs.ap-guangzhou.tencentcloudapi.com",
            "127.0.0.1:8080",
            "gs.internal.example.com:8443",
        ];
        self.0.pick(&hosts).to_owned()
    }
}

fn switch(requests: &mut Requests) -> Switch {
    let rng = &mut requests.0;
    let count = if rng.percent(10) { 0 } else { rng.between(0, 200) };
    let region = rng.coin().then(|| format!("ap-{}", rng.below(100)));
    let operation = if rng.coin() { Operation::Attach } else { Operation::Detach };
    let token = rng.coin().then(|| requests.word(200).into());
    Switch {
        endpoint: Endpoint::parse(&format!("https://{}", requests.host())).expect("an endpoint"),
        region,
        session: SessionId::parse(&requests.word(128)).expect("an id"),
        operation,
        instances: (0..count)
            .map(|_| InstanceId::parse(&requests.word(60)).expect("an id"))
            .collect(),
        timestamp: requests.time(),
        credentials: Credentials {
            secret_id: requests.word(40),
            secret_key: requests.word(40).into(),
            token,
            source: Source::Environment,
        },
    }
}

#[test]
fn a_thousand_random_requests_have_the_headers_of_the_official_sdk() {
    use secrecy::ExposeSecret;
    if !are_there(&["python3"], REMEDY) {
        return;
    }
    let mut drawn = Requests(Rng::new(1, "requests"));
    let switches: Vec<_> = (0..REQUESTS).map(|_| switch(&mut drawn)).collect();
    let prepared: Vec<_> =
        switches.iter().map(|switch| switch.prepare().expect("a request")).collect();
    let requests: Vec<_> = switches
        .iter()
        .zip(&prepared)
        .map(|(switch, prepared)| {
            let Credentials { secret_id, secret_key, token, .. } = &switch.credentials;
            json!({
                "id": secret_id, "key": secret_key.expose_secret(),
                "token": token.as_ref().map(ExposeSecret::expose_secret),
                "region": switch.region, "host": switch.endpoint.host_header(), "service": "gs",
                "timestamp": switch.timestamp, "body": prepared.body,
            })
        })
        .collect();

    let answers = sdk(&requests);

    for (((switch, prepared), answer), request) in
        switches.iter().zip(&prepared).zip(&answers).zip(&requests)
    {
        let ours: serde_json::Map<_, _> =
            prepared.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        for name in [
            "authorization",
            "content-type",
            "host",
            "x-tc-action",
            "x-tc-region",
            "x-tc-timestamp",
            "x-tc-version",
        ] {
            assert_eq!(ours.get(name), answer.get(name), "{name} of {request}");
        }
        assert_eq!(
            ours.get("x-tc-token").is_some(),
            answer.get("x-tc-token").is_some(),
            "{request}"
        );
        assert!(ours.get("x-tc-token").is_none_or(|token| token == HIDDEN));
        let body: Value = serde_json::from_str(&prepared.body).expect("JSON");
        let ids: Vec<_> = switch.instances.iter().map(InstanceId::as_str).collect();
        let kind = if switch.operation == Operation::Attach { 1 } else { 2 };
        assert_eq!(
            body,
            json!({"SessionId": switch.session.as_str(), "Type": kind, "SlaveInstanceIds": ids})
        );
    }
}

#[test]
fn a_thousand_random_unicode_bodies_have_the_signature_of_the_official_sdk() {
    if !are_there(&["python3"], REMEDY) {
        return;
    }
    let mut drawn = Requests(Rng::new(2, "requests"));
    let mut request = |longest| {
        json!({
            "id": drawn.word(40), "key": drawn.word(64), "token": null, "region": null,
            "host": drawn.host(), "service": drawn.0.pick(&["gs", "cvm", "sts"]),
            "timestamp": drawn.time(), "body": drawn.text(longest),
        })
    };
    let mut requests: Vec<_> = (1..REQUESTS).map(|_| request(1000)).collect();
    requests.push(request(1_000_000));

    let answers = sdk(&requests);

    for (request, answer) in requests.iter().zip(&answers) {
        let text = |name: &str| request[name].as_str().expect("a string");
        let signable = Signable {
            host: text("host"),
            service: text("service"),
            content_type: "application/json",
            extra_headers: &[],
            body: text("body").as_bytes(),
            timestamp: request["timestamp"].as_i64().expect("a number"),
        };
        let ours = signable.authorization(text("id"), text("key")).expect("a date");
        assert_eq!(json!(ours), answer["authorization"], "{request}");
    }
}
