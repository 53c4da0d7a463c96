//! The composition: settings become clients, permits, the controller and the admin server. The
//! tests start it in process.

mod options;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::api::FIELD_MANAGER;
use crate::api::ledger::Defaults;
use crate::controller::context::{Context, Fence};
use crate::controller::events::Events;
use crate::controller::{Controller, Stopped};
use crate::gs::{self, Endpoint, InvalidEndpoint};
use crate::queue::Limiter;
use crate::telemetry::admin;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

pub use options::Options;
pub(crate) use options::{EndpointParser, GS_ENDPOINT, GS_TIMEOUT, seconds};

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
    /// Plain HTTP, which no flag allows.
    #[error("--gs-endpoint: {0}")]
    Endpoint(#[source] InvalidEndpoint),
    /// A signature validity that the service does not have.
    #[error(
        "--signature-validity {seconds} s is less than the service's own 300 s, \
         and {endpoint} is not on loopback: a lost call could still take effect after the operator \
         has forgotten it; leave the flag out"
    )]
    Validity {
        /// The flag's.
        seconds: u64,
        /// The service.
        endpoint: Endpoint,
    },
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
        options.check()?;
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
                gs::Endpoints {
                    sts: options.sts_endpoint.trim_end_matches('/').to_owned(),
                    metadata: options.metadata_endpoint.trim_end_matches('/').to_owned(),
                },
                options.default_credentials_namespaces.into_iter().collect(),
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
