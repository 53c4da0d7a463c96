//! All decisions of the StreamSession operator, pure: the time is an argument. Cargo itself keeps
//! I/O out, clippy's disallowed methods keep clocks out.
//!
//! ```text
//!  scheduler    which object is reconciled when, and who may call: events in, commands out
//!      │
//!  reconcile    one reconcile of one object: responses in, effects out
//!      │
//!  conditions   what people are told
//!      │
//!  ownership    which of several objects owns a session
//!      │
//!  ledger       what is attached, journalled, in doubt; the record of one instance
//!      │
//!  answer · identity · ids · object · time
//! ```
//!
//! An arrow points down: no file imports one above it. Start with [`ledger::rule`]: its two
//! tables are the protocol. Then [`reconcile::step`]: when they are applied.

#![deny(clippy::disallowed_methods)]

pub mod answer;
pub mod conditions;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod identity;
pub mod ids;
pub mod ledger;
pub mod object;
pub mod ownership;
pub mod reconcile;
pub mod scheduler;
pub mod time;
