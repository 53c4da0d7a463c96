//! What the tests stand on: one API server for all, and for each test a namespace, a simulator and
//! an operator of its own.

mod audit;
mod cluster;
mod objects;
mod service;
mod wait;

use std::net::SocketAddr;
use std::time::Duration;

use gs_simulator::Simulator;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Config};
use streamsession_operator::api::v1alpha1::StreamSession;
use streamsession_operator::controller::context::Fence;
use streamsession_operator::operator::{Error, Operator, Options};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use cluster::{cluster, config, install_crypto, kubectl, try_kubectl};
pub use objects::{detach_deadline, manifest, set, spec};
pub use service::{attach_call, errors, example_credentials, refuse_detach, serve, slow};
pub use wait::{DEADLINE, eventually, ready};

pub const SESSION: &str = "1326515201117065216";

/// Short: a doubt ends within the test.
const VALIDITY: Duration = Duration::from_secs(4);

/// An operator that runs in this process. Dropped, it goes on with the test's runtime.
pub struct RunningOperator {
    task: JoinHandle<Result<(), Error>>,
    stopping: CancellationToken,
    admin: SocketAddr,
    pub fence: Fence,
}

/// A namespace, a simulator and an operator.
pub struct Lab {
    pub namespace: String,
    pub client: Client,
    pub sessions: Api<StreamSession>,
    pub simulator: Simulator,
    pub options: Options,
    running: Option<RunningOperator>,
}

impl Lab {
    /// A lab whose operator runs, with keys in the Secret `tencent`.
    pub async fn start() -> Self {
        let mut lab = Self::without_operator().await;
        lab.start_operator().await;
        lab
    }

    /// A lab whose operator runs and has attached these to the session of the object `lobby`.
    pub async fn with_members(ids: &[&str]) -> Self {
        let lab = Self::start().await;
        lab.create_ready("lobby", ids).await;
        lab
    }

    /// A lab whose operator does not run yet.
    pub async fn without_operator() -> Self {
        Self::with_validity(VALIDITY).await
    }

    /// A lab whose signatures are valid for so long, and whose operator does not run yet.
    pub async fn with_validity(signature_validity: Duration) -> Self {
        Self::with(gs_simulator::Options { signature_validity, ..gs_simulator::Options::default() })
            .await
    }

    /// A lab with such a simulator, and whose operator does not run yet.
    pub async fn with(simulator: gs_simulator::Options) -> Self {
        let validity = simulator.signature_validity;
        let simulator = Simulator::start(simulator).await.expect("a simulator");
        let client = Client::try_from(config().await).expect("a client");
        let namespace = Namespace {
            metadata: ObjectMeta { generate_name: Some("it-".into()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let namespace = Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace");
        let namespace = namespace.metadata.name.expect("a name");
        let options = Options {
            gs_timeout: Duration::from_secs(2),
            kube_timeout: Duration::from_secs(5),
            signature_validity: validity,
            namespaces: vec![namespace.clone()],
            retry_base: Duration::from_millis(200),
            ..Options::from_flags(["--gs-endpoint", &simulator.url()]).expect("options")
        };
        let sessions = Api::namespaced(client.clone(), &namespace);
        let lab = Self { namespace, client, sessions, simulator, options, running: None };
        lab.create_secret("tencent", "AKIDEXAMPLE", "SECRETEXAMPLE").await;
        lab
    }

    /// A lab in a namespace of its own, whose operator calls the service of this one.
    pub async fn in_another_namespace(&self) -> Self {
        let mut other = Self::without_operator().await;
        other.options = Options { namespaces: other.options.namespaces, ..self.options.clone() };
        other
    }

    pub async fn start_operator(&mut self) {
        // A client of its own: the operator's requests are told apart in the audit log by the field
        // manager.
        self.start_operator_as(config().await).await;
    }

    /// Starts the operator with this configuration, such as that of a ServiceAccount.
    pub async fn start_operator_as(&mut self, config: Config) {
        assert!(self.running.is_none(), "an operator runs already");
        self.running = Some(self.launch(config).await);
    }

    /// One more operator for the same objects.
    pub async fn another_operator(&self) -> RunningOperator {
        self.launch(config().await).await
    }

    async fn launch(&self, config: Config) -> RunningOperator {
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).expect("a client");
        let operator = Operator::new(self.options.clone(), client, url).expect("an operator");
        let (readiness, fence) = (operator.readiness(), operator.fence());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let admin = listener.local_addr().expect("an address");
        let stopping = CancellationToken::new();
        let task = tokio::spawn(operator.run(listener, stopping.clone()));
        eventually("the operator is ready", async || readiness.missing().map_or(Ok(()), Err)).await;
        RunningOperator { task, stopping, admin, fence }
    }

    fn running(&self) -> &RunningOperator {
        self.running.as_ref().expect("an operator")
    }

    /// Asks the operator to stop and waits until it has.
    pub async fn stop_operator(&mut self) {
        let running = self.running.take().expect("an operator");
        running.stopping.cancel();
        running.task.await.expect("no panic").expect("a clean end");
    }

    /// Ends the operator at once, wherever it is, as SIGKILL would: no settle, no release.
    pub async fn kill_operator(&mut self) {
        let running = self.running.take().expect("an operator");
        running.task.abort();
        let _ = running.task.await;
    }

    /// The fence of the operator that runs.
    pub fn fence(&self) -> Fence {
        self.running().fence.clone()
    }

    /// Where the admin server listens.
    pub fn admin(&self) -> SocketAddr {
        self.running().admin
    }

    /// What the admin server answers at that path.
    pub async fn admin_get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.admin())).await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    /// The metrics in their text format.
    pub async fn metrics(&self) -> String {
        self.admin_get("/metrics").await.1
    }
}
