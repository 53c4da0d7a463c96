//! The controller against an API server that fails: every kind of request, with every fault, while
//! an object is created, edited, edited without a call, and deleted.
//!
//! In such a run nothing may leak at any time, nothing may be written without preconditions, no
//! request may be repeated without end, and each step must converge. What fails for one object
//! alone is tried on many at once, side by side on one operator, each in a namespace and with a
//! session of its own; a watch that fails has an operator of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gs_simulator::{EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Simulator};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use streamsession_operator::operator::{Error, Operator, Options};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::fake_api::faults::{Fault, Injection, Injector, Site};
use crate::fake_api::store::{Key, Store};
use crate::fake_api::{FakeApi, SUCCESSOR};
use crate::harness::{DEADLINE, install_crypto, manifest, spec};

/// For each request to the API server: one that is not answered costs that much, and one that a
/// busy machine answers later is made again.
const KUBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Runs at a time: they mostly wait.
const AT_A_TIME: usize = 32;
/// Requests of a run without faults: 23, and some more if a permit or a watch event comes later. A
/// loop that does not wait makes hundreds.
const REQUESTS: usize = 32;
/// What a fault may cost besides, or a machine so busy that a request times out.
const REQUESTS_PER_FAULT: usize = 8;
/// An operator takes a while to build; more at once would delay those that run.
static BUILDERS: Semaphore = Semaphore::const_new(2);

/// A validity of signatures, and a timeout of calls, longer than every test: only a mistake puts a
/// call in doubt.
const LONG: Duration = Duration::from_mins(5);

/// The quota is no subject here.
const CALLS_PER_SECOND: u32 = 1000;

/// The instance of an object that a person deletes by force.
const LOST: &str = "lost";

/// An object of that session.
fn object(session: &str, instances: &[&str]) -> Value {
    manifest(&json!({}), &spec(session, instances))
}

fn lobby(namespace: &str) -> Key {
    Key::new("streamsessions", namespace, "lobby")
}

/// A run with these faults.
#[derive(Clone, Debug, Default)]
struct Case {
    injections: Vec<Injection>,
    /// No streaming lists, and one object in a page.
    paged: bool,
}

impl Case {
    fn of(site: Site, skip: usize, times: usize, fault: Fault) -> Self {
        Self { injections: vec![Injection { site, skip, times, fault }], paged: false }
    }

    fn requests_max(&self, took: Duration) -> usize {
        let faults: usize = self.injections.iter().map(|injection| injection.times).sum();
        let late = took.as_millis() / KUBE_TIMEOUT.as_millis();
        REQUESTS + (faults + usize::try_from(late).expect("few")) * REQUESTS_PER_FAULT
    }
}

/// An operator, a simulator and an API server.
struct Environment {
    api: Arc<FakeApi>,
    simulator: Arc<Simulator>,
    stopping: CancellationToken,
    operator: JoinHandle<Result<(), Error>>,
}

impl Environment {
    async fn start(paged: bool) -> Self {
        install_crypto();
        let options = gs_simulator::Options {
            signature_validity: LONG,
            qps: 2 * CALLS_PER_SECOND,
            ..gs_simulator::Options::default()
        };
        let simulator = Arc::new(Simulator::start(options).await.expect("a simulator"));
        let api = FakeApi::new();
        if paged {
            api.page_max(1);
            api.create(&Key::new("streamsessions", "hall", "other"), &object("hall", &[]));
        }
        let members = Arc::clone(&simulator);
        api.check(move |store, namespace| violation(store, namespace, &members));

        let options = Options {
            gs_qps: CALLS_PER_SECOND.try_into().expect("some"),
            gs_burst: CALLS_PER_SECOND.try_into().expect("some"),
            // No call is lost here; one that times out is in doubt for the validity of a signature.
            gs_timeout: LONG / 2,
            kube_timeout: KUBE_TIMEOUT,
            signature_validity: LONG,
            retry_base: Duration::from_millis(20),
            // An object that waits for an answer delays no other.
            concurrency: AT_A_TIME,
            ..Options::from_flags(["--gs-endpoint", &simulator.url()]).expect("options")
        };
        let client = api.client();
        let builder = BUILDERS.acquire().await.expect("open");
        let build = || Operator::new(options, client, "https://fake".to_owned());
        let operator = spawn_blocking(build).await.expect("no panic");
        drop(builder);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stopping = CancellationToken::new();
        let operator = tokio::spawn(operator.expect("an operator").run(listener, stopping.clone()));
        Self { api, simulator, stopping, operator }
    }

