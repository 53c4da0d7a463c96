//! When an object may be tried again: its own backoff, by class of error, reset by a success or an
//! edit. It lives in memory; a restart begins anew.

use std::time::Duration;

use crate::answer::{Answer, NothingDone, Verdict};
use crate::ledger::plan::{Due, Held};

/// The longest pause between two tries: a person who repairs something waits this long at most.
pub const RETRY_MAX: Duration = Duration::from_mins(5);
/// The longest pause while credentials are missing or refused: a Secret's rotation takes effect
/// within a minute, without a watch on Secrets.
pub const CREDENTIALS_RETRY_MAX: Duration = Duration::from_mins(1);

/// The backoff of one object. Times are monotonic, since the start of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    base: Duration,
    seed: u64,
    whole: Gate,
    instances: Gate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Gate {
    failures: u32,
    opens: Duration,
}

impl Gate {
    fn close(&mut self, base: Duration, max: Duration, seed: u64, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.opens = now.saturating_add(pause(self.failures, base, max, seed));
    }
}

/// `base` doubled with each failure in a row, at most `max`, less up to a quarter by the seed: a
/// fleet that failed together does not come back together.
fn pause(failures: u32, base: Duration, max: Duration, seed: u64) -> Duration {
    let doubled = base
        .saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(max);
    let mixed =
        seed.wrapping_add(u64::from(failures)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    doubled.saturating_sub(doubled / 4 / 256 * u32::from(mixed.to_le_bytes()[0]))
}

impl Retry {
    /// A clean slate; `seed` is the object's own.
    #[must_use]
    pub fn new(base: Duration, seed: u64) -> Self {
        Self { base, seed, whole: Gate::default(), instances: Gate::default() }
    }

    /// An edit, or anything else that may have repaired it: everything may be tried at once.
    pub fn reset(&mut self) {
        self.whole = Gate::default();
        self.instances = Gate::default();
    }

    /// What may be called now.
    #[must_use]
    pub fn due(&self, now: Duration) -> Due {
        Due {
            fresh: self.whole.opens <= now,
            failed: self.whole.opens <= now && self.instances.opens <= now,
        }
    }

    /// How long until what is held back may be tried.
    #[must_use]
    pub fn opens_in(&self, held: Held, now: Duration) -> Option<Duration> {
        let fresh = held.fresh.then_some(self.whole.opens);
        let failed = held.failed.then_some(self.whole.opens.max(self.instances.opens));
        fresh.into_iter().chain(failed).min().map(|opens| opens.saturating_sub(now))
    }

    /// Takes note of an answer. `failing`: whether the ledger still has instances whose last call
    /// failed.
    pub fn answered(&mut self, answer: &Answer, call_failed: bool, failing: bool, now: Duration) {
        match answer.verdict {
            Verdict::Processed { .. } => {
                self.whole = Gate::default();
                if call_failed {
                    self.instances.close(self.base, RETRY_MAX, self.seed, now);
                } else if !failing {
                    self.instances = Gate::default();
                }
            }
            Verdict::NothingDone(NothingDone::Credentials) => self.credentials_failed(now),
            // One id may be the cause: its neighbours that were not tried yet need not wait for it,
            // and half as many of them may be called at once.
            Verdict::Rejected | Verdict::NothingDone(NothingDone::TooLarge) => {
                self.instances.close(self.base, RETRY_MAX, self.seed, now);
            }
            Verdict::NothingDone(_)
            | Verdict::SessionGone
            | Verdict::Unclear
            | Verdict::Unanswered => self.failed(now),
        }
    }

    /// Instances were found that the service does not take: they are tried again after one pause,
    /// however many they are.
    pub fn instances_failed(&mut self, now: Duration) {
        self.whole = Gate::default();
        self.instances.close(self.base, RETRY_MAX, self.seed, now);
    }

    /// The service, or the API server, could not be reached.
    pub fn failed(&mut self, now: Duration) {
        self.whole.close(self.base, RETRY_MAX, self.seed, now);
    }

    /// There are no credentials, or they were refused.
    pub fn credentials_failed(&mut self, now: Duration) {
        self.whole.close(self.base, CREDENTIALS_RETRY_MAX, self.seed, now);
    }

    /// The pause after so many failures in a row of the API server.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        pause(failures, self.base, RETRY_MAX, self.seed)
    }

    /// How long until a call may be made at all.
    #[must_use]
    pub fn whole_opens_in(&self, now: Duration) -> Duration {
        self.whole.opens.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{answer, processed};

    #[test]
    fn a_pause_doubles_and_ends_at_its_maximum() {
        let second = Duration::from_secs(1);
        let pauses: Vec<_> =
            (1..20).map(|failures| pause(failures, second, RETRY_MAX, 7)).collect();

        assert!(pauses[0] <= second && pauses[0] >= second * 3 / 4);
        assert!(pauses.iter().all(|pause| *pause <= RETRY_MAX));
        assert!(pauses[18] >= RETRY_MAX * 3 / 4);
    }

    #[test]
    fn a_refused_instance_does_not_hold_back_the_others() {
        let mut retry = Retry::new(Duration::from_secs(1), 1);
        retry.answered(&answer(processed(&[], &[])), true, true, Duration::ZERO);

        assert_eq!(retry.due(Duration::ZERO), Due { fresh: true, failed: false });
        assert_eq!(retry.due(Duration::from_secs(1)), Due::ALL);
    }

    #[test]
    fn an_edit_opens_everything_at_once() {
        let mut retry = Retry::new(Duration::from_secs(1), 1);
        retry.answered(&Answer::unanswered("", ""), true, true, Duration::ZERO);
        assert_eq!(retry.due(Duration::ZERO), Due { fresh: false, failed: false });

        retry.reset();

        assert_eq!(retry.due(Duration::ZERO), Due::ALL);
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_success_opens_what_failed_once_nothing_is_failing_any_more() {
        let mut retry = Retry::new(SECOND, 1);
        retry.answered(&answer(processed(&[], &[])), true, true, Duration::ZERO);
        retry.answered(&answer(processed(&[], &[])), false, true, Duration::ZERO);
        assert!(!retry.due(Duration::ZERO).failed, "another one failed before, and waits");
        retry.answered(&answer(processed(&[], &[])), false, false, Duration::ZERO);
        assert_eq!(retry.due(Duration::ZERO), Due::ALL);
    }

    #[test]
    fn one_that_is_found_to_fail_waits_and_its_neighbours_do_not() {
        for verdict in [Verdict::Rejected, Verdict::NothingDone(NothingDone::TooLarge)] {
            let mut retry = Retry::new(SECOND, 1);
            retry.answered(&answer(verdict), true, true, Duration::ZERO);
            assert_eq!(retry.due(Duration::ZERO), Due { fresh: true, failed: false });
        }
        let mut retry = Retry::new(SECOND, 1);
        retry.failed(Duration::ZERO);
        retry.instances_failed(Duration::ZERO);
        assert_eq!(retry.due(Duration::ZERO), Due { fresh: true, failed: false });
    }

    #[test]
    fn credentials_are_looked_at_again_within_a_minute_and_all_else_within_five() {
        let pause = |verdict: Verdict| {
            let mut retry = Retry::new(SECOND, 1);
            for _ in 0..20 {
                retry.answered(&answer(verdict.clone()), true, true, Duration::ZERO);
            }
            retry.whole_opens_in(Duration::ZERO)
        };
        let refused = pause(Verdict::NothingDone(NothingDone::Credentials));
        assert!(
            refused <= CREDENTIALS_RETRY_MAX && refused >= CREDENTIALS_RETRY_MAX * 3 / 4,
            "{refused:?}"
        );
        for verdict in [
            Verdict::NothingDone(NothingDone::Throttled),
            Verdict::NothingDone(NothingDone::ActionUnavailable),
            Verdict::SessionGone,
            Verdict::Unclear,
            Verdict::Unanswered,
        ] {
            let pause = pause(verdict.clone());
            assert!(pause <= RETRY_MAX && pause >= RETRY_MAX * 3 / 4, "{verdict:?}: {pause:?}");
        }
    }

    #[test]
    fn what_is_held_back_says_when_it_opens() {
        let mut retry = Retry::new(SECOND, 1);
        retry.answered(&answer(processed(&[], &[])), true, true, Duration::ZERO);
        let failed = Held { fresh: false, failed: true };
        let fresh = Held { fresh: true, failed: false };
        let opens = retry.opens_in(failed, Duration::ZERO).unwrap();
        assert!(opens <= SECOND && opens >= SECOND * 3 / 4, "{opens:?}");
        assert_eq!(retry.opens_in(failed, opens / 2), Some(opens.saturating_sub(opens / 2)));
        assert_eq!(retry.opens_in(fresh, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(
            retry.opens_in(Held { fresh: true, failed: true }, Duration::ZERO),
            Some(Duration::ZERO)
        );
        assert_eq!(retry.opens_in(Held::default(), Duration::ZERO), None);
        assert_eq!(retry.whole_opens_in(Duration::ZERO), Duration::ZERO);

        retry.failed(opens);
        assert!(
            retry.opens_in(failed, Duration::ZERO).unwrap() > opens,
            "what failed waits for both"
        );
        assert_eq!(
            retry.whole_opens_in(Duration::ZERO),
            retry.opens_in(fresh, Duration::ZERO).unwrap()
        );
    }
}
