//! The permits of one quota and who waits for them: a schedule as a plain struct, with the time as
//! an argument.
//!
//! The service counts arrivals in any one second, and we only know that a call arrived between its
//! permit and its answer. So a permit comes back one second after the answer: two calls of one
//! permit arrive at least a second apart, and no window of a second sees more of them than there
//! are permits, whatever the scheduler does.
//!
//! While the quota is halved, permits beyond it are withheld: a grant is made only if fewer than
//! the present quota are held or on their way back. Whatever arrived in the same second as the call
//! of this grant is among those, so that no second sees more calls than the quota was at the last
//! grant among them.
//!
//! One in ten is for a resync, if there is one to be made, and no more however few others there
//! are: nobody waits for one, and other programs draw on the same quota.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::ledger::plan::Priority;
use crate::object::ObjectKey;
use crate::scheduler::fair_queue::FairQueue;
use crate::scheduler::quota::{Quota, WINDOW};

/// How late a grant may be without delaying the next one. Timers are late by a millisecond or two;
/// if each delayed all that follow, 20 a second would become 19.
const TIMER_SLACK: Duration = Duration::from_millis(10);

/// Of so many grants one at most is for a resync.
const RESYNC_SHARE: u32 = 10;

/// The right to make one call. Give it back with [`Permits::spent`] or [`Permits::unspent`].
#[derive(Debug)]
#[must_use = "a permit that is not given back is lost to the quota"]
pub struct Permit {
    granted_at: Duration,
    priority: Priority,
    /// What [`Permits::spaced_until`] was before this grant, and after.
    spaced_before: Duration,
    spaced_after: Duration,
}

impl Permit {
    /// For a call of which priority it was granted.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }
}

/// The permits of one quota, and the keys that wait for one.
#[derive(Debug)]
pub struct Permits {
    quota: Quota,
    capacity: usize,
    /// When each permit that nobody holds is back, or was; in order.
    back_at: VecDeque<Duration>,
    /// No grant before this.
    spaced_until: Duration,
    /// No grant for a resync before this.
    resync_spaced_until: Duration,
    burst: NonZeroU32,
    waiting: FairQueue,
}

