//! The permits of one quota and who waits for them: a schedule as a plain struct, with the time as an argument.
//!
//! The service counts arrivals in any one second, and we only know that a call arrived between its permit and its answer. So a
//! permit comes back one second after the answer: two calls of one permit arrive at least a second apart, and no window of a
//! second sees more of them than there are permits, whatever the scheduler does (design, section 4).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The service's own window (reference, section 3).
pub const WINDOW: Duration = Duration::from_secs(1);

/// How late a grant may be without delaying the next one. Timers are late by a millisecond or two; if each delayed all that
/// follow, 20 a second would become 19.
const TIMER_SLACK: Duration = Duration::from_millis(10);

/// The right to make one call. Give it back with [`Permits::spent`] or [`Permits::unspent`].
#[derive(Debug)]
#[must_use = "a permit that is not given back is lost to the quota"]
pub struct Permit {
    granted_at: Instant,
    /// What [`Permits::spaced_until`] was before this grant, and after.
    spaced_before: Instant,
    spaced_after: Instant,
}

/// The permits of one quota, and the keys that wait for one in the order in which they came.
///
/// A key waits once, so that the queue is bounded by the number of keys (objects) there are.
#[derive(Debug)]
pub struct Permits<K> {
    capacity: usize,
    spacing: Duration,
    /// When each permit that nobody holds is back, or was.
    back_at: BinaryHeap<Reverse<Instant>>,
    /// No grant before this.
    spaced_until: Instant,
    /// A ticket for each waiting key; priorities will stand in front of its number.
    waiting: BTreeMap<u64, K>,
    tickets: HashMap<K, u64>,
    next_ticket: u64,
}

impl<K: Clone + Eq + Hash> Permits<K> {
    /// A quota of `per_second` calls, of a process that began at `started`. Every permit counts as spent just then: nobody knows
    /// what the process before it did in its last second.
    #[must_use]
    pub fn new(per_second: NonZeroU32, started: Instant) -> Self {
        // A quota that doesn't fit into memory would not be one.
        let capacity = usize::try_from(per_second.get()).unwrap_or(usize::MAX);
        Self {
            capacity,
            spacing: WINDOW / per_second.get(),
            back_at: std::iter::repeat_n(Reverse(started + WINDOW), capacity).collect(),
            spaced_until: started + WINDOW,
            waiting: BTreeMap::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
        }
    }

    /// A permit at once, if one is there and nobody waits for it.
    pub fn try_take(&mut self, now: Instant) -> Option<Permit> {
        if self.waiting.is_empty() { self.take(now) } else { None }
    }

    /// Puts `key` at the end of the queue. One that waits already keeps its place; then the answer is false.
    pub fn enqueue(&mut self, key: K) -> bool {
        if self.tickets.contains_key(&key) {
            return false;
        }
        self.tickets.insert(key.clone(), self.next_ticket);
        self.waiting.insert(self.next_ticket, key);
        self.next_ticket = self.next_ticket.saturating_add(1);
        true
    }

    /// Gives the place of `key` back; false if it had none.
    pub fn cancel(&mut self, key: &K) -> bool {
        self.tickets.remove(key).is_some_and(|ticket| self.waiting.remove(&ticket).is_some())
    }

    /// A permit for whoever has waited longest.
    pub fn grant(&mut self, now: Instant) -> Option<(K, Permit)> {
        if self.waiting.is_empty() {
            return None;
        }
        let permit = self.take(now)?;
        let (_, key) = self.waiting.pop_first()?;
        self.tickets.remove(&key);
        Some((key, permit))
    }

