//! The operator against a real API server and the simulator. One binary, one API server, a namespace for each test; nothing sleeps for luck.

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]

mod harness;

mod membership;
