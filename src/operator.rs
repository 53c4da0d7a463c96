//! The composition: settings become clients, permits, the controller and the admin server. The
//! tests start it in process.

use std::collections::BTreeSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use streamsession_protocol::ledger::Rules;
use streamsession_protocol::step::Settings;
use streamsession_protocol::time::Validity;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::api::FIELD_MANAGER;
use crate::api::ledger::Defaults;
use crate::controller::context::{Context, Fence};
use crate::controller::events::Events;
use crate::controller::{Controller, Stopped};
use crate::gs::{self, Endpoint};
use crate::queue::Limiter;
use crate::telemetry::admin;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// How long a journal may be on its way to the service before it is taken back: longer than any
/// healthy write, shorter than a person waits.
const JOURNAL_AGE_MAX: Duration = Duration::from_secs(5);
/// Seconds that the service may take to work on a request that it has let in.
const MARGIN_SECONDS: i64 = 5;
/// The signature validity of the service itself (reference, section 2); less is for tests against a
/// simulator on loopback.
pub const SIGNATURE_VALIDITY: Duration = Duration::from_mins(5);

/// What the operator is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The service.
    pub gs_endpoint: Endpoint,
    /// Calls a second, for each account and endpoint.
    pub gs_qps: NonZeroU32,
    /// Calls at once after a pause.
    pub gs_burst: NonZeroU32,
    /// Plain HTTP is taken for any host.
    pub allow_insecure_endpoint: bool,
    /// A PEM file of CA certificates that are believed besides the platform's.
    pub gs_ca_file: Option<PathBuf>,
    /// Ids in a call, at most.
    pub batch_size: NonZeroU16,
    /// Codes that mean that the session is gone, besides the documented one.
    pub session_gone_codes: Vec<String>,
    /// For each call.
    pub gs_timeout: Duration,
    /// For each request to the API server.
    pub kube_timeout: Duration,
    /// How long the service takes a signature.
    pub signature_validity: Duration,
    /// The region of sessions that name none.
    pub region: Option<String>,
    /// Namespaces whose sessions may spend the operator's own credentials; none: all.
    pub default_credentials_namespaces: Option<BTreeSet<String>>,
    /// Where the operator's own credentials may come from.
    pub credential_endpoints: gs::Endpoints,
    /// Namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// Rounds at a time.
    pub concurrency: usize,
    /// The first pause of the backoff.
    pub retry_base: Duration,
}

impl Options {
    /// The defaults, for a service at `gs_endpoint`.
    #[must_use]
    pub fn new(gs_endpoint: Endpoint) -> Self {
        Self {
            gs_endpoint,
            gs_qps: NonZeroU32::MIN.saturating_add(19),
            gs_burst: NonZeroU32::MIN,
            allow_insecure_endpoint: false,
            gs_ca_file: None,
            batch_size: NonZeroU16::MIN.saturating_add(99),
            session_gone_codes: Vec::new(),
            gs_timeout: Duration::from_secs(10),
            kube_timeout: Duration::from_secs(5),
            signature_validity: SIGNATURE_VALIDITY,
            region: None,
            default_credentials_namespaces: None,
            credential_endpoints: gs::Endpoints::default(),
            namespaces: Vec::new(),
            concurrency: 16,
            retry_base: Duration::from_secs(1),
        }
    }

    fn protocol(&self) -> Settings {
        let seconds = |duration: Duration| duration.as_secs().try_into().unwrap_or(i64::MAX);
        Settings {
            rules: Rules {
                validity: Validity {
                    signature_seconds: seconds(self.signature_validity),
                    margin_seconds: MARGIN_SECONDS,
                },
                batch_size_max: self.batch_size.get().into(),
                session_gone_codes: self.session_gone_codes.clone(),
            },
            journal_age_max_seconds: seconds(JOURNAL_AGE_MAX),
            // The longest time that another writer may still be at work on its journal.
            patience: JOURNAL_AGE_MAX + self.gs_timeout + self.kube_timeout,
            retry_base: self.retry_base,
        }
    }
}

/// The client configuration that the operator counts on.
#[must_use]
pub fn tuned(mut config: kube::Config) -> kube::Config {
    // A retry behind our back would hide what came of a write.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(FIELD_MANAGER)));
    config
}

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A signature validity that the service does not have.
    #[error(
        "--signature-validity {0} s is less than the service's own 300 s, and {1} is not on loopback: a lost call could still take effect after the operator has forgotten it; leave the flag out"
    )]
    Validity(u64, String),
    /// No HTTP client.
    #[error(transparent)]
    Http(#[from] gs::HttpUnavailable),
    /// The controller died.
    #[error(transparent)]
    Controller(#[from] Stopped),
    /// The admin server died.
    #[error("the admin server ended: {0}")]
    Admin(#[source] std::io::Error),
}

/// An operator that is ready to run.
pub struct Operator {
    context: Arc<Context>,
}

impl Operator {
    /// Checks the options and builds the clients; nothing is sent yet.
    pub fn new(options: Options, client: kube::Client, api_server: String) -> Result<Self, Error> {
        if options.signature_validity < SIGNATURE_VALIDITY && !options.gs_endpoint.is_loopback() {
            return Err(Error::Validity(
                options.signature_validity.as_secs(),
                options.gs_endpoint.to_string(),
            ));
        }
        let settings = options.protocol();
        let started = Instant::now();
        let gs = gs::Client::new(gs::Settings {
            call_deadline: options.gs_timeout,
            session_gone_codes: options.session_gone_codes,
            ca_file: options.gs_ca_file,
        })?;
        let context = Context {
            events: Events::new(client.clone()),
            client,
            api_server,
            gs,
            credentials: gs::CredentialStore::new(
                options.credential_endpoints,
                options.default_credentials_namespaces.unwrap_or_default(),
            ),
            limiter: Limiter::with_burst(options.gs_qps, options.gs_burst, started),
            batch_sizes: Mutex::default(),
            settings,
            claims: Mutex::default(),
            fence: Fence::default(),
            defaults: Defaults {
                region: options.region,
                endpoint: options.gs_endpoint.to_string().into(),
            },
            readiness: Readiness::of(&options.namespaces),
            allow_insecure_endpoint: options.allow_insecure_endpoint,
            namespaces: options.namespaces,
            concurrency: options.concurrency.max(1),
            kube_deadline: options.kube_timeout,
            call_deadline: options.gs_timeout,
            metrics: Metrics::default(),
            started,
        };
        Ok(Self { context: Arc::new(context) })
    }

    /// Whether every object is known.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.context.readiness.clone()
    }

    /// Closed, it keeps this operator from any further call and write.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.context.fence.clone()
    }

    /// Works until `stopping` is cancelled, and settles what is under way. The end of any part ends
    /// the whole.
    pub async fn run(self, admin: TcpListener, stopping: CancellationToken) -> Result<(), Error> {
        // The admin server outlives the controller: a pod that drains is alive.
        let serving = CancellationToken::new();
        let server = admin::serve(
            admin,
            self.context.metrics.clone(),
            self.context.readiness.clone(),
            serving.clone(),
        );
        let controller = Controller::new(Arc::clone(&self.context), stopping).run();
        info!(endpoint = %self.context.defaults.endpoint, "the operator starts");
        let mut server = std::pin::pin!(server);
        let mut controller = std::pin::pin!(controller);
        tokio::select! {
            ended = &mut server => ended.map_err(Error::Admin)?,
            ended = &mut controller => {
                ended?;
                serving.cancel();
                server.await.map_err(Error::Admin)?;
            }
        }
        info!("the operator has stopped");
        Ok(())
    }
}
