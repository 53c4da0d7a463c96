//! The real client against all that the simulator, or the way to it, can answer: the verdict of
//! each. And services whose clock is off.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gs_simulator::{AnswerFault, Faults, Garbling, Outcome as Fate, Simulator, Tls};
use serde_json::json;
use streamsession_operator::api::v1alpha1::UnsettledInstance;
use streamsession_operator::gs::{Client, Endpoint, Settings, Switch};
use streamsession_core::answer::{Answer, NothingDone, Operation, Outcome, Verdict};
use streamsession_core::ids::{InstanceId, SessionId};
use tokio::net::TcpListener;

use crate::harness::{Lab, SESSION, eventually, example_credentials, install_crypto};

/// Short, for answers that never come in time.
const IMPATIENT: Duration = Duration::from_millis(600);
/// Long, for answers that are long.
const PATIENT: Duration = Duration::from_secs(30);

fn settings(call_deadline: Duration) -> Settings {
    Settings { call_deadline, ..Settings::default() }
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).expect("an id")
}

/// Attaches `a` and `b`.
async fn call(settings: Settings, url: &str, timestamp: i64) -> Answer {
    install_crypto();
    let request = Switch {
        endpoint: Endpoint::parse(url).expect("an endpoint"),
        region: None,
        session: SessionId::parse(SESSION).expect("an id"),
        operation: Operation::Attach,
        instances: vec![id("a"), id("b")],
        timestamp,
        credentials: example_credentials(),
    };
    Client::new(settings).expect("a client").switch(&request).await
}

async fn attach(simulator: &Simulator, settings: Settings) -> Answer {
    call(settings, &simulator.url(), simulator.now().as_second()).await
}

async fn simulator(faults: Faults) -> Simulator {
    Simulator::start(gs_simulator::Options { faults, ..gs_simulator::Options::default() })
        .await
        .expect("a simulator")
}

/// What the answer says of each id, which must be the same of both, and its code.
fn said(answer: &Answer) -> (Outcome, &str) {
    let outcomes = [answer.outcome(&id("a"), 2), answer.outcome(&id("b"), 2)];
    assert_eq!(outcomes[0], outcomes[1], "{answer:?}");
    (outcomes[0], &answer.code)
}

fn fates(simulator: &Simulator) -> Vec<Fate> {
    simulator.calls().into_iter().map(|call| call.outcome).collect()
}

fn both() -> BTreeSet<String> {
    BTreeSet::from(["a".to_owned(), "b".to_owned()])
}

