//! What the tests of the core share: the fixtures, one random generator, one service in memory.
//! Only for tests.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::missing_panics_doc, reason = "a test fails by panicking")]

pub mod rng;

pub use streamsession_core::fixtures;
