//! `make demo` and `make dev`: the operator at work against a real Kubernetes API server and a
//! simulated Tencent Cloud GS.
//!
//! ```text
//! main ──► story          the five steps, and what each must have come to
//!   └────► stage ──► kubectl     commands, shown as they are run
//!            ├─────► operator    a real process, to be killed
//!            └─────► screen      what people read
//! ```
//!
//! The API server is devcluster's (or the one that `DEMO_KUBECONFIG` names), the service is
//! `gs-simulator` in this process: so it survives the operator, and its members can be compared
//! with the spec at any moment.

mod failure;
mod kubectl;
mod operator;
mod screen;
mod stage;
mod story;

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

use failure::Failure;
use screen::Screen;
use stage::Stage;

/// Soon enough for a person to see that something ended.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What a shell reports of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Shows the operator at work, against a real Kubernetes API server and a simulated Tencent Cloud
/// GS, and checks that it did it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Tell no story: apply the examples and leave all running until Ctrl-C.
    #[arg(long)]
    stay: bool,

    /// A cluster to use instead of starting one; the current context is never used by itself.
    #[arg(long, env = "DEMO_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,

    /// The operator's program [default: the one that cargo built beside this one].
    #[arg(long, env = "DEMO_OPERATOR", value_name = "FILE")]
    operator: Option<OsString>,
}

/// A variable that is set to nothing is not set.
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
    screen.heading("Setting the stage");
    let operator = path(arguments.operator).unwrap_or_else(built_operator);
    // Until it returns, Ctrl-C simply ends this process, and devcluster's watchdogs clean up after
    // it.
    let mut stage = match Stage::new(screen, operator, path(arguments.kubeconfig)).await {
        Ok(stage) => stage,
        Err(failure) => {
            screen.failed(failure);
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    let end = tokio::select! {
        result = play(&mut stage, arguments.stay) => result.map(|()| End::Told),
        result = interrupted() => result.map(|()| if arguments.stay { End::Left } else { End::Interrupted }),
    };
    finish(stage, end, started).await
}

/// An end that is no failure.
enum End {
    /// The story came to its end.
    Told,
    /// The story did not.
    Interrupted,
    /// There was none, and someone has played enough.
    Left,
}

async fn play(stage: &mut Stage, stay: bool) -> Result<(), Failure> {
    stage.install().await?;
    if !stay {
        return story::tell(stage).await;
    }
    story::apply_the_examples(stage).await?;
    invite(stage);
    loop {
        stage.check()?;
        sleep(CHECK_EVERY).await;
    }
}

async fn finish(mut stage: Stage, end: Result<End, Failure>, started: Instant) -> ExitCode {
    let screen = stage.screen;
    match &end {
        Ok(End::Told) => {}
        Ok(End::Interrupted | End::Left) => screen.heading("Stopping"),
        Err(_) => stage.show_what_is().await,
    }
    let end = match (end, stage.clear().await) {
        (Ok(_), Err(failure)) => Err(failure),
        (end, _) => end,
    };
    let code = match &end {
        Ok(End::Told) => {
            let (seconds, calls) = (started.elapsed().as_secs(), stage.simulator.stats().calls);
            screen.succeeded(format_args!("all five steps came out as they must, in {seconds} s and with {calls} calls of the service."));
            screen.say("Play with it yourself: make dev");
            ExitCode::SUCCESS
        }
        Ok(End::Interrupted) => ExitCode::from(INTERRUPTED),
        Ok(End::Left) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.failed(failure);
            ExitCode::FAILURE
        }
    };
    stage.end(end.is_err());
    code
}

/// What people can do while all runs.
fn invite(stage: &Stage) {
    let (screen, simulator, admin) =
        (stage.screen, stage.simulator.url(), stage.operator.admin_url());
    screen.heading("All is running");
    if let Some(url) = stage.server_url() {
        screen.say(format_args!("API server       {url}"));
    }
    screen.say(format_args!("kubeconfig       {}", stage.kubeconfig().display()));
    screen.say(format_args!("service          {simulator}   (/admin/sessions, /admin/calls, /admin/stats, /admin/faults)"));
    screen.say(format_args!("operator         {admin}   (/livez, /readyz, /metrics)"));
    screen.say(format_args!("operator's log   {}", stage.operator.log().display()));
    screen.heading("In another terminal, in this folder");
    screen.say(format_args!("export KUBECONFIG={}", stage.kubeconfig().display()));
    if stage.owns_the_cluster()
        && let Some(folder) = stage.kubectl.program().parent()
    {
        screen.say(format_args!(
            "export PATH=\"$PATH:{}\"   # if you have no kubectl",
            folder.display()
        ));
    }
    screen.say(stage.kubectl.line(&["get", "streamsessions", "-o", "wide", "--watch"]));
    screen.say(stage.kubectl.line(&["edit", "streamsession", stage::NAME]));
    screen.say(format_args!("curl {simulator}/admin/sessions"));
    screen.say(format_args!(
        "curl -X PUT {simulator}/admin/faults -d '{{\"failInstances\":[\"phone-7\"]}}'"
    ));
    screen.say(format_args!("curl {admin}/metrics"));
    screen.say("");
    screen.say("Ctrl-C here stops all and removes it.");
}

/// Returns when someone wants this to end.
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
