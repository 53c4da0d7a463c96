//! What the scenario runs on: a Kubernetes API server, the simulated service, the operator, and a
//! folder for logs.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{self, Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use devcluster::Cluster;
use gs_simulator::{Options, Simulator};
use tokio::time::sleep;

use crate::{failure::Failure, kubectl::Kubectl, operator::Operator, screen::Screen};

/// The namespace of all objects in the user's cluster; the demo's own cluster uses the default one.
pub(crate) const NAMESPACE: &str = "streamsession-demo";
const DEFAULT_NAMESPACE: &str = "default";
/// The object of `examples/streamsession.yaml`.
pub(crate) const NAME: &str = "lobby-wall";
/// Its session.
pub(crate) const SESSION: &str = "1326515201117065216";
/// Five minutes at the real service. A call whose answer was lost may arrive for that long, and the
/// operator has to wait for it: too long for a demo.
pub(crate) const SIGNATURE_VALIDITY: Duration = Duration::from_secs(10);

const CRD: &str = "crds/streamsessions.gs.tencentcloud.dev.yaml";
/// The timeout of a call, 10 s by default. For that long after a crash the writer of a journal may
/// still run, and the next operator waits for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// For each wait of the demo. What it waits for takes a second or two, on a busy machine maybe ten.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Short: the operator is killed before it can write that an answer was lost, which takes it some
/// milliseconds.
const POLL_EVERY: Duration = Duration::from_millis(1);
/// How soon it is noticed that a process ended by itself.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Everything that runs. It ends in the order of the fields.
pub(crate) struct Environment {
    pub(crate) screen: Screen,
    pub(crate) operator: Operator,
    pub(crate) simulator: Simulator,
    pub(crate) kubectl: Kubectl,
    cluster: Option<Cluster>,
    kubeconfig: PathBuf,
    folder: PathBuf,
    created: Created,
}

/// What the demo has created in the user's cluster, and has to delete again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Created {
    Nothing,
    Namespace,
    NamespaceAndCrd,
}

impl Environment {
    /// Starts the API server, if the user names none, and the simulator. The operator can't run
    /// before [`Environment::install`].
    pub(crate) async fn new(
        screen: Screen,
        operator: PathBuf,
        kubeconfig: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let folder = env::temp_dir().join(format!("streamsession-demo-{}", process::id()));
        let mut operator = Operator::new(operator, folder.join("operator.log"))?;
        let (cluster, namespace, kubectl, kubeconfig) = if let Some(named) = kubeconfig {
            // Relative to the current folder; kubectl runs in the repository.
            let path = path::absolute(&named).and_then(|path| fs::File::open(&path).map(|_| path));
            let path = path.map_err(|source| Failure::NoKubeconfig { path: named, source })?;
            operator.argument("--namespace", NAMESPACE);
            (None, NAMESPACE, Kubectl::with(&path, NAMESPACE), path)
        } else {
            screen.say(
                "Starting etcd and kube-apiserver. The first time, Go builds them: some minutes.",
            );
            let cluster = Cluster::start(devcluster::Options::default())?;
            let (kubectl, path) = (Kubectl::of(&cluster), cluster.kubeconfig().to_owned());
            (Some(cluster), DEFAULT_NAMESPACE, kubectl, path)
        };
        let options = Options { signature_validity: SIGNATURE_VALIDITY, ..Options::default() };
        let simulator = Simulator::start(options).await.map_err(Failure::Simulator)?;
        operator.argument("--kubeconfig", &kubeconfig);
        // A StreamSession that somebody tries without a Secret is signed with the example key; one
        // of another namespace is not.
        operator.argument("--default-credentials-namespaces", namespace);
        operator.argument("--gs-endpoint", simulator.url());
        operator.argument("--gs-timeout", CALL_TIMEOUT.as_secs().to_string());
        operator.argument("--signature-validity", SIGNATURE_VALIDITY.as_secs().to_string());
        fs::create_dir(&folder).map_err(|source| Failure::File {
            action: "create",
            path: folder.clone(),
            source,
        })?;
        Ok(Self {
            screen,
            operator,
            simulator,
            kubectl,
            cluster,
            kubeconfig,
            folder,
            created: Created::Nothing,
        })
    }

