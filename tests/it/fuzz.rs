//! Fuzzing of what others write: answers, Secrets, endpoints, `Date` headers.
//!
//! In `cargo test` each target gets random inputs for a second; `BOLERO_RANDOM_TEST_TIME_MS=60000`
//! makes it a minute, and `BOLERO_RANDOM_SEED=…`, which a failure prints, repeats one input.
//! Profiles (`gs::credentials`) and the simulator's signatures have theirs beside them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use bolero::{TypeGenerator, ValueGenerator, check, produce};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use streamsession_core::answer::{NothingDone, Outcome, Verdict};
use streamsession_core::ids::InstanceId;
use streamsession_operator::gs::answer::{self, Read};
use streamsession_operator::gs::clock::{ServiceClock, parse_date};
use streamsession_operator::gs::{Credentials, Endpoint};

/// For each target, unless the environment says otherwise.
const TEST_TIME: Duration = Duration::from_secs(1);
/// Longest text that anything here may make of its input, in characters.
const MESSAGE_LENGTH_MAX: usize = 512;
/// Longest code and request id.
const WORD_LENGTH_MAX: usize = 128;

/// A change to bytes that were valid.
#[derive(Clone, Debug, TypeGenerator)]
enum Mutation {
    Set { at: u16, to: u8 },
    Cut { at: u16 },
    Insert { at: u16, bytes: Vec<u8> },
    Repeat { at: u16, length: u8 },
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &u16| usize::from(*at) % (bytes.len() + 1);
        match self {
            Self::Set { at, to } => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *to;
                }
            }
            Self::Cut { at } => bytes.truncate(place(at)),
            Self::Insert { at, bytes: more } => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Repeat { at, length } => {
                let at = place(at);
                let again: Vec<u8> =
                    bytes[at..].iter().take(usize::from(*length)).copied().collect();
                bytes.splice(at..at, again);
            }
        }
    }
}

fn mutated(bytes: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for mutation in mutations {
        mutation.apply(&mut bytes);
    }
    bytes
}

/// Printable ASCII without a space.
fn graphic(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(b'!' + byte % 94)).collect()
}

fn name(number: u8) -> String {
    format!("phone-{}", number % 8)
}

fn asked() -> BTreeSet<InstanceId> {
    (0..8).map(|number| InstanceId::parse(&name(number)).expect("an id")).collect()
}

/// What is true of every answer, whatever it is read from.
fn read(status: u16, body: &[u8]) -> Read {
    let asked = asked();
    let read = answer::read(status, body, &asked, &["FailedOperation.Gone".to_owned()]);
    let answer = &read.answer;
    assert!(answer.message.chars().count() <= MESSAGE_LENGTH_MAX, "{answer:?}");
    assert!(
        answer.code.chars().count() <= WORD_LENGTH_MAX
            && answer.request_id.chars().count() <= WORD_LENGTH_MAX,
        "{answer:?}"
    );
    assert!(!read.readable || status == 200, "only the service answers 200");
    let nobody_knows = answer.verdict == Verdict::Unanswered;
    assert!(
        read.readable
            || nobody_knows
            || (status == 429 && answer.verdict == Verdict::NothingDone(NothingDone::Throttled))
    );
    if let Verdict::Processed { succeeded, refused } = &answer.verdict {
        assert!(
            read.readable && succeeded.is_subset(&asked) && refused.is_subset(&asked),
            "{answer:?}"
        );
    }
    for id in &asked {
        let listed = matches!(&answer.verdict, Verdict::Processed { succeeded, refused } if succeeded.contains(id) && !refused.contains(id));
        assert_eq!(
            answer.outcome(id, asked.len()) == Outcome::Done,
            listed,
            "{id} is done if and only if the service says so alone"
        );
    }
    read
}

#[test]
fn no_bytes_of_an_answer_say_more_than_the_service_can() {
    check!().with_test_time(TEST_TIME).with_type::<(bool, u16, Vec<u8>)>().for_each(
        |(ok, status, body)| {
            read(if *ok { 200 } else { *status }, body);
        },
    );
}

/// Some characters, any there are: more make a run slower and find nothing more.
fn text() -> impl ValueGenerator<Output = String> {
    produce::<String>().with().len(0_usize..8)
}

