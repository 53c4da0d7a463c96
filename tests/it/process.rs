//! The real operator as a process of its own.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{DEADLINE, Lab, cluster};

const SIGKILL: i32 = 9;

/// The command that runs the operator on the lab's namespace and simulator.
pub fn operator(lab: &Lab) -> Command {
    operator_with(lab, cluster().kubeconfig())
}

/// Likewise, with this kubeconfig.
pub fn operator_with(lab: &Lab, kubeconfig: &Path) -> Command {
    let seconds = |duration: Duration| duration.as_secs().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamsession-operator"));
    command
        .arg("run")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--gs-endpoint", &lab.simulator.url()])
        .args(["--gs-timeout", &seconds(lab.options.gs_timeout)])
        .args(["--signature-validity", &seconds(lab.options.signature_validity)])
        .args(["--gs-burst", &lab.options.gs_burst.to_string()])
        .args(["--namespace", &lab.namespace])
        .args(["--admin-address", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Starts it.
pub fn start_process(lab: &Lab) -> Child {
    operator(lab).spawn().expect("the operator")
}

/// Where the operators of a lab write what they have to say; removed with it, unless the test
/// fails.
pub struct Logs(PathBuf);

impl Logs {
    pub fn of(lab: &Lab) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&lab.namespace);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// Starts an operator, with a failpoint of `controller::failpoint` if one is named.
    pub fn start_process(&self, lab: &Lab, number: usize, failpoint: Option<&str>) -> Child {
        let log = File::create(self.0.join(format!("operator-{number:04}.log"))).expect("a log");
        let mut command = operator(lab);
        command.stderr(log);
        if let Some(failpoint) = failpoint {
            command.env(streamsession_operator::controller::failpoint::VARIABLE, failpoint);
        }
        command.spawn().expect("the operator")
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Ends the process at once, wherever it is.
pub async fn kill(process: &mut Child) {
    process.start_kill().expect("a process");
    assert!(was_killed(end(process, "a kill").await));
}

/// Waits for the process to end, as `what` makes it do.
pub async fn end(process: &mut Child, what: &str) -> ExitStatus {
    let ended = timeout(DEADLINE, process.wait()).await;
    ended
        .unwrap_or_else(|_| panic!("{what}: the operator did not end within {DEADLINE:?}"))
        .expect("a status")
}

pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(SIGKILL)
}
