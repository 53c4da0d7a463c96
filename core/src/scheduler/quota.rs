//! How much of a quota is ours just now: less after the service has refused a call, since others
//! draw on the same quota. Pure.

use std::num::NonZeroU32;
use std::time::Duration;

/// The service counts arrivals in any one second.
pub const WINDOW: Duration = Duration::from_secs(1);

/// The calls a second that may be made: halved when the service refuses one for its rate, one more
/// after each second since then.
///
/// Time alone brings it back, not answers: so a quota that nobody uses any more is whole after a
/// while and can be forgotten, and one that is used finds out by its next refused call if it
/// recovered too much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    setting: NonZeroU32,
    halved: Option<Halved>,
}

#[derive(Clone, Copy, Debug)]
struct Halved {
    at: Duration,
    to: NonZeroU32,
}

impl Quota {
    pub(super) fn new(setting: NonZeroU32) -> Self {
        Self { setting, halved: None }
    }

    /// What it would be if no call had been refused.
    pub(super) fn setting(&self) -> NonZeroU32 {
        self.setting
    }

    /// What it is at `now`.
    pub(super) fn at(&self, now: Duration) -> NonZeroU32 {
        let Some(Halved { at, to }) = self.halved else { return self.setting };
        let recovered = now.saturating_sub(at).as_millis() / WINDOW.as_millis();
        to.saturating_add(u32::try_from(recovered).unwrap_or(u32::MAX)).min(self.setting)
    }

    /// From when on it is at least `count`, if no other call is refused; `now` if it is already.
    /// `count` is within the setting.
    pub(super) fn reached_at(&self, count: u32, now: Duration) -> Duration {
        let Some(Halved { at, to }) = self.halved else { return now };
        now.max(at + WINDOW * count.saturating_sub(to.get()))
    }

    /// The service refused, for its rate, a call that was permitted at `granted_at`. False if that
    /// is no news.
    ///
    /// It is none if the call was permitted before the last halving, or in the same window as calls
    /// before it: then it says again what was heard already. So a burst of refusals costs one
    /// halving, however long they are under way.
    pub(super) fn throttled(&mut self, granted_at: Duration, now: Duration) -> bool {
        if self.halved.as_ref().is_some_and(|halved| granted_at < halved.at + WINDOW) {
            return false;
        }
        // One a second is the least: with none, nothing would ever find out that the service
        // answers again.
        let to = NonZeroU32::new(self.at(now).get() / 2).unwrap_or(NonZeroU32::MIN);
        self.halved = Some(Halved { at: now, to });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn quota(setting: u32) -> (Quota, Duration) {
        (Quota::new(NonZeroU32::new(setting).unwrap()), ms(0))
    }

    #[test]
    fn a_refused_call_halves_it_and_each_second_brings_one_back_up_to_the_setting() {
        let (mut quota, now) = quota(20);

        assert!(quota.throttled(now, now + ms(20)));

        let after = |elapsed| quota.at(now + ms(20) + elapsed).get();
        assert_eq!(
            [after(ms(0)), after(ms(999)), after(ms(1_000)), after(ms(9_999)), after(ms(99_000))],
            [10, 10, 11, 19, 20]
        );
    }

    #[test]
    fn the_refusals_of_one_burst_are_one_signal_however_late_they_come() {
        let (mut quota, now) = quota(20);
        assert!(quota.throttled(now, now + ms(20)));

        assert!(!quota.throttled(now, now + ms(21)));
        assert!(!quota.throttled(now + ms(10), now + ms(5_000)), "permitted before the halving");
        assert!(
            !quota.throttled(now + ms(1_019), now + ms(5_000)),
            "in one window with those before it"
        );
        assert!(quota.throttled(now + ms(1_020), now + ms(5_000)));

        assert_eq!(quota.at(now + ms(5_000)).get(), 7, "half of the 14 that it had come back to");
    }

    #[test]
    fn it_never_falls_below_one_a_second() {
        let (mut quota, now) = quota(3);

        for reconcile in 0..5 {
            let now = now + ms(1_000) * reconcile;
            assert!(quota.throttled(now, now));
            assert_eq!(quota.at(now).get(), 1);
        }
    }

    #[test]
    fn it_says_when_it_will_be_how_much() {
        let (mut quota, now) = quota(20);
        assert_eq!(quota.reached_at(20, now), now);

        quota.throttled(now, now);

        for count in 10..=20 {
            let at = quota.reached_at(count, now);
            assert_eq!((at, quota.at(at).get()), (now + ms(1_000) * (count - 10), count));
        }
    }
}
