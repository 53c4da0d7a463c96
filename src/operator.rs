//! The composition: settings become clients, the scheduler, the controller and the admin server. The
//! tests start it in process.

mod error;
mod options;
mod values;

use std::sync::Arc;
use std::time::Duration;

use streamsession_core::scheduler::{Limits, Scheduler};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::api::{Defaults, FIELD_MANAGER};
use crate::controller::Controller;
use crate::controller::context::{self, Context, Fence};
use crate::controller::events::Events;
use crate::controller::shared_scheduler::SharedScheduler;
use crate::gs;
use crate::telemetry::admin;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

pub use error::Error;
pub use options::Options;
pub(crate) use options::{GS_ENDPOINT, GS_TIMEOUT};
pub(crate) use values::{EndpointParser, seconds};

/// The client configuration that the operator counts on.
#[must_use]
pub fn tuned(mut config: kube::Config) -> kube::Config {
    // A retry behind our back would hide what came of a write.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(FIELD_MANAGER)));
    config
}

/// An operator that is ready to run.
pub struct Operator {
    context: Arc<Context>,
}

impl Operator {
    /// Checks the options and builds the clients; nothing is sent yet.
    pub fn new(options: Options, client: kube::Client, api_server: String) -> Result<Self, Error> {
        options.check()?;
        let limits = Limits {
            concurrency: options.concurrency.max(1),
            calls_per_second: options.gs_qps,
            burst: options.gs_burst,
            call_deadline: options.gs_timeout,
        };
        let own_credentials = options.own_credentials();
        let identities = gs::Identities::new(options.sts(), options.gs_ca_file.as_deref())?;
        let scopes = context::scopes(&options.namespaces);
        let scheduler = Scheduler::new(Arc::new(options.settings()), limits, scopes);
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
            credentials: gs::CredentialStore::new(own_credentials),
            identities,
            scheduler: SharedScheduler::new(scheduler, Instant::now()),
            fence: Fence::default(),
            defaults: Defaults {
                resync_interval: Some(options.resync_interval).filter(|it| !it.is_zero()),
                region: options.region.or_else(|| options.gs_endpoint.region().map(str::to_owned)),
                endpoint: options.gs_endpoint.service().into(),
            },
            readiness: Readiness::of(&options.namespaces),
            endpoint: options.gs_endpoint,
            namespaces: options.namespaces,
            kube_deadline: options.kube_timeout,
            call_deadline: options.gs_timeout,
            metrics: Metrics::default(),
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
        info!(endpoint = %self.context.endpoint, "the operator starts");
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
