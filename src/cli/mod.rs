//! The command line: arguments, help, exit codes. No logic.

mod crd;
mod run;
mod switch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps the slave cloud phones of Tencent Cloud GS multi-stream sessions as declared in
/// Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "streamsession-operator", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    /// Print the CustomResourceDefinition, to pipe into `kubectl apply --server-side -f -`.
    Crd,
    Switch(Box<switch::SwitchCommand>),
}

impl Cli {
    /// Does what the command line says.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        let result = match self.command {
            Command::Run(run) => run.execute(),
            Command::Crd => crd::print(),
            Command::Switch(switch) => switch.execute(),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("streamsession-operator: {message}");
                ExitCode::FAILURE
            }
        }
    }
}
