//! The operator, as a process that can be killed.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gs_simulator::{EXAMPLE_SECRET_ID, EXAMPLE_SECRET_KEY};

use crate::failure::Failure;

/// The environment variables that it gets: keys and settings of the user must not reach it. (A
/// kubeconfig may name a program that logs in, which needs `PATH` and `HOME`.)
const VARIABLES: [&str; 4] = ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE"];

/// Kills the operator if the demo is killed: its standard input then ends.
const LIFELINE: &str = r#"read -r _; kill -KILL "$1""#;

/// Its own credentials: the key that the simulator knows. They come before any profile in the
/// user's home folder, so that no real key signs here.
const OWN_KEYS: [(&str, &str); 2] = [
    ("TENCENTCLOUD_SECRET_ID", EXAMPLE_SECRET_ID),
    ("TENCENTCLOUD_SECRET_KEY", EXAMPLE_SECRET_KEY),
];

const LOG_LINES_SHOWN: usize = 15;

/// Its command line, and the process if it runs.
#[derive(Debug)]
pub(crate) struct Operator {
    program: PathBuf,
    arguments: Vec<OsString>,
    admin: SocketAddr,
    log: PathBuf,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    operator: Child,
    lifeline: Child,
}

impl Operator {
    /// Starts nothing yet. The admin address is chosen here: it stays the same after a restart.
    pub(crate) fn new(program: PathBuf, log: PathBuf) -> Result<Self, Failure> {
        if !program.is_file() {
            return Err(Failure::NoOperator(program));
        }
        let free =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let admin = free.map_err(|source| Failure::Start { program: program.clone(), source })?;
        let arguments = vec!["run".into(), format!("--admin-address={admin}").into()];
        Ok(Self { program, arguments, admin, log, process: None })
    }

    /// One more argument for its next start.
    pub(crate) fn argument(&mut self, name: &str, value: impl Into<OsString>) {
        self.arguments.push(name.into());
        self.arguments.push(value.into());
    }

    /// The command line, for people.
    pub(crate) fn line(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let arguments =
            self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
        [name].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// The log of all its processes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the process.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        let failed = |source| Failure::Start { program: self.program.clone(), source };
        let log_failed = |source| Failure::File { action: "write", path: self.log.clone(), source };
        let log = File::options().append(true).create(true).open(&self.log).map_err(log_failed)?;
        let output = log.try_clone().map_err(log_failed)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(output).stderr(log);
        command
            .env_clear()
            .envs(VARIABLES.into_iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .envs(OWN_KEYS);
        // Ctrl-C reaches the demo alone.
        let mut operator = command.process_group(0).spawn().map_err(failed)?;
        let lifeline = Command::new("/bin/sh")
            .args(["-c", LIFELINE, "lifeline", &operator.id().to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match lifeline {
            Ok(lifeline) => self.process = Some(Process { operator, lifeline }),
            Err(source) => {
                end(&mut operator);
                return Err(Failure::Start { program: "/bin/sh".into(), source });
            }
        }
        Ok(())
    }

    /// The process's id, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.process.as_ref()?.operator.id())
    }

    /// Kills it with SIGKILL, which no process can see coming.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The lifeline first: once the operator is gone, its id may be another's.
            end(&mut process.lifeline);
            end(&mut process.operator);
        }
    }

    /// Fails if it ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let status = process
            .operator
            .try_wait()
            .map_err(|source| Failure::Start { program: self.program.clone(), source })?;
        let Some(status) = status else { return Ok(()) };
        self.kill();
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let first = text.lines().count().saturating_sub(LOG_LINES_SHOWN);
        let log = if text.is_empty() {
            "Its log is empty.".to_owned()
        } else {
            let lines = ["The end of its log:"].into_iter().chain(text.lines().skip(first));
            lines.collect::<Vec<_>>().join("\n  ")
        };
        Err(Failure::OperatorEnded { status, log })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills and reaps; a process that ended already is only reaped.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}
