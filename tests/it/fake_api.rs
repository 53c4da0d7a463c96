//! A faked API server under kube's own client: a tower service over an in-memory store. It does
//! what the real one guarantees (revisions, preconditions, watches), and injects faults, which a
//! real one can't be made to do.

pub mod faults;
mod query;
pub mod store;
mod watches;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::BoxError;

use faults::{Fault, Injection, Injector};
use query::Query;
use store::{Answer, Key, Refusal, Store};
use watches::{Wanted, Watches, error_event};

use crate::harness::manifest;

/// How long a watch is delayed: long enough for the operator to have done something else meanwhile.
const WATCH_DELAY: Duration = Duration::from_millis(150);

/// The instance of an object that replaces another one of its name.
pub const SUCCESSOR: &str = "successor";

/// What must hold in a namespace after every request to it; the text says what does not.
type Check = Box<dyn Fn(&Store, &str) -> Option<String> + Send>;

/// What happened, in order, with the namespace that it is about; empty: all.
#[derive(Default)]
pub struct Log {
    lines: Vec<(String, String)>,
}

impl Log {
    fn add(&mut self, namespace: &str, line: String) {
        self.lines.push((namespace.to_owned(), line));
    }
}

#[derive(Default)]
struct State {
    store: Store,
    watches: Watches,
    injector: Injector,
    /// Writes that take effect right before the next one to their object.
    late: Vec<Query>,
    check: Option<Check>,
    /// By namespace, as the requests.
    violations: BTreeMap<String, Vec<String>>,
    requests: BTreeMap<String, usize>,
    /// Those that wait for a change in a namespace.
    changed: BTreeMap<String, watch::Sender<()>>,
    log: Log,
    /// No streaming lists, and pages of so many objects at most.
    page_max: Option<usize>,
}

/// The faked API server.
pub struct FakeApi {
    started: Instant,
    state: Mutex<State>,
}

/// A `Status` about nothing in particular.
fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code,
    })
}

/// A `Status` about the object that was asked for.
fn refuse(query: &Query, refusal: &Refusal) -> Response<Body> {
    let mut status = status(refusal.code, refusal.reason, &refusal.message);
    status["details"] = match &query.name {
        Some(name) => json!({"kind": query.resource, "name": name}),
        None => json!({"kind": query.resource}),
    };
    respond(refusal.code, status.to_string())
}

fn respond(code: u16, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = http::StatusCode::from_u16(code).expect("a status code");
    if code == 429 {
        response.headers_mut().insert("Retry-After", http::HeaderValue::from_static("1"));
    }
    response
}

