//! The limiter's promise over 2,000 real calls: the client, the wire, and a simulator that refuses
//! what is above the quota in any second.
//!
//! At 200 a second it takes ten seconds. With `LIMITER_QPS=20` before `cargo test --test it limiter
//! -- --nocapture` it shows the figures of the real quota, in 100 s.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use gs_simulator::{Call, EXAMPLE_SECRET_ID, Options, Outcome, RateWindow, Simulator, Stats};
use streamsession_operator::gs::{Client, Endpoint, Settings, Switch};
use streamsession_operator::queue::{Bucket, Key, Limiter, Permit, Priority, WINDOW};
use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::ids::{InstanceId, SessionId};
use tokio::task::JoinSet;

use crate::harness::{SESSION, example_credentials, install_crypto};

const CALLS: u32 = 2_000;
/// Ten times the service's, so that the run takes ten seconds of every `cargo test`.
const QUOTA_DEFAULT: NonZeroU32 = NonZeroU32::new(200).unwrap();
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// One of the calls, as an object that waits for its permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Turn(u32);

impl Turn {
    fn instance(self) -> InstanceId {
        InstanceId::parse(&format!("phone-{:04}", self.0)).expect("an id")
    }
}

impl Key for Turn {
    fn group(&self) -> &'static str {
        if self.0.is_multiple_of(2) { "arcade" } else { "lobby" }
    }
}

fn quota() -> NonZeroU32 {
    match std::env::var("LIMITER_QPS") {
        Ok(text) => text.parse().unwrap_or_else(|error| {
            panic!("LIMITER_QPS is a number of calls a second, not {text:?}: {error}")
        }),
        Err(_) => QUOTA_DEFAULT,
    }
}

/// A call that was made.
struct Made {
    sent: Instant,
    round_trip: Duration,
    answer: Answer,
}

/// Makes the call of a permit as the operator does, and gives the permit back.
async fn call(client: Client, endpoint: Endpoint, turn: Turn, mut permit: Permit<Turn>) -> Made {
    let request = Switch {
        endpoint,
        region: None,
        session: SessionId::parse(SESSION).expect("an id"),
        operation: Operation::Attach,
        instances: vec![turn.instance()],
        timestamp: jiff::Timestamp::now().as_second(),
        credentials: example_credentials(),
    };
    let sent = Instant::now();
    permit.spent_until(sent + CALL_DEADLINE + WINDOW);
    let answer = client.switch(&request).await;
    let answered = Instant::now();
    if answer.verdict != Verdict::Unanswered {
        permit.spent_until(answered + WINDOW);
    }
    Made { sent, round_trip: answered - sent, answer }
}

/// Lets all calls wait at once, and makes each when it is granted; in the order of sending.
async fn drain(
    limiter: &Limiter<Turn>,
    bucket: &Bucket,
    client: &Client,
    endpoint: &Endpoint,
) -> Vec<Made> {
    for number in 0..CALLS {
        limiter.enqueue(bucket, Turn(number), Priority::Attach);
    }
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let (turn, permit) = limiter.granted().await;
        calls.spawn(call(client.clone(), endpoint.clone(), turn, permit));
    }
    let mut made = calls.join_all().await;
    made.sort_by_key(|call| call.sent);
    made
}

fn served(answer: &Answer) -> bool {
    matches!(&answer.verdict, Verdict::Processed { succeeded, refused } if succeeded.len() == 1 && refused.is_empty())
}

/// The share of the quota that was used, beside what the round trips leave of it: a permit comes
/// back a second after the answer. Grants are spaced, so that the longest round trip of a second
/// delays all grants of the next (but for the slack of a timer), and not the mean.
fn print_figures(quota: NonZeroU32, calls: &[Call], made: &[Made], stats: &Stats) {
    let [first, .., last] = calls else { panic!("no calls: {stats:?}") };
    let took_seconds = (last.arrival_ms - first.arrival_ms) / 1_000.0;
    let per_second = f64::from(CALLS - 1) / took_seconds;
    let mean = made.iter().map(|call| call.round_trip).sum::<Duration>() / CALLS;
    let seconds = made.chunks(usize::try_from(quota.get()).expect("small"));
    let longest: Vec<_> =
        seconds.filter_map(|second| second.iter().map(|call| call.round_trip).max()).collect();
    let mean_longest =
        longest.iter().sum::<Duration>() / u32::try_from(longest.len()).expect("small");
    let bound = |round_trip: Duration| 100.0 / (1.0 + round_trip.as_secs_f64());
    println!(
        "{CALLS} calls at {quota}/s: {per_second:.3}/s in {took_seconds:.2} s, {:.2} % of the quota; q/(1+RTT) is {:.2} % for the mean \
         round trip of {mean:.2?}, {:.2} % for the longest of each {quota} calls ({mean_longest:.2?}; of all: {:.2?}); at most {} arrivals \
         in any second, {} throttled",
        100.0 * per_second / f64::from(quota.get()),
        bound(mean),
        bound(mean_longest),
        longest.iter().max().copied().unwrap_or_default(),
        stats.max_arrivals_in_one_second,
        stats.throttled,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_calls_are_all_served_and_no_second_sees_more_than_the_quota() {
    install_crypto();
    let quota = quota();
    let options =
        Options { qps: quota.get(), rate_window: RateWindow::Sliding, ..Options::default() };
    let simulator = Simulator::start(options).await.expect("a simulator");
    let client = Client::new(Settings { call_deadline: CALL_DEADLINE, ..Settings::default() })
        .expect("a client");
    let endpoint = Endpoint::parse(&simulator.url()).expect("an endpoint");
    let bucket = Bucket { account: EXAMPLE_SECRET_ID.into(), endpoint: endpoint.to_string() };
    let limiter = Limiter::new(quota, Instant::now());

    // Twice as long as it should take, and a minute for a machine that is busy with other tests.
    let patience = WINDOW * CALLS / quota.get() * 2 + Duration::from_mins(1);
    let made = tokio::time::timeout(patience, drain(&limiter, &bucket, &client, &endpoint)).await;
    let made = made.unwrap_or_else(|_| {
        panic!("not within {patience:?}; {} still wait, {:?}", limiter.waiting(), simulator.stats())
    });

    let (calls, stats) = (simulator.calls(), simulator.stats());
    print_figures(quota, &calls, &made, &stats);
    let unserved: Vec<_> =
        made.iter().map(|call| &call.answer).filter(|answer| !served(answer)).collect();
    assert!(unserved.is_empty(), "{unserved:?}");
    assert!(calls.iter().all(|call| call.outcome == Outcome::Applied));
    assert_eq!((calls.len(), simulator.members(SESSION).len(), stats.throttled), (2_000, 2_000, 0));
    assert!(
        stats.max_arrivals_in_one_second <= usize::try_from(quota.get()).expect("small"),
        "{stats:?}"
    );
}
