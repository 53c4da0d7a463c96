//! Why the demo could not go on: what was tried, on what, what to do.

use std::{io, path::PathBuf, process::ExitStatus};

use crate::stage::NAMESPACE;

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
    #[error("can't read the kubeconfig {}, which DEMO_KUBECONFIG names: {source}", path.display())]
    NoKubeconfig { path: PathBuf, source: io::Error },
    #[error("no operator at {}: build it with `cargo build`, or start all of this with `make demo`", .0.display())]
    NoOperator(PathBuf),
    #[error("can't start {}: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("the operator ended by itself ({status}). {words}")]
    OperatorEnded { status: ExitStatus, words: String },
    #[error(
        "no `kubectl` on the PATH, and the demo uses yours for the cluster of DEMO_KUBECONFIG: install it, or unset DEMO_KUBECONFIG"
    )]
    NoKubectl,
    #[error("`{line}` failed: {output}")]
    Kubectl { line: String, output: String },
    #[error("`{line}` was not done after {seconds} s")]
    KubectlHangs { line: String, seconds: u64 },
    #[error("waited {seconds} s in vain {what}; the service holds: {holds}")]
    Waited { what: &'static str, seconds: u64, holds: String },
    #[error("the service holds: {holds}; it should hold: {should}")]
    WrongMembers { holds: String, should: String },
    #[error(
        "the cluster of DEMO_KUBECONFIG has the StreamSession resource already: an operator may run there, and it and the demo's would drive the \
         same objects. Choose another cluster. If nothing but a demo that was killed has left it there (see `kubectl get streamsessions -A`), \
         remove that: kubectl delete namespace {NAMESPACE}; kubectl delete -k crds"
    )]
    Occupied,
}
