//! What the tests stand on: one API server for all, and for each test a namespace, a simulator and
//! an operator of its own.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use devcluster::{Binaries, Cluster, report_to_stderr};
use gs_simulator::{EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY, Simulator};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use streamsession_operator::api::v1alpha1::{StreamSession, StreamSessionStatus, crd_yaml};
use streamsession_operator::controller::context::Fence;
use streamsession_operator::gs::{Credentials, Source};
use streamsession_operator::operator::{Error, Operator, Options, tuned};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The longest that anything may take; a healthy run needs a fraction.
pub const DEADLINE: Duration = Duration::from_mins(1);
pub const SESSION: &str = "1326515201117065216";

/// The API server of all tests, with the CRD. It ends with the process.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let binaries = Binaries::find_or_build(&report_to_stderr).expect("a control plane");
        let cluster = Cluster::start(devcluster::Options {
            binaries: Some(binaries),
            ..devcluster::Options::default()
        })
        .expect("a cluster");
        kubectl_on(&cluster, &["apply", "--server-side", "-f", "-"], &crd_yaml().expect("a CRD"));
        kubectl_on(
            &cluster,
            &["wait", "--for=condition=Established", "crd/streamsessions.gs.tencentcloud.dev"],
            "",
        );
        cluster
    })
}

fn kubectl_on(cluster: &Cluster, arguments: &[&str], stdin: &str) -> String {
    let (ok, text) = run_kubectl(cluster, arguments, stdin);
    assert!(ok, "kubectl {arguments:?} failed: {text}");
    text
}

fn run_kubectl(cluster: &Cluster, arguments: &[&str], stdin: &str) -> (bool, String) {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = cluster
        .kubectl()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    child.stdin.take().expect("a pipe").write_all(stdin.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl ends");
    (
        output.status.success(),
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    )
}

/// Runs kubectl; answers whether it succeeded and what it printed.
pub fn try_kubectl(arguments: &[&str], stdin: &str) -> (bool, String) {
    run_kubectl(cluster(), arguments, stdin)
}

/// Runs kubectl, which must succeed.
pub fn kubectl(arguments: &[&str], stdin: &str) -> String {
    kubectl_on(cluster(), arguments, stdin)
}

/// kube and reqwest need one crypto provider, as `main` installs it.
pub fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The admin's configuration of the test cluster, tuned as the operator's is.
pub async fn config() -> Config {
    install_crypto();
    let path = cluster().kubeconfig().to_owned();
    let kubeconfig = Kubeconfig::read_from(path).expect("a kubeconfig");
    tuned(
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("a configuration"),
    )
}

/// The key that a simulator knows unless told otherwise.
pub fn example_credentials() -> Credentials {
    Credentials {
        secret_id: EXAMPLE_SECRET_ID.into(),
        secret_key: EXAMPLE_SECRET_KEY.into(),
        token: None,
        source: Source::Environment,
    }
}

/// Waits for a condition; panics with `what` and the last look when the deadline has passed.
pub async fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) => assert!(
                start.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}; last seen: {seen}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// An in-process operator under way. Dropped, it goes on with the test's runtime.
pub struct Running {
    task: JoinHandle<Result<(), Error>>,
    stopping: CancellationToken,
    admin: std::net::SocketAddr,
    pub fence: Fence,
}

/// A namespace, a simulator and an operator.
pub struct Lab {
    pub namespace: String,
    pub client: Client,
    pub sessions: Api<StreamSession>,
    pub simulator: Simulator,
    pub options: Options,
    running: Option<Running>,
}

impl Lab {
    /// A lab whose operator runs, with keys in the Secret `tencent`.
    pub async fn start() -> Self {
        let mut lab = Self::without_operator().await;
        lab.start_operator().await;
        lab
    }

    /// A lab whose operator does not run yet.
    pub async fn without_operator() -> Self {
        // Short signatures: doubt ends within the test.
        Self::with(gs_simulator::Options {
            signature_validity: Duration::from_secs(4),
            ..gs_simulator::Options::default()
        })
        .await
    }

