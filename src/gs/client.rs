//! The one place that talks to the service. Whatever happens on the way of a call is an [`Answer`]:
//! a call never fails. Nothing here retries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use tracing::warn;

use streamsession_core::answer::{Answer, Operation};
use streamsession_core::ids::{InstanceId, SessionId};

use super::answer;
use super::clock::{ServiceClock, parse_date};
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::exchange::{Exchange, Http, HttpUnavailable};
use super::headers::{Action, X_TC_TOKEN};
use super::single_flight::SingleFlight;
use super::wire;

/// A clock that differs by more is worth a line: certificates and signatures of other programs
/// begin to fail.
const SKEW_TOLD_SECONDS: i64 = 30;

/// What one client does for all calls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For a whole call, from the look for a connection to the answer's last byte.
    pub call_deadline: Duration,
    /// Codes beside `ResourceNotFound.SessionNotFound` that say that the session is gone.
    pub session_gone_codes: Vec<String>,
    /// A PEM file of CA certificates that are believed besides the platform's: of a proxy that
    /// looks into TLS, or of a simulator.
    pub ca_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            call_deadline: Duration::from_secs(10),
            session_gone_codes: Vec::new(),
            ca_file: None,
        }
    }
}

/// One call of the action.
#[derive(Clone, Debug)]
pub struct Switch {
    /// Where the session's ledger says that the service is.
    pub endpoint: Endpoint,
    /// `X-TC-Region`, if any is sent.
    pub region: Option<String>,
    /// The session.
    pub session: SessionId,
    /// Attach or detach.
    pub operation: Operation,
    /// Whom.
    pub instances: Vec<InstanceId>,
    /// The journal's `startTime` in Unix seconds: what the call is signed with decides until when
    /// it can take effect.
    pub timestamp: i64,
    /// Who asks.
    pub credentials: Credentials,
}

/// Why the service's time is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskTimeError {
    /// No readable answer.
    #[error(
        "the service at {endpoint} could not be asked for its time: {code}: {message}; \
         check the endpoint, the network between, and proxies"
    )]
    NoAnswer {
        /// Who was asked.
        endpoint: Endpoint,
        /// A short word for what happened.
        code: String,
        /// For people.
        message: String,
    },
    /// An answer of the service, but without its time.
    #[error(
        "the service at {endpoint} answered without a Date header that can be read, \
         and its time decides how long a lost call can still take effect; \
         check what stands between, since proxies may strip headers"
    )]
    NoDate {
        /// Who was asked.
        endpoint: Endpoint,
    },
}

/// The service's client. Cheap to clone: connections and clocks are shared.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: Http,
    session_gone_codes: Vec<String>,
    /// As many as there are endpoints in the ledgers: in practice one, or two while a fleet moves.
    clocks: Mutex<BTreeMap<Endpoint, Arc<EndpointClock>>>,
    asking: SingleFlight<Endpoint, Result<i64, AskTimeError>>,
}

#[derive(Debug, Default)]
struct EndpointClock {
    clock: Mutex<ServiceClock>,
    node_is_ahead_seconds: AtomicI64,
}

impl Client {
    /// Fails if no TLS roots can be loaded at all, or not those of the CA file.
    pub fn new(settings: Settings) -> Result<Self, HttpUnavailable> {
        let Settings { call_deadline, session_gone_codes, ca_file } = settings;
        let http = Http::new(call_deadline, ca_file.as_deref())?;
        let (clocks, asking) = (Mutex::default(), SingleFlight::default());
        Ok(Self { inner: Arc::new(Inner { http, session_gone_codes, clocks, asking }) })
    }

    /// Makes one call, signed with exactly its timestamp. Ends within the deadline, and never sends
    /// it twice.
    ///
    /// Whoever drops the future must take the call for unanswered.
    pub async fn switch(&self, request: &Switch) -> Answer {
        let (headers, body) = match signed(request) {
            Ok(parts) => parts,
            Err(why) => return answer::not_sent("UnsendableRequest", &why),
        };
        let exchange = match self.inner.http.post(&request.endpoint, headers, body).await {
            Ok(exchange) => exchange,
            Err(answer) => return answer,
        };
        let asked: BTreeSet<InstanceId> = request.instances.iter().cloned().collect();
        let read =
            answer::read(exchange.status, &exchange.body, &asked, &self.inner.session_gone_codes);
        if read.readable {
            self.clock(&request.endpoint).learn(&exchange);
        }
        read.answer
    }

    /// The service's time in Unix seconds, a lower bound; `None` if it has to be asked first.
    #[must_use]
    pub fn now(&self, endpoint: &Endpoint) -> Option<i64> {
        self.clock(endpoint).now()
    }

    /// By how many seconds this node's clock was ahead of the service's at the last answer;
    /// negative: behind.
    #[must_use]
    pub fn node_is_ahead_seconds(&self, endpoint: &Endpoint) -> i64 {
        self.clock(endpoint).node_is_ahead_seconds.load(Ordering::Relaxed)
    }

