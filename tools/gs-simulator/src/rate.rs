//! The quota: so many calls of one key in any one second, counted by arrival. Pure.

use std::collections::VecDeque;
use std::time::Duration;

const ONE_SECOND: Duration = Duration::from_secs(1);

/// The arrivals of one `SecretId` within the last second, and the most that any second saw.
///
/// A call over the quota takes no place in it: a client that hammers still gets its 20 calls a second through. Memory is
/// bounded by what one machine can send in a second.
#[derive(Debug, Default)]
pub(crate) struct Window {
    arrived: VecDeque<Duration>,
    accepted: VecDeque<Duration>,
    most_arrived: usize,
    most_accepted: usize,
}

/// The call is one too many.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// Arrivals within the last second, this one included.
    pub(crate) arrived: usize,
}

impl Window {
    /// Counts an arrival at `at` (since any fixed moment, never before an earlier one).
    pub(crate) fn arrive(&mut self, at: Duration, limit: usize) -> Result<(), OverLimit> {
        forget_before(&mut self.arrived, at);
        forget_before(&mut self.accepted, at);
        self.arrived.push_back(at);
        self.most_arrived = self.most_arrived.max(self.arrived.len());
        if self.accepted.len() >= limit {
            return Err(OverLimit { arrived: self.arrived.len() });
        }
        self.accepted.push_back(at);
        self.most_accepted = self.most_accepted.max(self.accepted.len());
        Ok(())
    }

    /// The most arrivals that any one second saw, refused ones included.
    pub(crate) fn most_arrived(&self) -> usize {
        self.most_arrived
    }

    /// The most calls within the quota that any one second saw.
    pub(crate) fn most_accepted(&self) -> usize {
        self.most_accepted
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
        let mut window = Window::default();
        for _ in 0..20 {
            assert_eq!(window.arrive(ms(5), 20), Ok(()));
        }
        assert_eq!(window.arrive(ms(5), 20), Err(OverLimit { arrived: 21 }));
    }

    #[test]
    fn the_second_slides_with_every_arrival() {
        let mut window = Window::default();
        assert_eq!(window.arrive(ms(0), 2), Ok(()));
        assert_eq!(window.arrive(ms(900), 2), Ok(()));

        assert_eq!(window.arrive(ms(999), 2), Err(OverLimit { arrived: 3 }));
        assert_eq!(window.arrive(ms(1000), 2), Ok(()));
        assert_eq!(window.arrive(ms(1001), 2), Err(OverLimit { arrived: 4 }));
        assert_eq!(window.arrive(ms(1900), 2), Ok(()));
    }

    #[test]
    fn refused_calls_do_not_hold_the_quota() {
        let mut window = Window::default();
        assert_eq!(window.arrive(ms(0), 1), Ok(()));
        for at in 1..1000 {
            assert!(window.arrive(ms(at), 1).is_err());
        }
        assert_eq!(window.arrive(ms(1000), 1), Ok(()));
    }

    #[test]
    fn the_busiest_second_is_remembered_with_and_without_the_refused() {
        let mut window = Window::default();
        for at in [0, 100, 200, 5000] {
            let _ = window.arrive(ms(at), 2);
        }
        assert_eq!((window.most_arrived(), window.most_accepted()), (3, 2));
    }
}