impl Permits {
    /// A quota of `per_second` calls. Every permit counts as spent when the process began, at zero:
    /// nobody knows what the process before it did in its last second.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        let capacity = count(per_second.get());
        Self {
            quota: Quota::new(per_second),
            capacity,
            back_at: std::iter::repeat_n(WINDOW, capacity).collect(),
            spaced_until: WINDOW,
            resync_spaced_until: WINDOW,
            burst: NonZeroU32::MIN,
            waiting: FairQueue::new(),
        }
    }

    /// Likewise, with so many permits at once after a pause. No second sees more calls because of
    /// that; an urgent one behind a burst waits longer.
    #[must_use]
    pub fn with_burst(self, burst: NonZeroU32) -> Self {
        Self { burst, ..self }
    }

    /// A permit for a call of that priority at once, if one is there and nobody waits for it.
    pub fn try_take(&mut self, priority: Priority, now: Duration) -> Option<Permit> {
        let may_have_one = priority != Priority::Resync || self.may_resync(now);
        if self.waiting.is_empty() && may_have_one { self.take(priority, now) } else { None }
    }

    /// Puts `key` at the end of its namespace's queue. One that waits already moves there if it
    /// comes with a higher priority, and keeps its place if not; then the answer is false.
    pub fn enqueue(&mut self, key: ObjectKey, priority: Priority) -> bool {
        self.waiting.enqueue(key, priority)
    }

    /// Gives the place of `key` back; false if it had none.
    pub fn cancel(&mut self, key: &ObjectKey) -> bool {
        self.waiting.cancel(key)
    }

    /// A permit for whoever's turn it is.
    pub fn grant(&mut self, now: Duration) -> Option<(ObjectKey, Permit)> {
        let may_resync = self.may_resync(now);
        if !self.waiting.has_any(may_resync) || !self.is_grantable(now) {
            return None;
        }
        let (key, priority) = self.waiting.pop(may_resync)?;
        Some((key, self.take(priority, now)?))
    }

    /// When [`grant`](Self::grant) can answer next: `now` at the earliest. `None` if nobody waits,
    /// or if nothing can be said before a permit is given back.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let spaced_until = if self.waiting.has_any(false) {
            self.spaced_until
        } else {
            self.spaced_until.max(self.resync_spaced_until)
        };
        // The quota recovers meanwhile, and then needs fewer permits to be back.
        let quotas = self.quota.at(now).get()..=self.quota.setting().get();
        let grantable = quotas.filter_map(|quota| {
            Some(self.quota.reached_at(quota, now).max(*self.last_needed(quota)?))
        });
        Some(grantable.min()?.max(spaced_until))
    }

    /// The service refused the call of `permit` for its rate: the quota is halved, unless calls of
    /// the same burst have said so already, and recovers by one a second. Answers what it is from
    /// now on if this was news.
    pub fn throttled(&mut self, permit: &Permit, now: Duration) -> Option<NonZeroU32> {
        self.quota.throttled(permit.granted_at, now).then(|| self.quota.at(now))
    }

    /// Gives back a permit whose call was made. Let `comes_back_at` be a [`WINDOW`] after the
    /// answer, or after the deadline of a call that nobody answered.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn spent(&mut self, permit: Permit, comes_back_at: Duration) {
        self.back(comes_back_at.max(permit.granted_at));
    }

    /// Gives back a permit whose call was not made. It can be granted again at once.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn unspent(&mut self, permit: Permit) {
        if self.spaced_until == permit.spaced_after {
            // Nothing was granted since, so that there is nothing to keep a distance to.
            self.spaced_until = permit.spaced_before;
        }
        self.back(permit.granted_at);
    }

    /// How many calls a second there are permits for at `now`: the setting, or less since the
    /// service has refused one.
    #[must_use]
    pub fn quota(&self, now: Duration) -> NonZeroU32 {
        self.quota.at(now)
    }

    /// How many keys wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// True if nobody waits, every permit is back and none is withheld: forgetting such a quota and
    /// making it anew changes nothing.
    #[must_use]
    pub fn is_idle(&self, now: Duration) -> bool {
        self.waiting.is_empty()
            && self.back_at.len() == self.capacity
            && self.back_at.back().is_none_or(|at| *at <= now)
            && self.quota.at(now) == self.quota.setting()
            && self.may_resync(now)
    }

    fn may_resync(&self, now: Duration) -> bool {
        self.resync_spaced_until <= now
    }

    fn is_grantable(&self, now: Duration) -> bool {
        let needed = self.last_needed(self.quota.at(now).get());
        self.spaced_until <= now && needed.is_some_and(|at| *at <= now)
    }

    fn take(&mut self, priority: Priority, now: Duration) -> Option<Permit> {
        if !self.is_grantable(now) {
            return None;
        }
        let quota = self.quota.at(now);
        self.back_at.pop_front();
        if priority == Priority::Resync {
            let on_time = self.resync_spaced_until.max(now.saturating_sub(TIMER_SLACK));
            self.resync_spaced_until = on_time + WINDOW * RESYNC_SHARE / quota.get();
        }
        let spaced_before = self.spaced_until;
        let spacing = WINDOW / quota.get();
        let behind = TIMER_SLACK.max(spacing.saturating_mul(self.burst.get() - 1));
        let on_time = now.saturating_sub(behind);
        self.spaced_until = spaced_before.max(on_time) + spacing;
        Some(Permit { granted_at: now, priority, spaced_before, spaced_after: self.spaced_until })
    }

    /// When so many permits are back that fewer than `quota` are not: the first of those that are
    /// not withheld.
    fn last_needed(&self, quota: u32) -> Option<&Duration> {
        self.back_at.get(self.capacity.saturating_sub(count(quota)))
    }

    fn back(&mut self, at: Duration) {
        debug_assert!(
            self.back_at.len() < self.capacity,
            "a permit of another quota was given back"
        );
        let place = self.back_at.partition_point(|other| *other <= at);
        self.back_at.insert(place, at);
    }
}