/// What each unusable answer says of an id, and its code.
const GARBLED: [(Garbling, Outcome, &str); 12] = [
    (Garbling::Html502, Outcome::Unanswered, "HTTP 502"),
    (Garbling::Html200, Outcome::Unanswered, "UnreadableAnswer"),
    (Garbling::NotJson, Outcome::Unanswered, "UnreadableAnswer"),
    (Garbling::Empty, Outcome::Unanswered, "UnreadableAnswer"),
    (Garbling::Truncated, Outcome::Unanswered, "UnreadableAnswer"),
    (Garbling::WithoutResponse, Outcome::Unanswered, "UnreadableAnswer"),
    (Garbling::Oversized, Outcome::Unanswered, "OversizedAnswer"),
    (Garbling::UnknownFields, Outcome::Done, ""),
    (Garbling::UnaskedId, Outcome::Done, ""),
    (Garbling::NullLists, Outcome::Unclear, ""),
    (Garbling::IdInBothLists, Outcome::Unclear, ""),
    (Garbling::NoIds, Outcome::Unclear, ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_garbled_answer_to_a_call_that_was_applied_has_its_verdict_and_is_asked_once() {
    for (kind, outcome, code) in GARBLED {
        let simulator = simulator(Faults {
            garbled_answers: vec![AnswerFault { kind, times: 1 }],
            ..Faults::default()
        })
        .await;

        let answer = attach(&simulator, settings(PATIENT)).await;

        assert_eq!(said(&answer), (outcome, code), "{kind:?}: {answer:?}");
        // The service's own answers have an id to ask about, and no others do; a person needs a
        // message then.
        assert_eq!(
            answer.request_id.is_empty(),
            outcome == Outcome::Unanswered,
            "{kind:?}: {answer:?}"
        );
        assert_eq!(
            answer.message.is_empty(),
            outcome != Outcome::Unanswered,
            "{kind:?}: {answer:?}"
        );
        assert!(answer.message.chars().count() <= 512, "{kind:?}: {answer:?}");
        assert_eq!(
            (fates(&simulator), simulator.members(SESSION)),
            (vec![Fate::AppliedGarbled], both()),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn an_id_that_nobody_asked_for_is_not_believed() {
    let unasked = AnswerFault { kind: Garbling::UnaskedId, times: 1 };
    let simulator = simulator(Faults { garbled_answers: vec![unasked], ..Faults::default() }).await;

    let answer = attach(&simulator, settings(PATIENT)).await;

    let Verdict::Processed { succeeded, refused } = answer.verdict else { panic!("{answer:?}") };
    assert_eq!((succeeded, refused), (BTreeSet::from([id("a"), id("b")]), BTreeSet::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_answers_in_the_services_place_is_judged_likewise_since_nobody_knows_what_it_passed_on()
 {
    // What only the service itself can have said is left out.
    let pages = GARBLED.into_iter().filter(|(_, outcome, _)| *outcome == Outcome::Unanswered);
    for (kind, outcome, code) in
        pages.chain([(Garbling::Html429, Outcome::NothingDone, "HTTP 429")])
    {
        let simulator = simulator(Faults {
            gateways: vec![AnswerFault { kind, times: 1 }],
            ..Faults::default()
        })
        .await;

        let answer = attach(&simulator, settings(PATIENT)).await;

        assert_eq!(said(&answer), (outcome, code), "{kind:?}: {answer:?}");
        assert_eq!(
            (fates(&simulator), simulator.members(SESSION)),
            (vec![Fate::Gateway], BTreeSet::new()),
            "{kind:?}"
        );
        let throttled = answer.verdict == Verdict::NothingDone(NothingDone::Throttled);
        assert_eq!(throttled, kind == Garbling::Html429, "{answer:?}");
    }
}

#[tokio::test]
async fn each_way_to_lose_an_answer_is_unanswered_in_time_and_sent_once() {
    let slow = Faults { slow_answers: 1, drip_bytes: 1, drip_pause_ms: 50, ..Faults::default() };
    let late = Faults { late_arrivals: 1, late_arrival_ms: 20, ..Faults::default() };
    for (what, faults, code, fate) in [
        (
            "dropped before it is applied",
            Faults { drop_requests: 1, ..Faults::default() },
            "ConnectionLost",
            Fate::Dropped,
        ),
        (
            "dropped after it was applied",
            Faults { drop_answers: 1, ..Faults::default() },
            "ConnectionLost",
            Fate::AppliedUnanswered,
        ),
        ("on a detour", late, "ConnectionLost", Fate::Held),
        (
            "answered after the deadline",
            Faults { delay_ms: 5000, ..Faults::default() },
            "DeadlineExceeded",
            Fate::Applied,
        ),
        ("answered byte by byte beyond the deadline", slow, "DeadlineExceeded", Fate::Applied),
    ] {
        let simulator = simulator(faults).await;
        let start = Instant::now();

        let answer = attach(&simulator, settings(IMPATIENT)).await;

        assert_eq!(said(&answer), (Outcome::Unanswered, code), "{what}: {answer:?}");
        assert!(answer.message.contains(&simulator.address().to_string()), "{what}: {answer:?}");
        assert!(
            start.elapsed() < IMPATIENT + Duration::from_secs(3),
            "{what}: {:?}",
            start.elapsed()
        );
        let mut fates = fates(&simulator);
        fates.retain(|fate| *fate != Fate::LateApplied);
        assert_eq!(fates, [fate], "{what}");
    }
}

#[tokio::test]
async fn a_slow_answer_within_the_deadline_is_read_to_its_end() {
    let simulator = simulator(Faults {
        slow_answers: 1,
        drip_bytes: 16,
        drip_pause_ms: 20,
        ..Faults::default()
    })
    .await;

    let answer = attach(&simulator, settings(PATIENT)).await;

    assert_eq!(said(&answer), (Outcome::Done, ""), "{answer:?}");
}

#[tokio::test]
async fn a_closed_port_is_a_call_that_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);

    let answer = call(settings(IMPATIENT), &url, 1_767_840_000).await;

    assert_eq!(answer.verdict, Verdict::NothingDone(NothingDone::NotSent), "{answer:?}");
    assert_eq!(said(&answer), (Outcome::NothingDone, "ConnectFailed"));
    assert!(answer.message.contains(&url), "{answer:?}");
}

async fn over_tls() -> Simulator {
    Simulator::start(gs_simulator::Options {
        tls: Some(Tls::SelfMade),
        ..gs_simulator::Options::default()
    })
    .await
    .expect("a simulator")
}

/// A file that goes with it.
struct File(PathBuf);

impl File {
    fn of(simulator: &Simulator, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "streamsession-answers-{}-{}.pem",
            std::process::id(),
            simulator.address().port()
        ));
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn ca(simulator: &Simulator) -> Self {
        Self::of(simulator, simulator.ca_pem().expect("a CA"))
    }

    fn settings(&self) -> Settings {
        Settings { ca_file: Some(self.0.clone()), ..settings(PATIENT) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_a_call_that_was_not_sent() {
    let (simulator, other) = (over_tls().await, over_tls().await);
    let other_ca = File::ca(&other);

    for (what, settings) in
        [("no CA file", settings(PATIENT)), ("another's CA", other_ca.settings())]
    {
        let answer = attach(&simulator, settings).await;

        assert_eq!(
            answer.verdict,
            Verdict::NothingDone(NothingDone::NotSent),
            "{what}: {answer:?}"
        );
        assert_eq!(answer.code, "ConnectFailed", "{what}: {answer:?}");
        assert!(answer.message.to_lowercase().contains("certificate"), "{what}: {answer:?}");
    }
    assert_eq!(fates(&simulator), []);
}

#[tokio::test]
async fn a_certificate_of_the_ca_files_ca_is_believed() {
    let simulator = over_tls().await;
    let ca = File::ca(&simulator);

    let answer = attach(&simulator, ca.settings()).await;

    assert_eq!(said(&answer), (Outcome::Done, ""), "{answer:?}");
    assert_eq!(simulator.members(SESSION), both());
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_named() {
    let simulator = over_tls().await;
    let empty = File::of(&simulator, "no certificate\n");

    for file in [empty.0.clone(), "/nonexistent/ca.pem".into()] {
        let error = Client::new(Settings { ca_file: Some(file.clone()), ..Settings::default() })
            .expect_err("no CA")
            .to_string();
        assert!(
            error.contains(&file.display().to_string()) && error.contains("--gs-ca-file"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_operator_keeps_a_session_over_tls_with_a_ca_file() {
    let mut lab = Lab::with(gs_simulator::Options {
        tls: Some(Tls::SelfMade),
        signature_validity: Duration::from_secs(4),
        ..gs_simulator::Options::default()
    })
    .await;
    let ca = File::ca(&lab.simulator);
    lab.options.gs_ca_file = Some(ca.0.clone());
    lab.start_operator().await;

    lab.create("lobby", &["a"], json!({})).await;

    lab.until_ready("lobby", &["a"]).await;
}

/// Waits until the operator's metric says that the node's clock is so many seconds ahead, or a
/// little less: the service's `Date` is cut.
async fn until_ahead(lab: &Lab, seconds: i64) {
    eventually(&format!("the node is {seconds} s ahead"), async || {
        let text = reqwest::get(format!("http://{}/metrics", lab.admin()))
            .await
            .expect("an answer")
            .text()
            .await
            .expect("a text");
        let ahead = text
            .lines()
            .find_map(|line| line.strip_prefix("streamsession_node_clock_ahead_seconds "));
        let ahead = ahead.and_then(|ahead| ahead.parse::<i64>().ok());
        if ahead.is_some_and(|ahead| (ahead - seconds).abs() <= 3) {
            Ok(())
        } else {
            Err(format!("{ahead:?}"))
        }
    })
    .await;
}

/// A session is kept by a service whose clock is so far ahead of this machine's, and what is in
/// doubt is judged by the service's clock.
async fn works_with_a_clock_that_is_ahead(seconds: i64) {
    let validity = Duration::from_secs(4);
    let options = gs_simulator::Options {
        clock_offset_seconds: seconds,
        signature_validity: validity,
        ..gs_simulator::Options::default()
    };
    let mut lab = Lab::with(options).await;
    lab.start_operator().await;
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_ready("lobby", &["a", "b"]).await;
    until_ahead(&lab, -seconds).await;

    lab.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
    lab.edit_ids("lobby", &["a"]).await;
    let doubt = |unsettled: &UnsettledInstance| {
        unsettled.detach_may_arrive_until.clone().map(|until| until.0)
    };
    let in_doubt = lab
        .until_status("lobby", "b is in doubt", |status| {
            status.unsettled_instances.iter().any(|b| doubt(b).is_some())
        })
        .await;
    let until = in_doubt
        .status
        .expect("a status")
        .unsettled_instances
        .iter()
        .find_map(doubt)
        .expect("a deadline");
    let left = until.duration_since(lab.simulator.now()).as_secs();
    lab.edit_ids("lobby", &["a", "b"]).await;

    // The signature's validity, a margin of 5 s, and what is cut.
    assert!((1..=4 + 5 + 1).contains(&left), "{left} s");
    lab.until_ready("lobby", &["a", "b"]).await;
    assert!(lab.simulator.now() >= until);
    let refused: Vec<_> =
        lab.calls().into_iter().filter(|call| matches!(call.outcome, Fate::Refused(_))).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_service_whose_clock_is_ten_minutes_ahead_is_served_and_judged_by_its_clock() {
    works_with_a_clock_that_is_ahead(600).await;
}

#[tokio::test]
async fn a_service_whose_clock_is_ten_minutes_behind_is_served_and_judged_by_its_clock() {
    works_with_a_clock_that_is_ahead(-600).await;
}

#[tokio::test]
async fn a_service_whose_clock_is_set_meanwhile_is_followed_after_one_refusal() {
    for seconds in [600, -600] {
        let lab = Lab::start().await;
        lab.create("lobby", &["a"], json!({})).await;
        lab.until_ready("lobby", &["a"]).await;

        lab.simulator.set_faults(Faults { clock_offset_seconds: seconds, ..Faults::default() });
        lab.edit_ids("lobby", &["a", "b"]).await;

        lab.until_ready("lobby", &["a", "b"]).await;
        let outcomes: Vec<_> = lab.calls().into_iter().map(|call| call.outcome).collect();
        assert_eq!(
            outcomes,
            [Fate::Applied, Fate::Refused("AuthFailure.SignatureExpire".into()), Fate::Applied],
            "{seconds} s"
        );
    }
}
