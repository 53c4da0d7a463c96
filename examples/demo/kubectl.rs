//! kubectl, as a person would type it.

use std::{
    borrow::Cow,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::failure::Failure;

/// Paths in commands are relative to it.
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Longer than every `--timeout` of a command: then kubectl itself says what it waited for.
const TIMEOUT: Duration = Duration::from_mins(3);

/// kubectl for one cluster and namespace.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    namespace: Option<&'static str>,
}

impl Kubectl {
    /// That of the demo's own cluster, in the default namespace.
    pub(crate) fn of(cluster: &devcluster::Cluster) -> Self {
        let command = cluster.kubectl();
        let environment = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        Self { program: command.get_program().into(), environment, namespace: None }
    }

    /// The user's kubectl, for the user's cluster.
    pub(crate) fn with(kubeconfig: &Path, namespace: &'static str) -> Self {
        Self {
            program: "kubectl".into(),
            environment: vec![("KUBECONFIG".into(), kubeconfig.into())],
            namespace: Some(namespace),
        }
    }

    /// The same without a namespace.
    pub(crate) fn cluster_wide(&self) -> Self {
        Self { namespace: None, ..self.clone() }
    }

    /// The path of the program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The command line, as a person would type it.
    pub(crate) fn line(&self, arguments: &[&str]) -> String {
        let words = self.namespaced().chain(arguments.iter().copied()).map(quoted);
        ["kubectl".into()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end; returns what it printed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(&self.program);
        command
            .args(self.namespaced())
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .current_dir(REPOSITORY);
        // In a process group of its own it does not see Ctrl-C: the demo does, and ends it.
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let Ok(output) = timeout(TIMEOUT, command.output()).await else {
            return Err(Failure::KubectlTimedOut {
                line: self.line(arguments),
                seconds: TIMEOUT.as_secs(),
            });
        };
        let output = output.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Failure::NoKubectl,
            _ => Failure::Start { program: self.program.clone(), source },
        })?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        if output.status.success() {
            Ok(printed + &errors)
        } else {
            Err(Failure::Kubectl { line: self.line(arguments), output: errors })
        }
    }

    fn namespaced<'a>(&self) -> impl Iterator<Item = &'a str> {
        self.namespace.into_iter().flat_map(|namespace| ["-n", namespace])
    }
}

/// Quoted for a shell, if it has to be.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''")).into()
    }
}
