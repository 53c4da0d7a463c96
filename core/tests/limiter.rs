//! Many calls against a service, in virtual time: what the limiter promises, and how close it
//! comes. The figures are printed with `cargo test figures -- --nocapture`.

#![allow(missing_docs, reason = "a test crate")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unchecked_time_subtraction,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use streamsession_core::ledger::plan::Priority;
use streamsession_core::object::ObjectKey;
use streamsession_core::scheduler::permits::{Permit, Permits};
use streamsession_core::scheduler::quota::WINDOW;

const QUOTA: u32 = 20;
const SPACING: Duration = Duration::from_millis(50);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Served,
    Refused,
    NotSent,
}

/// What happens to a call, decided when it is granted.
#[derive(Clone, Copy, Debug)]
struct Trip {
    outward: Duration,
    homeward: Duration,
    fate: Fate,
}

impl Trip {
    fn served(rtt: Duration) -> Self {
        Self { outward: rtt / 2, homeward: rtt / 2, fate: Fate::Served }
    }
}

#[derive(Clone, Debug)]
struct Granted {
    call: ObjectKey,
    at: Duration,
    quota: usize,
    trip: Trip,
}

impl Granted {
    fn arrived_at(&self) -> Option<Duration> {
        (self.trip.fate != Fate::NotSent).then(|| self.at + self.trip.outward)
    }
}

/// A limiter of one quota, and the calls that it lets go.
struct Play<F> {
    permits: Permits,
    trip: F,
    timer_late: Duration,
    now: Duration,
    under_way: BTreeMap<(Duration, usize), (Permit, Trip)>,
    granted: Vec<Granted>,
}

impl<F: FnMut(ObjectKey, Duration) -> Trip> Play<F> {
    fn new(quota: u32, timer_late: Duration, trip: F) -> Self {
        let now = Duration::ZERO;
        let permits = Permits::new(NonZeroU32::new(quota).unwrap());
        Self { permits, trip, timer_late, now, under_way: BTreeMap::new(), granted: Vec::new() }
    }

    fn enqueue(&mut self, group: &'static str, count: usize, priority: Priority) {
        for number in 0..count {
            self.permits.enqueue(ObjectKey::new(group, number.to_string()), priority);
        }
    }

    /// Plays on for a while, or as long as something happens.
    fn play(&mut self, for_a_while: Duration) {
        let until = self.now + for_a_while;
        loop {
            let answered = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let grant = self.permits.next(self.now).map(|at| at + self.timer_late);
            let Some(now) = answered.into_iter().chain(grant).min().filter(|at| *at <= until)
            else {
                break;
            };
            self.now = now;
            self.take_answers();
            self.grant();
        }
        self.now = until;
    }

    fn take_answers(&mut self) {
        while let Some(first) =
            self.under_way.first_entry().filter(|first| first.key().0 <= self.now)
        {
            let (permit, trip) = first.remove();
            if trip.fate == Fate::Refused {
                let _ = self.permits.throttled(&permit, self.now);
            }
            if trip.fate == Fate::NotSent {
                self.permits.unspent(permit);
            } else {
                self.permits.spent(permit, self.now + WINDOW);
            }
        }
    }

    fn grant(&mut self) {
        let quota = usize::try_from(self.permits.quota(self.now).get()).unwrap();
        let Some((call, permit)) = self.permits.grant(self.now) else { return };
        let trip = (self.trip)(call.clone(), self.now);
        self.under_way
            .insert((self.now + trip.outward + trip.homeward, self.granted.len()), (permit, trip));
        self.granted.push(Granted { call, at: self.now, quota, trip });
    }

    /// For each second that begins with an arrival: how many arrived, and what the quota was at the
    /// last grant among them.
    fn seconds(&self) -> Vec<(usize, usize)> {
        let mut arrived: Vec<_> = self
            .granted
            .iter()
            .filter_map(|granted| Some((granted.arrived_at()?, granted)))
            .collect();
        arrived.sort_by_key(|(at, _)| *at);
        let second = |(first, (from, _)): (usize, &(Duration, &Granted))| {
            let within = arrived[first..].iter().take_while(|(at, _)| *at < *from + WINDOW);
            // Two grants at one time are of one quota, but for a halving between them: then the
            // later one is the lower.
            let quota = within
                .clone()
                .map(|(_, granted)| (granted.at, std::cmp::Reverse(granted.quota)))
                .max()
                .unwrap()
                .1
                .0;
            (within.count(), quota)
        };
        arrived.iter().enumerate().map(second).collect()
    }

    fn most_in_a_second(&self) -> usize {
        self.seconds().into_iter().map(|(count, _)| count).max().unwrap_or(0)
    }

    /// How long it is from now until a call of the group is granted.
    fn wait_of(&mut self, group: &str) -> Duration {
        let (asked_at, known) = (self.now, self.granted.len());
        let granted = (0..60_000).find_map(|_| {
            self.play(ms(1));
            self.granted[known..]
                .iter()
                .find(|granted| *granted.call.namespace == *group)?
                .at
                .checked_sub(asked_at)
        });
        granted.expect("granted within a minute")
    }
}

const AN_HOUR: Duration = Duration::from_hours(1);

