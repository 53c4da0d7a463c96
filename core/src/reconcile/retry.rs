//! When an object may be tried again. A record waits for its own failures only: its ledger knows
//! when the last one was. The object as a whole waits for what says nothing of any instance: the
//! network, the credentials, the quota. That lives in memory; a restart begins anew.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::answer::{Answer, NothingDone, Verdict};
use crate::ids::InstanceId;
use crate::ledger::due::{Backoff, Due};
use crate::time::Validity;

/// The longest pause between two tries: a person who repairs something waits this long at most.
pub const RETRY_MAX: Duration = Duration::from_mins(5);
/// The longest pause while credentials are missing or refused: a Secret's rotation takes effect
/// within a minute, without a watch on Secrets.
pub const CREDENTIALS_RETRY_MAX: Duration = Duration::from_mins(1);

/// The backoff of one object. Times are monotonic, since the start of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    backoff: Backoff,
    failures: u32,
    opens: Duration,
}

impl Retry {
    /// A clean slate.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, opens: Duration::ZERO }
    }

    /// An edit, or anything else that may have repaired it: everything may be tried at once.
    pub fn reset(&mut self) {
        (self.failures, self.opens) = (0, Duration::ZERO);
    }

    /// Whether a call may be made at all.
    #[must_use]
    pub fn is_open(&self, now: Duration) -> bool {
        self.opens <= now
    }

    /// What may be called now.
    #[must_use]
    pub fn due<'a>(
        &self,
        now: Duration,
        validity: Validity,
        freed: &'a BTreeSet<InstanceId>,
    ) -> Due<'a> {
        Due { open: self.is_open(now), records: self.backoff, validity, freed }
    }

    /// Takes note of an answer.
    pub fn answered(&mut self, answer: &Answer, now: Duration) {
        match answer.verdict {
            Verdict::Processed { .. } => self.reset(),
            // Whom it concerns waits by itself; its neighbours need not.
            Verdict::Rejected | Verdict::Unclear | Verdict::NothingDone(NothingDone::TooLarge) => {}
            Verdict::NothingDone(NothingDone::Credentials) => self.credentials_failed(now),
            Verdict::NothingDone(_) | Verdict::SessionGone | Verdict::Unanswered => {
                self.failed(now);
            }
        }
    }

    /// Nobody is reached, or nobody can say whose fault it is.
    pub fn failed(&mut self, now: Duration) {
        self.close(self.backoff, now);
    }

    /// There are no credentials, or they were refused.
    pub fn credentials_failed(&mut self, now: Duration) {
        let max = self.backoff.max.min(CREDENTIALS_RETRY_MAX);
        self.close(Backoff { max, ..self.backoff }, now);
    }

    fn close(&mut self, backoff: Backoff, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.opens = now.saturating_add(backoff.pause(self.failures));
    }

    /// The pause after so many failures in a row that are not of a call.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        self.backoff.pause(failures)
    }

    /// How long until a call may be made at all.
    #[must_use]
    pub fn opens_in(&self, now: Duration) -> Duration {
        self.opens.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{answer, processed};

    const SECOND: Duration = Duration::from_secs(1);

    fn clean() -> Retry {
        Retry::new(Backoff { base: SECOND, max: RETRY_MAX, seed: 1 })
    }

    #[test]
    fn an_answer_that_says_something_of_instances_holds_back_nobody_else() {
        let mut retry = clean();
        retry.failed(Duration::ZERO);
        let waits = retry.clone();
        for verdict in
            [Verdict::Rejected, Verdict::Unclear, Verdict::NothingDone(NothingDone::TooLarge)]
        {
            let mut new = clean();
            new.answered(&answer(verdict.clone()), Duration::ZERO);
            assert_eq!(new, clean());
            retry.answered(&answer(verdict), Duration::ZERO);
            assert_eq!(retry, waits, "it ends no pause either");
        }
        retry.answered(&answer(processed(&[], &["a"])), Duration::ZERO);
        assert_eq!(retry, clean());
    }

    #[test]
    fn an_edit_opens_everything_at_once() {
        let mut retry = clean();
        retry.answered(&Answer::unanswered("", ""), Duration::ZERO);
        assert!(!retry.is_open(Duration::ZERO));

        retry.reset();

        assert_eq!(retry, clean());
        assert!(retry.is_open(Duration::ZERO));
    }

    #[test]
    fn credentials_are_looked_at_again_within_a_minute_and_all_else_within_five() {
        let pause = |verdict: Verdict| {
            let mut retry = clean();
            for _ in 0..20 {
                retry.answered(&answer(verdict.clone()), Duration::ZERO);
            }
            retry.opens_in(Duration::ZERO)
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
            Verdict::Unanswered,
        ] {
            let pause = pause(verdict.clone());
            assert!(pause <= RETRY_MAX && pause >= RETRY_MAX * 3 / 4, "{verdict:?}: {pause:?}");
        }
    }

    #[test]
    fn what_is_held_back_says_when_it_opens() {
        let mut retry = clean();
        assert_eq!(retry.opens_in(Duration::ZERO), Duration::ZERO);
        retry.failed(Duration::ZERO);
        let opens = retry.opens_in(Duration::ZERO);
        assert_eq!(opens, retry.pause(1));
        assert!(opens <= SECOND && opens >= SECOND * 3 / 4, "{opens:?}");
        assert_eq!(retry.opens_in(opens / 2), opens.saturating_sub(opens / 2));
        assert!(retry.is_open(opens) && !retry.is_open(opens / 2));
    }
}