    /// When [`grant`](Self::grant) can answer next: `now` at the earliest. `None` if nobody waits, or if nothing can be said
    /// before a permit is given back.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let Reverse(back_at) = self.back_at.peek()?;
        Some(now.max(*back_at).max(self.spaced_until))
    }

    /// Gives back a permit whose call was made. Let `comes_back_at` be a [`WINDOW`] after the answer, or after the deadline of a
    /// call that nobody answered.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn spent(&mut self, permit: Permit, comes_back_at: Instant) {
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

    /// How many keys wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// True if nobody waits and every permit is back: forgetting such a quota and making it anew changes nothing.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        self.waiting.is_empty() && self.back_at.len() == self.capacity && self.back_at.iter().all(|Reverse(at)| *at <= now)
    }

    fn take(&mut self, now: Instant) -> Option<Permit> {
        if now < self.spaced_until {
            return None;
        }
        self.back_at.peek().filter(|Reverse(at)| *at <= now)?;
        self.back_at.pop();
        let spaced_before = self.spaced_until;
        let on_time = now.checked_sub(TIMER_SLACK).unwrap_or(now);
        self.spaced_until = spaced_before.max(on_time) + self.spacing;
        Some(Permit { granted_at: now, spaced_before, spaced_after: self.spaced_until })
    }

    fn back(&mut self, at: Instant) {
        debug_assert!(self.back_at.len() < self.capacity, "a permit of another quota was given back");
        self.back_at.push(Reverse(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn per_second(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    /// A quota of 20 a second whose process began long ago.
    fn permits() -> (Permits<&'static str>, Instant) {
        let started = Instant::now();
        (Permits::new(per_second(20), started), started + ms(5_000))
    }

    #[test]
    fn a_new_process_starts_with_every_permit_spent_and_then_spaces_them() {
        let started = Instant::now();
        let mut permits = Permits::new(per_second(20), started);
        for key in 0..3 {
            permits.enqueue(key);
        }

        assert!(permits.grant(started + ms(999)).is_none());
        assert_eq!(permits.next(started), Some(started + ms(1_000)));
        let mut grants = Vec::new();
        while let Some(at) = permits.next(started) {
            let (key, _) = permits.grant(at).unwrap();
            grants.push((key, at - started));
        }
        assert_eq!(grants, [(0, ms(1_000)), (1, ms(1_050)), (2, ms(1_100))]);
    }

    #[test]
    fn after_a_pause_permits_are_spaced_again() {
        let (mut permits, now) = permits();

        let _first = permits.try_take(now).unwrap();

        assert!(permits.try_take(now + ms(39)).is_none());
        assert!(permits.try_take(now + ms(40)).is_some(), "one spacing less the slack of a timer");
    }

    #[test]
    fn a_late_timer_does_not_delay_the_grants_that_follow() {
        let started = Instant::now();
        let mut permits = Permits::new(per_second(20), started);
        for key in 0..20 {
            permits.enqueue(key);
        }

        let mut now = started;
        while let Some(at) = permits.next(now) {
            now = at + ms(2);
            let _ = permits.grant(now).unwrap();
        }

        assert_eq!(now - started, ms(1_000 + 19 * 50 + 2));
    }

    #[test]
    fn waiting_keys_are_served_in_their_order_and_wait_once() {
        let (mut permits, now) = permits();

        assert!(permits.enqueue("a"));
        assert!(permits.enqueue("b"));
        assert!(!permits.enqueue("a"));

        assert_eq!(permits.waiting(), 2);
        assert_eq!(permits.grant(now).unwrap().0, "a");
        assert!(permits.enqueue("a"), "it has been served");
        assert_eq!(permits.grant(now + ms(50)).unwrap().0, "b");
        assert_eq!(permits.grant(now + ms(100)).unwrap().0, "a");
        assert!(permits.grant(now + ms(150)).is_none());
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let (mut permits, now) = permits();
        permits.enqueue("a");

        assert!(permits.try_take(now).is_none());
    }

    #[test]
    fn a_cancelled_wait_gives_its_place_back() {
        let (mut permits, now) = permits();
        permits.enqueue("a");
        permits.enqueue("b");

        assert!(permits.cancel(&"a"));
        assert!(!permits.cancel(&"a"));

        assert_eq!(permits.grant(now).unwrap().0, "b");
        assert_eq!(permits.next(now), None);
    }

    #[test]
    fn a_spent_permit_comes_back_when_it_was_said() {
        let started = Instant::now();
        let mut permits = Permits::new(per_second(1), started);
        let permit = permits.try_take(started + ms(1_000)).unwrap();
        permits.enqueue("next");
        assert_eq!(permits.next(started + ms(1_000)), None, "nothing is known before the call is answered");

        permits.spent(permit, started + ms(2_300));

        assert_eq!(permits.next(started + ms(1_300)), Some(started + ms(2_300)));
        assert!(permits.grant(started + ms(2_299)).is_none());
        assert!(permits.grant(started + ms(2_300)).is_some());
    }

    #[test]
    fn an_unspent_permit_comes_back_at_once_and_needs_no_distance() {
        let started = Instant::now();
        let mut permits = Permits::<&str>::new(per_second(1), started);
        let now = started + ms(1_000);
        let permit = permits.try_take(now).unwrap();

        permits.unspent(permit);

        assert!(permits.try_take(now).is_some());
        assert!(permits.try_take(now).is_none());
    }

    #[test]
    fn an_unspent_permit_that_others_followed_leaves_their_distance_alone() {
        let (mut permits, now) = permits();
        let first = permits.try_take(now).unwrap();
        let _second = permits.try_take(now + ms(50)).unwrap();

        permits.unspent(first);

        assert!(permits.try_take(now + ms(60)).is_none());
    }

    #[test]
    fn a_quota_is_idle_when_everything_is_back() {
        let started = Instant::now();
        let mut permits = Permits::<&str>::new(per_second(2), started);
        assert!(!permits.is_idle(started));

        let now = started + ms(1_000);
        assert!(permits.is_idle(now));
        let permit = permits.try_take(now).unwrap();
        assert!(!permits.is_idle(now));
        permits.spent(permit, now + ms(1_000));
        assert!(!permits.is_idle(now));
        assert!(permits.is_idle(now + ms(1_000)));
    }

    /// Plays a backlog of calls and answers when each was granted and when it arrived at the service.
    fn arrivals(qps: u32, calls: &[(u64, u64, bool)], timer_late: Duration) -> Vec<(Instant, Instant)> {
        let started = Instant::now();
        let mut permits = Permits::new(per_second(qps), started);
        for key in 0..calls.len() {
            permits.enqueue(key);
        }
        let mut running: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
        let mut held: HashMap<usize, Permit> = HashMap::new();
        let (mut now, mut arrived) = (started, Vec::new());
        while permits.waiting() > 0 {
            let answered = running.peek().map(|Reverse((at, _))| *at);
            let grant = permits.next(now).map(|at| at + timer_late);
            now = answered.into_iter().chain(grant).min().expect("somebody waits and nothing will happen");
            while let Some(Reverse((at, key))) = running.peek().copied().filter(|Reverse((at, _))| *at <= now) {
                running.pop();
                let permit = held.remove(&key).unwrap();
                if calls[key].2 { permits.spent(permit, at + WINDOW) } else { permits.unspent(permit) }
            }
            if let Some((key, permit)) = permits.grant(now) {
                let (outward, homeward, sent) = calls[key];
                if sent {
                    arrived.push((now, now + ms(outward)));
                }
                held.insert(key, permit);
                running.push(Reverse((now + ms(outward + homeward), key)));
            }
        }
        arrived
    }

    fn most_in_a_second(mut arrivals: Vec<Instant>) -> usize {
        arrivals.sort_unstable();
        let in_window = |first: &Instant| arrivals.iter().filter(|at| *at >= first && **at < *first + WINDOW).count();
        arrivals.iter().map(in_window).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_second_sees_more_calls_than_the_quota(
            qps in 1_u32..40,
            calls in proptest::collection::vec((0_u64..700, 0_u64..700, proptest::bool::weighted(0.8)), 1..200),
            timer_late in 0_u64..20,
        ) {
            let arrived = arrivals(qps, &calls, ms(timer_late));

            let most = most_in_a_second(arrived.iter().map(|(_, arrival)| *arrival).collect());
            prop_assert!(most <= usize::try_from(qps).unwrap(), "{most} arrivals in a second at {qps}/s");
        }
    }

    #[test]
    fn a_backlog_uses_the_quota_but_for_one_round_trip_a_second() {
        let calls = vec![(10, 10, true); 2_000];

        let arrived = arrivals(20, &calls, ms(1));

        let (first, last) = (arrived[0].0, arrived[1_999].0);
        let ideal = Duration::from_secs(100).mul_f64(1.02);
        assert!(last - first <= ideal.mul_f64(1.002), "{:?} instead of {ideal:?}", last - first);
        assert_eq!(most_in_a_second(arrived.iter().map(|(_, arrival)| *arrival).collect()), 20);
    }
}
