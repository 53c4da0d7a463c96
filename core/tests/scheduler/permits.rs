//! The permits of one quota: the share of resyncs, and a quota that was halved.

use std::num::NonZeroU32;
use std::time::Duration;

use streamsession_core::ledger::plan::Priority::{Attach, Detach, Resync, Retry};
use streamsession_core::scheduler::permits::Permits;
use streamsession_testkit::fixtures::key;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn per_second(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

/// A quota of 20 a second whose process began long ago.
fn permits() -> (Permits, Duration) {
    (Permits::new(per_second(20)), ms(5_000))
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
    assert_eq!(spaced.iter().sum::<Duration>(), ms(490 + 6 * 500), "20 a second: 2 resyncs");
    assert!(spaced.iter().all(|space| *space >= ms(490)), "less the slack of a timer: {spaced:?}");

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
fn slow_answers_leave_nine_of_ten_permits_to_others() {
    let (mut permits, now) = permits();
    for name in 0..8 {
        permits.enqueue(key(&format!("resync-{name}")), Resync);
    }
    let first = permits.grant(now).unwrap().1;
    let second = permits.grant(now + ms(490)).unwrap().1;
    let later = now + ms(5_000);
    assert_eq!(permits.next(later), None, "nothing is known before one is answered");
    assert!(
        permits.try_take(Attach, later).is_some(),
        "who waits for a resync keeps nobody waiting"
    );
    permits.enqueue(key("deletion"), Detach);
    assert_eq!(permits.grant(later + ms(100)).unwrap().0, key("deletion"));

    permits.spent(first, later + ms(2_000));
    assert_eq!(permits.next(later + ms(200)), Some(later + ms(2_000)));
    permits.unspent(second);
    assert_eq!(permits.next(later + ms(200)), Some(later + ms(200)));
    let (_, third) = permits.grant(later + ms(200)).unwrap();
    assert_eq!(permits.next(later + ms(300)), Some(later + ms(2_000)), "one is under way");
    permits.spent(third, later + ms(1_500));
    assert_eq!(permits.next(later + ms(300)), Some(later + ms(1_500)));
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
fn an_unspent_permit_that_others_followed_leaves_their_distance_alone() {
    let (mut permits, now) = permits();
    let first = permits.try_take(Attach, now).unwrap();
    let _second = permits.try_take(Attach, now + ms(50)).unwrap();

    permits.unspent(first);

    assert!(permits.try_take(Attach, now + ms(60)).is_none());
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
fn resyncs_under_way_in_two_schedules_of_one_quota_count_together() {
    let (mut permits, now) = permits();
    let (mut other, _) = self::permits();
    let _ours = permits.try_take(Resync, now).unwrap();
    let _theirs = other.try_take(Resync, now).unwrap();
    permits.absorb(other, now);
    permits.enqueue(key("resync"), Resync);
    assert_eq!(permits.next(now + ms(5_000)), None, "two of twenty are under way");
}
