//! The values of flags: what each takes, and what it says of what it refuses.

use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, value_parser};
use streamsession_core::answer::Verdict;

use crate::gs::Endpoint;

/// Stands for every namespace.
pub(super) const ALL_NAMESPACES: &str = "*";

/// The one code that the page of the action lists: any failure may have it (docs/tencent.md).
const FAILED_OPERATION: &str = "FailedOperation";

/// Whole seconds from `min` to `max`.
pub(crate) fn seconds(min: u64, max: u64) -> impl TypedValueParser<Value = Duration> {
    value_parser!(u64).range(min..=max).map(Duration::from_secs)
}

/// Never, or from half a minute to a day.
pub(super) fn resync_interval(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ (0 | 30..=86_400)) => Ok(Duration::from_secs(seconds)),
        _ => Err("it takes 0 (never), or 30 to 86400 seconds".to_owned()),
    }
}

/// The name of a namespace, or the star. An empty text names none: so many tools unset a variable.
pub(super) fn namespace_or_all(text: &str) -> Result<String, String> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text == ALL_NAMESPACES || text.bytes().all(is_letter) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "no namespace has such a name; name one, or {ALL_NAMESPACES} for all; \
             a comma, without a space, separates two"
        ))
    }
}

/// A code that may say that the session is gone. A wrong one would empty ledgers, so that nobody
/// remembers the phones: none is taken that the service gives for other reasons too.
pub(super) fn session_gone_code(code: &str) -> Result<String, String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_letter);
    if code.is_empty() {
        return Err("it is empty, and no answer has such a code; leave it out".to_owned());
    }
    if !code.split('.').all(is_part) {
        return Err("an error code has only letters, digits and dots between them (or _); \
                    a comma, without a space, separates two codes"
            .to_owned());
    }
    let verdict = Verdict::of_code(code, &[]);
    let is_specific =
        code.contains('.') || (verdict == Verdict::Unclear && code != FAILED_OPERATION);
    match verdict {
        Verdict::NothingDone(_) | Verdict::Unanswered => {
            let meaning = <&str>::from(verdict.result());
            Err(format!("it has another meaning already ({meaning}); leave it out"))
        }
        _ if is_specific => Ok(code.to_owned()),
        _ => Err(format!(
            "the service answers it to failures of many kinds; \
             give the whole code, such as {code}.SessionClosed"
        )),
    }
}

/// Reads an endpoint. clap's own message would repeat the text, which may hold a password.
#[derive(Clone)]
pub(crate) struct EndpointParser {
    /// Plain HTTP is taken for any host.
    pub(crate) insecure: bool,
}

impl TypedValueParser for EndpointParser {
    type Value = Endpoint;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Endpoint, clap::Error> {
        Endpoint::parse_with(&value.to_string_lossy(), self.insecure).map_err(|error| {
            let flag = argument.map(Arg::to_string).unwrap_or_default();
            clap::Error::raw(ErrorKind::ValueValidation, format!("{flag}: {error}\n"))
                .with_cmd(command)
        })
    }
}