/// Something of another type than expected.
#[derive(Clone, Debug, TypeGenerator)]
enum Odd {
    Null,
    Bool(bool),
    Number(i64),
    Float(f64),
    Text(#[generator(text())] String),
    List(#[generator(produce::<Vec<bool>>().with().len(0_usize..4))] Vec<bool>),
    Object(#[generator(text())] String, i64),
    /// Of less levels than the 128 that JSON is read to.
    Nested(#[generator(0_u8..100)] u8),
}

impl Odd {
    fn json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => json!(value),
            Self::Number(value) => json!(value),
            Self::Float(value) => json!(value),
            Self::Text(value) => json!(value),
            Self::List(value) => json!(value),
            Self::Object(key, value) => json!({ (key): value }),
            Self::Nested(depth) => {
                (0..*depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
            }
        }
    }
}

#[derive(Clone, Debug, TypeGenerator)]
enum Listed {
    Asked(u8),
    Foreign(u8),
    Odd(Odd),
}

#[derive(Clone, Debug, TypeGenerator)]
enum List {
    Absent,
    Ids(#[generator(produce::<Vec<Listed>>().with().len(0_usize..12))] Vec<Listed>),
    Odd(Odd),
}

#[derive(Clone, Debug, TypeGenerator)]
enum Failure {
    Absent,
    Null,
    Known(u8, String),
    Unknown(String, String),
}

/// An answer as the service writes it, with more or less in it.
#[derive(Clone, Debug, TypeGenerator)]
struct Envelope {
    succeeded: List,
    refused: List,
    failure: Failure,
    request_id: Odd,
    #[generator(produce::<Vec<Odd>>().with().len(0_usize..4))]
    extra: Vec<Odd>,
}

const CODES: [&str; 8] = [
    "RequestLimitExceeded.UinLimitExceeded",
    "AuthFailure.SignatureExpire",
    "ResourceNotFound.SessionNotFound",
    "FailedOperation.Gone",
    "InvalidParameterValue",
    "ResourceNotFound",
    "InternalError",
    "FailedOperation",
];

impl List {
    fn json(&self) -> Option<Value> {
        match self {
            Self::Absent => None,
            Self::Ids(ids) => Some(ids.iter().map(Listed::json).collect()),
            Self::Odd(odd) => Some(odd.json()),
        }
    }

    /// The ids that were asked for, of a list that is one.
    fn says(&self) -> BTreeSet<InstanceId> {
        let json = self.json();
        let texts: BTreeSet<&str> = json
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        asked().into_iter().filter(|id| texts.contains(id.as_str())).collect()
    }
}

impl Listed {
    fn json(&self) -> Value {
        match self {
            Self::Asked(number) => json!(name(*number)),
            Self::Foreign(number) => json!(format!("foreign-{number}")),
            Self::Odd(odd) => odd.json(),
        }
    }
}

impl Failure {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Known(number, _) => Some(CODES[usize::from(*number) % CODES.len()]),
            Self::Unknown(code, _) => Some(code),
        }
    }
}

impl Envelope {
    fn body(&self) -> Vec<u8> {
        let mut response: Map<_, _> = self
            .extra
            .iter()
            .enumerate()
            .map(|(number, odd)| (format!("New{number}"), odd.json()))
            .collect();
        response.extend(self.succeeded.json().map(|list| ("SuccessInstanceIds".to_owned(), list)));
        response.extend(self.refused.json().map(|list| ("FailureInstanceIds".to_owned(), list)));
        response.insert("RequestId".to_owned(), self.request_id.json());
        let error = match &self.failure {
            Failure::Absent => None,
            Failure::Null => Some(Value::Null),
            failure @ (Failure::Known(_, message) | Failure::Unknown(_, message)) => {
                Some(json!({ "Code": failure.code(), "Message": message }))
            }
        };
        response.extend(error.map(|error| ("Error".to_owned(), error)));
        json!({ "Response": response }).to_string().into_bytes()
    }

    fn verdict(&self) -> Verdict {
        match self.failure.code() {
            Some(code) => Verdict::of_code(code, &["FailedOperation.Gone".to_owned()]),
            None => Verdict::Processed {
                succeeded: self.succeeded.says(),
                refused: self.refused.says(),
            },
        }
    }
}

#[test]
fn an_answer_says_what_its_lists_or_its_error_say_whatever_else_is_odd() {
    check!().with_test_time(TEST_TIME).with_type::<Envelope>().for_each(|envelope| {
        let read = read(200, &envelope.body());

        assert!(read.readable);
        assert_eq!(read.answer.verdict, envelope.verdict());
    });
}

#[test]
fn a_damaged_answer_says_nothing_of_ids_that_were_not_asked_for() {
    check!().with_test_time(TEST_TIME).with_type::<(Envelope, Mutation, Vec<Mutation>)>().for_each(
        |(envelope, first, rest)| {
            let body = mutated(&envelope.body(), std::slice::from_ref(first));
            read(200, &body);
            read(200, &mutated(&body, rest));
        },
    );
}

/// A value of a Secret.
#[derive(Clone, Debug, TypeGenerator)]
enum Part {
    Good(Vec<u8>, bool),
    Raw(Vec<u8>),
    Long(u16),
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Good(bytes, line_feed) => {
                format!("{}{}", graphic(bytes), if *line_feed { "\r\n" } else { "" }).into_bytes()
            }
            Self::Raw(bytes) => bytes.clone(),
            Self::Long(length) => vec![b'x'; usize::from(*length) % 400],
        }
    }
}

