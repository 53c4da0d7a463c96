//! The real binary as people start it: its help, what it refuses and why, what it says while
//! something is missing, and what it never says.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{env, fs, thread};

use devcluster::Cluster;
use gs_simulator::Key;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::json;
use streamsession_operator::api::v1alpha1::crd_yaml;

use crate::harness::{Lab, cluster, eventually, install_crypto, kubectl};

/// The operator's binary with an empty environment: the tester's own settings are no part of a
/// test.
fn operator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamsession-operator"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs it to its end: exit code and everything that it printed.
fn ended(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the operator ends");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{text}");
    (output.status.code(), text)
}

/// A running operator whose log is kept. It ends with its test.
struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the operator");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().expect("no panic") += &(line + "\n");
            }
        });
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    async fn until_log(&self, text: &str) {
        eventually(&format!("the log says `{text}`"), async || {
            if self.log().contains(text) { Ok(()) } else { Err(self.log()) }
        })
        .await;
    }

    /// Where its admin server listens, as its log says.
    async fn admin(&self) -> SocketAddr {
        eventually("the log names the admin server's address", async || {
            let log = self.log();
            let (_, address) = log.split_once("address=").ok_or_else(|| log.clone())?;
            address.lines().next().and_then(|address| address.trim().parse().ok()).ok_or(log)
        })
        .await
    }

    /// Waits until `/readyz` has this status and says `text`.
    async fn until_readyz(&self, status: u16, text: &str) -> String {
        install_crypto();
        let url = format!("http://{}/readyz", self.admin().await);
        eventually(&format!("/readyz is {status} and says `{text}`"), async || {
            let answer = reqwest::get(&url).await.map_err(|error| error.to_string())?;
            let (found, body) =
                (answer.status().as_u16(), answer.text().await.map_err(|error| error.to_string())?);
            if found == status && body.contains(text) {
                Ok(body)
            } else {
                Err(format!("{found}: {body}, and the log: {}", self.log()))
            }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file that is removed with its test.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &str) -> Self {
        let path = env::temp_dir().join(format!("streamsession-it-{}-{name}", std::process::id()));
        fs::write(&path, content).expect("a file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A port of loopback where nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

fn kubeconfig_of(server: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": server}}],
        "users": [{"name": "it", "user": {"token": "it"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    })
    .to_string()
}

fn run(kubeconfig: &Path) -> Command {
    let mut command = operator();
    command.arg("run").arg("--kubeconfig").arg(kubeconfig).args(["--admin-address", "127.0.0.1:0"]);
    command
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[test]
fn help_names_each_flag_and_its_environment_variable() {
    let (code, help) = ended(operator().args(["run", "--help"]));

    assert_eq!(code, Some(0));
    let flags: Vec<_> = help
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
        .collect();
    for flag in [
        "--kubeconfig",
        "--gs-endpoint",
        "--gs-qps",
        "--signature-validity",
        "--region",
        "--namespace",
        "--admin-address",
    ] {
        assert!(flags.contains(&flag), "no {flag} in {flags:?}");
    }
    for flag in flags.into_iter().filter(|flag| !["--help", "--version"].contains(flag)) {
        let (_, about) = help
            .split_once(&format!(" {flag} <"))
            .or_else(|| help.split_once(&format!(" {flag}\n")))
            .expect(flag);
        let about = about.split_once("\n\n      --").map_or(about, |(about, _)| about);
        let variable = flag.trim_start_matches("--").replace('-', "_").to_uppercase();
        assert!(
            about.contains(&format!("[env: {variable}")) || about.contains(&format!("${variable}")),
            "{flag}: no {variable} in {about}"
        );
    }
    assert_says(
        &help,
        &[
            "TENCENTCLOUD_SECRET_ID",
            "TENCENTCLOUD_SECRET_KEY",
            "TENCENTCLOUD_SESSION_TOKEN",
            "RUST_LOG",
        ],
    );
}

#[test]
fn the_crd_is_printed_as_it_is_committed() {
    let output = operator().arg("crd").output().expect("the operator ends");

    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stdout) == crd_yaml().expect("a CRD"),
        "`crd` prints something else than the CRD"
    );
}

#[test]
fn a_kubeconfig_that_is_missing_is_named_with_the_flag_to_check() {
    let path = env::temp_dir().join("streamsession-it-no-such-file");

    let (code, text) = ended(&mut run(&path));

    assert_eq!(code, Some(1));
    assert_says(&text, &[path.to_str().expect("UTF-8"), "No such file", "check --kubeconfig"]);
}

#[test]
fn a_kubeconfig_that_is_no_kubeconfig_is_named() {
    let file = File::new("garbage", "clusters: [");

    let (code, text) = ended(&mut run(&file.0));

    assert_eq!(code, Some(1));
    assert_says(&text, &[file.0.to_str().expect("UTF-8"), "check --kubeconfig"]);
}

#[test]
fn a_kubeconfig_variable_that_leads_nowhere_is_told_with_the_ways_out() {
    let path = "/no/such/kubeconfig";

    let (code, text) = ended(operator().arg("run").env("KUBECONFIG", path));

    assert_eq!(code, Some(1));
    assert_says(&text, &[path, "--kubeconfig", "KUBECONFIG", "service account"]);
}

#[test]
fn a_short_signature_validity_is_refused_for_the_real_service() {
    let file = File::new("validity", &kubeconfig_of(&format!("https://{}", closed_port())));

    let (code, text) = ended(run(&file.0).args(["--signature-validity", "5"]));

    assert_eq!(code, Some(1));
    assert_says(
        &text,
        &[
            "--signature-validity 5 s",
            "300 s",
            "gs.tencentcloudapi.com",
            "loopback",
            "leave the flag out",
        ],
    );
}

#[test]
fn a_plain_endpoint_elsewhere_is_refused_with_the_reason() {
    let (code, text) = ended(operator().args(["run", "--gs-endpoint", "http://example.com"]));

    assert_eq!(code, Some(1));
    assert_says(
        &text,
        &[
            "--gs-endpoint",
            "http://example.com",
            "plain http:// is for loopback only",
            "use https://",
        ],
    );
}

#[test]
fn a_session_gone_code_that_would_empty_a_ledger_by_mistake_is_refused() {
    for (code, says) in [("", "is empty"), ("FailedOperation", "of many kinds")] {
        let by_flag = ended(operator().args(["run", "--session-gone-codes", code]));
        let by_variable = ended(operator().arg("run").env("SESSION_GONE_CODES", code));

        for (exit, text) in [by_flag, by_variable] {
            assert_eq!(exit, Some(2));
            assert_says(&text, &["--session-gone-codes <CODE>", &format!("'{code}'"), says]);
        }
    }
}

#[test]
fn the_help_says_whose_sessions_may_use_the_operators_own_credentials() {
    let (_, help) = ended(operator().args(["run", "--help"]));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");

    for part in [
        "--default-credentials-namespaces <NAME>",
        "Default: nobody's may",
        "* names every namespace",
        "--node-role-credentials",
    ] {
        assert!(help.contains(part), "no `{part}` in: {help}");
    }
}

#[test]
fn an_occupied_admin_port_is_named() {
    let file = File::new("port", &kubeconfig_of(&format!("https://{}", closed_port())));
    let occupied = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = occupied.local_addr().expect("an address").to_string();

    let (code, text) = ended(
        operator().arg("run").arg("--kubeconfig").arg(&file.0).args(["--admin-address", &address]),
    );

    assert_eq!(code, Some(1));
    assert_says(&text, &["--admin-address", &address, "in use", "choose another, or port 0"]);
}

#[tokio::test]
async fn an_api_server_that_is_away_is_named_and_tried_again() {
    let server = format!("https://{}", closed_port());
    let file = File::new("away", &kubeconfig_of(&server));

    let mut operator = Process::start(&mut run(&file.0));

    let why = operator.until_readyz(503, "can't be reached").await;
    assert_says(&why, &[&server, "refused"]);
    let tries = || operator.log().matches("can't be reached").count();
    eventually("it tries again", async || if tries() >= 3 { Ok(()) } else { Err(operator.log()) })
        .await;
    assert!(operator.child.try_wait().expect("a state").is_none(), "it ended: {}", operator.log());
}

#[tokio::test]
async fn a_cluster_without_the_crd_is_told_how_to_get_it_and_taken_when_it_has_it() {
    let binaries = cluster().binaries().clone();
    let bare = Cluster::start(devcluster::Options {
        binaries: Some(binaries),
        ..devcluster::Options::default()
    })
    .expect("a cluster");
    let operator = Process::start(&mut run(bare.kubeconfig()));

    let remedy = "streamsession-operator crd | kubectl apply --server-side -f -";
    operator.until_log(remedy).await;
    operator.until_readyz(503, remedy).await;

    let crd = File::new("crd.yaml", &crd_yaml().expect("a CRD"));
    let installed = bare
        .kubectl()
        .args(["apply", "--server-side", "-f"])
        .arg(&crd.0)
        .output()
        .expect("kubectl");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    operator.until_readyz(200, "ok").await;
}

#[tokio::test]
async fn no_secret_is_ever_logged_or_written_not_even_at_level_trace() {
    let (secret_key, token) = ("Zk3vQ9wX7rT1yU5sE8aH", "Pn6bM2cL4dJ0fG8kR5tW");
    let keys = [("AKIDlogged".to_owned(), Key::temporary(secret_key, token))];
    let lab =
        Lab::with(gs_simulator::Options { keys: keys.into(), ..gs_simulator::Options::default() })
            .await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "temporary", "namespace": lab.namespace},
        "stringData": {"secretId": "AKIDlogged", "secretKey": secret_key, "token": token},
    });
    kubectl(&["create", "-f", "-"], &secret.to_string());

    let mut command = run(cluster().kubeconfig());
    command
        .args(["--gs-endpoint", &lab.simulator.url(), "--namespace", &lab.namespace])
        .env("RUST_LOG", "trace");
    let operator = Process::start(&mut command);
    lab.create("lobby", &["a"], json!({"credentialsRef": {"name": "temporary"}})).await;
    let object = lab.until_ready("lobby", &["a"]).await;

    let seen = operator.log() + &serde_json::to_string(&object).expect("JSON");
    assert!(seen.contains("TRACE") && seen.contains("AKIDlogged"), "{seen}");
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let stored = secrets.get("temporary").await.expect("the Secret").data.expect("data");
    let encoded = |key: &str| {
        serde_json::to_value(ByteString(stored[key].0.clone()))
            .expect("JSON")
            .as_str()
            .expect("base64")
            .to_owned()
    };
    let kubeconfig = fs::read_to_string(cluster().kubeconfig()).expect("a kubeconfig");
    let admin = kubeconfig
        .split_once("token: ")
        .and_then(|(_, rest)| rest.lines().next())
        .expect("the admin's token");
    for secret in [secret_key, token, &encoded("secretKey"), &encoded("token"), admin.trim()] {
        assert!(!seen.contains(secret), "a secret is in the log or in the object: {secret}");
    }
}
