//! Why the demo could not go on: what was tried, on what, and what to do.

use std::{io, path::PathBuf, process::ExitStatus};

use crate::environment::NAMESPACE;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no cluster: {0}")]
    Cluster(#[from] devcluster::Error),
    #[error("the simulator can't listen on loopback: {0}")]
    Simulator(io::Error),
    #[error("signals can't be received: {0}")]
    Signals(io::Error),
    #[error("no HTTP client can be built: {0}")]
    Http(#[from] reqwest::Error),
    #[error("can't {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("can't read the kubeconfig {} of DEMO_KUBECONFIG: {source}", path.display())]
    NoKubeconfig { path: PathBuf, source: io::Error },
    #[error("no operator at {}: build it with `cargo build`, or run `make demo`", .0.display())]
    NoOperator(PathBuf),
    #[error("can't start {}: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("the operator ended by itself ({status}). {log}")]
    OperatorEnded { status: ExitStatus, log: String },
    #[error(
        "there is no `kubectl` on the PATH. With DEMO_KUBECONFIG the demo needs yours: install it, \
         or unset DEMO_KUBECONFIG"
    )]
    NoKubectl,
    #[error("`{line}` failed: {output}")]
    Kubectl { line: String, output: String },
    #[error("`{line}` did not end within {seconds} s")]
    KubectlTimedOut { line: String, seconds: u64 },
    #[error("waited {seconds} s {what}. Attached at the service: {attached}")]
    TimedOut { what: &'static str, seconds: u64, attached: String },
    #[error("attached at the service: {attached}; expected: {expected}")]
    WrongMembers { attached: String, expected: String },
    #[error(
        "the cluster of DEMO_KUBECONFIG has the StreamSession resource already. An operator may \
         run there, and would work on the same objects as the demo's. Use another cluster. If a \
         demo that was killed has left the resource there (see `kubectl get streamsessions -A`), \
         remove it: kubectl delete namespace {NAMESPACE}; kubectl delete -k crds"
    )]
    ResourceExists,
}