/// The value without white space at its end, if it can be a part of a key.
fn usable(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches([' ', '\t', '\n', '\r', '\u{c}']);
    (!text.is_empty() && text.chars().all(|c| ('!'..='~').contains(&c))).then_some(text)
}

/// Whether six neighbours of the secret stand in the text.
fn shows(text: &str, secret: &[u8]) -> bool {
    let shown: HashSet<&[u8]> = text.as_bytes().windows(6).collect();
    secret.windows(6).any(|part| shown.contains(part))
}

#[test]
fn a_secret_is_taken_if_its_parts_are_usable_and_never_shown() {
    check!().with_test_time(TEST_TIME).with_type::<[Option<Part>; 3]>().for_each(|parts| {
        let values = parts.each_ref().map(|part| part.as_ref().map(Part::bytes));
        let named = ["secretId", "secretKey", "token"].into_iter().zip(&values);
        let data: BTreeMap<_, _> = named
            .filter_map(|(name, value)| Some((name.to_owned(), ByteString(value.clone()?))))
            .collect();
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.namespace = Some("arcade".to_owned());
        secret.metadata.name = Some("tencent".to_owned());

        let read = Credentials::from_secret(&secret);

        let [id, key, token] = values.each_ref().map(Option::as_deref);
        let (good_id, good_key) =
            (id.and_then(usable).filter(|id| id.len() <= 256), key.and_then(usable));
        let no_token = token.is_none_or(|token| token.iter().all(u8::is_ascii_whitespace));
        let good_token = token.and_then(usable);
        match read {
            Ok(read) => {
                assert_eq!(
                    (Some(read.secret_id.as_str()), Some(read.secret_key.expose_secret())),
                    (good_id, good_key)
                );
                assert_eq!(read.token.as_ref().map(ExposeSecret::expose_secret), good_token);
                let printed = format!("{read:?}");
                for hidden in [good_key, good_token]
                    .into_iter()
                    .flatten()
                    .filter(|hidden| !read.secret_id.contains(*hidden))
                {
                    assert!(hidden.len() < 6 || !printed.contains(hidden), "{printed}");
                }
            }
            Err(error) => {
                assert!(
                    good_id.is_none() || good_key.is_none() || !(no_token || good_token.is_some()),
                    "{error}"
                );
                for printed in [error.to_string(), format!("{error:?}")] {
                    assert!(printed.chars().count() <= MESSAGE_LENGTH_MAX);
                    assert!(
                        !values.iter().flatten().any(|value| shows(&printed, value)),
                        "{printed}"
                    );
                }
            }
        }
    });
}

/// A piece of something that looks like a URL.
#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    Usual(u8),
    Number(u16),
    Any(String),
}

const PIECES: [&str; 24] = [
    "https://",
    "http://",
    "https:",
    "://",
    "localhost",
    "127.0.0.1",
    "[::1]",
    "0x7f.1",
    "gs.Example.com",
    "bücher.example",
    "[2001:db8::1]",
    ":",
    ":443",
    ":80",
    "/",
    "\\",
    "?",
    "#",
    "@",
    "%41",
    "\t",
    "\n",
    " ",
    ".",
];

impl Piece {
    fn text(&self) -> String {
        match self {
            Self::Usual(number) => PIECES[usize::from(*number) % PIECES.len()].to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Any(text) => text.clone(),
        }
    }
}

/// A text that often is an endpoint, or nearly.
#[derive(Clone, Debug, TypeGenerator)]
struct Address {
    secure: Option<bool>,
    pieces: Vec<Piece>,
    length_max: u8,
}

impl Address {
    fn text(&self) -> String {
        let scheme = self.secure.map_or("", |secure| if secure { "https://" } else { "http://" });
        // Short ones are more often valid.
        let pieces = self.pieces.iter().take(usize::from(self.length_max % 8)).map(Piece::text);
        std::iter::once(scheme.to_owned()).chain(pieces).collect()
    }
}

