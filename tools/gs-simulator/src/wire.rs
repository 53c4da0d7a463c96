//! The wire format: requests to calls, results to JSON. Pure.

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::sessions::Switched;
use crate::tc3::AuthError;
use crate::world::World;

pub(crate) const ACTION: &str = "SwitchCloudPhoneMultipleStreamSessionSlaves";
pub(crate) const VERSION: &str = "2019-11-18";
/// "POST body 10 MB" (reference, section 2).
pub(crate) const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

const PARAMETERS: [&str; 3] = ["SessionId", "Type", "SlaveInstanceIds"];

/// A `POST /` as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    /// None: longer than [`BODY_BYTES_MAX`].
    pub(crate) body: Option<Bytes>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// The body's shape: JSON, and an object.
    pub(crate) fn parameters(&self) -> Result<Parameters, Refusal> {
        let Some(body) = &self.body else {
            return Err(Refusal::new(
                "RequestSizeLimitExceeded",
                format!("The body is longer than {BODY_BYTES_MAX} bytes."),
            ));
        };
        let media_type = self.header("content-type").unwrap_or_default();
        if media_type.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Refusal::new(
                "InvalidRequest",
                format!("Content-Type must be application/json, not {media_type:?}."),
            ));
        }
        serde_json::from_slice(body).map(Parameters).map_err(|error| {
            Refusal::new("InvalidRequest", format!("The body is not a JSON object: {error}."))
        })
    }

    /// A common parameter, which TC3 puts into a header.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.header(name).ok_or_else(|| missing(name))
    }

    pub(crate) fn check_action(
        &self,
        expected: &str,
        expected_version: &str,
    ) -> Result<(), Refusal> {
        let action = self.required("X-TC-Action")?;
        if action != expected {
            return Err(Refusal::new(
                "InvalidAction",
                format!("X-TC-Action {action:?} is not known here, only {expected}."),
            ));
        }
        let version = self.required("X-TC-Version")?;
        if version != expected_version {
            return Err(Refusal::new(
                "NoSuchVersion",
                format!("X-TC-Version {version:?} does not exist, only {expected_version}."),
            ));
        }
        Ok(())
    }
}

/// `Type` of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    /// Type 1: add slaves.
    Attach,
    /// Type 2: remove slaves.
    Detach,
}

/// A call whose parameters are well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) session_id: String,
    pub(crate) operation: Operation,
    pub(crate) instance_ids: Vec<String>,
}

/// The body's fields, not yet judged.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Parameters(Map<String, Value>);

impl Parameters {
    pub(crate) fn switch(&self) -> Result<Switch, Refusal> {
        self.only(&PARAMETERS)?;
        let session_id = self.text("SessionId")?;
        let operation =
            match self.required("Type")?.as_i64().ok_or_else(|| invalid("Type", "an integer"))? {
                1 => Operation::Attach,
                2 => Operation::Detach,
                other => {
                    return Err(Refusal::new(
                        "InvalidParameterValue",
                        format!("The parameter `Type` must be 1 or 2, not {other}."),
                    ));
                }
            };
        let instance_ids = self
            .required("SlaveInstanceIds")?
            .as_array()
            .and_then(|ids| {
                ids.iter()
                    .map(|id| id.as_str().filter(|id| !id.is_empty()).map(str::to_owned))
                    .collect::<Option<Vec<_>>>()
            })
            .filter(|ids| !ids.is_empty())
            .ok_or_else(|| {
                invalid("SlaveInstanceIds", "a list of one or more strings, none of them empty")
            })?;
        Ok(Switch { session_id: session_id.to_owned(), operation, instance_ids })
    }

    /// No others than these.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(Refusal::new(
                "UnknownParameter",
                format!("The parameter `{unknown}` is not recognized."),
            )),
            None => Ok(()),
        }
    }

    /// A string that must be there, and have a character at least.
    pub(crate) fn text(&self, name: &str) -> Result<&str, Refusal> {
        match self.required(name)?.as_str() {
            Some("") => Err(Refusal::new(
                "InvalidParameterValue",
                format!("The parameter `{name}` must not be empty."),
            )),
            Some(text) => Ok(text),
            None => Err(invalid(name, "a string")),
        }
    }

    /// A null is no value.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&Value, Refusal> {
        self.get(name).ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::new(
        "MissingParameter",
        format!("The request is missing a required parameter `{name}`."),
    )
}

pub(crate) fn invalid(name: &str, must_be: &str) -> Refusal {
    Refusal::new("InvalidParameter", format!("The parameter `{name}` must be {must_be}."))
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The one key around every answer.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<T> {
    response: T,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SwitchAnswer<'a> {
    session_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    success_instance_ids: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_instance_ids: Option<&'a [String]>,
    request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorAnswer<'a> {
    error: ErrorBody<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

pub(crate) fn success(
    session_id: &str,
    switched: &Switched,
    world: &World,
    request_id: &str,
) -> String {
    envelope(SwitchAnswer {
        session_id: if world.empty_session_echo { "" } else { session_id },
        success_instance_ids: list(&switched.succeeded, world),
        failure_instance_ids: list(&switched.failed, world),
        request_id,
    })
}

fn list<'a>(ids: &'a [String], world: &World) -> Option<&'a [String]> {
    (!ids.is_empty() || !world.omit_empty_failures).then_some(ids)
}

pub(crate) fn failure(refusal: &Refusal, request_id: &str) -> String {
    envelope(ErrorAnswer {
        error: ErrorBody { code: &refusal.code, message: &refusal.message },
        request_id,
    })
}

/// These types have string keys only, so writing them can't fail.
pub(crate) fn envelope(response: impl Serialize) -> String {
    serde_json::to_string(&Envelope { response }).unwrap_or_default()
}

