//! Nothing outlives this process, however it ends: a watchdog ends each server, a janitor removes
//! the data folder.
//!
//! ```text
//! this process ──pipe──► watchdog (sh) ──► server     the pipe closes: TERM, after 3 s KILL
//!      │                    │
//!      └───────pipe─────────┴─────► janitor (sh)      its last writer has ended: rm -rf the folder
//! ```
//!
//! The kernel closes a pipe also for a process that was killed with SIGKILL, which no handler in
//! this process could see. Rust opens pipes close-on-exec, so no program that this process starts
//! keeps one open by accident.

use std::{
    ffi::OsString,
    io::{self, PipeWriter},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::{Error, folder::DataFolder};

const SHELL: &str = "/bin/sh";

/// A shell script in its own process group, so that Ctrl-C in the terminal reaches this process
/// only and the servers are stopped in order. It inherits no variable but PATH: etcd takes every
/// `ETCD_…` of the environment as a flag.
fn shell(script: &str) -> Command {
    let mut command = Command::new(SHELL);
    command.args(["-c", script, "devcluster"]).env_clear().current_dir("/").process_group(0);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Removes paths once this process and all watchdogs are gone.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    lifeline: Option<PipeWriter>,
}

impl Janitor {
    /// Starts to guard `paths`.
    pub(crate) fn start(paths: &[&Path]) -> Result<Self, Error> {
        let (reader, writer) = io::pipe().map_err(Error::run(SHELL))?;
        let child = shell(include_str!("janitor.sh"))
            .args(paths)
            .stdin(reader)
            .spawn()
            .map_err(Error::run(SHELL))?;
        Ok(Self { child, lifeline: Some(writer) })
    }

    /// One more end of the pipe, for a watchdog's stdout.
    fn share(&self) -> Result<Stdio, Error> {
        match &self.lifeline {
            Some(writer) => Ok(writer.try_clone().map_err(Error::run(SHELL))?.into()),
            None => Ok(Stdio::null()),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.lifeline = None;
        // It ends as soon as the watchdogs have, and they were dropped before.
        let _ = self.child.wait();
    }
}

/// A server and the watchdog that ends it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    log: PathBuf,
    watchdog: Child,
}

impl Server {
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[OsString],
        folder: &DataFolder,
        janitor: &Janitor,
    ) -> Result<Self, Error> {
        let log = folder.log(name);
        let watchdog = shell(include_str!("watchdog.sh"))
            .arg(folder.pid(name))
            .arg(&log)
            .arg(program)
            .args(arguments)
            .stdout(janitor.share()?)
            .spawn()
            .map_err(Error::run(SHELL))?;
        Ok(Self { name, log, watchdog })
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// How the server ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.watchdog.try_wait().map_err(Error::run(SHELL))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The standard library closes the child's stdin before it waits: the watchdog then stops.
        let _ = self.watchdog.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, Instant},
    };

    use super::*;

    fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "timed out: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_running(pid: &str) -> bool {
        Command::new(SHELL)
            .args(["-c", "kill -0 \"$1\" 2>/dev/null", "sh", pid])
            .status()
            .unwrap()
            .success()
    }

    /// Waits until the server has logged a line and the watchdog has written its pid, in any order.
    fn pid_once_started(folder: &DataFolder, server: &Server) -> String {
        wait_for("the server's first line", || {
            fs::read_to_string(server.log()).is_ok_and(|log| log == "started\n")
        });
        let mut pid = String::new();
        wait_for("the server's pid", || {
            pid = fs::read_to_string(folder.pid("server")).unwrap_or_default();
            pid.ends_with('\n')
        });
        pid.trim().to_owned()
    }

    fn start(script: &str) -> (DataFolder, Janitor, Server) {
        let folder = DataFolder::create().unwrap();
        let janitor = Janitor::start(&[folder.root()]).unwrap();
        let server = Server::start(
            "server",
            Path::new(SHELL),
            &["-c".into(), script.into()],
            &folder,
            &janitor,
        )
        .unwrap();
        (folder, janitor, server)
    }

    #[test]
    fn a_dropped_server_is_gone_and_its_folder_with_it() {
        let (folder, janitor, server) = start("echo started; exec sleep 1000");
        let pid = pid_once_started(&folder, &server);
        assert!(is_running(&pid));

        drop(server);
        assert!(!is_running(&pid));
        assert!(folder.root().exists());
        drop(janitor);

        assert!(!folder.root().exists());
    }

    #[test]
    fn a_server_that_ignores_term_is_killed() {
        let (folder, _janitor, server) =
            start("trap '' TERM; echo started; while :; do sleep 0.1; done");
        let pid = pid_once_started(&folder, &server);

        drop(server);

        assert!(!is_running(&pid));
    }

    #[test]
    fn a_server_that_ends_by_itself_passes_its_status_on() {
        let (_folder, _janitor, mut server) = start("exit 7");

        let mut status = None;
        wait_for("the server's end", || {
            status = server.ended().unwrap();
            status.is_some()
        });

        assert_eq!(status.and_then(|status| status.code()), Some(7));
    }
}
