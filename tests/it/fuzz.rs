//! Fuzzing of what others write: answers, Secrets, endpoints, `Date` headers.
//!
//! In `cargo test` each target gets random inputs for a second; `BOLERO_RANDOM_TEST_TIME_MS=60000`
//! makes it a minute, and `BOLERO_RANDOM_SEED=…`, which a failure prints, repeats one input.
//! Profiles (`gs::credentials`) and the simulator's signatures have theirs beside them.

mod inputs;

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