#[test]
fn an_endpoint_that_is_taken_is_the_same_when_it_is_read_back_and_can_be_called() {
    check!().with_test_time(TEST_TIME).with_type::<Address>().for_each(|address| {
        let text = address.text();
        let strict = Endpoint::parse(&text);
        let trusting = Endpoint::parse_with(&text, true);
        assert!(strict.is_err() || strict == trusting, "{strict:?} {trusting:?}");
        for (result, insecure) in
            [(strict, false), (trusting, true), (Endpoint::from_target(&text, false), false)]
        {
            match result {
                Ok(endpoint) => {
                    assert!(insecure || !endpoint.is_plain() || endpoint.is_loopback(), "{text:?}");
                    assert_eq!(
                        Endpoint::from_target(&endpoint.to_string(), insecure).as_ref(),
                        Ok(&endpoint),
                        "{text:?}"
                    );
                    assert_eq!(
                        Endpoint::parse_with(&endpoint.url(), insecure).as_ref(),
                        Ok(&endpoint),
                        "{text:?}"
                    );
                    assert!(
                        http::HeaderValue::from_str(endpoint.host_header()).is_ok(),
                        "{text:?}"
                    );
                    assert_eq!(
                        endpoint.host_header(),
                        endpoint.host_header().to_lowercase(),
                        "{text:?}"
                    );
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        error.chars().count() <= MESSAGE_LENGTH_MAX
                            && !error.contains(char::is_control),
                        "{error:?}"
                    );
                }
            }
        }
    });
}

/// An endpoint with a password in it.
#[derive(Clone, Debug, TypeGenerator)]
struct WithPassword {
    scheme: u8,
    user: Vec<u8>,
    password: Vec<u8>,
    repeated: u8,
    after: Vec<Piece>,
}

impl WithPassword {
    /// It begins with a word that stands nowhere else.
    fn password(&self, length_max: usize) -> String {
        format!("hunter2{}", graphic(&self.password).repeat(1 + usize::from(self.repeated)))
            .chars()
            .take(length_max)
            .collect()
    }

    fn text(&self, schemes: &[&str], password: &str) -> String {
        let scheme = schemes[usize::from(self.scheme) % schemes.len()];
        let user: String = graphic(&self.user).chars().take(64).collect();
        let after: String = self.after.iter().take(4).map(Piece::text).collect();
        format!("{scheme}{user}:{password}@{after}")
    }
}

fn repeats_no_password(text: &str) {
    for result in [
        Endpoint::parse(text),
        Endpoint::parse_with(text, true),
        Endpoint::from_target(text, false),
    ] {
        let shown = result.map_or_else(|error| error.to_string(), |endpoint| endpoint.to_string());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn an_endpoint_that_is_refused_repeats_no_password_of_usual_length() {
    check!().with_test_time(TEST_TIME).with_type::<WithPassword>().for_each(|with| {
        repeats_no_password(&with.text(&["https://", "http://", "ftp://"], &with.password(64)));
    });
}

#[test]
fn an_endpoint_that_is_refused_repeats_no_password_whatever_it_looks_like() {
    check!().with_test_time(TEST_TIME).with_type::<WithPassword>().for_each(|with| {
        repeats_no_password(&with.text(
            &["https://", "http://", "ftp://", "https:\\\\", "https:", ""],
            &with.password(1_000),
        ));
    });
}

/// Seconds until the year 10000, which no `Date` can say.
const DATES: u64 = 253_402_300_800;

#[test]
fn a_date_header_is_read_as_it_was_written_and_no_other_text_panics() {
    check!().with_test_time(TEST_TIME).with_type::<(u64, Vec<Mutation>, String)>().for_each(
        |(seconds, mutations, text)| {
            let seconds = i64::try_from(seconds % DATES).expect("small");
            let written = |seconds| {
                jiff::Timestamp::from_second(seconds)
                    .expect("a time")
                    .strftime("%a, %d %b %Y %H:%M:%S GMT")
                    .to_string()
            };
            assert_eq!(parse_date(&written(seconds)), Some(seconds));

            let damaged = mutated(written(seconds).as_bytes(), mutations);
            for read in [parse_date(text), parse_date(&String::from_utf8_lossy(&damaged))]
                .into_iter()
                .flatten()
            {
                assert!(jiff::Timestamp::from_second(read).is_ok());
                let (mut clock, now) = (ServiceClock::default(), Instant::now());
                clock.observe(read, now);
                assert_eq!(clock.now(now + Duration::from_mins(1)), Some(read + 60));
            }
        },
    );
}
