//! The history: what came, and what became of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::wire::Operation;

/// The oldest calls are forgotten beyond this many: a soak test must not fill the memory. [`Stats`]
/// count on.
const CALLS_MAX: usize = 100_000;

/// A `POST /` that the simulator saw. Fields are empty where the request did not say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// When it came, by the service's clock.
    #[serde(serialize_with = "rfc3339_with_milliseconds")]
    pub time: Timestamp,
    /// When it came, in milliseconds since the simulator's start by a clock that nothing sets back.
    pub arrival_ms: f64,
    /// The `SecretId` that it names, true or not.
    pub secret_id: Option<String>,
    /// `X-TC-Action`.
    pub action: Option<String>,
    /// `X-TC-Region`.
    pub region: Option<String>,
    /// Attach or detach, if the parameters were well-formed.
    pub operation: Option<Operation>,
    /// The session, if the parameters were well-formed.
    pub session_id: Option<String>,
    /// The ids of the request, in its order.
    pub instance_ids: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The ids that the answer lists as successes, whether the client got it or not.
    pub succeeded: Vec<String>,
    /// The ids that the answer lists as failures, whether the client got it or not.
    pub failed: Vec<String>,
    /// The answer's `RequestId`. A late arrival has that of the held call.
    pub request_id: String,
}

/// What became of a call. As JSON, a word (see [`fmt::Display`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `applied`: carried out and answered. Single ids may have failed.
    Applied,
    /// `applied-unanswered`: carried out, and the answer was lost.
    AppliedUnanswered,
    /// `applied-garbled`: carried out, and answered with something unusable.
    AppliedGarbled,
    /// `refused:CODE`: answered with this error, nothing was changed.
    Refused(String),
    /// `dropped`: lost on its way here, nothing was changed.
    Dropped,
    /// `gateway`: something on its way here answered, nothing was changed.
    Gateway,
    /// `held`: on a detour. Its arrival will be another entry with the same `RequestId`.
    Held,
    /// `late-applied`: a held call arrived and was carried out; nobody waits for the answer.
    LateApplied,
    /// `late-refused:CODE`: a held call arrived in vain.
    LateRefused(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::AppliedUnanswered => f.write_str("applied-unanswered"),
            Self::AppliedGarbled => f.write_str("applied-garbled"),
            Self::Refused(code) => write!(f, "refused:{code}"),
            Self::Dropped => f.write_str("dropped"),
            Self::Gateway => f.write_str("gateway"),
            Self::Held => f.write_str("held"),
            Self::LateApplied => f.write_str("late-applied"),
            Self::LateRefused(code) => write!(f, "late-refused:{code}"),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn rfc3339_with_milliseconds<S: Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

/// Counts since the start, or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Entries in the history, forgotten ones included.
    pub calls: u64,
    /// Calls that were refused for the rate.
    pub throttled: u64,
    /// Temporary keys that were given out, by STS and the metadata service, since the start.
    pub keys_issued: u64,
    /// The most arrivals of one known `SecretId` in any one second. Unsigned, dropped and held
    /// requests do not arrive.
    pub max_arrivals_in_one_second: usize,
    /// The same without the throttled: never above the quota, unless the rate window is fixed.
    pub max_accepted_in_one_second: usize,
    /// The same of each known `SecretId` that called; `issued` is all temporary keys that were
    /// given out.
    pub by_key: BTreeMap<String, KeyStats>,
}

/// Counts of one `SecretId`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyStats {
    /// Calls that arrived, throttled ones included.
    pub arrivals: u64,
    /// Calls that were refused for the rate.
    pub throttled: u64,
    /// The most arrivals in any one second.
    pub max_arrivals_in_one_second: usize,
    /// The same without the throttled.
    pub max_accepted_in_one_second: usize,
}

/// The newest calls, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    newest: VecDeque<Call>,
    count: u64,
}

impl History {
    pub(crate) fn add(&mut self, call: Call) {
        if self.newest.len() == CALLS_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(call);
        self.count += 1;
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Call> {
        self.newest.iter()
    }

    pub(crate) fn last(&self) -> Option<&Call> {
        self.newest.back()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
