//! When what has failed may be tried again: a record waits for its own failures only.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::InstanceId;
use crate::ledger::record::{Failure, FailureReason, Record};
use crate::time::{ServiceTime, Validity};

/// How long to wait after failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// After the first one.
    pub base: Duration,
    /// After many.
    pub max: Duration,
    /// The object's own.
    pub seed: u64,
}

impl Backoff {
    /// `base` doubled with each failure in a row, at most `max`, less up to a quarter by the seed:
    /// a fleet that failed together does not come back together, and the instances of one object
    /// do.
    #[must_use]
    pub fn pause(self, failures: u32) -> Duration {
        let doubled = self
            .base
            .saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(self.max);
        let mixed = self
            .seed
            .wrapping_add(u64::from(failures))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(23);
        doubled.saturating_sub(doubled / 4 / 256 * u32::from(mixed.to_le_bytes()[0]))
    }

    /// Likewise, in whole seconds: the service's clock has no others. It is rounded up, and one
    /// more, since the failure may be of the end of its second.
    pub(super) fn seconds(self, failures: u32) -> i64 {
        match self.pause(failures).as_millis().div_ceil(1_000) {
            0 => 0,
            pause => pause.try_into().unwrap_or(i64::MAX).saturating_add(1),
        }
    }
}

/// What may be called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Due<'a> {
    /// Whether anything may: the object does not wait as a whole.
    pub open: bool,
    /// How long each record waits for its own failures.
    pub records: Backoff,
    /// How long a call may still take effect.
    pub validity: Validity,
    /// What kept an attach of these from success is gone, it seems.
    pub freed: &'a BTreeSet<InstanceId>,
}

const NOTHING: BTreeSet<InstanceId> = BTreeSet::new();

impl Due<'static> {
    /// Everything, at any time.
    pub const ALL: Self = Self {
        open: true,
        records: Backoff { base: Duration::ZERO, max: Duration::ZERO, seed: 0 },
        validity: Validity { signature_seconds: 300, margin_seconds: 5 },
        freed: &NOTHING,
    };
}

impl Due<'_> {
    /// When a record with this failure may be tried again, and from when on another one takes it
    /// along; none: at once. An edit is worth another try, and so is what was freed, and the end of a
    /// deadline; what nobody answered waits with the
    /// object; and a failure of the future is nobody's.
    pub(super) fn again(
        self,
        id: &InstanceId,
        record: &Record,
        failure: &Failure,
        generation: i64,
        now: Option<ServiceTime>,
    ) -> Option<(ServiceTime, ServiceTime)> {
        let is_its_own = matches!(failure.reason, FailureReason::Refused | FailureReason::Unclear);
        let now = now.filter(|now| *now >= failure.time)?;
        let pause = self.records.seconds(failure.attempts);
        let at = failure.time.plus(pause);
        // A refusal says more now: no opposite operation may arrive any more.
        let opposite = record.opposite(failure.operation);
        let says_more = opposite.is_some_and(|until| failure.time < until && until <= now);
        let is_worth_a_try =
            failure.generation != generation || self.freed.contains(id) || says_more;
        let waits = is_its_own && !is_worth_a_try;
        (waits && now < at).then(|| (at, failure.time.plus(pause - pause / 4)))
    }
}

/// Instances whose last call failed, with its time.
#[derive(Default)]
pub(super) struct Again<'a> {
    /// They may be tried.
    pub(super) due: Vec<(ServiceTime, &'a InstanceId)>,
    /// They go along if others are tried.
    pub(super) early: Vec<(ServiceTime, &'a InstanceId)>,
}

impl<'a> Again<'a> {
    /// Since when the first one waits, and all of them in their turn; nobody if none is due.
    pub(super) fn in_turn(mut self) -> (Option<ServiceTime>, Vec<&'a InstanceId>) {
        if self.due.is_empty() {
            return (None, Vec::new());
        }
        self.due.append(&mut self.early);
        self.due.sort_unstable();
        let since = self.due.first().map(|(time, _)| *time);
        (since, self.due.into_iter().map(|(_, id)| id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_and_ends_at_its_maximum() {
        let second = Duration::from_secs(1);
        let backoff = Backoff { base: second, max: second * 300, seed: 7 };
        let pauses: Vec<_> = (1..20).map(|failures| backoff.pause(failures)).collect();

        assert!(pauses[0] <= second && pauses[0] >= second * 3 / 4);
        assert!(pauses.iter().all(|pause| *pause <= second * 300));
        assert!(pauses[18] >= second * 300 * 3 / 4);
        let short = Backoff { base: Duration::from_millis(10), ..backoff };
        let none = Backoff { base: Duration::ZERO, ..backoff };
        assert_eq!((backoff.seconds(1), short.seconds(1), none.seconds(1)), (2, 2, 0));
    }
}
