//! What goes wrong: the faults as people and tests write them. Pure data; `mischief` uses them up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::answer::Garbling;
use crate::dice::Probability;
use crate::wire::Operation;

/// The faults in force. A new value replaces all of an old one; the default is none.
///
/// Only correctly signed calls meet faults: a client that asks for the time without a signature is
/// not disturbed. Of several, a call meets the first of: lost request, late arrival, gateway,
/// throttle, error, lost answer, garbled answer. Counts are used up before chances are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// These ids fail to attach.
    pub fail_instances: BTreeSet<String>,
    /// Ids that fail by their pattern. The first rule that fits an id and the operation counts.
    pub refusing: Vec<Refusing>,
    /// So many calls are lost on their way here: the connection closes, nothing is applied or
    /// counted.
    pub drop_requests: u32,
    /// So many calls take a detour: the connection closes at once, the request arrives
    /// [`Self::late_arrival_ms`] later.
    pub late_arrivals: u32,
    /// How long a detour takes. The signature is judged at the late arrival.
    pub late_arrival_ms: u64,
    /// Something in front of the service answers in its place: nothing is applied or counted.
    pub gateways: Vec<AnswerFault>,
    /// So many calls answer `RequestLimitExceeded`, whatever the rate.
    pub throttle: u32,
    /// Whole-call errors, in this order. Nothing is applied.
    pub errors: Vec<ErrorFault>,
    /// The answers of so many calls are lost: the call is applied, then the connection closes.
    pub drop_answers: u32,
    /// Answers that are garbled, in this order: the call is applied.
    pub garbled_answers: Vec<AnswerFault>,
    /// The answers of so many calls come [`Self::drip_bytes`] at a time with pauses of
    /// [`Self::drip_pause_ms`].
    pub slow_answers: u32,
    /// 0 is 1.
    pub drip_bytes: usize,
    /// The pause before each piece of a slow answer.
    pub drip_pause_ms: u64,
    /// Every answer to a signed call leaves so much later than the call took effect; with
    /// [`Chances::delay`], some do.
    pub delay_ms: u64,
    /// The service's clock is so much further ahead than it started.
    pub clock_offset_seconds: i64,
    /// Faults by chance.
    pub chances: Chances,
    /// What the chances follow from. Setting the faults begins anew with it.
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
    pub gateways: BTreeMap<Garbling, Probability>,
    /// As [`Faults::throttle`].
    pub throttle: Probability,
    /// As [`Faults::errors`], by code.
    pub errors: BTreeMap<String, Probability>,
    /// As [`Faults::drop_answers`].
    pub drop_answer: Probability,
    /// As [`Faults::garbled_answers`].
    pub garbled_answers: BTreeMap<Garbling, Probability>,
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
    pub kind: Garbling,
    /// For how many calls.
    pub times: u32,
}

/// Ids that fail, each for a number of tries or for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refusing {
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

impl Refusing {
    pub(crate) fn fits(&self, operation: Operation, id: &str) -> bool {
        self.operation == operation && glob(self.pattern.as_bytes(), id.as_bytes())
    }
}

/// Byte by byte: ids are ASCII, and in others `?` is a byte.
fn glob(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // Where to go on if the last `*` must take one byte more.
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
        let json = r#"{"refusing":[{"pattern":"bad-*","tries":2,"operation":"Detach"}],"garbledAnswers":[{"kind":"html-502","times":1}],
                       "chances":{"errors":{"InternalError":0.5},"gateways":{"not-json":0.25}},"seed":7}"#;
        let faults: Faults = serde_json::from_str(json).unwrap();
        assert_eq!(faults.refusing[0].operation, Operation::Detach);
        assert_eq!(
            serde_json::from_value::<Faults>(serde_json::to_value(&faults).unwrap()).unwrap(),
            faults
        );
    }

    #[test]
    fn a_pattern_fits_the_whole_id() {
        for (pattern, fitting, other) in [
            ("a", "a", "ab"),
            ("bad-*", "bad-", "abad-1"),
            ("*-x", "a-x-x", "a-x-y"),
            ("a*b*c", "axbxbc", "acb"),
            ("p?", "p1", "p"),
            ("*", "", "never"),
        ] {
            assert!(glob(pattern.as_bytes(), fitting.as_bytes()), "{pattern} {fitting}");
            assert!(
                pattern == "*" || !glob(pattern.as_bytes(), other.as_bytes()),
                "{pattern} {other}"
            );
        }
    }
}
