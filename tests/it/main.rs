//! The operator against a real API server (in `controller_faults` a faked one, which can be made to
//! fail) and the simulator. One binary, one API server, a namespace for each test; nothing sleeps
//! for luck.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "so a test fails, in its helpers too"
)]

mod fake_api;
mod harness;

mod answers;
mod batches;
#[cfg(debug_assertions)] // failpoints
mod chaos;
mod cli;
mod conditions;
mod contenders;
mod controller_faults;
mod crd;
mod credentials;
mod deploy;
mod differential;
mod errors;
mod faults;
mod fuzz;
mod gs_client;
mod lifecycle;
mod limiter;
mod membership;
mod moving;
mod operators;
mod process;
mod recovery;
mod release;
mod renames;
mod restart;
mod resync;
mod schema;
mod sdk;
mod secrets;
mod sources;
mod strangers;
mod switch;
mod told;
