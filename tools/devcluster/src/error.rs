//! What can go wrong, and what to do.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why there are no binaries, or the cluster did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Go to build with.
    #[error(
        "can't build etcd and kube-apiserver: `go` is not in PATH. Do one of these three: \
         install Go 1.26 or newer (https://go.dev/dl); \
         or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl; \
         or, for the demo, set DEMO_KUBECONFIG to the kubeconfig of an existing cluster"
    )]
    GoMissing,
    /// Go is there, but older than the sources ask for.
    #[error(
        "can't build etcd and kube-apiserver: they need Go 1.26 or newer, and `go` in PATH is \
         {found}. Do one of these three: \
         install a newer Go (https://go.dev/dl); \
         or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl; \
         or, for the demo, set DEMO_KUBECONFIG to the kubeconfig of an existing cluster"
    )]
    GoTooOld {
        /// What `go env GOVERSION` says, such as `go1.22.3`.
        found: String,
    },
    /// `go` itself failed before any build.
    #[error(
        "`go env` failed ({status}): {message}. Make `go env GOVERSION` work in a terminal, and \
         try again"
    )]
    GoBroken {
        /// How `go env` ended.
        status: ExitStatus,
        /// Its stderr.
        message: String,
    },
    /// `go build` failed.
    #[error(
        "`go build {package}` failed ({status}) in {}; its last lines:\n{tail}\n\
         If modules could not be downloaded, check the network and `go env GOPROXY`. Then run it \
         again: finished parts are kept",
        module.display()
    )]
    Build {
        /// The Go package.
        package: String,
        /// The Go module's folder.
        module: PathBuf,
        /// How `go build` ended.
        status: ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
    /// `KUBEBUILDER_ASSETS` names a folder that lacks a binary.
    #[error(
        "KUBEBUILDER_ASSETS is {}, but that folder has no file `{name}`. Put etcd, kube-apiserver \
         and kubectl there, or unset KUBEBUILDER_ASSETS to build them with Go",
        folder.display()
    )]
    AssetMissing {
        /// The folder that the variable names.
        folder: PathBuf,
        /// The binary that is not there.
        name: &'static str,
    },
    /// No place for the cache.
    #[error(
        "no cache folder for the built etcd and kube-apiserver: neither XDG_CACHE_HOME nor HOME is \
         an absolute path. Set one of them"
    )]
    NoCacheFolder,
    /// The kubeconfig that was asked for would overwrite a file.
    #[error(
        "the kubeconfig {} exists already and may be in use: remove it, or choose another path",
        path.display()
    )]
    KubeconfigExists {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The operating system limits a socket's path to about 100 bytes.
    #[error(
        "the path of etcd's socket is too long for the operating system: {}. Set TMPDIR to a \
         shorter folder, such as /tmp",
        path.display()
    )]
    SocketPathTooLong {
        /// The path that is too long.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("can't {action} {}: {source}", path.display())]
    File {
        /// What was tried, such as `create the folder`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started.
    #[error(
        "can't run {}: {source}. Check that the file exists, is executable and is built for this \
         machine",
        program.display()
    )]
    Run {
        /// The program.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no free port.
    #[error("can't find a free port on 127.0.0.1 for kube-apiserver: {source}")]
    NoPort {
        /// Why the last try failed.
        source: io::Error,
    },
    /// A server ended by itself.
    #[error(
        "{name} ended by itself ({status}). Its log is kept in {}; the last lines:\n{tail}",
        log.display()
    )]
    ServerEnded {
        /// The server.
        name: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A server runs but did not become ready in time.
    #[error(
        "{name} was not ready after {seconds} s (asked for {asked}; last answer: {answer}). If \
         this machine is busy, try again. Its log is kept in {}; the last lines:\n{tail}",
        log.display()
    )]
    NotReady {
        /// The server.
        name: &'static str,
        /// How long it had.
        seconds: u64,
        /// The condition that was waited for.
        asked: &'static str,
        /// What it answered last.
        answer: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

impl Error {
    /// For `map_err`: a file operation on `path` that failed.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// For `map_err`: a program that could not be started.
    pub(crate) fn run(program: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let program = program.into();
        move |source| Self::Run { program, source }
    }
}
