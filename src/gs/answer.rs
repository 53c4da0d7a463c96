//! From an HTTP answer to what it says. Pure.
//!
//! What a code means stands in [`Verdict::of_code`]; here is decided what counts as an answer of
//! the service at all.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

use streamsession_core::answer::{Answer, NothingDone, Verdict};
use streamsession_core::ids::InstanceId;

use super::wire::{self, ErrorBody, Response};

/// Longest message kept, in characters: a whole sentence of the service, not a gateway's page.
const MESSAGE_LENGTH_MAX: usize = 512;
/// Longest code and request id kept, in characters (the service's own have about 50): both go into
/// the status.
const WORD_LENGTH_MAX: usize = 128;
/// How much of a page that nobody understands is shown, in characters.
const EXCERPT_LENGTH_MAX: usize = 160;

/// Our word for an answer that is not the service's: empty, truncated, HTML, or JSON without
/// `Response`.
pub const UNREADABLE: &str = "UnreadableAnswer";
/// Our word for an error of the service that has no code.
const NO_CODE: &str = "ErrorWithoutCode";

const OK: u16 = 200;
const TOO_MANY_REQUESTS: u16 = 429;

/// An answer, and whether the service itself gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What it says.
    pub answer: Answer,
    /// True if it has a `Response`: only then is its `Date` the service's.
    pub readable: bool,
}

/// Reads the answer to a call about `asked`.
#[must_use]
pub fn read(
    status: u16,
    body: &[u8],
    asked: &BTreeSet<InstanceId>,
    session_gone_codes: &[String],
) -> Read {
    // The service answers everything that it processed with 200, its own refusals too.
    if status != OK {
        return Read { answer: by_gateway(status, body), readable: false };
    }
    match wire::response(body) {
        Some(response) => {
            Read { answer: by_service(response, asked, session_gone_codes), readable: true }
        }
        None => Read { answer: unreadable(body), readable: false },
    }
}

/// An answer of our own making: for a call without an answer, or with one that is not the
/// service's.
#[must_use]
pub fn unanswered(code: &str, message: &str) -> Answer {
    Answer::unanswered(code, &bounded(message, MESSAGE_LENGTH_MAX))
}

/// A call of which not one byte was written.
#[must_use]
pub fn not_sent(code: &str, message: &str) -> Answer {
    Answer::not_sent(code, &bounded(message, MESSAGE_LENGTH_MAX))
}

fn by_service(
    response: Response,
    asked: &BTreeSet<InstanceId>,
    session_gone_codes: &[String],
) -> Answer {
    let request_id = bounded(&response.request_id, WORD_LENGTH_MAX);
    match response.error {
        Some(ErrorBody { code, message }) => Answer {
            verdict: Verdict::of_code(&code, session_gone_codes),
            code: if code.is_empty() { NO_CODE.into() } else { bounded(&code, WORD_LENGTH_MAX) },
            message: bounded(&message, MESSAGE_LENGTH_MAX),
            request_id,
        },
        None => Answer {
            verdict: Verdict::Processed {
                // Nobody knows what an id that was not asked for has to do with the call.
                succeeded: &response.success_instance_ids & asked,
                refused: &response.failure_instance_ids & asked,
            },
            code: String::new(),
            message: String::new(),
            request_id,
        },
    }
}

fn by_gateway(status: u16, body: &[u8]) -> Answer {
    let message = format!(
        "a gateway or proxy answered HTTP {status} in the service's place{}",
        excerpt(body)
    );
    let mut answer = unanswered(&format!("HTTP {status}"), &message);
    if status == TOO_MANY_REQUESTS {
        answer.verdict = Verdict::NothingDone(NothingDone::Throttled);
    }
    answer
}

fn unreadable(body: &[u8]) -> Answer {
    let message = format!(
        "the answer is not the service's: {} bytes without a JSON object \"Response\"{}",
        body.len(),
        excerpt(body)
    );
    unanswered(UNREADABLE, &message)
}

/// The beginning of a page, for the person who has to find out whose it is.
fn excerpt(body: &[u8]) -> String {
    // A character has at most four bytes.
    let start = body.get(..4 * EXCERPT_LENGTH_MAX).unwrap_or(body);
    let text = String::from_utf8_lossy(start);
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if words.is_empty() {
        String::new()
    } else {
        format!("; it begins: {}", bounded(&words, EXCERPT_LENGTH_MAX))
    }
}

