//! The service's clock, the only one that dates a journal and judges a deadline.

use std::time::{Duration, Instant};

/// A Date older than this is asked for anew: monotonic clocks of different machines drift apart by
/// some parts in a million.
const AGE_MAX: Duration = Duration::from_hours(1);

/// A lower bound of the service's time: the `Date` of its last readable answer plus the monotonic
/// time since.
///
/// It can't run ahead: the service wrote the `Date`, cut to whole seconds, before we received it. A
/// suspended machine makes it late (Linux's monotonic clock stands still meanwhile), which is the
/// harmless side: a deadline is judged over later.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceClock {
    last: Option<Observation>,
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    service_seconds: i64,
    received: Instant,
}

impl ServiceClock {
    /// Learns the `Date` of a readable answer, in Unix seconds, that was received at `received`.
    pub fn observe(&mut self, service_seconds: i64, received: Instant) {
        // Answers of concurrent calls may be handed in late; an older one says nothing new.
        if self.last.is_none_or(|last| last.received <= received) {
            self.last = Some(Observation { service_seconds, received });
        }
    }

    /// The service's time in whole Unix seconds; `None` if it was never heard of, or not for an
    /// hour.
    #[must_use]
    pub fn now(&self, monotonic_now: Instant) -> Option<i64> {
        let last = self.last?;
        let age = monotonic_now.saturating_duration_since(last.received);
        if age > AGE_MAX {
            return None;
        }
        last.service_seconds.checked_add(i64::try_from(age.as_secs()).ok()?)
    }
}

/// The Unix seconds of a `Date` header, as `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn parse_date(header: &str) -> Option<i64> {
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(header)
        .ok()
        .map(jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: i64 = 1_767_840_000;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_clock_that_heard_nothing_knows_nothing() {
        assert_eq!(ServiceClock::default().now(Instant::now()), None);
    }

    #[test]
    fn it_goes_on_with_the_monotonic_clock_in_whole_seconds() {
        let start = Instant::now();
        let mut clock = ServiceClock::default();

        clock.observe(DATE, start);

        assert_eq!(clock.now(start), Some(DATE));
        assert_eq!(clock.now(start + Duration::from_millis(1_999)), Some(DATE + 1));
        assert_eq!(clock.now(start + seconds(3_600)), Some(DATE + 3_600));
    }

    #[test]
    fn after_an_hour_without_an_answer_it_knows_nothing() {
        let start = Instant::now();
        let mut clock = ServiceClock::default();

        clock.observe(DATE, start);

        assert_eq!(clock.now(start + seconds(3_601)), None);
    }

    #[test]
    fn the_last_answer_counts_even_if_it_turns_the_clock_back() {
        let start = Instant::now();
        let mut clock = ServiceClock::default();
        clock.observe(DATE, start);

        clock.observe(DATE - 60, start + seconds(1));

        assert_eq!(clock.now(start + seconds(2)), Some(DATE - 59));
    }

    #[test]
    fn an_older_answer_that_is_handed_in_late_changes_nothing() {
        let start = Instant::now();
        let mut clock = ServiceClock::default();
        clock.observe(DATE, start + seconds(5));

        clock.observe(DATE - 100, start);

        assert_eq!(clock.now(start + seconds(5)), Some(DATE));
    }

    #[test]
    fn a_time_before_the_answer_is_the_answers() {
        let start = Instant::now();
        let mut clock = ServiceClock::default();

        clock.observe(DATE, start + seconds(5));

        assert_eq!(clock.now(start), Some(DATE));
    }

    #[test]
    fn the_date_of_an_http_answer_is_read() {
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_date("Thu, 08 Jan 2026 02:40:00 GMT"), Some(DATE));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "now",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "1767840000",
            "Sun, 06 Nov 1994 25:00:00 GMT",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