    /// Installs the CRD and starts the operator.
    pub(crate) async fn install(&mut self) -> Result<(), Failure> {
        match &self.cluster {
            Some(cluster) => self.screen.say(format_args!(
                "A real etcd and kube-apiserver run on {}.",
                cluster.server_url()
            )),
            None => self.prepare_users_cluster().await?,
        }
        self.screen.say(format_args!(
            "gs-simulator plays Tencent Cloud GS on {}, and verifies signatures as it does.",
            self.simulator.url()
        ));
        let kubectl = self.kubectl.cluster_wide();
        if self.created == Created::Namespace {
            self.created = Created::NamespaceAndCrd;
        }
        self.show_of(&kubectl, &["apply", "--server-side", "-f", CRD]).await?;
        kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", "-f", CRD]).await?;
        self.start_operator().await?;
        let seconds = SIGNATURE_VALIDITY.as_secs();
        self.screen.say(format_args!(
            "Signatures are valid for {seconds} s here, not 5 minutes: so the demo is short."
        ));
        Ok(())
    }

    async fn prepare_users_cluster(&mut self) -> Result<(), Failure> {
        self.screen.say(format_args!(
            "The cluster is that of {}. The demo uses only the namespace {NAMESPACE}.",
            self.kubeconfig.display()
        ));
        let kubectl = self.kubectl.cluster_wide();
        let resources = kubectl.run(&["get", "customresourcedefinitions", "-o", "name"]).await?;
        if resources.contains("/streamsessions.gs.tencentcloud.dev") {
            return Err(Failure::ResourceExists);
        }
        self.show_of(&kubectl, &["create", "namespace", NAMESPACE]).await?;
        self.created = Created::Namespace;
        Ok(())
    }