fn bounded(text: &str, length_max: usize) -> String {
    text.chars().take(length_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamsession_core::answer::Outcome;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn ids(texts: &[&str]) -> BTreeSet<InstanceId> {
        texts.iter().map(|text| id(text)).collect()
    }

    fn answer_to(asked: &[&str], body: &str) -> Answer {
        let read = read(200, body.as_bytes(), &ids(asked), &[]);
        assert!(read.readable, "{body}");
        read.answer
    }

    fn error(code: &str) -> Answer {
        answer_to(
            &["a"],
            &format!(
                r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"m"}},"RequestId":"r-1"}}}}"#
            ),
        )
    }

    #[test]
    fn each_id_has_the_result_of_its_list() {
        let body = r#"{"Response":{"SuccessInstanceIds":["a","both"],
            "FailureInstanceIds":["b","both","foreign"],"RequestId":"r-1"}}"#;

        let answer = answer_to(&["a", "b", "both", "neither"], body);

        let outcomes = [
            ("a", Outcome::Done),
            ("b", Outcome::Refused),
            ("neither", Outcome::Unclear),
            ("both", Outcome::Unclear),
        ];
        for (name, outcome) in outcomes {
            assert_eq!(answer.outcome(&id(name), 4), outcome, "{name}");
        }
        assert_eq!((answer.code.as_str(), answer.request_id.as_str()), ("", "r-1"));
    }

    #[test]
    fn an_id_that_was_not_asked_for_says_nothing() {
        let answer = answer_to(
            &["a"],
            r#"{"Response":{"SuccessInstanceIds":["foreign"],"FailureInstanceIds":["other"]}}"#,
        );

        assert_eq!(
            answer.verdict,
            Verdict::Processed { succeeded: BTreeSet::new(), refused: BTreeSet::new() }
        );
        assert_eq!(answer.outcome(&id("a"), 1), Outcome::Unclear);
    }

    #[test]
    fn an_error_code_has_its_verdict_and_is_told_with_its_message_and_request_id() {
        use NothingDone::{Credentials, SignatureExpired, Throttled};
        let table = [
            ("RequestLimitExceeded", Verdict::NothingDone(Throttled)),
            ("RequestLimitExceeded.UinLimitExceeded", Verdict::NothingDone(Throttled)),
            ("FailedOperation.TooFrequently", Verdict::NothingDone(Throttled)),
            ("AuthFailure.SignatureExpire", Verdict::NothingDone(SignatureExpired)),
            ("UnauthorizedOperation", Verdict::NothingDone(Credentials)),
            ("ResourceNotFound.SessionNotFound", Verdict::SessionGone),
            ("InvalidParameterValue.SlaveInstanceIds", Verdict::Rejected),
            ("ResourceNotFound", Verdict::Rejected),
            ("ResourceNotFound.InstanceNotFound", Verdict::Rejected),
            ("InternalError", Verdict::Unanswered),
            ("ServiceUnavailable", Verdict::Unanswered),
            ("FailedOperation.Timeout", Verdict::Unanswered),
            ("FailedOperation", Verdict::Unclear),
            ("OperationDenied.Something", Verdict::Unclear),
            ("NeverSeenBefore", Verdict::Unclear),
        ];

        for (code, verdict) in table {
            let answer = error(code);
            assert_eq!(answer.verdict, verdict, "{code}");
            assert_eq!(
                (answer.code.as_str(), answer.message.as_str(), answer.request_id.as_str()),
                (code, "m", "r-1")
            );
        }
    }

    #[test]
    fn a_setting_adds_codes_of_a_gone_session() {
        let body = br#"{"Response":{"Error":{"Code":"FailedOperation.Gone","Message":""}}}"#;

        let read = read(200, body, &ids(&["a"]), &["FailedOperation.Gone".into()]);

        assert_eq!(read.answer.verdict, Verdict::SessionGone);
    }

    #[test]
    fn an_error_beside_success_lists_is_an_error() {
        let body =
            r#"{"Response":{"Error":{"Code":"FailedOperation"},"SuccessInstanceIds":["a"]}}"#;

        assert_eq!(answer_to(&["a"], body).verdict, Verdict::Unclear);
    }

    #[test]
    fn an_error_without_a_code_is_unclear() {
        for error in ["{}", "[]", r#""text""#, r#"{"Code":7}"#] {
            let answer = answer_to(&["a"], &format!(r#"{{"Response":{{"Error":{error}}}}}"#));

            assert_eq!(
                (answer.verdict, answer.code.as_str()),
                (Verdict::Unclear, "ErrorWithoutCode"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_the_service_did_not_say_is_no_answer() {
        let bodies = [
            "",
            "<html><h1>Hi</h1></html>",
            "{}",
            r#"{"Response":null}"#,
            r#"{"Response":{"SuccessInstanceIds":["a"]"#,
            "null",
            "\u{0}",
        ];
        for body in bodies {
            let read = read(200, body.as_bytes(), &ids(&["a"]), &[]);

            assert!(!read.readable, "{body}");
            assert_eq!(
                (read.answer.verdict, read.answer.code.as_str()),
                (Verdict::Unanswered, "UnreadableAnswer"),
                "{body}"
            );
        }
    }

    #[test]
    fn another_status_is_no_answer_even_with_a_response() {
        for status in [204, 302, 400, 404, 500, 502, 503, 504] {
            let read =
                read(status, br#"{"Response":{"SuccessInstanceIds":["a"]}}"#, &ids(&["a"]), &[]);

            assert!(!read.readable);
            assert_eq!(
                (read.answer.verdict, read.answer.code),
                (Verdict::Unanswered, format!("HTTP {status}"))
            );
        }
    }

    #[test]
    fn http_429_is_throttled() {
        let read = read(429, b"", &ids(&["a"]), &[]);

        assert!(!read.readable);
        assert_eq!(read.answer.verdict, Verdict::NothingDone(NothingDone::Throttled));
    }

    #[test]
    fn a_gateways_page_shows_its_beginning_on_one_line() {
        let page = format!("<html>\r\n\u{1b}[31m 502   Bad Gateway{}", "x".repeat(10_000));

        let message = read(502, page.as_bytes(), &ids(&["a"]), &[]).answer.message;

        assert!(message.starts_with(
            "a gateway or proxy answered HTTP 502 in the service's place; \
                 it begins: <html> [31m 502 Bad Gatewayxxx"
        ));
        assert!(message.len() < MESSAGE_LENGTH_MAX);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "名".repeat(1_000);
        let error = format!(r#"{{"Code":"{long}","Message":"{long}"}}"#);
        let body = format!(r#"{{"Response":{{"Error":{error},"RequestId":"{long}"}}}}"#);

        let answer = answer_to(&["a"], &body);

        assert_eq!(answer.message.chars().count(), 512);
        assert_eq!((answer.code.chars().count(), answer.request_id.chars().count()), (128, 128));
    }
}
