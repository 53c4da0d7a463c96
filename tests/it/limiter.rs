//! The quota over 2,000 real calls: the client, the wire, and a simulator that refuses what is
//! above the quota in any second.
//!
//! At 200 a second it takes ten seconds. With `LIMITER_QPS=20` before `cargo test --test it limiter
//! -- --nocapture` it shows the figures of the real quota, in 100 s.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use gs_simulator::{Call, EXAMPLE_SECRET_ID, Options, Outcome, RateWindow, Simulator, Stats};
use streamsession_core::answer::{Answer, Verdict};
use streamsession_core::identity::Caller;
use streamsession_core::ledger::plan::Priority;
use streamsession_core::object::ObjectKey;
use streamsession_core::scheduler::buckets::{Bucket, Buckets, Permit};
use streamsession_core::scheduler::quota::WINDOW;
use streamsession_operator::gs::{Client, Endpoint, Settings};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::harness::{SESSION, attach_call, install_crypto};

const CALLS: u32 = 2_000;
/// Ten times the service's, so that the run takes ten seconds of every `cargo test`.
const QUOTA_DEFAULT: NonZeroU32 = NonZeroU32::new(200).unwrap();
const CALL_DEADLINE: Duration = Duration::from_secs(10);

fn quota() -> NonZeroU32 {
    match std::env::var("LIMITER_QPS") {
        Ok(text) => text.parse().unwrap_or_else(|error| {
            panic!("LIMITER_QPS is a number of calls a second, not {text:?}: {error}")
        }),
        Err(_) => QUOTA_DEFAULT,
    }
}

/// The object that waits for the permit of a call.
fn waiting(number: u32) -> ObjectKey {
    let namespace = if number.is_multiple_of(2) { "arcade" } else { "lobby" };
    ObjectKey::new(namespace, format!("phone-{number:04}"))
}

/// A call that was made.
struct MadeCall {
    sent: Instant,
    round_trip: Duration,
    answer: Answer,
}

async fn call(
    client: Client,
    url: String,
    object: ObjectKey,
    permit: Permit,
) -> (MadeCall, Permit) {
    let call = attach_call(&url, &[&object.name], jiff::Timestamp::now());
    let sent = Instant::now();
    let answer = client.switch(&call).await;
    (MadeCall { sent, round_trip: sent.elapsed(), answer }, permit)
}

/// Lets all calls wait at once, makes each when it is granted, and gives its permit back as the
/// operator does; in the order of sending.
async fn make_all(quota: NonZeroU32, bucket: &Bucket, client: &Client, url: &str) -> Vec<MadeCall> {
    let started = Instant::now();
    let mut buckets = Buckets::new(quota, NonZeroU32::MIN);
    for number in 0..CALLS {
        buckets.enqueue(bucket, waiting(number), Priority::Attach, started.elapsed());
    }
    let (mut calls, mut made) = (JoinSet::new(), Vec::new());
    loop {
        while let Some((object, permit)) = buckets.grant(started.elapsed()) {
            calls.spawn(call(client.clone(), url.to_owned(), object, permit));
        }
        let next = buckets.next(started.elapsed()).map(|at| started + at);
        tokio::select! {
            Some(called) = calls.join_next() => {
                let (call, permit) = called.expect("a call");
                let unanswered = call.answer.verdict == Verdict::Unanswered;
                let over = if unanswered { call.sent + CALL_DEADLINE } else { Instant::now() };
                buckets.spent(permit, over - started + WINDOW);
                made.push(call);
            }
            () = async { sleep_until(next.expect("a time").into()).await }, if next.is_some() => {}
            else => break,
        }
    }
    made.sort_by_key(|call| call.sent);
    made
}

fn served(answer: &Answer) -> bool {
    matches!(
        &answer.verdict,
        Verdict::Processed { succeeded, refused } if succeeded.len() == 1 && refused.is_empty()
    )
}

/// The share of the quota that was used, beside what the round trips leave of it: a permit comes
/// back a second after the answer. Grants are spaced, so that the longest round trip of a second
/// delays all grants of the next (but for the slack of a timer), and not the mean.
fn print_figures(quota: NonZeroU32, calls: &[Call], made: &[MadeCall], stats: &Stats) {
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
        "{CALLS} calls at {quota}/s: {per_second:.3}/s in {took_seconds:.2} s, {:.2} % of the \
         quota; q/(1+RTT) is {:.2} % for the mean round trip of {mean:.2?}, {:.2} % for the \
         longest of each {quota} calls ({mean_longest:.2?}; of all: {:.2?}); at most {} arrivals \
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
    let url = simulator.url();
    let endpoint = Endpoint::parse(&url).expect("an endpoint").to_string().into();
    let bucket = Bucket { caller: Caller::User(EXAMPLE_SECRET_ID.into()), endpoint };

    // Twice as long as it should take, and a minute for a machine that is busy with other tests.
    let timeout = WINDOW * CALLS / quota.get() * 2 + Duration::from_mins(1);
    let made = tokio::time::timeout(timeout, make_all(quota, &bucket, &client, &url)).await;
    let made = made.unwrap_or_else(|_| panic!("not within {timeout:?}: {:?}", simulator.stats()));

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