    /// A lab with a simulator of one's own.
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

    pub async fn start_operator(&mut self) {
        // A client of its own: the operator's requests are told apart in the audit log by the field
        // manager.
        let config = config().await;
        let url = config.cluster_url.to_string();
        self.start_operator_as(config, url).await;
    }

    /// Starts the operator with a configuration of the test's own, such as that of a
    /// ServiceAccount.
    pub async fn start_operator_as(&mut self, config: Config, url: String) {
        assert!(self.running.is_none(), "an operator runs already");
        self.running = Some(self.launch(config, url).await);
    }

    /// One more operator for the same objects.
    pub async fn another_operator(&self) -> Running {
        let config = config().await;
        let url = config.cluster_url.to_string();
        self.launch(config, url).await
    }

    async fn launch(&self, config: Config, url: String) -> Running {
        let client = Client::try_from(config).expect("a client");
        let operator = Operator::new(self.options.clone(), client, url).expect("an operator");
        let (readiness, fence) = (operator.readiness(), operator.fence());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let admin = listener.local_addr().expect("an address");
        let stopping = CancellationToken::new();
        let task = tokio::spawn(operator.run(listener, stopping.clone()));
        eventually("the operator is ready", async || readiness.missing().map_or(Ok(()), Err)).await;
        Running { task, stopping, admin, fence }
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
        self.running.as_ref().expect("an operator").fence.clone()
    }

