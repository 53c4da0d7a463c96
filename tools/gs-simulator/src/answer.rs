//! What goes over the wire in answer to a call, as it should be or not. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sessions::Switched;
use crate::wire;
use crate::world::World;

/// "JSON response 50 MB" at most (reference, section 2); an oversized one is a little longer.
const ANSWER_BYTES_MAX: usize = 50 * 1024 * 1024;
const JSON: &str = "application/json";
const HTML: &str = "text/html";

/// An answer, and how it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
    /// Before the first byte.
    pub(crate) delay: Duration,
    /// None: all at once.
    pub(crate) drip: Option<Drip>,
}

/// So many bytes at a time, each after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drip {
    pub(crate) bytes: usize,
    pub(crate) pause: Duration,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Garbling {
    /// `html-502`: a gateway's error page.
    #[serde(rename = "html-502")]
    Html502,
    /// `html-429`: a gateway that throttles.
    #[serde(rename = "html-429")]
    Html429,
    /// `html-200`: a captive portal's page, with status 200.
    #[serde(rename = "html-200")]
    Html200,
    /// `not-json`: text that says it is JSON.
    NotJson,
    /// `empty`: no body at all.
    Empty,
    /// `truncated`: the first half of the JSON, as if it were all.
    Truncated,
    /// `oversized`: correct JSON of more than 50 MB.
    Oversized,
    /// `without-response`: JSON without the outer `Response`.
    WithoutResponse,
    /// `unknown-fields`: correct, with fields that nobody knows.
    UnknownFields,
    /// `null-lists`: both lists are null.
    NullLists,
    /// `id-in-both-lists`: each id is a success and a failure.
    IdInBothLists,
    /// `unasked-id`: a success for an id that the call did not name.
    UnaskedId,
    /// `no-ids`: no id is in either list.
    NoIds,
}

impl Answer {
    /// One of the service's own answers: always status 200, errors included (reference, section 3).
    pub(crate) fn of_the_service(body: String) -> Self {
        Self { status: 200, content_type: JSON, body, delay: Duration::ZERO, drip: None }
    }

    /// A success that was garbled.
    pub(crate) fn garbled(
        kind: Garbling,
        session_id: &str,
        switched: &Switched,
        world: &World,
        request_id: &str,
    ) -> Self {
        let success = |switched: &Switched| wire::success(session_id, switched, world, request_id);
        let good = success(switched);
        let (status, content_type, body) = match kind {
            Garbling::Html502 => {
                (502, HTML, "<html><head><title>502 Bad Gateway</title></head></html>\n".to_owned())
            }
            Garbling::Html429 => (
                429,
                HTML,
                "<html><head><title>429 Too Many Requests</title></head></html>\n".to_owned(),
            ),
            Garbling::Html200 => {
                (200, HTML, "<html><head><title>Please log in</title></head></html>\n".to_owned())
            }
            Garbling::NotJson => (200, JSON, "upstream request timeout".to_owned()),
            Garbling::Empty => (200, JSON, String::new()),
            Garbling::Truncated => {
                (200, JSON, good.chars().take(good.chars().count() / 2).collect())
            }
            Garbling::Oversized => (200, JSON, good + &" ".repeat(ANSWER_BYTES_MAX)),
            Garbling::WithoutResponse => (200, JSON, format!(r#"{{"RequestId":"{request_id}"}}"#)),
            Garbling::UnknownFields => {
                (200, JSON, good.replacen('{', r#"{"Trace":{"Hops":[1,null]},"#, 1))
            }
            Garbling::NullLists => (
                200,
                JSON,
                format!(
                    r#"{{"Response":{{"SessionId":"","SuccessInstanceIds":null,"FailureInstanceIds":null,"RequestId":"{request_id}"}}}}"#
                ),
            ),
            Garbling::IdInBothLists => {
                let both: Vec<String> =
                    switched.succeeded.iter().chain(&switched.failed).cloned().collect();
                (200, JSON, success(&Switched { succeeded: both.clone(), failed: both }))
            }
            Garbling::UnaskedId => {
                let succeeded = switched
                    .succeeded
                    .iter()
                    .cloned()
                    .chain(["nobody-asked-for-this".to_owned()])
                    .collect();
                (200, JSON, success(&Switched { succeeded, failed: switched.failed.clone() }))
            }
            Garbling::NoIds => (200, JSON, success(&Switched::default())),
        };
        Self { status, content_type, body, delay: Duration::ZERO, drip: None }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn garbled(kind: Garbling) -> Answer {
        let switched = Switched { succeeded: vec!["é".to_owned()], failed: vec!["b".to_owned()] };
        Answer::garbled(kind, "s", &switched, &World::default(), "r")
    }

    #[test]
    fn what_is_no_json_does_not_parse() {
        for kind in [
            Garbling::Html502,
            Garbling::Html429,
            Garbling::Html200,
            Garbling::NotJson,
            Garbling::Empty,
            Garbling::Truncated,
        ] {
            assert!(serde_json::from_str::<Value>(&garbled(kind).body).is_err(), "{kind:?}");
        }
        assert_eq!(garbled(Garbling::Html502).status, 502);
    }

    #[test]
    fn what_is_json_has_its_one_fault() {
        let response =
            |kind| serde_json::from_str::<Value>(&garbled(kind).body).unwrap()["Response"].clone();
        assert_eq!(response(Garbling::WithoutResponse), Value::Null);
        assert_eq!(response(Garbling::UnknownFields)["SuccessInstanceIds"][0], "é");
        assert_eq!(response(Garbling::NullLists)["RequestId"], "r");
        assert_eq!(
            response(Garbling::IdInBothLists)["SuccessInstanceIds"],
            response(Garbling::IdInBothLists)["FailureInstanceIds"]
        );
        assert_eq!(
            response(Garbling::UnaskedId)["SuccessInstanceIds"].as_array().unwrap().len(),
            2
        );
        assert_eq!(response(Garbling::NoIds).as_object().unwrap().len(), 2);
        assert!(garbled(Garbling::Oversized).body.len() > ANSWER_BYTES_MAX);
    }
}
