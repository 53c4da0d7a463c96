//! What the tests of several crates share. Only for tests.
//!
//! - [`fixtures`]: one maker of each thing that a test is made of
//! - [`rng`]: one random generator
//! - [`service`]: one service in memory, with the rule of what it answers
//! - [`describe`]: what traces and counterexamples show

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::missing_panics_doc, reason = "a test fails by panicking")]

pub mod describe;
pub mod fixtures;
pub mod rng;
pub mod service;