    /// Waits until the metrics have this line.
    pub async fn until_metric(&self, line: &str) {
        let url = format!("http://{}/metrics", self.admin());
        eventually(&format!("the metric {line}"), async || {
            let text = reqwest::get(&url).await.expect("an answer").text().await.expect("a text");
            if text.lines().any(|found| found == line) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// Where the admin server listens.
    pub fn admin(&self) -> std::net::SocketAddr {
        self.running.as_ref().expect("an operator").admin
    }

    pub async fn create_secret(&self, name: &str, id: &str, key: &str) {
        let secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"secretId": id, "secretKey": key},
        }));
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(self.client.clone(), &self.namespace);
        secrets.create(&PostParams::default(), &secret.expect("a Secret")).await.expect("a Secret");
    }

    /// Gives an existing Secret other keys.
    pub async fn change_secret(&self, name: &str, id: &str, key: &str) {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"stringData": {"secretId": id, "secretKey": key}}));
        secrets.patch(name, &PatchParams::default(), &patch).await.expect("a Secret");
    }

    pub async fn delete_secret(&self, name: &str) {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(self.client.clone(), &self.namespace);
        secrets.delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    /// A StreamSession of [`SESSION`] with the Secret `tencent`; `extra` is merged into its spec.
    pub async fn create(&self, name: &str, ids: &[&str], extra: Value) -> StreamSession {
        let mut spec = json!({"sessionId": SESSION, "slaveInstanceIds": ids, "credentialsRef": {"name": "tencent"}});
        if let (Some(spec), Some(extra)) = (spec.as_object_mut(), extra.as_object()) {
            spec.extend(extra.clone());
        }
        let object = json!({"apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession", "metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).expect("a StreamSession");
        self.sessions.create(&PostParams::default(), &object).await.expect("created")
    }

    /// Merges `spec` into the object's spec.
    pub async fn edit(&self, name: &str, spec: Value) {
        self.sessions
            .patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec})))
            .await
            .expect("edited");
    }

    /// Merges `metadata` into the object's metadata.
    pub async fn edit_metadata(&self, name: &str, metadata: Value) {
        self.sessions
            .patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata})))
            .await
            .expect("edited");
    }

    /// Merges `status` into the object's status, as a person would with `kubectl edit
    /// --subresource=status`.
    pub async fn edit_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.sessions.patch_status(name, &PatchParams::default(), &patch).await.expect("edited");
    }

    /// Waits for an event about the object; answers its note.
    pub async fn until_event(&self, name: &str, reason: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        eventually(&format!("an event {reason} about {name}"), async || {
            let events = events.list(&ListParams::default()).await.expect("events").items;
            let about = |event: &&Event| {
                event
                    .regarding
                    .as_ref()
                    .is_some_and(|regarding| regarding.name.as_deref() == Some(name))
            };
            let found =
                events.iter().filter(about).find(|event| event.reason.as_deref() == Some(reason));
            found.and_then(|event| event.note.clone()).ok_or_else(|| {
                format!("{:?}", events.iter().map(|event| &event.note).collect::<Vec<_>>())
            })
        })
        .await
    }

    pub async fn edit_ids(&self, name: &str, ids: &[&str]) {
        self.edit(name, json!({"slaveInstanceIds": ids})).await;
    }

    pub async fn delete(&self, name: &str) {
        self.sessions.delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    pub async fn get(&self, name: &str) -> StreamSession {
        self.sessions.get(name).await.expect("the object")
    }

    /// The members of [`SESSION`] at the simulator.
    pub fn members(&self) -> BTreeSet<String> {
        self.simulator.members(SESSION)
    }

    /// The signed calls that reached the simulator so far; not the unsigned request that asks for
    /// the time.
    pub fn calls(&self) -> Vec<gs_simulator::Call> {
        self.simulator.calls().into_iter().filter(|call| call.secret_id.is_some()).collect()
    }

    /// Waits until Ready is True for the newest generation and the simulator holds exactly `ids`,
    /// with nothing open in the ledger.
    pub async fn until_ready(&self, name: &str, ids: &[&str]) -> StreamSession {
        self.until_ready_at(name, SESSION, ids).await
    }

    /// The same for another session.
    pub async fn until_ready_at(&self, name: &str, session: &str, ids: &[&str]) -> StreamSession {
        let wanted: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
        eventually(&format!("{name} is Ready with {ids:?} in {session}"), async || {
            let object = self.get(name).await;
            let status = object.status.clone().unwrap_or_default();
            let settled = status.unsettled_instances.is_empty() && status.pending_call.is_none();
            let members = self.simulator.members(session);
            let (ready, _, _) = ready(&object);
            if ready && settled && members == wanted {
                Ok(object)
            } else {
                Err(format!("{}, members {members:?}", brief(&status)))
            }
        })
        .await
    }

    /// A lab in a namespace of its own, whose operator calls the service of this one.
    pub async fn neighbour(&self) -> Self {
        let mut neighbour = Self::without_operator().await;
        neighbour.options =
            Options { namespaces: neighbour.options.namespaces, ..self.options.clone() };
        neighbour
    }

    /// Waits until Ready is False for `reason`; answers the message.
    pub async fn until_reason(&self, name: &str, reason: &str) -> String {
        eventually(&format!("{name} has the reason {reason}"), async || {
            let object = self.get(name).await;
            match ready(&object) {
                (_, found, message) if found == reason => Ok(message),
                (_, found, message) => Err(format!("{found}: {message}")),
            }
        })
        .await
    }

    /// Waits until `look` accepts the status.
    pub async fn until_status(
        &self,
        name: &str,
        what: &str,
        look: impl Fn(&StreamSessionStatus) -> bool,
    ) -> StreamSession {
        eventually(&format!("{name}: {what}"), async || {
            let object = self.get(name).await;
            let status = object.status.clone().unwrap_or_default();
            if look(&status) { Ok(object) } else { Err(brief(&status)) }
        })
        .await
    }

    /// Waits until at least `count` signed calls have reached the simulator.
    pub async fn until_calls(&self, count: usize) {
        eventually(&format!("{count} calls"), async || {
            let calls = self.history();
            if calls.len() >= count { Ok(()) } else { Err(format!("{calls:?}")) }
        })
        .await;
    }

    /// The signed calls in short, as `Attach a,b`.
    pub fn history(&self) -> Vec<String> {
        let short = |call: gs_simulator::Call| match call.operation {
            Some(operation) => format!("{operation:?} {}", call.instance_ids.join(",")),
            None => format!("{:?}", call.outcome),
        };
        self.calls().into_iter().map(short).collect()
    }

    /// Waits until the operator has seen all that happened so far: a new object, of a session of
    /// its own, is attached by one call and three writes, and the watch tells in order.
    pub async fn until_marked(&self) {
        self.create("marker", &["marked"], json!({"sessionId": "marker"})).await;
        self.until_status("marker", "is attached", |status| {
            status.attached_instance_ids == ["marked"]
        })
        .await;
    }

    /// Waits until the object is gone.
    pub async fn until_gone(&self, name: &str) {
        eventually(&format!("{name} is gone"), async || {
            match self.sessions.get_opt(name).await.expect("an answer") {
                None => Ok(()),
                Some(object) => Err(object.status.as_ref().map(brief).unwrap_or_default()),
            }
        })
        .await;
    }

    /// The operator's writes to StreamSessions of this namespace so far, as the API server's audit
    /// log tells; `verb/subresource`.
    pub fn writes(&self) -> Vec<String> {
        self.written().into_iter().map(|(_, write)| write).collect()
    }

    /// Those to the object of that name.
    pub fn writes_of(&self, name: &str) -> Vec<String> {
        self.written()
            .into_iter()
            .filter(|(written, _)| written == name)
            .map(|(_, write)| write)
            .collect()
    }

    fn written(&self) -> Vec<(String, String)> {
        let log = std::fs::read_to_string(cluster().audit_log()).expect("the audit log");
        // All tests share the log: only this namespace's lines are worth parsing.
        let lines = log.lines().filter(|line| line.contains(&self.namespace));
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines
            .filter(|event| {
                event["objectRef"]["namespace"] == self.namespace.as_str()
                    && event["objectRef"]["resource"] == "streamsessions"
                    && event["userAgent"] == "streamsession-operator"
                    && ["create", "update", "patch", "delete"]
                        .iter()
                        .any(|verb| event["verb"] == *verb)
                    && event["requestURI"]
                        .as_str()
                        .is_some_and(|uri| uri.contains("fieldManager=streamsession-operator"))
            })
            .map(|event| {
                let object = &event["objectRef"];
                (
                    text(&object["name"]),
                    format!("{}/{}", text(&event["verb"]), text(&object["subresource"])),
                )
            })
            .collect()
    }

    /// Waits until the audit log shows at least `count` writes to the object.
    pub async fn until_written(&self, name: &str, count: usize) {
        eventually(&format!("{count} writes to {name}"), async || {
            let writes = self.writes_of(name);
            if writes.len() >= count { Ok(()) } else { Err(format!("{writes:?}")) }
        })
        .await;
    }

    /// Waits until the audit log shows `count` writes, and no more of them.
    pub async fn until_writes(&self, count: usize) {
        eventually(&format!("{count} writes"), async || {
            let writes = self.writes();
            if writes.len() >= count { Ok(()) } else { Err(format!("{writes:?}")) }
        })
        .await;
        assert_eq!(self.writes().len(), count, "{:?}", self.writes());
    }
}

/// The service takes effect at once and answers late: time to do something meanwhile, and less than
/// the call's deadline.
pub fn slow() -> gs_simulator::Faults {
    gs_simulator::Faults { delay_ms: 1500, ..gs_simulator::Faults::default() }
}

/// The status with a few of its instances: printing thousands in each look would keep the operator
/// waiting.
fn brief(status: &StreamSessionStatus) -> String {
    let mut status = status.clone();
    let held = (status.attached_instance_ids.len(), status.unsettled_instances.len());
    status.attached_instance_ids.truncate(5);
    status.unsettled_instances.truncate(5);
    format!("{status:?}, {held:?} instances attached and unsettled")
}

/// Ready for the newest generation, its reason and its message.
pub fn ready(object: &StreamSession) -> (bool, String, String) {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == "Ready") else {
        return (false, "no condition".into(), String::new());
    };
    let current = ready.observed_generation == object.metadata.generation;
    (current && ready.status == "True", ready.reason.clone(), ready.message.clone())
}