/// Makes ids that look like random UUIDs but follow from a seed.
#[derive(Debug)]
pub(crate) struct RequestIds {
    seed: u64,
    count: u64,
}

impl RequestIds {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    pub(crate) fn next(&mut self) -> String {
        self.count += 1;
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(self.count.to_be_bytes())
            .finalize();
        let bits = hash.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes));
        // Version 4, variant 1 (RFC 9562): strict parsers look at these bits.
        let bits = bits & !(0xf << 76) | (0x4 << 76);
        let bits = bits & !(0b11 << 62) | (0b10 << 62);
        let group = |shift: u32, mask: u128| (bits >> shift) & mask;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            group(96, 0xffff_ffff),
            group(80, 0xffff),
            group(64, 0xffff),
            group(48, 0xffff),
            group(0, 0xffff_ffff_ffff)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Request {
        let headers = [
            ("content-type", "application/json"),
            ("x-tc-action", ACTION),
            ("x-tc-version", VERSION),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
        Request { headers, body: Some(Bytes::copy_from_slice(body.as_bytes())) }
    }

    fn code(body: &str) -> String {
        match request(body).parameters().and_then(|parameters| parameters.switch()) {
            Ok(_) => "accepted".to_owned(),
            Err(refusal) => refusal.code,
        }
    }

    #[test]
    fn the_published_sample_is_a_detach_of_two_phones() {
        let switch =
            request(r#"{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["a","b"]}"#);
        let switch = switch.parameters().unwrap().switch().unwrap();
        assert_eq!(
            (switch.session_id.as_str(), switch.operation, switch.instance_ids.len()),
            ("1326515201117065216", Operation::Detach, 2)
        );
    }

    #[test]
    fn each_mistake_has_its_code() {
        for (body, expected) in [
            ("", "InvalidRequest"),
            ("[]", "InvalidRequest"),
            ("{", "InvalidRequest"),
            ("{}", "MissingParameter"),
            (r#"{"SessionId":null,"Type":1,"SlaveInstanceIds":["a"]}"#, "MissingParameter"),
            (
                r#"{"SessionId":1326515201117065216,"Type":1,"SlaveInstanceIds":["a"]}"#,
                "InvalidParameter",
            ),
            (r#"{"SessionId":"","Type":1,"SlaveInstanceIds":["a"]}"#, "InvalidParameterValue"),
            (r#"{"SessionId":"s","SlaveInstanceIds":["a"]}"#, "MissingParameter"),
            (r#"{"SessionId":"s","Type":"1","SlaveInstanceIds":["a"]}"#, "InvalidParameter"),
            (r#"{"SessionId":"s","Type":3,"SlaveInstanceIds":["a"]}"#, "InvalidParameterValue"),
            (r#"{"SessionId":"s","Type":1}"#, "MissingParameter"),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":[]}"#, "InvalidParameter"),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":"a"}"#, "InvalidParameter"),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a",1]}"#, "InvalidParameter"),
            (
                r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a"],"Slaves":1}"#,
                "UnknownParameter",
            ),
            (r#"{"SessionId":"s","Type":1,"SlaveInstanceIds":["a"]}"#, "accepted"),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
    }

    #[test]
    fn a_body_that_is_too_long_or_no_json_by_its_type_is_refused() {
        let mut too_long = request("{}");
        too_long.body = None;
        assert_eq!(too_long.parameters().unwrap_err().code, "RequestSizeLimitExceeded");

        let mut form = request("{}");
        form.headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        assert_eq!(form.parameters().unwrap_err().code, "InvalidRequest");
    }

    #[test]
    fn another_action_or_version_is_named_in_the_refusal() {
        for (header, value, expected) in [
            ("x-tc-action", Some("DescribeInstancesCount"), "InvalidAction"),
            ("x-tc-action", None, "MissingParameter"),
            ("x-tc-version", Some("2017-03-12"), "NoSuchVersion"),
            ("x-tc-version", None, "MissingParameter"),
        ] {
            let mut request = request("{}");
            request.headers.remove(header);
            if let Some(value) = value {
                request.headers.insert(header, value.parse().unwrap());
            }
            assert_eq!(
                request.check_action(ACTION, VERSION).unwrap_err().code,
                expected,
                "{header} {value:?}"
            );
        }
    }

    #[test]
    fn answers_look_like_the_published_sample() {
        let switched = Switched { succeeded: vec!["a".to_owned()], failed: vec![] };
        assert_eq!(
            success("s", &switched, &World::default(), "r"),
            r#"{"Response":{"SessionId":"","SuccessInstanceIds":["a"],"RequestId":"r"}}"#
        );

        let switched = Switched { succeeded: vec![], failed: vec!["b".to_owned()] };
        assert_eq!(
            success("s", &switched, &World::default(), "r"),
            r#"{"Response":{"SessionId":"","FailureInstanceIds":["b"],"RequestId":"r"}}"#
        );

        let other =
            World { omit_empty_failures: false, empty_session_echo: false, ..World::default() };
        let published = r#"{"Response":{"SessionId":"s","SuccessInstanceIds":[],"FailureInstanceIds":["b"],"RequestId":"r"}}"#;
        assert_eq!(success("s", &switched, &other, "r"), published);

        let refusal = Refusal::new("FailedOperation", "No.");
        assert_eq!(
            failure(&refusal, "r"),
            r#"{"Response":{"Error":{"Code":"FailedOperation","Message":"No."},"RequestId":"r"}}"#
        );
    }

    #[test]
    fn request_ids_have_the_shape_of_random_uuids_and_differ() {
        let mut ids = RequestIds::new(7);
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert_eq!(first.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(first.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&first.as_bytes()[19]), "{first}");
    }
}
