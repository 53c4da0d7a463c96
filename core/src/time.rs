//! The service's clock, in whole seconds: the only clock of the protocol.

use std::fmt;
use std::time::Duration;

/// Seconds since 1970 on the service's clock. Requests are signed with it, deadlines are judged by
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceTime(pub i64);

impl ServiceTime {
    /// This time and `seconds` more.
    ///
    /// ```
    /// use streamsession_core::time::{ServiceTime, Validity, over};
    ///
    /// let signed = ServiceTime(1_767_837_600);
    /// let until = Validity::default().end(signed);
    /// assert_eq!((until.since(signed), until.to_string().as_str()), (305, "2026-01-08T02:05:05Z"));
    /// assert!(!over(Some(until), Some(signed)) && over(Some(until), Some(until)));
    /// assert!(!over(Some(until), None), "without a clock no deadline is over");
    /// ```
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this time; negative if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for ServiceTime {
    /// RFC 3339 in UTC, as `2026-01-08T02:45:05Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "second {}", self.0),
        }
    }
}

/// How long a signed request can take effect. Two operators of one fleet, and the simulator, must
/// agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Validity {
    /// Seconds for which the service takes a signature: 300 (`docs/tencent.md`).
    pub signature_seconds: i64,
    /// Seconds that the service may take to work on a request that it has let in: 5.
    pub margin_seconds: i64,
}

impl Default for Validity {
    fn default() -> Self {
        Self { signature_seconds: 300, margin_seconds: 5 }
    }
}

impl Validity {
    /// When a request signed at `start` can't take effect any more.
    #[must_use]
    pub fn end(self, start: ServiceTime) -> ServiceTime {
        start.plus(self.signature_seconds).plus(self.margin_seconds)
    }

    /// How long that is: the longest that any doubt takes.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.end(ServiceTime(0)).0.try_into().unwrap_or(0))
    }
}

/// A deadline that holds nothing back any more: there is none, or it has passed. Without a clock
/// none has.
#[must_use]
pub fn over(deadline: Option<ServiceTime>, now: Option<ServiceTime>) -> bool {
    deadline.is_none_or(|until| now.is_some_and(|now| until <= now))
}
