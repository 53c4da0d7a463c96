//! The wire format of `SwitchCloudPhoneMultipleStreamSessionSlaves`. Pure.
//!
//! The request is written as the service's samples have it. The response is read tolerantly: one
//! published sample lacks `FailureInstanceIds`, and nothing else of it is documented.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use streamsession_core::answer::Operation;
use streamsession_core::ids::{InstanceId, SessionId};

/// `X-TC-Action`.
pub const ACTION: &str = "SwitchCloudPhoneMultipleStreamSessionSlaves";
/// `X-TC-Version`.
pub const VERSION: &str = "2019-11-18";
/// The product in the signature's scope.
pub const SERVICE: &str = "gs";
/// Signed exactly as sent, so without a charset, as the official SDKs do.
pub const CONTENT_TYPE: &str = "application/json";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    session_id: &'a str,
    r#type: u8,
    slave_instance_ids: Vec<&'a str>,
}

/// The body of a call: `SessionId`, `Type`, `SlaveInstanceIds`, in this order.
pub fn body(
    session: &SessionId,
    operation: Operation,
    instances: &[InstanceId],
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Body {
        session_id: session.as_str(),
        r#type: match operation {
            Operation::Attach => 1,
            Operation::Detach => 2,
        },
        slave_instance_ids: instances.iter().map(InstanceId::as_str).collect(),
    })
}

/// What stands in `Response`. `SessionId` is not read: the only published sample answers `""`.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// Present if the call failed as a whole.
    pub error: Option<ErrorBody>,
    /// Empty when absent, null or no list.
    pub success_instance_ids: BTreeSet<InstanceId>,
    /// Empty when absent, null or no list.
    pub failure_instance_ids: BTreeSet<InstanceId>,
    /// For support tickets; empty when there is none.
    pub request_id: String,
}

/// `Response.Error`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// Matched whole or up to a dot.
    pub code: String,
    /// Never parsed.
    pub message: String,
}

/// Reads an answer's body; `None` if it is no JSON object with an object `Response`, without which
/// it is nobody's answer.
///
/// A field of another type than expected counts as absent, so that one odd field can't hide the
/// rest.
#[must_use]
pub fn response(body: &[u8]) -> Option<Response> {
    let envelope: Value = serde_json::from_slice(body).ok()?;
    let response = envelope.get("Response").filter(|response| response.is_object())?;
    Some(Response {
        error: response.get("Error").and_then(error),
        success_instance_ids: ids(response.get("SuccessInstanceIds")),
        failure_instance_ids: ids(response.get("FailureInstanceIds")),
        request_id: text(response.get("RequestId")),
    })
}

/// Null is no error. Anything else is one, if need be without a code: a failure must not pass for a
/// success.
fn error(value: &Value) -> Option<ErrorBody> {
    match value {
        Value::Null => None,
        Value::String(message) => Some(ErrorBody { code: String::new(), message: message.clone() }),
        error => {
            Some(ErrorBody { code: text(error.get("Code")), message: text(error.get("Message")) })
        }
    }
}

/// The items of a list that can be ids at all, each once.
fn ids(value: Option<&Value>) -> BTreeSet<InstanceId> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| InstanceId::parse(item.as_str()?).ok()).collect()
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn ids(texts: &[&str]) -> BTreeSet<InstanceId> {
        texts.iter().map(|text| id(text)).collect()
    }

    fn listed(json: &str) -> BTreeSet<InstanceId> {
        let body = format!(r#"{{"Response":{{"SuccessInstanceIds":{json}}}}}"#);
        response(body.as_bytes()).unwrap().success_instance_ids
    }

    #[test]
    fn the_body_has_the_services_key_order_and_no_space() {
        let session = SessionId::parse("1326515201117065216").unwrap();
        let body = |operation| {
            String::from_utf8(body(&session, operation, &[id("b"), id("a")]).unwrap()).unwrap()
        };

        assert_eq!(
            body(Operation::Attach),
            r#"{"SessionId":"1326515201117065216","Type":1,"SlaveInstanceIds":["b","a"]}"#
        );
        assert_eq!(
            body(Operation::Detach),
            r#"{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["b","a"]}"#
        );
    }

    #[test]
    fn the_published_sample_without_failures_is_read() {
        let sample =
            br#"{"Response":{"SessionId":"","SuccessInstanceIds":["a"],"RequestId":"r-1"}}"#;

        let response = response(sample).unwrap();

        assert_eq!(response.success_instance_ids, ids(&["a"]));
        assert_eq!(response.failure_instance_ids, BTreeSet::new());
        assert_eq!(response.request_id, "r-1");
        assert_eq!(response.error, None);
    }

    #[test]
    fn lists_may_be_null_empty_or_something_else() {
        for json in ["null", "[]", "{}", "\"a\"", "1", "-1", "1.5", "true", r#"{"a":["b"]}"#] {
            assert_eq!(listed(json), BTreeSet::new(), "{json}");
        }
    }

    #[test]
    fn what_can_not_be_an_id_does_not_hide_its_neighbours() {
        assert_eq!(
            listed(r#"["a", null, 7, "", "two words", ["b"], {"c":1}, "d", "d"]"#),
            ids(&["a", "d"])
        );
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let body = br#"{"Extra":1,"Response":{"New":{"a":[1]},"RequestId":"r",
            "Error":{"Code":"X","Message":"m","Detail":[1]}}}"#;

        assert_eq!(
            response(body).unwrap().error,
            Some(ErrorBody { code: "X".into(), message: "m".into() })
        );
    }

    #[test]
    fn a_null_error_is_none_and_a_shapeless_one_is_an_error_without_a_code() {
        let error = |json: &str| {
            response(format!(r#"{{"Response":{{"Error":{json}}}}}"#).as_bytes()).unwrap().error
        };

        assert_eq!(error("null"), None);
        for json in ["{}", "[]", "7", "false", r#"{"Code":null}"#, r#"{"Code":["X"]}"#] {
            assert_eq!(error(json), Some(ErrorBody::default()), "{json}");
        }
    }

    #[test]
    fn a_body_without_a_response_object_is_unreadable() {
        for body in [
            "",
            "{}",
            "null",
            "[]",
            r#"{"Response":null}"#,
            r#"{"Response":"x"}"#,
            r#"{"Response":[]}"#,
            r#"[{"Response":{}}]"#,
            r#"{"Response":{}"#,
            "<html>",
            r#"{"response":{}}"#,
        ] {
            assert_eq!(response(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn nesting_without_end_is_an_error_and_no_overflow() {
        let body = format!(r#"{{"Response":{{"X":{}"#, "[".repeat(1_000_000));

        assert_eq!(response(body.as_bytes()), None);
    }
}