/// A quota that doesn't fit into memory would not be one.
fn count(per_second: u32) -> usize {
    usize::try_from(per_second).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::key;
    use Priority::{Attach, Detach, Resync, Retry};

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn per_second(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    /// A quota of 20 a second whose process began long ago.
    fn permits() -> (Permits, Duration) {
        let started = ms(0);
        (Permits::new(per_second(20)), started + ms(5_000))
    }

    #[test]
    fn a_new_process_starts_with_every_permit_spent_and_then_spaces_them() {
        let started = ms(0);
        let mut permits = Permits::new(per_second(20));
        for name in ["0", "1", "2"] {
            permits.enqueue(key(name), Attach);
        }

        assert!(permits.grant(started + ms(999)).is_none());
        assert_eq!(permits.next(started), Some(started + ms(1_000)));
        let mut grants = Vec::new();
        while let Some(at) = permits.next(started) {
            let (key, _) = permits.grant(at).unwrap();
            grants.push((key, at));
        }
        assert_eq!(grants, [(key("0"), ms(1_000)), (key("1"), ms(1_050)), (key("2"), ms(1_100))]);
    }

    #[test]
    fn a_burst_after_a_pause_is_as_large_as_it_may_be_and_no_larger() {
        let (permits, now) = permits();
        let mut permits = permits.with_burst(per_second(4));

        let at_once = (0..10).filter(|_| permits.try_take(Attach, now).is_some()).count();

        assert_eq!(at_once, 4);
        assert!(permits.try_take(Attach, now + ms(50)).is_some());
    }

    #[test]
    fn after_a_pause_permits_are_spaced_again() {
        let (mut permits, now) = permits();

        let _first = permits.try_take(Attach, now).unwrap();

        assert!(permits.try_take(Attach, now + ms(39)).is_none());
        assert!(
            permits.try_take(Attach, now + ms(40)).is_some(),
            "one spacing less the slack of a timer"
        );
    }

    #[test]
    fn a_late_timer_does_not_delay_the_grants_that_follow() {
        let started = ms(0);
        let mut permits = Permits::new(per_second(20));
        for name in 0..20 {
            permits.enqueue(key(&name.to_string()), Attach);
        }

        let mut now = started;
        while let Some(at) = permits.next(now) {
            now = at + ms(2);
            let _ = permits.grant(now).unwrap();
        }

        assert_eq!(now, ms(1_000 + 19 * 50 + 2));
    }

    #[test]
    fn waiting_keys_are_served_in_their_order_and_wait_once() {
        let (mut permits, now) = permits();

        assert!(permits.enqueue(key("a"), Attach));
        assert!(permits.enqueue(key("b"), Attach));
        assert!(!permits.enqueue(key("a"), Attach));

        assert_eq!(permits.waiting(), 2);
        assert_eq!(permits.grant(now).unwrap().0, key("a"));
        assert!(permits.enqueue(key("a"), Attach), "it has been served");
        assert_eq!(permits.grant(now + ms(50)).unwrap().0, key("b"));
        assert_eq!(permits.grant(now + ms(100)).unwrap().0, key("a"));
        assert!(permits.grant(now + ms(150)).is_none());
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let (mut permits, now) = permits();
        permits.enqueue(key("a"), Attach);

        assert!(permits.try_take(Attach, now).is_none());
    }

    #[test]
    fn a_cancelled_wait_gives_its_place_back() {
        let (mut permits, now) = permits();
        permits.enqueue(key("a"), Attach);
        permits.enqueue(key("b"), Attach);

        assert!(permits.cancel(&key("a")));
        assert!(!permits.cancel(&key("a")));

        assert_eq!(permits.grant(now).unwrap().0, key("b"));
        assert_eq!(permits.next(now), None);
    }

    #[test]
    fn a_spent_permit_comes_back_when_it_was_said() {
        let started = ms(0);
        let mut permits = Permits::new(per_second(1));
        let permit = permits.try_take(Attach, started + ms(1_000)).unwrap();
        permits.enqueue(key("next"), Attach);
        assert_eq!(
            permits.next(started + ms(1_000)),
            None,
            "nothing is known before the call is answered"
        );

        permits.spent(permit, started + ms(2_300));

        assert_eq!(permits.next(started + ms(1_300)), Some(started + ms(2_300)));
        assert!(permits.grant(started + ms(2_299)).is_none());
        assert!(permits.grant(started + ms(2_300)).is_some());
    }

    #[test]
    fn an_unspent_permit_comes_back_at_once_and_needs_no_distance() {
        let started = ms(0);
        let mut permits = Permits::new(per_second(1));
        let now = started + ms(1_000);
        let permit = permits.try_take(Attach, now).unwrap();

        permits.unspent(permit);

        assert!(permits.try_take(Attach, now).is_some());
        assert!(permits.try_take(Attach, now).is_none());
    }

    #[test]
    fn an_unspent_permit_that_others_followed_leaves_their_distance_alone() {
        let (mut permits, now) = permits();
        let first = permits.try_take(Attach, now).unwrap();
        let _second = permits.try_take(Attach, now + ms(50)).unwrap();

        permits.unspent(first);

        assert!(permits.try_take(Attach, now + ms(60)).is_none());
    }

    #[test]
    fn one_grant_in_ten_is_for_a_resync_however_few_others_there_are() {
        let (mut permits, now) = permits();
        for name in 0..8 {
            permits.enqueue(key(&format!("resync-{name}")), Resync);
        }
        let mut times = Vec::new();
        while let Some(at) = permits.next(now) {
            assert!(at == now || permits.grant(at.saturating_sub(ms(1))).is_none());
            let (_, permit) = permits.grant(at).unwrap();
            assert_eq!(permit.priority(), Resync);
            permits.spent(permit, at + ms(1_000));
            times.push(at);
        }
        let spaced: Vec<_> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        assert_eq!(spaced[1..], [ms(500); 6], "20 a second: 2 resyncs");
        assert_eq!(spaced[0], ms(490), "less the slack of a timer");

        let last = *times.last().unwrap();
        assert!(permits.try_take(Resync, last + ms(499)).is_none());
        assert!(!permits.is_idle(last + ms(499)));
        let other = permits.try_take(Attach, last + ms(499)).unwrap();
        assert_eq!(other.priority(), Attach);
        assert!(permits.try_take(Resync, last + ms(550)).is_some());
    }

    #[test]
    fn others_do_not_wait_for_a_resync() {
        let (mut permits, now) = permits();
        let _resync = permits.try_take(Resync, now).unwrap();
        permits.enqueue(key("resync"), Resync);
        permits.enqueue(key("attach"), Attach);
        let next = permits.next(now).unwrap();
        assert_eq!(next, now + ms(40));
        assert_eq!(permits.grant(next).unwrap().0, key("attach"));
        assert_eq!(permits.next(now), Some(now + ms(490)));
        permits.enqueue(key("deletion"), Detach);
        assert_eq!(permits.grant(now + ms(490)).unwrap().0, key("resync"), "it has its share");
    }

    #[test]
    fn a_quota_is_idle_when_everything_is_back() {
        let started = ms(0);
        let mut permits = Permits::new(per_second(2));
        assert!(!permits.is_idle(started));

        let now = started + ms(1_000);
        assert!(permits.is_idle(now));
        let permit = permits.try_take(Attach, now).unwrap();
        assert!(!permits.is_idle(now));
        permits.spent(permit, now + ms(1_000));
        assert!(!permits.is_idle(now));
        assert!(permits.is_idle(now + ms(1_000)));
    }

    #[test]
    fn a_quota_that_recovers_is_not_idle() {
        let started = ms(0);
        let mut permits = Permits::new(per_second(2));
        let now = started + ms(1_000);
        let permit = permits.try_take(Attach, now).unwrap();
        assert_eq!(permits.throttled(&permit, now), Some(NonZeroU32::MIN));
        permits.unspent(permit);

        assert!(!permits.is_idle(now + ms(999)));
        assert!(permits.is_idle(now + ms(1_000)));
    }

    #[test]
    fn a_halved_quota_withholds_permits_until_as_many_are_back_and_recovers_while_they_wait() {
        let started = ms(0);
        let mut permits = Permits::new(per_second(4));
        let now = started + ms(2_000);
        for name in ["a", "b"] {
            permits.enqueue(key(name), Attach);
        }
        let held: Vec<_> = (0..2).filter_map(|turn| permits.grant(now + ms(250) * turn)).collect();
        permits.enqueue(key("next"), Retry);

        assert_eq!(permits.throttled(&held[0].1, now + ms(250)), Some(per_second(2)));
        assert!(permits.throttled(&held[1].1, now + ms(250)).is_none(), "the same burst");

        // Two are under way and are not answered; after a second there may be three.
        assert_eq!(permits.next(now + ms(250)), Some(now + ms(1_250)));
        assert!(permits.grant(now + ms(1_249)).is_none());
        assert!(permits.grant(now + ms(1_250)).is_some());
    }

    #[test]
    fn a_halved_quota_spaces_its_permits_wider() {
        let (mut permits, now) = permits();
        let permit = permits.try_take(Attach, now).unwrap();
        permits.throttled(&permit, now);
        permits.unspent(permit);
        for name in ["a", "b"] {
            permits.enqueue(key(name), Detach);
        }

        let _a = permits.grant(now).unwrap();

        assert_eq!(permits.next(now), Some(now + ms(100 - 10)), "the slack of a timer less");
    }
}
