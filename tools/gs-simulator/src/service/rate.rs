//! The quota: so many calls of one key in a second, counted by arrival.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::api_error::ApiError;
use super::calls::{KeyStats, Stats};

const ONE_SECOND: Duration = Duration::from_secs(1);

/// Which second is counted. The documentation does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RateWindow {
    /// Any: the one that ends with the call.
    #[default]
    Sliding,
    /// Each full second since the simulator's start: around its ends, twice the quota fits into one
    /// second.
    Fixed,
}

/// The rate of each key. The caller counts known keys only, so that unknown ones can't fill the
/// memory.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: usize,
    window: RateWindow,
    keys: BTreeMap<String, RecentCalls>,
}

impl Quota {
    pub(crate) fn new(calls_per_second: u32, window: RateWindow) -> Self {
        Self {
            limit: usize::try_from(calls_per_second).unwrap_or(usize::MAX),
            window,
            keys: BTreeMap::new(),
        }
    }

    /// Counts an arrival at `at` (since any fixed moment, never before an earlier one).
    pub(crate) fn arrive(&mut self, secret_id: &str, at: Duration) -> Result<(), OverLimit> {
        let Self { limit, window, keys } = self;
        match keys.get_mut(secret_id) {
            Some(recent) => recent.arrive(at, *limit, *window),
            None => keys.entry(secret_id.to_owned()).or_default().arrive(at, *limit, *window),
        }
    }

    /// Refuses a call that is not above the rate.
    pub(crate) fn throttle(&mut self, secret_id: &str) -> OverLimit {
        self.keys.entry(secret_id.to_owned()).or_default().stats.throttled += 1;
        OverLimit { arrived: self.limit.saturating_add(1), limit: self.limit }
    }

    pub(crate) fn reset(&mut self) {
        self.keys.clear();
    }

    /// `calls` and `keys_issued` are counted elsewhere.
    pub(crate) fn stats(&self) -> Stats {
        let by_key: BTreeMap<_, _> =
            self.keys.iter().map(|(secret_id, recent)| (secret_id.clone(), recent.stats)).collect();
        let most = |count: fn(&KeyStats) -> usize| by_key.values().map(count).max().unwrap_or(0);
        Stats {
            throttled: by_key.values().map(|stats| stats.throttled).sum(),
            max_arrivals_in_one_second: most(|stats| stats.max_arrivals_in_one_second),
            max_accepted_in_one_second: most(|stats| stats.max_accepted_in_one_second),
            by_key,
            ..Stats::default()
        }
    }
}

/// The calls of one `SecretId` within the last second.
///
/// A refused call does not count against the quota: a client that retries at once still gets its
/// 20 calls a second through. Memory is bounded by what one machine can send in a second.
#[derive(Debug, Default)]
struct RecentCalls {
    arrived: VecDeque<Duration>,
    accepted: VecDeque<Duration>,
    stats: KeyStats,
}

/// The call is one too many.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// Arrivals within the second that was counted, this one included.
    pub(crate) arrived: usize,
    pub(crate) limit: usize,
}

impl From<OverLimit> for ApiError {
    fn from(OverLimit { arrived, limit }: OverLimit) -> Self {
        let message = format!(
            "Your current request times equals to `{arrived}` in a second, which exceeds the \
             frequency limit `{limit}` for a second. Please reduce the frequency of calls."
        );
        Self::new("RequestLimitExceeded", message)
    }
}

impl RecentCalls {
    fn arrive(&mut self, at: Duration, limit: usize, window: RateWindow) -> Result<(), OverLimit> {
        drop_before(&mut self.arrived, at);
        drop_before(&mut self.accepted, at);
        self.arrived.push_back(at);
        self.stats.arrivals += 1;
        // By the sliding window, whichever counts: a client's limiter must keep to this one.
        self.stats.max_arrivals_in_one_second =
            self.stats.max_arrivals_in_one_second.max(self.arrived.len());
        let counted = |times: &VecDeque<Duration>| match window {
            RateWindow::Sliding => times.len(),
            RateWindow::Fixed => times.iter().filter(|time| time.as_secs() == at.as_secs()).count(),
        };
        if counted(&self.accepted) >= limit {
            self.stats.throttled += 1;
            return Err(OverLimit { arrived: counted(&self.arrived), limit });
        }
        self.accepted.push_back(at);
        self.stats.max_accepted_in_one_second =
            self.stats.max_accepted_in_one_second.max(self.accepted.len());
        Ok(())
    }
}

/// The second is half open: an arrival exactly one second ago is out.
fn drop_before(times: &mut VecDeque<Duration>, now: Duration) {
    while times.front().is_some_and(|&first| first + ONE_SECOND <= now) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The verdict on each of these arrivals; an error is how many there were in that second.
    fn arrive<const N: usize>(
        recent: &mut RecentCalls,
        times: [u64; N],
        limit: usize,
        window: RateWindow,
    ) -> [Result<(), usize>; N] {
        times.map(|at| recent.arrive(ms(at), limit, window).map_err(|over| over.arrived))
    }

    #[test]
    fn the_call_after_the_last_allowed_one_is_over_the_limit() {
        let mut recent = RecentCalls::default();
        assert_eq!(arrive(&mut recent, [5; 20], 20, RateWindow::Sliding), [Ok(()); 20]);
        assert_eq!(arrive(&mut recent, [5], 20, RateWindow::Sliding), [Err(21)]);
    }

    #[test]
    fn the_second_slides_with_every_arrival() {
        let mut recent = RecentCalls::default();
        assert_eq!(
            arrive(&mut recent, [0, 900, 999, 1000, 1001, 1900], 2, RateWindow::Sliding),
            [Ok(()), Ok(()), Err(3), Ok(()), Err(4), Ok(())]
        );
    }

    #[test]
    fn refused_calls_do_not_count_against_the_quota() {
        let mut recent = RecentCalls::default();
        assert_eq!(arrive(&mut recent, [0], 1, RateWindow::Sliding), [Ok(())]);
        for at in 1..1000 {
            assert!(recent.arrive(ms(at), 1, RateWindow::Sliding).is_err());
        }
        assert_eq!(arrive(&mut recent, [1000], 1, RateWindow::Sliding), [Ok(())]);
    }

    #[test]
    fn the_busiest_second_is_remembered_with_and_without_the_refused() {
        let mut recent = RecentCalls::default();
        let _ = arrive(&mut recent, [0, 100, 200, 5000], 2, RateWindow::Sliding);
        assert_eq!(
            recent.stats,
            KeyStats {
                arrivals: 4,
                throttled: 1,
                max_arrivals_in_one_second: 3,
                max_accepted_in_one_second: 2,
            }
        );
    }

    #[test]
    fn a_fixed_window_starts_anew_each_second() {
        let mut recent = RecentCalls::default();
        for times in [[900, 998, 999], [1000, 1001, 1999]] {
            let verdicts = arrive(&mut recent, times, 2, RateWindow::Fixed);
            assert_eq!(verdicts, [Ok(()), Ok(()), Err(3)]);
        }
        assert_eq!(recent.stats.max_accepted_in_one_second, 4);
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
