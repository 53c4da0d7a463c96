//! The quota: so many calls of one key in a second, counted by arrival. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::calls::{KeyStats, Stats};

const ONE_SECOND: Duration = Duration::from_secs(1);

/// Which second is counted. Tencent does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RateWindow {
    /// Any: the one that ends with the call.
    #[default]
    Sliding,
    /// Each full second since the simulator's start: around its ends, twice the quota fits into one
    /// second.
    Fixed,
}

/// The rate of each key. The caller lets in known keys only, so that strangers can't fill the
/// memory.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: usize,
    window: RateWindow,
    keys: BTreeMap<String, Arrivals>,
}

impl Quota {
    pub(crate) fn new(calls_per_second: u32, window: RateWindow) -> Self {
        Self {
            limit: usize::try_from(calls_per_second).unwrap_or(usize::MAX),
            window,
            keys: BTreeMap::new(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts an arrival at `at` (since any fixed moment, never before an earlier one).
    pub(crate) fn arrive(&mut self, secret_id: &str, at: Duration) -> Result<(), OverLimit> {
        let Self { limit, window, keys } = self;
        match keys.get_mut(secret_id) {
            Some(arrivals) => arrivals.arrive(at, *limit, *window),
            None => keys.entry(secret_id.to_owned()).or_default().arrive(at, *limit, *window),
        }
    }

    /// A call that was refused for the rate without being above it.
    pub(crate) fn throttle(&mut self, secret_id: &str) {
        self.keys.entry(secret_id.to_owned()).or_default().stats.throttled += 1;
    }

    pub(crate) fn forget(&mut self) {
        self.keys.clear();
    }

    /// `calls` and `keys_issued` are counted elsewhere.
    pub(crate) fn stats(&self) -> Stats {
        let by_key: BTreeMap<_, _> = self
            .keys
            .iter()
            .map(|(secret_id, arrivals)| (secret_id.clone(), arrivals.stats))
            .collect();
        Stats {
            throttled: by_key.values().map(|stats| stats.throttled).sum(),
            max_arrivals_in_one_second: by_key
                .values()
                .map(|stats| stats.max_arrivals_in_one_second)
                .max()
                .unwrap_or(0),
            max_accepted_in_one_second: by_key
                .values()
                .map(|stats| stats.max_accepted_in_one_second)
                .max()
                .unwrap_or(0),
            by_key,
            ..Stats::default()
        }
    }
}

/// The arrivals of one `SecretId` within the last second.
///
/// A call over the quota takes no place in it: a client that hammers still gets its 20 calls a
/// second through. Memory is bounded by what one machine can send in a second.
#[derive(Debug, Default)]
struct Arrivals {
    arrived: VecDeque<Duration>,
    accepted: VecDeque<Duration>,
    stats: KeyStats,
}

/// The call is one too many.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// Arrivals within the second that was counted, this one included.
    pub(crate) arrived: usize,
}

impl Arrivals {
    fn arrive(&mut self, at: Duration, limit: usize, window: RateWindow) -> Result<(), OverLimit> {
        forget_before(&mut self.arrived, at);
        forget_before(&mut self.accepted, at);
        self.arrived.push_back(at);
        self.stats.arrivals += 1;
        // By the sliding window, whichever counts: this is what a client's limiter promises.
        self.stats.max_arrivals_in_one_second =
            self.stats.max_arrivals_in_one_second.max(self.arrived.len());
        let counted = |times: &VecDeque<Duration>| match window {
            RateWindow::Sliding => times.len(),
            RateWindow::Fixed => times.iter().filter(|time| time.as_secs() == at.as_secs()).count(),
        };
        if counted(&self.accepted) >= limit {
            self.stats.throttled += 1;
            return Err(OverLimit { arrived: counted(&self.arrived) });
        }
        self.accepted.push_back(at);
        self.stats.max_accepted_in_one_second =
            self.stats.max_accepted_in_one_second.max(self.accepted.len());
        Ok(())
    }
}

/// The second is half open: an arrival exactly one second ago is out.
fn forget_before(arrivals: &mut VecDeque<Duration>, now: Duration) {
    while arrivals.front().is_some_and(|&first| first + ONE_SECOND <= now) {
        arrivals.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_call_after_the_last_allowed_one_is_over_the_limit() {
        let mut arrivals = Arrivals::default();
        for _ in 0..20 {
            assert_eq!(arrivals.arrive(ms(5), 20, RateWindow::Sliding), Ok(()));
        }
        assert_eq!(arrivals.arrive(ms(5), 20, RateWindow::Sliding), Err(OverLimit { arrived: 21 }));
    }

    #[test]
    fn the_second_slides_with_every_arrival() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.arrive(ms(0), 2, RateWindow::Sliding), Ok(()));
        assert_eq!(arrivals.arrive(ms(900), 2, RateWindow::Sliding), Ok(()));

        assert_eq!(arrivals.arrive(ms(999), 2, RateWindow::Sliding), Err(OverLimit { arrived: 3 }));
        assert_eq!(arrivals.arrive(ms(1000), 2, RateWindow::Sliding), Ok(()));
        assert_eq!(
            arrivals.arrive(ms(1001), 2, RateWindow::Sliding),
            Err(OverLimit { arrived: 4 })
        );
        assert_eq!(arrivals.arrive(ms(1900), 2, RateWindow::Sliding), Ok(()));
    }

    #[test]
    fn refused_calls_do_not_hold_the_quota() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.arrive(ms(0), 1, RateWindow::Sliding), Ok(()));
        for at in 1..1000 {
            assert!(arrivals.arrive(ms(at), 1, RateWindow::Sliding).is_err());
        }
        assert_eq!(arrivals.arrive(ms(1000), 1, RateWindow::Sliding), Ok(()));
    }

    #[test]
    fn the_busiest_second_is_remembered_with_and_without_the_refused() {
        let mut arrivals = Arrivals::default();
        for at in [0, 100, 200, 5000] {
            let _ = arrivals.arrive(ms(at), 2, RateWindow::Sliding);
        }
        let KeyStats {
            arrivals,
            throttled,
            max_arrivals_in_one_second,
            max_accepted_in_one_second,
        } = arrivals.stats;
        assert_eq!(
            (arrivals, throttled, max_arrivals_in_one_second, max_accepted_in_one_second),
            (4, 1, 3, 2)
        );
    }

    #[test]
    fn a_fixed_window_forgets_all_at_once() {
        let mut arrivals = Arrivals::default();
        let mut arrive =
            |at| arrivals.arrive(ms(at), 2, RateWindow::Fixed).map_err(|over| over.arrived);

        assert_eq!([arrive(900), arrive(998), arrive(999)], [Ok(()), Ok(()), Err(3)]);
        assert_eq!([arrive(1000), arrive(1001), arrive(1999)], [Ok(()), Ok(()), Err(3)]);
        assert_eq!(arrivals.stats.max_accepted_in_one_second, 4);
    }

    #[test]
    fn every_key_has_a_quota_of_its_own() {
        let mut quota = Quota::new(1, RateWindow::Sliding);
        assert_eq!([quota.arrive("A", ms(0)), quota.arrive("B", ms(0))], [Ok(()), Ok(())]);
        assert!(quota.arrive("A", ms(1)).is_err());
        quota.throttle("B");
        let stats = quota.stats();
        assert_eq!((stats.throttled, stats.max_arrivals_in_one_second), (2, 2));
        assert_eq!((stats.by_key["A"].arrivals, stats.by_key["B"].arrivals), (2, 1));
    }
}