    async fn stop(self) {
        self.stopping.cancel();
        self.operator.await.expect("no panic").expect("a clean end");
    }

    /// A Secret, and the object that uses it.
    fn create(&self, namespace: &str, instances: &[&str]) {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data =
            json!({"secretId": bytes(EXAMPLE_SECRET_ID), "secretKey": bytes(EXAMPLE_SECRET_KEY)});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": data});
        self.api.create(&Key::new("secrets", namespace, "tencent"), &secret);
        self.api.create(&lobby(namespace), &object(namespace, instances));
    }

    /// Waits until all wanted are attached, the status says so, and nothing is open.
    async fn until_settled(&self, namespace: &str, what: &str) -> Result<(), String> {
        let look = |store: &Store, _: &Injector| settled(store, namespace, &self.simulator);
        self.api.until(namespace, DEADLINE, look).await.map_err(|error| format!("{what}: {error}"))
    }

    async fn until_gone(&self, namespace: &str) -> Result<(), String> {
        let look = |store: &Store, _: &Injector| {
            store.peek(&lobby(namespace)).map_or(Ok(()), |object| Err(object.to_string()))
        };
        self.api
            .until(namespace, DEADLINE, look)
            .await
            .map_err(|error| format!("the deletion: {error}"))
    }

    /// An Event is written some time after what it reports.
    async fn until_injected(&self, namespace: &str) -> Result<(), String> {
        let look = |_: &Store, injector: &Injector| {
            if injector.is_done(namespace) { Ok(()) } else { Err(String::new()) }
        };
        self.api
            .until(namespace, DEADLINE, look)
            .await
            .map_err(|error| format!("a fault was not injected: {error}"))
    }

    async fn run(&self, namespace: &str, case: &Case) -> Result<(), String> {
        for injection in &case.injections {
            self.api.inject(namespace, *injection);
        }
        let (key, begun) = (lobby(namespace), Instant::now());
        self.create(namespace, &["a", "b"]);
        self.until_settled(namespace, "the creation").await?;
        self.api.patch(&key, &json!({"spec": {"slaveInstanceIds": ["a", "c"]}}));
        self.until_settled(namespace, "the edit").await?;
        self.api.patch(&key, &json!({"spec": {"deletionPolicy": "Delete"}}));
        self.until_settled(namespace, "the edit without a call").await?;
        self.api.delete(&key);
        self.until_gone(namespace).await?;
        self.until_injected(namespace).await?;
        self.check_end(namespace, case.requests_max(begun.elapsed()))
    }

    /// An object that is deleted by force and created anew right before a request of that kind.
    async fn run_recreated(&self, namespace: &str, case: &Case) -> Result<(), String> {
        for injection in &case.injections {
            self.api.inject(namespace, *injection);
        }
        let (key, begun) = (lobby(namespace), Instant::now());
        self.create(namespace, &[LOST]);
        for site in case.injections.iter().map(|injection| injection.site) {
            if matches!(site, Site::Condition | Site::FinalizerOff) {
                self.until_settled(namespace, "the creation").await?;
            }
            match site {
                Site::Condition => {
                    self.api.patch(&key, &json!({"spec": {"deletionPolicy": "Delete"}}));
                }
                Site::FinalizerOff => self.api.delete(&key),
                _ => {}
            }
        }
        self.until_injected(namespace).await?;
        self.until_settled(namespace, "the second creation").await?;
        self.api.delete(&key);
        self.until_gone(namespace).await?;
        let mut calls = self.simulator.calls();
        calls.retain(|call| call.session_id.as_deref() == Some(namespace));
        let ids = calls.into_iter().flat_map(|call| call.instance_ids);
        let named: Vec<_> = ids.skip_while(|id| id == LOST).collect();
        if named.iter().any(|id| id == LOST) {
            return Err(format!("called for the first object after the second one's: {named:?}"));
        }
        self.check_end(namespace, case.requests_max(begun.elapsed()))
    }

    /// What must hold at the end of a run.
    fn check_end(&self, namespace: &str, requests_max: usize) -> Result<(), String> {
        let left: Vec<_> =
            self.simulator.members(namespace).into_iter().filter(|id| !is_lost(id)).collect();
        let violations = self.api.violations(namespace);
        let requests = self.api.requests(namespace) + self.api.requests("");
        if !left.is_empty() {
            Err(format!("after the deletion {left:?} are left"))
        } else if !violations.is_empty() {
            Err(violations.join("\n"))
        } else if requests > requests_max {
            Err(format!("{requests} requests, more than {requests_max}"))
        } else {
            Ok(())
        }
    }
}