    /// Finds the service's time out by an unsigned request: any refusal brings a `Date`.
    ///
    /// Of many who ask at once, one does, and all have its result.
    pub async fn ask_time(&self, endpoint: &Endpoint) -> Result<i64, AskTimeError> {
        let client = self.clone();
        self.inner.asking.join(endpoint.clone(), || client.ask(endpoint.clone())).await
    }

    async fn ask(self, endpoint: Endpoint) -> Result<i64, AskTimeError> {
        let clock = self.clock(&endpoint);
        if let Some(now) = clock.now() {
            return Ok(now);
        }
        let result = self.learn_time(&endpoint, &clock).await;
        if let Err(error) = &result {
            // Once for all who asked.
            warn!("{error}; trying again");
        }
        result
    }

    async fn learn_time(
        &self,
        endpoint: &Endpoint,
        clock: &EndpointClock,
    ) -> Result<i64, AskTimeError> {
        let no_answer = |Answer { code, message, .. }| AskTimeError::NoAnswer {
            endpoint: endpoint.clone(),
            code,
            message,
        };
        let headers = action(endpoint)
            .unsigned()
            .map_err(|why| no_answer(answer::not_sent("UnsendableRequest", &why)))?;
        let exchange =
            self.inner.http.post(endpoint, headers, b"{}".to_vec()).await.map_err(no_answer)?;
        let read = answer::read(exchange.status, &exchange.body, &BTreeSet::new(), &[]);
        if !read.readable {
            return Err(no_answer(read.answer));
        }
        clock.learn(&exchange);
        clock.now().ok_or_else(|| AskTimeError::NoDate { endpoint: endpoint.clone() })
    }

    fn clock(&self, endpoint: &Endpoint) -> Arc<EndpointClock> {
        let mut clocks = self.inner.clocks.lock();
        Arc::clone(clocks.entry(endpoint.clone()).or_default())
    }
}

impl EndpointClock {
    fn learn(&self, exchange: &Exchange) {
        if let Some(date) = exchange.date.as_deref().and_then(parse_date) {
            self.clock.lock().observe(date, exchange.received);
            self.compare(jiff::Timestamp::now().as_second().saturating_sub(date));
        }
    }

    /// Tells of a node whose clock is wrong: nothing here depends on it, but other programs on the
    /// node may.
    fn compare(&self, node_is_ahead_seconds: i64) {
        let told = self.node_is_ahead_seconds.swap(node_is_ahead_seconds, Ordering::Relaxed);
        if node_is_ahead_seconds.abs() > SKEW_TOLD_SECONDS
            && (told - node_is_ahead_seconds).abs() > SKEW_TOLD_SECONDS
        {
            warn!(
                node_is_ahead_seconds,
                "this node's clock differs from the service's; the operator goes by the service's"
            );
        }
    }

    fn now(&self) -> Option<i64> {
        self.clock.lock().now(Instant::now())
    }
}

/// A request as it would be sent, and what its signature covers: for people who compare it with
/// another tool's.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The headers that are sent, in the order of their names. The token of temporary keys reads
    /// [`HIDDEN`].
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// The request as the service rebuilds it.
    pub canonical_request: String,
    /// What the derived key signs.
    pub string_to_sign: String,
}

/// Stands where a secret would.
pub const HIDDEN: &str = "(hidden)";

impl Switch {
    /// The request as it would be sent; in words what no request can carry.
    pub fn prepare(&self) -> Result<Prepared, String> {
        let (headers, body) = signed(self)?;
        let signable = action(&self.endpoint).signable(&body, self.timestamp);
        let string_to_sign = signable.string_to_sign().map_err(|error| error.to_string())?;
        let mut shown: Vec<_> = headers
            .iter()
            .map(|(name, value)| {
                let value = if name == X_TC_TOKEN {
                    HIDDEN.into()
                } else {
                    String::from_utf8_lossy(value.as_bytes()).into_owned()
                };
                (name.to_string(), value)
            })
            .collect();
        shown.sort();
        let canonical_request = signable.canonical_request();
        Ok(Prepared {
            headers: shown,
            body: String::from_utf8_lossy(&body).into_owned(),
            canonical_request,
            string_to_sign,
        })
    }
}

/// The action at that endpoint.
fn action(endpoint: &Endpoint) -> Action<'_> {
    Action {
        endpoint,
        service: wire::SERVICE,
        name: wire::ACTION,
        version: wire::VERSION,
        content_type: wire::CONTENT_TYPE,
    }
}

/// Headers and body of a call; in words what no request can carry.
fn signed(request: &Switch) -> Result<(HeaderMap, Vec<u8>), String> {
    let body = wire::body(&request.session, request.operation, &request.instances)
        .map_err(|error| error.to_string())?;
    let (region, credentials) = (request.region.as_deref(), &request.credentials);
    let headers =
        action(&request.endpoint).signed(&body, request.timestamp, region, credentials)?;
    Ok((headers, body))
}
