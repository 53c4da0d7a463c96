//! `run`: the operator itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::gs::{Endpoint, Endpoints};
use crate::operator::{Operator, Options, tuned};
use crate::telemetry::logs;

/// Run the operator.
///
/// The operator's own credentials come from the first of: TENCENTCLOUD_SECRET_ID and
/// TENCENTCLOUD_SECRET_KEY (with TENCENTCLOUD_SESSION_TOKEN for temporary keys); a profile
/// (TENCENTCLOUD_CREDENTIALS_FILE, ~/.tencentcloud/credentials, /etc/tencentcloud/credentials); the
/// pod's identity on TKE; the node's role on CVM. A StreamSession with a credentialsRef brings its
/// own.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config, else the service account of
    /// the pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The service. http:// is taken for loopback only.
    #[arg(
        long,
        env = "GS_ENDPOINT",
        value_name = "URL",
        default_value = "https://gs.tencentcloudapi.com"
    )]
    gs_endpoint: String,
    /// Take http:// for any host: for a proxy on a network that you trust. Signatures protect the
    /// request, nothing hides it.
    #[arg(long, env = "ALLOW_INSECURE_ENDPOINT")]
    allow_insecure_endpoint: bool,
    /// A PEM file of CA certificates that are believed besides the platform's.
    #[arg(long, env = "GS_CA_FILE", value_name = "FILE")]
    gs_ca_file: Option<PathBuf>,
    /// Ids in one call. The service's own limit is published nowhere; 100 is that of its sibling
    /// actions.
    #[arg(long, env = "BATCH_SIZE", value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch_size: u16,
    /// An error code that means that the session is gone, besides ResourceNotFound.SessionNotFound;
    /// repeatable.
    #[arg(long, env = "SESSION_GONE_CODES", value_name = "CODE", value_delimiter = ',')]
    session_gone_codes: Vec<String>,
    /// Calls a second, for each account: the service's own limit is 20, shared with everything else
    /// that uses the account.
    #[arg(long, env = "GS_QPS", value_name = "N", default_value = "20")]
    gs_qps: NonZeroU32,
    /// Calls at once after a pause. More makes a first wave faster, and lets an urgent call wait
    /// longer behind it; no second ever sees more than --gs-qps.
    #[arg(long, env = "GS_BURST", value_name = "N", default_value = "1")]
    gs_burst: NonZeroU32,
    /// Seconds for one call of the service.
    #[arg(long, env = "GS_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=60))]
    gs_timeout: u64,
    /// Seconds for which the service takes a signature. Less than 300 is for a simulator on
    /// loopback.
    #[arg(long, env = "SIGNATURE_VALIDITY", value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    signature_validity: u64,
    /// The region of sessions that name none. Default: no region is sent.
    #[arg(long, env = "REGION", value_name = "REGION")]
    region: Option<String>,
    /// A namespace whose sessions may spend the operator's own credentials; repeatable. Default:
    /// all.
    #[arg(
        long,
        env = "DEFAULT_CREDENTIALS_NAMESPACES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    default_credentials_namespaces: Vec<String>,
    /// Security Token Service, for the pod's identity.
    #[arg(
        long,
        env = "STS_ENDPOINT",
        value_name = "URL",
        default_value = "https://sts.tencentcloudapi.com"
    )]
    sts_endpoint: String,
    /// The metadata service of a CVM node, for the node's role.
    #[arg(
        long,
        env = "METADATA_ENDPOINT",
        value_name = "URL",
        default_value = "http://metadata.tencentyun.com"
    )]
    metadata_endpoint: String,
    /// A namespace to watch; repeatable. Default: all.
    #[arg(long = "namespace", env = "NAMESPACE", value_name = "NAME", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Where /livez, /readyz and /metrics are served. Port 0 picks a free one.
    #[arg(long, env = "ADMIN_ADDRESS", value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    admin_address: SocketAddr,
    /// StreamSessions that are worked on at a time.
    #[arg(long, env = "CONCURRENCY", value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Log lines for people or for machines; RUST_LOG chooses which (default: info).
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    log_format: logs::Format,
}

impl Run {
    /// Runs until SIGTERM or SIGINT.
    pub(super) fn execute(self) -> Result<(), String> {
        logs::start(self.log_format);
        #[cfg(debug_assertions)]
        crate::controller::failpoint::arm()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(2)
            .build()
            .map_err(|error| format!("no async runtime can be built: {error}"))?;
        runtime.block_on(self.run())
    }

    async fn run(self) -> Result<(), String> {
        let gs_endpoint = Endpoint::parse_with(&self.gs_endpoint, self.allow_insecure_endpoint)
            .map_err(|error| format!("--gs-endpoint: {error}"))?;
        let config = self.cluster().await?;
        let api_server = config.cluster_url.to_string();
        let client = kube::Client::try_from(config).map_err(|error| {
            format!("no client for the API server {api_server} can be built: {error}")
        })?;
        let options = Options {
            gs_qps: self.gs_qps,
            gs_burst: self.gs_burst,
            allow_insecure_endpoint: self.allow_insecure_endpoint,
            gs_ca_file: self.gs_ca_file.clone(),
            batch_size: NonZeroU16::new(self.batch_size).unwrap_or(NonZeroU16::MIN),
            session_gone_codes: self.session_gone_codes.clone(),
            gs_timeout: Duration::from_secs(self.gs_timeout),
            signature_validity: Duration::from_secs(self.signature_validity),
            region: self.region.clone(),
            credential_endpoints: Endpoints {
                sts: self.sts_endpoint.trim_end_matches('/').to_owned(),
                metadata: self.metadata_endpoint.trim_end_matches('/').to_owned(),
            },
            default_credentials_namespaces: Some(
                self.default_credentials_namespaces.iter().cloned().collect(),
            )
            .filter(|namespaces: &BTreeSet<_>| !namespaces.is_empty()),
            namespaces: self.namespaces.clone(),
            concurrency: self.concurrency.into(),
            ..Options::new(gs_endpoint)
        };
        let operator =
            Operator::new(options, client, api_server).map_err(|error| error.to_string())?;
        let listener = TcpListener::bind(self.admin_address).await.map_err(|error| {
            format!(
                "--admin-address {} can't be listened on: {error}; choose another, or port 0",
                self.admin_address
            )
        })?;
        if let Ok(address) = listener.local_addr() {
            info!(%address, "the admin server listens");
        }
        let stopping = CancellationToken::new();
        stop_on_signal(stopping.clone())?;
        operator.run(listener, stopping).await.map_err(|error| error.to_string())
    }

    async fn cluster(&self) -> Result<kube::Config, String> {
        let config = match &self.kubeconfig {
            None => kube::Config::infer().await.map_err(|error| {
                format!("no cluster is configured: {error}; give --kubeconfig, set KUBECONFIG, or run in a pod with a service account")
            })?,
            Some(path) => {
                let unusable = |error| format!("the kubeconfig {} can't be used: {error}; check --kubeconfig", path.display());
                let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?
            }
        };
        Ok(tuned(config))
    }
}

/// The first SIGTERM or SIGINT asks to stop; a second one ends the process at once, which the
/// journal survives.
fn stop_on_signal(stopping: CancellationToken) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals can't be received: {error}"));
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stopping.is_cancelled() {
                std::process::exit(130);
            }
            stopping.cancel();
        }
    });
    Ok(())
}