/// Whether it is of an object that a person deleted by force: its ledger is lost.
fn is_lost(id: &str) -> bool {
    id == LOST
}

fn texts(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Every id that may be attached by the ledger.
fn in_ledger(status: &Value) -> BTreeSet<String> {
    let unsettled = status["unsettledInstances"].as_array().into_iter().flatten();
    let mut ids: BTreeSet<_> = unsettled
        .filter_map(|unsettled| unsettled["instanceId"].as_str())
        .map(str::to_owned)
        .collect();
    ids.extend(texts(&status["attachedInstanceIds"]));
    ids.extend(texts(&status["pendingCall"]["instanceIds"]));
    ids
}

/// What must not be after any request.
fn violation(store: &Store, namespace: &str, simulator: &Simulator) -> Option<String> {
    leak(store, namespace, simulator).or_else(|| foreign_status(store, namespace))
}

/// A status that was meant for the object that had the name before.
fn foreign_status(store: &Store, namespace: &str) -> Option<String> {
    store.within("streamsessions", namespace).find_map(|object| {
        let (owner, uid) = (&object["status"]["objectUID"], &object["metadata"]["uid"]);
        let is_successor = texts(&object["spec"]["slaveInstanceIds"]).contains(SUCCESSOR);
        let mixed = is_successor && object["status"].to_string().contains(LOST);
        ((!owner.is_null() && owner != uid) || mixed)
            .then(|| format!("a status of another object: {object}"))
    })
}

/// Members of the namespace's session that are in no ledger there.
fn leak(store: &Store, namespace: &str, simulator: &Simulator) -> Option<String> {
    // The store is locked: what was journalled before a call is still there.
    let members = simulator.members(namespace);
    let known: BTreeSet<_> = store
        .within("streamsessions", namespace)
        .flat_map(|object| in_ledger(&object["status"]))
        .collect();
    let leaked: Vec<_> =
        members.into_iter().filter(|id| !known.contains(id) && !is_lost(id)).collect();
    (!leaked.is_empty()).then(|| format!("{leaked:?} leak; in the ledgers are {known:?}"))
}

fn settled(store: &Store, namespace: &str, simulator: &Simulator) -> Result<(), String> {
    let object = store.peek(&lobby(namespace)).ok_or("there is no object")?;
    let (status, generation) = (&object["status"], &object["metadata"]["generation"]);
    let wanted = texts(&object["spec"]["slaveInstanceIds"]);
    let ready = status["conditions"].as_array().into_iter().flatten().any(|condition| {
        condition["type"] == "Ready"
            && condition["status"] == "True"
            && condition["observedGeneration"] == *generation
    });
    let members: BTreeSet<_> = simulator
        .members(namespace)
        .into_iter()
        .filter(|id| wanted.contains(id) || !is_lost(id))
        .collect();
    let nothing_open = status["pendingCall"].is_null() && status["unsettledInstances"].is_null();
    let as_wanted = texts(&status["attachedInstanceIds"]) == wanted && members == wanted;
    let observed = status["observedGeneration"] == *generation;
    if ready && observed && nothing_open && as_wanted {
        Ok(())
    } else {
        Err(format!("{object}, members {members:?}"))
    }
}

/// Performs them all, some at a time, and reports every one that failed.
async fn run_all(
    runs: impl Iterator<Item = impl Future<Output = Result<(), String>> + Send + 'static>,
) {
    let slots = Arc::new(Semaphore::new(AT_A_TIME));
    let mut tasks = JoinSet::new();
    for run in runs {
        let slots = Arc::clone(&slots);
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await.expect("open");
            run.await
        });
    }
    let count = tasks.len();
    let results = tasks.join_all().await;
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(
        failures.is_empty(),
        "{} of {count} runs failed:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// Each in a namespace of its own, on one operator.
async fn run_on_one_operator(cases: Vec<Case>) {
    let environment = Arc::new(Environment::start(false).await);
    let runs = cases.into_iter().enumerate().map(|(number, case)| {
        let environment = Arc::clone(&environment);
        async move {
            let namespace = format!("run-{number}");
            let recreated =
                case.injections.iter().any(|injection| injection.fault == Fault::Recreated);
            let result = if recreated {
                environment.run_recreated(&namespace, &case).await
            } else {
                environment.run(&namespace, &case).await
            };
            let history = || environment.api.history(&namespace);
            result.map_err(|error| format!("{case:?}: {error}\n{}", history()))
        }
    });
    run_all(runs).await;
    Arc::into_inner(environment).expect("all runs have ended").stop().await;
}

/// Each on an operator of its own.
async fn run_on_own_operators(cases: Vec<Case>) {
    let runs = cases.into_iter().map(|case| async move {
        let environment = Environment::start(case.paged).await;
        let result = environment.run("arcade", &case).await;
        let history = environment.api.history("arcade");
        environment.stop().await;
        result.map_err(|error| format!("{case:?}: {error}\n{history}"))
    });
    run_all(runs).await;
}

/// What can go wrong with any request.
const ANY: [Fault; 13] = [
    Fault::Status(404),
    Fault::Status(409),
    Fault::Status(410),
    Fault::Status(422),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::Unreachable,
    Fault::Silent,
    Fault::Lost,
    Fault::LostSilently,
    Fault::CutOff,
    Fault::HtmlPage,
];

const WRITES: [Site; 5] =
    [Site::Journal, Site::Settle, Site::Condition, Site::FinalizerOn, Site::FinalizerOff];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_faults_is_cheap() {
    run_on_own_operators(vec![Case::default(), Case { paged: true, ..Case::default() }]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_request_may_fail_in_any_way() {
    let mut cases = Vec::new();
    for site in WRITES {
        cases.extend([1, 3].map(|times| Case::of(site, 0, times, Fault::Edited)));
    }
    for fault in ANY {
        for site in WRITES.into_iter().chain([Site::GetObject, Site::Event]) {
            cases.extend([1, 3].map(|times| Case::of(site, 0, times, fault)));
        }
        // The deletion's.
        cases.extend([Site::Journal, Site::Settle].map(|site| Case::of(site, 2, 1, fault)));
        cases.push(Case::of(Site::GetSecret, 0, 1, fault));
    }
    run_on_one_operator(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_may_arrive_after_it_has_timed_out() {
    // A journal that arrives late is taken for another operator's: waited for, then in doubt.
    run_on_one_operator(WRITES.map(|site| Case::of(site, 0, 1, Fault::Late)).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_object_is_written_to_the_next_one_of_its_name() {
    run_on_one_operator(WRITES.map(|site| Case::of(site, 0, 1, Fault::Recreated)).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_may_fail_to_start_and_to_resume() {
    let mut cases = Vec::new();
    for fault in ANY {
        let resumed = |times| {
            let ended = Injection { site: Site::Delivery, skip: 1, times: 1, fault: Fault::Ended };
            Case {
                injections: vec![
                    ended,
                    Injection { site: Site::WatchResume, skip: 0, times, fault },
                ],
                paged: false,
            }
        };
        cases.extend([Case::of(Site::WatchStart, 0, 1, fault), resumed(1)]);
        for site in [Site::List, Site::WatchResume] {
            cases.push(Case { paged: true, ..Case::of(site, 0, 1, fault) });
        }
        // The second page.
        cases.push(Case { paged: true, ..Case::of(Site::List, 1, 1, fault) });
        if matches!(fault, Fault::Status(410 | 500) | Fault::Silent) {
            cases.extend([Case::of(Site::WatchStart, 0, 2, fault), resumed(2)]);
        }
    }
    for code in [410, 500] {
        cases.push(Case::of(Site::WatchStart, 0, 1, Fault::ErrorEvent(code)));
    }
    run_on_own_operators(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_may_break_or_repeat_itself_at_any_event() {
    let faults = [
        Fault::Ended,
        Fault::Broken,
        Fault::CutLine,
        Fault::Garbled,
        Fault::ErrorEvent(500),
        Fault::Twice,
        Fault::Older,
        Fault::Delayed,
        Fault::Compacted,
        Fault::CompactedByEvent,
        Fault::CompactedAndStale(1),
        Fault::CompactedAndStale(3),
    ];
    // The journal's echo, the settle's, an edit, the deletion: of the creation's three writes, the
    // edit's four, and so on.
    let cases = faults
        .into_iter()
        .flat_map(|fault| [0, 2, 3, 6, 9].map(|skip| Case::of(Site::Delivery, skip, 1, fault)));
    run_on_own_operators(cases.collect()).await;
}
