//! The API server of all tests, and the ways to reach it.

use std::sync::OnceLock;

use devcluster::{Binaries, Cluster, report_to_stderr};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use streamsession_operator::api::v1alpha1::crd_yaml;
use streamsession_operator::operator::tuned;

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
    let output = cluster.run_kubectl(arguments, stdin).expect("kubectl");
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