fn any_trip() -> impl Strategy<Value = Trip> {
    let fate =
        prop_oneof![12 => Just(Fate::Served), 3 => Just(Fate::NotSent), 1 => Just(Fate::Refused)];
    (0_u64..700, 0_u64..700, fate).prop_map(|(outward, homeward, fate)| Trip {
        outward: ms(outward),
        homeward: ms(homeward),
        fate,
    })
}

proptest! {
    #[test]
    fn no_second_sees_more_calls_than_the_quota_at_its_last_grant(
        quota in 1_u32..40,
        trips in proptest::collection::vec(any_trip(), 1..200),
        timer_late in 0_u64..20,
    ) {
        let trip = |call: ObjectKey, _| trips[call.name.parse::<usize>().unwrap()];
        let mut play = Play::new(quota, ms(timer_late), trip);
        play.enqueue("", trips.len(), Priority::Attach);

        play.play(AN_HOUR);

        prop_assert_eq!(play.granted.len(), trips.len());
        for (count, quota) in play.seconds() {
            prop_assert!(count <= quota, "{count} in a second, the last granted at {quota}/s");
        }
    }
}

#[test]
fn figures_of_a_backlog_it_uses_the_quota_but_for_one_round_trip_a_second() {
    for (rtt, timer_late) in
        [(2, 0), (2, 1), (10, 0), (10, 1), (20, 0), (20, 1), (100, 0), (100, 1)]
    {
        let (rtt, timer_late) = (ms(rtt), ms(timer_late));
        let mut play = Play::new(QUOTA, timer_late, |_, _| Trip::served(rtt));
        play.enqueue("", 2_000, Priority::Attach);

        play.play(AN_HOUR);

        let took = play.granted[1_999].at - play.granted[0].at;
        let (rate, quota) = (1_999.0 / took.as_secs_f64(), f64::from(QUOTA));
        let promised = quota / (WINDOW + rtt + timer_late).as_secs_f64();
        let most = play.most_in_a_second();
        let percent = 100.0 * rate / quota;
        println!(
            "2,000 calls, round trip {rtt:?}, timers {timer_late:?} late: {rate:.2}/s, \
             {percent:.2} % of {quota}/s, at most {most} arrivals in a second"
        );
        assert!(rate >= 0.999 * promised, "{rate}/s instead of {promised}/s");
        assert!(rtt + timer_late > ms(20) || rate >= 0.98 * quota);
        assert_eq!(most, 20);
    }
}

#[test]
fn figures_of_one_edit_it_waits_a_spacing_or_two_whatever_else_waits() {
    use Priority::{Attach, Detach, Retry};
    let (closing, crowd, failing) = (("closing", Detach), ("crowd", Attach), ("failing", Retry));
    let crowds = [
        ("an edit, 10,000 in another namespace", vec![crowd], Attach, 1),
        ("an edit, and 10,000 retries besides", vec![crowd, failing], Attach, 2),
        ("a deletion, 10,000 edits and 10,000 retries", vec![crowd, failing], Detach, 2),
        ("a deletion, 10,000 in each class", vec![closing, crowd, failing], Detach, 2),
        ("an edit, 10,000 deletions", vec![closing], Attach, 8),
        ("a retry, 10,000 deletions and 10,000 edits", vec![closing, crowd], Retry, 8),
    ];
    for (what, crowd, priority, spacings_max) in crowds {
        let mut play = Play::new(QUOTA, Duration::ZERO, |_, _| Trip::served(ms(20)));
        for (group, class) in crowd {
            play.enqueue(group, 10_000, class);
        }
        play.play(ms(3_000));

        let mut waits: Vec<_> = (0..400_u64)
            .map(|turn| {
                // Longer than any spacing: whoever asks again at once waits for a turn of the
                // others.
                play.play(ms(117 + turn * 37 % 449));
                play.enqueue("mine", 1, priority);
                play.wait_of("mine")
            })
            .collect();

        waits.sort_unstable();
        let (median, most) = (waits[200], waits[399]);
        println!("{what}: granted after {median:?} (median), {most:?} (longest of 400)");
        // Once a second a spacing is longer by the round trip.
        assert!(most <= SPACING * spacings_max + ms(20), "{most:?}");
    }
}

#[test]
fn figures_of_a_quota_that_others_draw_on_it_finds_its_share() {
    for left in [2, 5, 10, 15] {
        // A service that lets so many of our calls through in a sliding second, and counts those
        // that it refuses.
        let mut arrived = Vec::<Duration>::new();
        let mut play = Play::new(QUOTA, Duration::ZERO, |_, now| {
            let trip = Trip::served(ms(20));
            let at = now + trip.outward;
            let busy =
                arrived.iter().rev().take_while(|other| **other + WINDOW > at).count() >= left;
            arrived.push(at);
            Trip { fate: if busy { Fate::Refused } else { Fate::Served }, ..trip }
        });
        play.enqueue("", 2_000, Priority::Attach);

        play.play(AN_HOUR);

        let took = (play.granted[1_999].at - play.granted[0].at).as_secs_f64();
        let served =
            play.granted.iter().filter(|granted| granted.trip.fate == Fate::Served).count();
        let rate = f64::from(u32::try_from(served).unwrap()) / took;
        println!(
            "others leave {left}/s of {QUOTA}: {rate:.1}/s served, {:.1}/s refused",
            2_000.0 / took - rate
        );
        assert!(served > 1_000);
        assert!(play.seconds().iter().all(|(count, quota)| count <= quota));
    }
}
