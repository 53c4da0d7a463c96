//! The command `devcluster`: a real Kubernetes API server in the foreground, without Docker.

use std::{
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use devcluster::{Binaries, Cluster, Error, Options, report_to_stderr};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// How soon it is noticed that a server has ended.
const CHECK_EVERY: Duration = Duration::from_secs(1);

const BINARIES: &str = "\
The first use builds the servers with Go 1.26 or newer (about 5 to 10 minutes on two cores) and
keeps them in ${XDG_CACHE_HOME:-~/.cache}/streamsession-operator/devcluster. If KUBEBUILDER_ASSETS
names a folder with etcd, kube-apiserver and kubectl, those are used and nothing is built.";

/// A real etcd and kube-apiserver on this machine, without Docker and without root.
#[derive(Parser)]
#[command(name = "devcluster", version, after_help = BINARIES)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster, print how to use it, and stop and remove it on Ctrl-C or SIGTERM.
    ///
    /// It listens on 127.0.0.1 only, on a free port, and starts empty. Nothing is left behind, also
    /// when this process is killed.
    Up {
        /// Also write the kubeconfig here when the cluster is ready, and remove it at the end; the
        /// file must not exist yet.
        #[arg(long, value_name = "PATH")]
        kubeconfig: Option<PathBuf>,
        /// Also run a kube-controller-manager, so that deleted namespaces end and garbage is
        /// collected (3 more minutes to build, once).
        #[arg(long)]
        controller_manager: bool,
    },
    /// Build the binaries into the cache, if they are not there yet, and start nothing.
    Build {
        /// Build kube-controller-manager too.
        #[arg(long)]
        controller_manager: bool,
    },
    /// Print the folder with etcd, kube-apiserver and kubectl, after building them if needed.
    Path,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Action::Up { kubeconfig, controller_manager } => {
            up(Options { binaries: None, controller_manager, kubeconfig })
        }
        Action::Build { controller_manager } => build(controller_manager),
        Action::Path => Binaries::find_or_build(&report_to_stderr)
            .map(|binaries| say(binaries.folder().display())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_to_stderr(&format!("devcluster: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn build(controller_manager: bool) -> Result<(), Error> {
    let binaries = Binaries::find_or_build(&report_to_stderr)?;
    if controller_manager {
        binaries.controller_manager(&report_to_stderr)?;
    }
    say(format_args!("Ready in {}", binaries.folder().display()));
    Ok(())
}

fn up(mut options: Options) -> Result<(), Error> {
    // Built before the time is measured. A signal ends the process during both, and the watchdogs
    // clean up.
    options.binaries = Some(Binaries::find_or_build(&report_to_stderr)?);
    let started = Instant::now();
    let mut cluster = Cluster::start(options)?;
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|source| Error::File {
        action: "watch for signals of",
        path: "devcluster".into(),
        source,
    })?;
    print_usage(&cluster, started.elapsed());
    run_until_signal(&mut cluster, signals)?;
    report_to_stderr("Stopping the cluster and removing its data.");
    Ok(())
}

fn print_usage(cluster: &Cluster, took: Duration) {
    let kubeconfig = cluster.kubeconfig().display();
    say(format_args!("The cluster was ready in {:.1} s.", took.as_secs_f64()));
    say(format_args!("  server       {}", cluster.server_url()));
    say(format_args!("  kubeconfig   {kubeconfig}"));
    say(format_args!("  audit log    {}", cluster.audit_log().display()));
    say(format_args!("  data folder  {}", cluster.data_dir().display()));
    say(format_args!("Use it from another terminal:"));
    say(format_args!("  export KUBECONFIG={kubeconfig}"));
    say(format_args!("  {} get namespaces", cluster.binaries().kubectl().display()));
    say(format_args!("Ctrl-C stops it and removes everything."));
}

/// Returns on a signal; fails if a server ends by itself.
fn run_until_signal(cluster: &mut Cluster, mut signals: Signals) -> Result<(), Error> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // If a server has failed meanwhile, the receiver is gone.
            let _ = sender.send(());
        }
    });
    while let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(CHECK_EVERY) {
        cluster.check()?;
    }
    Ok(())
}

/// `println!` would panic when the reader has gone, as `| head` does.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
