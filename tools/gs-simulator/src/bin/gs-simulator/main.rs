//! `gs-simulator`: the command line around the library.

mod arguments;

use std::process::ExitCode;
use std::{fs, io};

use clap::Parser;
use gs_simulator::{Options, Simulator};
use tokio::signal::unix::{SignalKind, signal};

use arguments::{Arguments, about};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let listen = arguments.listen;
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = if error.kind() == io::ErrorKind::InvalidInput {
                " with --allow-non-loopback"
            } else {
                ""
            };
            eprintln!("gs-simulator: can't serve on {listen}: {error}{hint}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> io::Result<()> {
    // Before the address is printed: from then on, a script may stop us.
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (tls, ca_file) = (arguments.tls.read()?, arguments.tls.ca_file.clone());
    let simulator = Simulator::start(Options { tls, ..arguments.into() }).await?;
    if let (Some(path), Some(ca_pem)) = (ca_file, simulator.ca_pem()) {
        fs::write(&path, ca_pem).map_err(|error| about(&path, &error))?;
    }
    println!("gs-simulator listens on {}", simulator.url());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
