//! `run`: the operator itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::operator::{Operator, Options, tuned};
use crate::telemetry::logs;

/// Run the operator.
///
/// A StreamSession with a spec.credentialsRef brings its own keys. One without uses the operator's
/// own credentials, if --default-credentials-namespaces names its namespace. They come from the
/// first of these that is set up, and from no other one if it fails: TENCENTCLOUD_SECRET_ID and
/// TENCENTCLOUD_SECRET_KEY (with TENCENTCLOUD_SESSION_TOKEN for temporary keys); a profile
/// (TENCENTCLOUD_CREDENTIALS_FILE, ~/.tencentcloud/credentials, /etc/tencentcloud/credentials); the
/// pod's identity on TKE; with --node-role-credentials, the node's role on CVM.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config, else the service account of
    /// the pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Where /livez, /readyz and /metrics are served. Port 0 picks a free one.
    #[arg(long, env = "ADMIN_ADDRESS", value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    admin_address: SocketAddr,
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
        // Before the cluster is looked for: that may fail for many other reasons.
        self.options.check().map_err(|error| error.to_string())?;
        let config = self.cluster().await?;
        let api_server = config.cluster_url.to_string();
        let client = kube::Client::try_from(config).map_err(|error| {
            format!("no client for the API server {api_server} can be built: {error}")
        })?;
        let operator =
            Operator::new(self.options, client, api_server).map_err(|error| error.to_string())?;
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
                format!(
                    "no cluster is configured: {error}; \
                     give --kubeconfig, set KUBECONFIG, or run in a pod with a service account"
                )
            })?,
            Some(path) => {
                let unusable = |error| {
                    let path = path.display();
                    format!("the kubeconfig {path} can't be used: {error}; check --kubeconfig")
                };
                let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(unusable)?
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
