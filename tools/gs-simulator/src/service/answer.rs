//! The answer to a call, as it should be or garbled by a fault.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::api_error::ApiError;
use super::faults::GarbledAnswer;
use super::switch::SwitchResult;
use super::unspecified::UnspecifiedBehaviour;

/// JSON answers have at most 50 MB, says the documentation; an oversized one is a little longer.
const ANSWER_BYTES_MAX: usize = 50 * 1024 * 1024;
const JSON: &str = "application/json";
const HTML: &str = "text/html";

/// An answer, and how it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
    /// Before the first byte.
    pub(crate) delay: Duration,
    /// None: all at once.
    pub(crate) body_throttle: Option<BodyThrottle>,
}

/// So many bytes at a time, each after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyThrottle {
    pub(crate) bytes: usize,
    pub(crate) pause: Duration,
}

/// The one key around every answer.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<T> {
    response: T,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SwitchResponse<'a> {
    session_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    success_instance_ids: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_instance_ids: Option<&'a [String]>,
    request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorResponse<'a> {
    error: ErrorBody<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

impl Answer {
    /// The service's own answers have status 200, errors included.
    pub(crate) fn ok(response: impl Serialize) -> Self {
        // These types have string keys only, so writing them can't fail.
        let body = serde_json::to_string(&Envelope { response }).unwrap_or_default();
        Self::new(200, JSON, body)
    }

    pub(crate) fn success(
        session_id: &str,
        result: &SwitchResult,
        behaviour: &UnspecifiedBehaviour,
        request_id: &str,
    ) -> Self {
        let list = |ids| (!Vec::is_empty(ids) || !behaviour.omit_empty_failures).then_some(&**ids);
        Self::ok(SwitchResponse {
            session_id: if behaviour.empty_session_echo { "" } else { session_id },
            success_instance_ids: list(&result.succeeded),
            failure_instance_ids: list(&result.failed),
            request_id,
        })
    }

    pub(crate) fn error(error: &ApiError, request_id: &str) -> Self {
        let error = ErrorBody { code: &error.code, message: &error.message };
        Self::ok(ErrorResponse { error, request_id })
    }

    /// A success, garbled.
    pub(crate) fn garbled(
        kind: GarbledAnswer,
        session_id: &str,
        result: &SwitchResult,
        behaviour: &UnspecifiedBehaviour,
        request_id: &str,
    ) -> Self {
        let success =
            |result: &SwitchResult| Self::success(session_id, result, behaviour, request_id);
        let page = |status, title| {
            let body = format!("<html><head><title>{title}</title></head></html>\n");
            Self::new(status, HTML, body)
        };
        let text = |body: String| Self::new(200, JSON, body);
        let SwitchResult { succeeded, failed } = result;
        let good = success(result);
        match kind {
            GarbledAnswer::Html502 => page(502, "502 Bad Gateway"),
            GarbledAnswer::Html429 => page(429, "429 Too Many Requests"),
            GarbledAnswer::Html200 => page(200, "Please log in"),
            GarbledAnswer::NotJson => text("upstream request timeout".to_owned()),
            GarbledAnswer::Empty => text(String::new()),
            GarbledAnswer::Truncated => {
                text(good.body.chars().take(good.body.chars().count() / 2).collect())
            }
            GarbledAnswer::Oversized => text(good.body + &" ".repeat(ANSWER_BYTES_MAX)),
            GarbledAnswer::WithoutResponse => text(format!(r#"{{"RequestId":"{request_id}"}}"#)),
            GarbledAnswer::UnknownFields => {
                text(good.body.replacen('{', r#"{"Trace":{"Hops":[1,null]},"#, 1))
            }
            GarbledAnswer::NullLists => Self::ok(json!({
                "SessionId": "", "SuccessInstanceIds": null, "FailureInstanceIds": null,
                "RequestId": request_id,
            })),
            GarbledAnswer::IdInBothLists => {
                let both = [succeeded.as_slice(), failed].concat();
                success(&SwitchResult { succeeded: both.clone(), failed: both })
            }
            GarbledAnswer::UnaskedId => {
                let unasked = "nobody-asked-for-this".to_owned();
                let succeeded = [succeeded.as_slice(), &[unasked]].concat();
                success(&SwitchResult { succeeded, failed: failed.clone() })
            }
            GarbledAnswer::NoIds => success(&SwitchResult::default()),
        }
    }

    fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, delay: Duration::ZERO, body_throttle: None }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn garbled(kind: GarbledAnswer) -> Answer {
        let result =
            SwitchResult { succeeded: vec!["é".to_owned()], failed: vec!["b".to_owned()] };
        Answer::garbled(kind, "s", &result, &UnspecifiedBehaviour::default(), "r")
    }

    #[test]
    fn answers_look_like_the_published_sample() {
        let default = UnspecifiedBehaviour::default();
        let attached = SwitchResult { succeeded: vec!["a".to_owned()], failed: vec![] };
        assert_eq!(
            Answer::success("s", &attached, &default, "r").body,
            r#"{"Response":{"SessionId":"","SuccessInstanceIds":["a"],"RequestId":"r"}}"#
        );

        let failed = SwitchResult { succeeded: vec![], failed: vec!["b".to_owned()] };
        assert_eq!(
            Answer::success("s", &failed, &default, "r").body,
            r#"{"Response":{"SessionId":"","FailureInstanceIds":["b"],"RequestId":"r"}}"#
        );

        let other = UnspecifiedBehaviour {
            omit_empty_failures: false,
            empty_session_echo: false,
            ..default
        };
        assert_eq!(
            Answer::success("s", &failed, &other, "r").body,
            r#"{"Response":{"SessionId":"s","SuccessInstanceIds":[],"FailureInstanceIds":["b"],"#
                .to_owned()
                + r#""RequestId":"r"}}"#
        );

        assert_eq!(
            Answer::error(&ApiError::new("FailedOperation", "No."), "r").body,
            r#"{"Response":{"Error":{"Code":"FailedOperation","Message":"No."},"RequestId":"r"}}"#
        );
    }

    #[test]
    fn what_is_no_json_does_not_parse() {
        for kind in [
            GarbledAnswer::Html502,
            GarbledAnswer::Html429,
            GarbledAnswer::Html200,
            GarbledAnswer::NotJson,
            GarbledAnswer::Empty,
            GarbledAnswer::Truncated,
        ] {
            assert!(serde_json::from_str::<Value>(&garbled(kind).body).is_err(), "{kind:?}");
        }
        assert_eq!(garbled(GarbledAnswer::Html502).status, 502);
    }

    #[test]
    fn what_is_json_has_its_one_fault() {
        let response =
            |kind| serde_json::from_str::<Value>(&garbled(kind).body).unwrap()["Response"].clone();
        let (successes, failures) = ("SuccessInstanceIds", "FailureInstanceIds");
        assert_eq!(response(GarbledAnswer::WithoutResponse), Value::Null);
        assert_eq!(response(GarbledAnswer::UnknownFields)[successes][0], "é");
        assert_eq!(response(GarbledAnswer::NullLists)["RequestId"], "r");
        let both = response(GarbledAnswer::IdInBothLists);
        assert_eq!(both[successes], both[failures]);
        assert_eq!(response(GarbledAnswer::UnaskedId)[successes].as_array().unwrap().len(), 2);
        assert_eq!(response(GarbledAnswer::NoIds).as_object().unwrap().len(), 2);
        assert!(garbled(GarbledAnswer::Oversized).body.len() > ANSWER_BYTES_MAX);
    }
}
