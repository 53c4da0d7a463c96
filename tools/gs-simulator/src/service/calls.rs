//! The history: which calls arrived, and what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::request::Request;
use super::switch::{Operation, Switch, SwitchResult};
use super::tc3;

/// The oldest calls are forgotten beyond this many: a soak test must not fill the memory. [`Stats`]
/// count on.
const CALLS_MAX: usize = 100_000;

/// The moment at which a request arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// By the service's clock: signatures are checked against it.
    pub(crate) now: Timestamp,
    /// By a clock that nothing sets back: the rate is counted by it.
    pub(crate) since_start: Duration,
}

/// A `POST /` that the simulator saw. Fields are empty where the request did not say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// When it came, by the service's clock.
    #[serde(serialize_with = "rfc3339_with_milliseconds")]
    pub time: Timestamp,
    /// When it came, in milliseconds since the simulator's start by a clock that nothing sets back.
    pub arrival_ms: f64,
    /// The `SecretId` that it names, verified or not.
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

impl Call {
    pub(crate) fn new(
        request: &Request,
        at: Arrival,
        request_id: String,
        outcome: Outcome,
        result: SwitchResult,
    ) -> Self {
        // Parsed whatever the outcome: a refused call is worth reading in the history, too.
        let switch = request.parameters().and_then(|parameters| Switch::parse(&parameters)).ok();
        let (operation, session_id, instance_ids) = match switch {
            Some(switch) => (Some(switch.operation), Some(switch.session_id), switch.instance_ids),
            None => (None, None, Vec::new()),
        };
        Self {
            time: at.now,
            arrival_ms: at.since_start.as_secs_f64() * 1000.0,
            secret_id: tc3::claimed_secret_id(&request.headers).map(str::to_owned),
            action: request.header("x-tc-action").map(str::to_owned),
            region: request.header("x-tc-region").map(str::to_owned),
            operation,
            session_id,
            instance_ids,
            outcome,
            succeeded: result.succeeded,
            failed: result.failed,
            request_id,
        }
    }
}

/// What became of a call. As JSON and on the screen, a word.
#[derive(Clone, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Outcome {
    /// `applied`: carried out and answered. Single ids may have failed.
    Applied,
    /// `applied-unanswered`: carried out, and the answer was lost.
    AppliedUnanswered,
    /// `applied-garbled`: carried out, and answered with something unusable.
    AppliedGarbled,
    /// `refused:CODE`: answered with this error, nothing was changed.
    #[strum(to_string = "refused:{0}")]
    Refused(String),
    /// `dropped`: the request was lost, nothing was changed.
    Dropped,
    /// `gateway`: something in front of the service answered, nothing was changed.
    Gateway,
    /// `held`: the request is under way. Its arrival will be another entry with the same
    /// `RequestId`.
    Held,
    /// `late-applied`: a held call arrived and was carried out; nobody waits for the answer.
    LateApplied,
    /// `late-refused:CODE`: a held call arrived and was refused.
    #[strum(to_string = "late-refused:{0}")]
    LateRefused(String),
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
    /// Temporary keys that STS and the metadata service issued since the start.
    pub keys_issued: u64,
    /// The most arrivals of one known `SecretId` in any one second. Unsigned, dropped and held
    /// requests do not arrive.
    pub max_arrivals_in_one_second: usize,
    /// The same without the throttled: never above the quota, unless the rate window is fixed.
    pub max_accepted_in_one_second: usize,
    /// The same of each known `SecretId` that called; `issued` is all temporary keys that were
    /// issued.
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
