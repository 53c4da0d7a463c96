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
//! are: nobody waits for one, and other programs draw on the same quota. Nor are more than a tenth
//! of them under way, so that slow answers leave the rest to others.

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
    /// Permits that are held beyond the capacity: so many are gone when they are given back.
    surplus: usize,
    /// No grant before this.
    spaced_until: Duration,
    /// No grant for a resync before this.
    resync_spaced_until: Duration,
    /// Permits that are held for resyncs, and when those are back that were.
    resyncs_held: usize,
    resyncs_back_at: VecDeque<Duration>,
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
            surplus: 0,
            spaced_until: WINDOW,
            resync_spaced_until: WINDOW,
            resyncs_held: 0,
            resyncs_back_at: VecDeque::new(),
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
        let is_first = match priority {
            Priority::Resync => self.waiting.is_empty() && self.may_resync(now),
            // Who waits for a resync keeps nobody waiting.
            _ => !self.waiting.has_others(),
        };
        if is_first { self.take(priority, now) } else { None }
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
        if !self.is_grantable(now) {
            return None;
        }
        let (key, priority) = self.waiting.pop(self.may_resync(now))?;
        Some((key, self.take(priority, now)?))
    }

    /// When [`grant`](Self::grant) can answer next: `now` at the earliest. `None` if nobody waits,
    /// or if nothing can be said before a permit is given back.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let spaced_until = if self.waiting.has_others() {
            self.spaced_until
        } else {
            self.spaced_until.max(self.next_resync(now)?)
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
        let at = comes_back_at.max(permit.granted_at);
        if permit.priority == Priority::Resync {
            self.resyncs_held = self.resyncs_held.saturating_sub(1);
            let place = self.resyncs_back_at.partition_point(|other| *other <= at);
            self.resyncs_back_at.insert(place, at);
        }
        self.back(at);
    }

    /// Gives back a permit whose call was not made. It can be granted again at once.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn unspent(&mut self, permit: Permit) {
        if self.spaced_until == permit.spaced_after {
            // Nothing was granted since, so that there is nothing to keep a distance to.
            self.spaced_until = permit.spaced_before;
        }
        if permit.priority == Priority::Resync {
            self.resyncs_held = self.resyncs_held.saturating_sub(1);
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

    /// Another schedule turns out to be of the same quota: whatever is under way there takes a permit
    /// here, and who waits there waits here.
    pub fn absorb(&mut self, mut other: Self, now: Duration) {
        let held = other.capacity + other.surplus - other.back_at.len();
        for _ in 0..held {
            self.surplus += usize::from(self.back_at.pop_front().is_none());
        }
        for at in other.back_at {
            if let Some(ours) = self.back_at.pop_front() {
                self.back(at.max(ours));
            }
        }
        self.quota = std::cmp::min_by_key(self.quota, other.quota, |quota| quota.at(now));
        self.spaced_until = self.spaced_until.max(other.spaced_until);
        self.resync_spaced_until = self.resync_spaced_until.max(other.resync_spaced_until);
        self.resyncs_held += other.resyncs_held;
        self.resyncs_back_at.extend(other.resyncs_back_at);
        self.resyncs_back_at.make_contiguous().sort_unstable();
        while let Some((key, priority)) = other.waiting.pop(true) {
            self.waiting.enqueue(key, priority);
        }
    }

    fn may_resync(&self, now: Duration) -> bool {
        self.next_resync(now).is_some_and(|at| at <= now)
    }

    /// When there is a permit for the next resync, as far as resyncs go: a tenth of the permits are
    /// theirs, also while answers are slow. `None`: when one is given back.
    fn next_resync(&self, now: Duration) -> Option<Duration> {
        let share = count((self.quota.at(now).get() / RESYNC_SHARE).max(1));
        let free = share.checked_sub(self.resyncs_held).filter(|free| *free > 0)?;
        let back_at = self.resyncs_back_at.len().checked_sub(free);
        let back_at = back_at.and_then(|place| self.resyncs_back_at.get(place));
        Some(self.resync_spaced_until.max(back_at.copied().unwrap_or(now)).max(now))
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
            self.resyncs_held += 1;
            self.resyncs_back_at.retain(|at| *at > now);
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
        if self.surplus > 0 {
            self.surplus -= 1;
            return;
        }
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
    use Priority::{Attach, Detach};

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
    fn what_is_back_is_forgotten() {
        let (mut permits, now) = permits();
        let permit = permits.try_take(Priority::Resync, now).unwrap();
        permits.spent(permit, now + ms(1_000));
        let _next = permits.try_take(Priority::Resync, now + ms(1_000)).unwrap();
        assert!(permits.resyncs_back_at.is_empty());
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

    #[test]
    fn what_is_under_way_in_two_schedules_of_one_quota_counts_once() {
        let now = ms(5_000);
        let of = |held: u64| {
            let mut permits = Permits::new(per_second(4));
            let held: Vec<_> = (0..held)
                .map(|n| {
                    permits.try_take(Attach, now + ms(250) * u32::try_from(n).unwrap()).unwrap()
                })
                .collect();
            (permits, held)
        };
        for (ours, theirs) in [(0, 1), (1, 2), (2, 2), (3, 4), (4, 4)] {
            let ((mut permits, held), (other, others)) = (of(ours), of(theirs));
            let later = now + ms(2_000);
            permits.absorb(Permits::new(per_second(4)), later);
            permits.absorb(other, later);
            let (mut all, third) = of(1);
            all.absorb(permits, later);
            let mut permits = all;
            let left = 4_usize.saturating_sub(held.len() + others.len() + third.len());
            assert_eq!(permits.back_at.len(), left, "{ours} and {theirs} calls");
            for permit in held.into_iter().chain(others).chain(third) {
                permits.spent(permit, later + ms(1_000));
            }
            assert_eq!(permits.back_at.len(), 4);
            assert_eq!(permits.surplus, 0);
        }
    }

    #[test]
    fn the_smaller_quota_the_later_grant_and_who_waits_are_taken_over() {
        let now = ms(5_000);
        let (mut permits, mut other) = (Permits::new(per_second(4)), Permits::new(per_second(4)));
        let permit = other.try_take(Attach, now).unwrap();
        assert!(other.throttled(&permit, now).is_some());
        other.spent(permit, now + ms(1_000));
        other.enqueue(key("theirs"), Detach);
        permits.enqueue(key("ours"), Attach);
        permits.absorb(other, now);
        assert_eq!(permits.quota(now).get(), 2);
        assert_eq!(permits.back_at.back(), Some(&(now + ms(1_000))));
        let next = permits.next(now).unwrap();
        assert!(next > now, "a spacing after the other's grant");
        assert_eq!(permits.grant(next).unwrap().0, key("theirs"));
        assert_eq!(permits.waiting(), 1);
    }
}
