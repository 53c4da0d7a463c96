//! `make demo` and `make dev`: the operator at work against a real Kubernetes API server and a
//! simulated Tencent Cloud GS.
//!
//! ```text
//! main ──► scenario        the five steps, each with its checks
//!   └────► environment ──► kubectl     commands, shown as they are run
//!            ├───────────► operator    a real process, to be killed
//!            └───────────► screen      what people read
//! ```
//!
//! The API server is devcluster's (or the one that `DEMO_KUBECONFIG` names), the service is
//! `gs-simulator` in this process: so it survives the operator, and its members can be compared
//! with the spec at any moment.

mod environment;
mod failure;
mod kubectl;
mod operator;
mod scenario;
mod screen;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use environment::Environment;
use failure::Failure;
use screen::Screen;

/// How soon it is noticed that the operator or a server has ended.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What a shell reports of a program that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Shows the operator at work, against a real Kubernetes API server and a simulated Tencent Cloud
/// GS, and checks the result of each step.
#[derive(Debug, Parser)]
struct Arguments {
    /// Do not run the steps: apply the examples and leave all running until Ctrl-C.
    #[arg(long)]
    stay: bool,

    /// The kubeconfig of a cluster to use instead of starting one; the current context is never
    /// used by itself.
    #[arg(long, env = "DEMO_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,

    /// The program of the operator [default: the one that cargo built beside this one].
    #[arg(long, env = "DEMO_OPERATOR", value_name = "FILE")]
    operator: Option<OsString>,
}

/// A variable that is empty counts as not set.
fn path(argument: Option<OsString>) -> Option<PathBuf> {
    argument.filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// `target/debug/streamsession-operator`, for an example in `target/debug/examples`.
fn built_operator() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    own.parent().and_then(Path::parent).unwrap_or(&own).join("streamsession-operator")
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new();
    screen.heading("Starting");
    let operator = path(arguments.operator).unwrap_or_else(built_operator);
    // Until it returns, Ctrl-C simply ends this process, and devcluster's watchdogs clean up after
    // it.
    let mut environment = match Environment::new(screen, operator, path(arguments.kubeconfig)).await
    {
        Ok(environment) => environment,
        Err(failure) => {
            screen.failed(failure);
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    let end = tokio::select! {
        result = run(&mut environment, arguments.stay) => result.map(|()| End::Completed),
        result = interrupted() => {
            result.map(|()| if arguments.stay { End::Stopped } else { End::Interrupted })
        }
    };
    finish(environment, end, started).await
}

/// An end that is no failure.
enum End {
    /// All steps were run.
    Completed,
    /// Some steps were not.
    Interrupted,
    /// There were no steps, and Ctrl-C was pressed.
    Stopped,
}

async fn run(environment: &mut Environment, stay: bool) -> Result<(), Failure> {
    environment.install().await?;
    if !stay {
        return scenario::run(environment).await;
    }
    scenario::apply_the_examples(environment).await?;
    show_usage(environment);
    loop {
        environment.check()?;
        sleep(CHECK_EVERY).await;
    }
}

async fn finish(
    mut environment: Environment,
    end: Result<End, Failure>,
    started: Instant,
) -> ExitCode {
    let screen = environment.screen;
    match &end {
        Ok(End::Completed) => {}
        Ok(End::Interrupted | End::Stopped) => screen.heading("Stopping"),
        Err(_) => environment.show_objects().await,
    }
    let end = match (end, environment.clean_up().await) {
        (Ok(_), Err(failure)) => Err(failure),
        (end, _) => end,
    };
    let code = match &end {
        Ok(End::Completed) => {
            let (seconds, calls) =
                (started.elapsed().as_secs(), environment.simulator.stats().calls);
            screen.succeeded(format_args!(
                "all five steps passed, in {seconds} s and with {calls} calls of the service."
            ));
            screen.say("Try it yourself: make dev");
            ExitCode::SUCCESS
        }
        Ok(End::Interrupted) => ExitCode::from(INTERRUPTED),
        Ok(End::Stopped) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.failed(failure);
            ExitCode::FAILURE
        }
    };
    environment.end(end.is_err());
    code
}

/// What a person can do while all runs.
fn show_usage(environment: &Environment) {
    let (screen, simulator, admin) =
        (environment.screen, environment.simulator.url(), environment.operator.admin_url());
    screen.heading("Everything runs");
    if let Some(url) = environment.server_url() {
        screen.say(format_args!("API server       {url}"));
    }
    screen.say(format_args!("kubeconfig       {}", environment.kubeconfig().display()));
    screen.say(format_args!("service          {simulator}"));
    screen.say("                 (/admin/sessions, /admin/calls, /admin/stats, /admin/faults)");
    screen.say(format_args!("operator         {admin}   (/livez, /readyz, /metrics)"));
    screen.say(format_args!("operator's log   {}", environment.operator.log().display()));
    screen.heading("In another terminal, in this folder");
    screen.say(format_args!("export KUBECONFIG={}", environment.kubeconfig().display()));
    if environment.owns_the_cluster()
        && let Some(folder) = environment.kubectl.program().parent()
    {
        screen.say(format_args!(
            "export PATH=\"$PATH:{}\"   # if you have no kubectl",
            folder.display()
        ));
    }
    screen.say(environment.kubectl.line(&["get", "streamsessions", "-o", "wide", "--watch"]));
    screen.say(environment.kubectl.line(&["edit", "streamsession", environment::NAME]));
    screen.say(format_args!("curl {simulator}/admin/sessions"));
    screen.say(format_args!(
        "curl -X PUT {simulator}/admin/faults -d '{{\"failInstances\":[\"phone-7\"]}}'"
    ));
    screen.say(format_args!("curl {admin}/metrics"));
    screen.say("");
    screen.say("Ctrl-C here stops all and removes it.");
}

/// Returns on a signal to end.
async fn interrupted() -> Result<(), Failure> {
    let watch = |kind| signal(kind).map_err(Failure::Signals);
    let (mut interrupt, mut terminate, mut hangup) = (
        watch(SignalKind::interrupt())?,
        watch(SignalKind::terminate())?,
        watch(SignalKind::hangup())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
