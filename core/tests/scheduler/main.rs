//! What the scheduler starts, and when; who may call; what runs learn for each other.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod calls;
mod freed;
mod lessons;
mod ownership;
mod permits;
mod process;
mod queue;
mod resync;
mod runs;
mod stopping;
