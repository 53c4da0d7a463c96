//! The operator's one binary: crypto provider, command line, exit code.

use std::process::ExitCode;

use clap::Parser;
use streamsession_operator::cli::Cli;

fn main() -> ExitCode {
    // kube and reqwest share one provider; the first act, before either looks for it.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("streamsession-operator: a crypto provider is installed already");
        return ExitCode::FAILURE;
    }
    Cli::parse().execute()
}