fn error(code: u16) -> Response<Body> {
    let reason = match code {
        // What a server says that does not know the resource, yet or any more.
        404 => return respond(404, "404 page not found\n"),
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    respond(code, status(code, reason, "an error of the test").to_string())
}

impl State {
    fn answer(&mut self, query: &Query) -> Result<Response<Body>, Refusal> {
        if query.is_watch() {
            return self.watch(query);
        }
        let object = match (&query.method, query.name.is_some()) {
            (&Method::GET, false) => self.list(query)?,
            (&Method::GET, true) => self.store.get(&query.key())?,
            (&Method::POST, _) => self.store.create(&query.key(), query.body.clone())?,
            _ => self.write(query)?,
        };
        Ok(respond(if query.method == Method::POST { 201 } else { 200 }, object.to_string()))
    }

    fn write(&mut self, query: &Query) -> Answer {
        match query.subresource.as_deref() {
            Some("status") => self.store.replace_status(&query.key(), &query.body),
            _ => self.store.patch(&query.key(), &query.body),
        }
    }

    fn watch(&mut self, query: &Query) -> Result<Response<Body>, Refusal> {
        let initial = query.parameter("sendInitialEvents") == Some("true");
        if initial && self.page_max.is_some() {
            let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch \
                           unless the WatchList feature gate is enabled";
            return Err(Refusal { code: 422, reason: "Invalid", message: message.into() });
        }
        let revision =
            query.parameter("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        if !initial && self.store.is_compacted(revision) {
            if self.watches.expired_by_event {
                return Ok(respond(200, error_event(410)));
            }
            let message = format!("too old resource version: {revision}");
            return Err(Refusal { code: 410, reason: "Expired", message });
        }
        let wanted = Wanted {
            resource: query.resource.clone(),
            namespace: query.namespace.clone(),
            initial,
            revision,
        };
        Ok(respond(200, self.watches.open(&self.store, wanted)))
    }

    fn list(&mut self, query: &Query) -> Answer {
        let number = |name: &str| query.parameter(name).and_then(|text| text.parse().ok());
        let (revision, skip) = match query
            .parameter("continue")
            .and_then(|token| token.split_once('/'))
        {
            Some((revision, skip)) => (revision.parse().unwrap_or(0), skip.parse().unwrap_or(0)),
            None => (self.store.revision(), 0),
        };
        if self.store.is_compacted(revision) {
            return Err(Refusal {
                code: 410,
                reason: "Expired",
                message: "The provided continue parameter is too old".into(),
            });
        }
        let limit = number("limit").unwrap_or(usize::MAX).min(self.page_max.unwrap_or(usize::MAX));
        let objects = self.store.at(revision, &query.resource, query.namespace.as_deref());
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if skip + limit < objects.len() {
            metadata["continue"] = json!(format!("{revision}/{}", skip + limit));
        }
        let items: Vec<_> = objects.into_values().skip(skip).take(limit).collect();
        Ok(json!({
            "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSessionList",
            "metadata": metadata, "items": items,
        }))
    }

    /// A person deletes the object, whatever its finalizers, and creates another one of that name,
    /// with another instance.
    fn recreate(&mut self, key: &Key) {
        let mut spec = self.store.delete_by_force(key).expect("deleted")["spec"].clone();
        spec["slaveInstanceIds"] = json!([SUCCESSOR]);
        self.store.create(key, manifest(&json!({}), &spec)).expect("created");
    }

    /// Performs a request with its fault; None: it is never answered.
    fn perform(
        &mut self,
        query: &Query,
        fault: Option<Fault>,
    ) -> Option<Result<Response<Body>, BoxError>> {
        let broken = || Some(Err(BoxError::from("the connection broke, as the test wants")));
        match fault {
            Some(Fault::Status(code)) => return Some(Ok(error(code))),
            Some(Fault::Unreachable) => return broken(),
            Some(Fault::HtmlPage) => return Some(Ok(respond(200, "<html>\n"))),
            Some(Fault::ErrorEvent(code)) => return Some(Ok(respond(200, error_event(code)))),
            Some(Fault::Silent) => return None,
            Some(Fault::Late) => {
                self.late.push(query.clone());
                return None;
            }
            Some(Fault::Edited) => {
                let id = format!("edited-{}", self.store.revision());
                self.edit(&query.key(), |spec| {
                    spec["slaveInstanceIds"].as_array_mut().expect("a list").push(json!(id));
                });
            }
            Some(Fault::Recreated) => self.recreate(&query.key()),
            _ => {}
        }
        let answer = self.answer(query);
        if let Err(refusal) = &answer {
            self.log.add(query.scope(), format!("  = {} {}", refusal.code, refusal.message));
        }
        match fault {
            Some(Fault::Lost) => broken(),
            Some(Fault::LostSilently) => None,
            Some(Fault::CutOff) => Some(Ok(respond(200, r#"{"kind": "Stre"#))),
            _ => Some(Ok(answer.unwrap_or_else(|refusal| refuse(query, &refusal)))),
        }
    }

    fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let mut spec = self.store.get(key).expect("the object")["spec"].clone();
        change(&mut spec);
        self.store.patch(key, &json!({"spec": spec})).expect("edited");
    }

    /// A write must name the copy that was read.
    fn check_preconditions(&mut self, query: &Query) {
        let metadata = &query.body["metadata"];
        if query.is_write_of_session()
            && !(metadata["uid"].is_string() && metadata["resourceVersion"].is_string())
        {
            self.add_violation(
                query.scope(),
                format!("{} {} has no precondition: {metadata}", query.method, query.target),
            );
        }
    }

    fn add_violation(&mut self, namespace: &str, violation: String) {
        self.log.add(namespace, format!("  ! {violation}"));
        self.violations.entry(namespace.to_owned()).or_default().push(violation);
    }

    /// Sends the changes to the watchers, and checks what must hold.
    fn deliver_and_check(&mut self, namespace: &str) {
        self.watches.deliver(&mut self.store, &mut self.injector, &mut self.log);
        if let Some(violation) = self.check.as_ref().and_then(|check| check(&self.store, namespace))
        {
            self.add_violation(namespace, violation);
        }
    }

    /// Performs the writes that are late until the next write to the object.
    fn perform_late(&mut self, query: &Query) {
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|late| late.key() == query.key());
        self.late = rest;
        for late in due {
            let outcome = self.write(&late).map_or_else(|refusal| refusal.code, |_| 200);
            self.log
                .add(query.scope(), format!("  late {} {}: {outcome}", late.method, late.target));
            self.deliver_and_check(query.scope());
        }
    }
}

impl FakeApi {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), state: Mutex::default() })
    }

    /// A client of this server.
    pub fn client(self: &Arc<Self>) -> kube::Client {
        let fake = Arc::clone(self);
        let service = tower::service_fn(move |request| {
            let fake = Arc::clone(&fake);
            async move { fake.serve(request).await }
        });
        kube::Client::new(service, "default")
    }

    async fn serve(
        self: Arc<Self>,
        request: Request<kube::client::Body>,
    ) -> Result<Response<Body>, BoxError> {
        let query = Query::of(request).await?;
        let at = self.started.elapsed().as_millis();
        let answer = self.change(query.scope(), |state| {
            let site = query.site(&state.store);
            let fault = state.injector.next(query.scope(), site);
            *state.requests.entry(query.scope().to_owned()).or_default() += 1;
            let fault_text = fault.map_or_else(String::new, |fault| format!(" {fault:?}"));
            state.log.add(
                query.scope(),
                format!("{at} ms {site:?}{fault_text}: {} {}", query.method, query.target),
            );
            state.check_preconditions(&query);
            if query.is_write_of_session() {
                state.perform_late(&query);
            }
            state.perform(&query, fault)
        });
        self.release_later();
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, namespace: &str, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        state.deliver_and_check(namespace);
        if let Some(changed) = state.changed.get(namespace) {
            changed.send_replace(());
        }
        result
    }

    /// Watches that were delayed go on after a while, as if the network had held their lines.
    fn release_later(self: &Arc<Self>) {
        for number in std::mem::take(&mut self.lock().watches.to_release) {
            let fake = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(WATCH_DELAY).await;
                fake.lock().watches.release(number);
            });
        }
    }

    /// No streaming lists, and pages of so many objects at most.
    pub fn page_max(&self, objects: usize) {
        self.lock().page_max = Some(objects);
    }

    /// A fault in that namespace, or, by its site, of the watch of all.
    pub fn inject(&self, namespace: &str, injection: Injection) {
        self.lock().injector.add(namespace, injection);
    }

    /// What must hold in a namespace after every request to it.
    pub fn check(&self, check: impl Fn(&Store, &str) -> Option<String> + Send + 'static) {
        self.lock().check = Some(Box::new(check));
    }

    pub fn create(self: &Arc<Self>, key: &Key, object: &Value) -> Value {
        let created = self.change(&key.namespace, |state| {
            state.store.create(key, object.clone()).expect("created")
        });
        self.release_later();
        created
    }

    /// Merges `patch` into the object.
    pub fn patch(self: &Arc<Self>, key: &Key, patch: &Value) {
        self.change(&key.namespace, |state| state.store.patch(key, patch).expect("patched"));
        self.release_later();
    }

    pub fn delete(self: &Arc<Self>, key: &Key) {
        self.change(&key.namespace, |state| state.store.delete(key).expect("deleted"));
        self.release_later();
    }

    /// Waits until `look` accepts the store; it looks after each request to the namespace. The
    /// error is what it said last.
    pub async fn until<T>(
        &self,
        namespace: &str,
        deadline: Duration,
        look: impl Fn(&Store, &Injector) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut changed = self.lock().changed.entry(namespace.to_owned()).or_default().subscribe();
        let mut seen = String::new();
        let found = tokio::time::timeout(deadline, async {
            loop {
                {
                    let state = self.lock();
                    match look(&state.store, &state.injector) {
                        Ok(found) => return found,
                        Err(why) => seen = why,
                    }
                }
                changed.changed().await.expect("the server exists");
            }
        });
        match found.await {
            Ok(found) => Ok(found),
            Err(_) => Err(format!("not within {deadline:?}; last seen: {seen}")),
        }
    }

    /// Requests to that namespace; empty: those about all.
    pub fn requests(&self, namespace: &str) -> usize {
        self.lock().requests.get(namespace).copied().unwrap_or(0)
    }

    pub fn violations(&self, namespace: &str) -> Vec<String> {
        self.lock().violations.get(namespace).cloned().unwrap_or_default()
    }

    /// What happened in the namespace, or to the watch of all, as lines.
    pub fn history(&self, namespace: &str) -> String {
        let state = self.lock();
        let lines =
            state.log.lines.iter().filter(|(about, _)| about.is_empty() || about == namespace);
        lines.map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }
}