    /// Starts the operator and waits until it is ready.
    pub(crate) async fn start_operator(&mut self) -> Result<(), Failure> {
        self.screen.command(format_args!("{} &", self.operator.line()));
        self.operator.start()?;
        let url = format!("{}/readyz", self.operator.admin_url());
        // Loopback needs no certificates and no proxy.
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(CALL_TIMEOUT)
            .build()?;
        let deadline = Instant::now() + TIMEOUT;
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            self.check()?;
            if Instant::now() >= deadline {
                return Err(self.timed_out("for the operator's /readyz"));
            }
            sleep(CHECK_EVERY).await;
        }
        self.screen.ok(format_args!(
            "the operator is ready (process {}).",
            self.operator.pid().unwrap_or_default()
        ));
        Ok(())
    }

    /// Runs kubectl and shows the command with its output.
    pub(crate) async fn show(&mut self, arguments: &[&str]) -> Result<(), Failure> {
        let kubectl = self.kubectl.clone();
        self.show_of(&kubectl, arguments).await
    }

    async fn show_of(&mut self, kubectl: &Kubectl, arguments: &[&str]) -> Result<(), Failure> {
        self.screen.command(kubectl.line(arguments));
        let mut running = Box::pin(kubectl.run(arguments));
        let printed = loop {
            tokio::select! {
                printed = &mut running => break printed?,
                () = sleep(CHECK_EVERY) => self.check()?,
            }
        };
        self.screen.output(&printed);
        Ok(())
    }

    /// Runs kubectl and shows it; meanwhile, kills the operator as soon as the service has attached
    /// that phone, a millisecond or two later. Answers the id that the process had.
    pub(crate) async fn show_and_kill(
        &mut self,
        arguments: &[&str],
        phone: &str,
    ) -> Result<u32, Failure> {
        let kubectl = self.kubectl.clone();
        self.screen.command(kubectl.line(arguments));
        let (printed, pid) =
            tokio::try_join!(kubectl.run(arguments), self.kill_once_attached(phone))?;
        self.screen.output(&printed);
        Ok(pid)
    }

    async fn kill_once_attached(&mut self, phone: &str) -> Result<u32, Failure> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.simulator.members(SESSION).contains(phone) {
            self.check()?;
            if Instant::now() >= deadline {
                return Err(self.timed_out("for the service to attach the phone"));
            }
            sleep(POLL_EVERY).await;
        }
        let pid = self.operator.pid().unwrap_or_default();
        self.operator.kill();
        Ok(pid)
    }

    /// The instances in the spec, as the API server has it.
    pub(crate) async fn spec(&self) -> Result<BTreeSet<String>, Failure> {
        let arguments = ["get", "streamsession", NAME, "-o", "jsonpath={.spec.slaveInstanceIds}"];
        let printed = self.kubectl.run(&arguments).await?;
        serde_json::from_str(&printed).map_err(|error| Failure::Kubectl {
            line: self.kubectl.line(&arguments),
            output: format!("{error} in {printed:?}"),
        })
    }

    /// The check that counts: what is attached at the service itself, now.
    pub(crate) fn check_members(&self, expected: &BTreeSet<String>) -> Result<(), Failure> {
        let attached = self.simulator.members(SESSION);
        if attached == *expected {
            return Ok(());
        }
        Err(Failure::WrongMembers { attached: names(&attached), expected: names(expected) })
    }

    /// Fails if the operator or a server ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.operator.check()?;
        Ok(self.cluster.as_mut().map_or(Ok(()), Cluster::check)?)
    }

    fn timed_out(&self, what: &'static str) -> Failure {
        Failure::TimedOut {
            what,
            seconds: TIMEOUT.as_secs(),
            attached: names(&self.simulator.members(SESSION)),
        }
    }

    /// The kubeconfig of the cluster.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Whether the cluster is the demo's own, and ends with it.
    pub(crate) fn owns_the_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Where the API server listens, if it is the demo's own.
    pub(crate) fn server_url(&self) -> Option<String> {
        self.cluster.as_ref().map(Cluster::server_url)
    }

    /// After a failure: the objects, if the API server still answers.
    pub(crate) async fn show_objects(&self) {
        let arguments = ["get", "streamsessions", "-o", "wide"];
        if let Ok(printed) = self.kubectl.run(&arguments).await {
            self.screen.heading("The StreamSessions");
            self.screen.command(self.kubectl.line(&arguments));
            self.screen.output(&printed);
        }
    }

    /// Deletes what the demo has created in the user's cluster. The demo's own simply ends.
    pub(crate) async fn clean_up(&mut self) -> Result<(), Failure> {
        if self.created == Created::Nothing {
            return Ok(());
        }
        self.screen.heading("Cleaning up the cluster");
        self.operator.kill();
        let cluster_wide = self.kubectl.cluster_wide();
        let everywhere = ["get", "streamsessions", "-A", "--ignore-not-found", "-o", "name"];
        if self.created == Created::NamespaceAndCrd {
            // The sessions end with the simulator: the finalizers have nothing to wait for.
            let own = ["get", "streamsessions", "--ignore-not-found", "-o", "name"];
            let without_finalizers = r#"{"metadata":{"finalizers":null}}"#;
            for object in self.kubectl.run(&own).await?.lines() {
                let patch = ["patch", object, "--type=merge", "-p", without_finalizers];
                self.kubectl.run(&patch).await?;
            }
        }
        self.show_of(&cluster_wide, &["delete", "namespace", NAMESPACE, "--timeout=60s"]).await?;
        if self.created == Created::Namespace {
            return Ok(());
        }
        if !cluster_wide.run(&everywhere).await?.is_empty() {
            self.screen.say(
                "The CRD stays: there are StreamSessions in other namespaces, and they would be \
                 deleted with it.",
            );
            return Ok(());
        }
        self.show_of(&cluster_wide, &["delete", "--timeout=60s", "-f", CRD]).await
    }

    /// Removes the logs, unless there is something to read in them.
    pub(crate) fn end(self, keep_logs: bool) {
        let log = self.operator.log();
        if keep_logs && fs::metadata(log).is_ok_and(|log| log.len() > 0) {
            self.screen.say(format_args!("The operator's log is in {}.", log.display()));
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The ids in a message.
pub(crate) fn names(ids: &BTreeSet<String>) -> String {
    if ids.is_empty() {
        "none".to_owned()
    } else {
        ids.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}
