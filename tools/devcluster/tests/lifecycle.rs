//! A cluster from its start to its end, with real servers. The first run on a machine builds them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in tests, which for clippy excludes their helpers"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use devcluster::{Cluster, Options};

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: phones\n";

/// Runs kubectl, which must succeed; returns its stdout.
fn kubectl(cluster: &Cluster, arguments: &[&str], stdin: &str) -> String {
    let output = cluster.run_kubectl(arguments, stdin).expect("kubectl runs");
    assert!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn pid(data: &Path, server: &str) -> String {
    fs::read_to_string(data.join(format!("{server}.pid"))).unwrap().trim().to_owned()
}

fn kill(signal: &str, pid: &str) -> bool {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -s \"$1\" \"$2\" 2>/dev/null", "sh", signal, pid]);
    command.status().unwrap().success()
}

fn signal(signal: &str, pid: &str) {
    assert!(kill(signal, pid), "SIG{signal} to {pid}");
}

/// Signal 0 only checks whether the process exists.
fn is_running(pid: &str) -> bool {
    kill("0", pid)
}

/// `devcluster up` as a process of its own, once it says that it is ready.
struct Up {
    process: Child,
    data: PathBuf,
    kubeconfig: PathBuf,
    pids: [String; 2],
}

fn up(kubeconfig: &Path) -> Up {
    let mut process = Command::new(env!("CARGO_BIN_EXE_devcluster"))
        .args(["up", "--kubeconfig"])
        .arg(kubeconfig)
        .stdout(Stdio::piped())
        .spawn()
        .expect("devcluster starts");
    let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let data = lines.into_iter().find_map(|line| {
        line.trim().strip_prefix("data folder").map(|path| PathBuf::from(path.trim()))
    });
    let data = data.expect("devcluster up prints the data folder");
    let pids = [pid(&data, "etcd"), pid(&data, "kube-apiserver")];
    assert!(pids.iter().all(|pid| is_running(pid)) && kubeconfig.is_file());
    Up { process, data, kubeconfig: kubeconfig.to_owned(), pids }
}

impl Drop for Up {
    fn drop(&mut self) {
        // A failed assertion must not leave a cluster running; otherwise it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Up {
    fn wait_until_nothing_is_left(&self) {
        wait_for("both servers to end", || !self.pids.iter().any(|pid| is_running(pid)));
        wait_for("the data folder and the kubeconfig to go", || {
            !self.data.exists() && !self.kubeconfig.exists()
        });
    }
}

#[test]
fn a_cluster_serves_its_administrator_and_service_accounts_and_leaves_nothing_behind() {
    let started = Instant::now();
    let cluster = Cluster::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    eprintln!("ready in {:.1} s", started.elapsed().as_secs_f64());

    assert_eq!(kubectl(&cluster, &["get", "--raw", "/readyz"], ""), "ok");
    kubectl(&cluster, &["apply", "-f", "-"], NAMESPACE);
    assert!(
        kubectl(&cluster, &["get", "namespaces", "-o", "name"], "").contains("namespace/phones\n")
    );
    kubectl(&cluster, &["create", "serviceaccount", "operator", "-n", "phones"], "");
    let token = kubectl(&cluster, &["create", "token", "operator", "-n", "phones"], "");

    // kubectl prefers the certificate or token of its kubeconfig's user to a flag, so the token
    // gets a kubeconfig of its own.
    let limited = cluster.data_dir().join("limited.kubeconfig");
    let admin = fs::read_to_string(cluster.kubeconfig()).unwrap();
    let admin_token = admin.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap();
    fs::write(&limited, admin.replace(admin_token, token.trim())).unwrap();
    let as_operator = |arguments: &[&str]| {
        cluster.kubectl().env("KUBECONFIG", &limited).args(arguments).output().unwrap()
    };
    let who = as_operator(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(String::from_utf8_lossy(&who.stdout), "system:serviceaccount:phones:operator");
    let refused = as_operator(&["get", "secrets", "-n", "phones"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("forbidden"),
        "RBAC must be on: {refused:?}"
    );

    let created = |line: &str| {
        line.contains("\"verb\":\"create\"") && line.contains("\"resource\":\"serviceaccounts\"")
    };
    wait_for("the audit log's line", || {
        fs::read_to_string(cluster.audit_log()).unwrap().lines().any(created)
    });

    let data = cluster.data_dir().to_owned();
    let pids = [pid(&data, "etcd"), pid(&data, "kube-apiserver")];
    let stopping = Instant::now();
    drop(cluster);
    eprintln!("stopped in {:.1} s", stopping.elapsed().as_secs_f64());
    assert!(!pids.iter().any(|pid| is_running(pid)), "the servers are gone when drop returns");
    assert!(!data.exists(), "the data folder is gone when drop returns");
}

#[test]
fn the_api_server_comes_back_after_an_outage_with_its_data() {
    let mut cluster = Cluster::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    kubectl(&cluster, &["apply", "-f", "-"], NAMESPACE);
    let url = cluster.server_url();

    cluster.stop_apiserver();
    assert!(
        !cluster.kubectl().args(["get", "--raw", "/readyz"]).output().unwrap().status.success()
    );
    cluster.start_apiserver().unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(cluster.server_url(), url);
    assert!(
        kubectl(&cluster, &["get", "namespaces", "-o", "name"], "").contains("namespace/phones\n")
    );
}

#[test]
fn a_server_that_dies_is_reported_with_its_log() {
    let mut cluster = Cluster::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let apiserver = pid(cluster.data_dir(), "kube-apiserver");

    signal("KILL", &apiserver);

    let mut message = String::new();
    wait_for("the report", || {
        message = cluster.check().err().map(|error| error.to_string()).unwrap_or_default();
        !message.is_empty()
    });
    assert!(message.starts_with("kube-apiserver ended by itself"), "{message}");
}

#[test]
fn a_process_killed_with_sigkill_leaves_nothing_behind() {
    let kubeconfig = std::env::temp_dir().join(format!("devcluster-killed-{}", std::process::id()));
    let mut up = up(&kubeconfig);

    up.process.kill().unwrap();
    up.process.wait().unwrap();

    up.wait_until_nothing_is_left();
}

#[test]
fn a_terminated_process_stops_its_cluster_and_succeeds() {
    let kubeconfig =
        std::env::temp_dir().join(format!("devcluster-terminated-{}", std::process::id()));
    let mut up = up(&kubeconfig);

    signal("TERM", &up.process.id().to_string());

    assert!(up.process.wait().unwrap().success());
    up.wait_until_nothing_is_left();
}

#[test]
fn a_kubeconfig_that_exists_is_not_overwritten() {
    let path = std::env::temp_dir().join(format!("devcluster-existing-{}", std::process::id()));
    fs::write(&path, "mine").unwrap();

    let error = Cluster::start(Options { kubeconfig: Some(path.clone()), ..Options::default() })
        .unwrap_err();

    assert!(error.to_string().contains("exists already"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::remove_file(&path).unwrap();
}
