//! The numbers that a reconcile goes by.

use std::time::Duration;

use crate::ledger::Rules;
use crate::ledger::due::Backoff;
use crate::reconcile::retry::RETRY_MAX;

/// The settings of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The numbers of the protocol.
    pub rules: Rules,
    /// A journal that is older than this is taken back, not sent: 5 s.
    pub journal_age_max_seconds: i64,
    /// How long a journal of someone else is left alone: the longest time that its writer may still
    /// be at work.
    pub foreign_journal_timeout: Duration,
    /// The first pause of the backoff.
    pub retry_base: Duration,
}

impl Settings {
    /// The backoff of an object with this seed: no pause is longer than five minutes, nor than any
    /// doubt takes.
    #[must_use]
    pub fn backoff(&self, seed: u64) -> Backoff {
        let max = RETRY_MAX.min(self.rules.validity.duration());
        Backoff { base: self.retry_base, max, seed }
    }
}
