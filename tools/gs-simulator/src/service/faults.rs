//! The faults, as people and tests write them. `fault_injector` uses them up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rng::Probability;
use super::switch::Operation;

/// The faults in force. A new value replaces all of an old one; the default is none.
///
/// Only correctly signed calls meet faults: a client may ask for the time without a signature, and
/// must get it. Of several, a call meets the first of: lost request, late arrival, gateway,
/// throttle, error, lost answer, garbled answer. Counts are used up before chances are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// These ids fail to attach.
    pub fail_instances: BTreeSet<String>,
    /// Ids that fail by their pattern. The first entry that matches an id and the operation counts.
    pub instance_faults: Vec<InstanceFault>,
    /// So many requests are lost: the connection closes, nothing is applied or counted.
    pub drop_requests: u32,
    /// So many requests arrive late: the connection closes at once, the request arrives
    /// [`Self::late_arrival_ms`] after it.
    pub late_arrivals: u32,
    /// How much later. The signature is verified at the late arrival.
    pub late_arrival_ms: u64,
    /// Something in front of the service answers in its place: nothing is applied or counted.
    pub gateways: Vec<AnswerFault>,
    /// So many calls answer `RequestLimitExceeded`, whatever the rate.
    pub throttle: u32,
    /// Whole-call errors, in this order. Nothing is applied.
    pub errors: Vec<ErrorFault>,
    /// The answers of so many calls are lost: the call is applied, then the connection closes.
    pub drop_answers: u32,
    /// Unusable answers, in this order: the call is applied.
    pub garbled_answers: Vec<AnswerFault>,
    /// The answers of so many calls come [`Self::slow_answer_bytes`] at a time with pauses of
    /// [`Self::slow_answer_pause_ms`].
    pub slow_answers: u32,
    /// How many bytes a slow answer sends at a time. 0 is 1.
    pub slow_answer_bytes: usize,
    /// The pause before each piece of a slow answer.
    pub slow_answer_pause_ms: u64,
    /// Every answer to a signed call leaves so much later than the call took effect; with
    /// [`Chances::delay`], some do.
    pub delay_ms: u64,
    /// The service's clock is so much further ahead than it started.
    pub clock_offset_seconds: i64,
    /// Faults at random.
    pub chances: Chances,
    /// The seed of the random faults. Setting the faults begins anew with it.
    pub seed: u64,
}

/// How likely each fault is for a call that meets none by count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Chances {
    /// As [`Faults::drop_requests`].
    pub drop_request: Probability,
    /// As [`Faults::late_arrivals`].
    pub late_arrival: Probability,
    /// As [`Faults::gateways`].
    pub gateways: BTreeMap<GarbledAnswer, Probability>,
    /// As [`Faults::throttle`].
    pub throttle: Probability,
    /// As [`Faults::errors`], by code.
    pub errors: BTreeMap<String, Probability>,
    /// As [`Faults::drop_answers`].
    pub drop_answer: Probability,
    /// As [`Faults::garbled_answers`].
    pub garbled_answers: BTreeMap<GarbledAnswer, Probability>,
    /// As [`Faults::slow_answers`].
    pub slow_answer: Probability,
    /// Above 0: [`Faults::delay_ms`] is for so many answers only.
    pub delay: Probability,
}

/// An error code for the next calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorFault {
    /// For example `InternalError`.
    pub code: String,
    /// For how many calls.
    pub times: u32,
}

/// An unusable answer for the next calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnswerFault {
    /// What is wrong with it.
    pub kind: GarbledAnswer,
    /// For how many calls.
    pub times: u32,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GarbledAnswer {
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

/// Ids that fail by their pattern, each for a number of tries or for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceFault {
    /// The id; `*` stands for any characters, `?` for one.
    pub pattern: String,
    /// How often each such id fails before it succeeds. None: for ever.
    #[serde(default)]
    pub tries: Option<u32>,
    /// Attaching, unless it says otherwise.
    #[serde(default = "attach")]
    pub operation: Operation,
}

fn attach() -> Operation {
    Operation::Attach
}

impl InstanceFault {
    pub(crate) fn matches(&self, operation: Operation, id: &str) -> bool {
        self.operation == operation && glob(self.pattern.as_bytes(), id.as_bytes())
    }
}

/// Byte by byte: ids are ASCII, and in others `?` is a byte.
fn glob(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // Where to resume if the last `*` must take one byte more.
    let mut retry = None;
    loop {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, text));
                pattern = rest;
                continue;
            }
            ([], []) => return true,
            ([wanted, rest @ ..], [found, tail @ ..]) if *wanted == b'?' || wanted == found => {
                (pattern, text) = (rest, tail);
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after_star, [_, tail @ ..])) => {
                retry = Some((after_star, tail));
                (pattern, text) = (after_star, tail);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_json_may_be_left_out_and_none_misspelt() {
        assert_eq!(serde_json::from_str::<Faults>("{}").unwrap(), Faults::default());
        assert_eq!(
            serde_json::from_str::<Faults>(r#"{"dropAnswers":2}"#).unwrap(),
            Faults { drop_answers: 2, ..Faults::default() }
        );
        assert!(serde_json::from_str::<Faults>(r#"{"dropAnswer":2}"#).is_err());
        assert!(serde_json::from_str::<Faults>(r#"{"chances":{"dropAnswers":0.5}}"#).is_err());
    }

    #[test]
    fn the_json_of_every_fault_reads_back() {
        let json = r#"{"instanceFaults":[{"pattern":"bad-*","tries":2,"operation":"Detach"}],
                       "garbledAnswers":[{"kind":"html-502","times":1}],
                       "chances":{"errors":{"InternalError":0.5},"gateways":{"not-json":0.25}},
                       "seed":7}"#;
        let faults: Faults = serde_json::from_str(json).unwrap();
        assert_eq!(faults.instance_faults[0].operation, Operation::Detach);
        assert_eq!(
            serde_json::from_value::<Faults>(serde_json::to_value(&faults).unwrap()).unwrap(),
            faults
        );
    }

    #[test]
    fn a_pattern_matches_the_whole_id() {
        for (pattern, matching, other) in [
            ("a", "a", "ab"),
            ("bad-*", "bad-", "abad-1"),
            ("*-x", "a-x-x", "a-x-y"),
            ("a*b*c", "axbxbc", "acb"),
            ("p?", "p1", "p"),
            ("*", "", "never"),
        ] {
            assert!(glob(pattern.as_bytes(), matching.as_bytes()), "{pattern} {matching}");
            assert!(
                pattern == "*" || !glob(pattern.as_bytes(), other.as_bytes()),
                "{pattern} {other}"
            );
        }
    }
}
