//! The operator's own permits and its fair queue: the very files, since they are pure. Their unit
//! tests come along and cost nothing.

#[allow(dead_code, reason = "the figures of the operator's crate use the rest")]
#[path = "../../../src/queue/fair.rs"]
mod fair;
#[allow(dead_code, reason = "likewise")]
#[path = "../../../src/queue/permits.rs"]
mod permits;
#[allow(dead_code, reason = "likewise")]
#[path = "../../../src/queue/quota.rs"]
mod quota;

pub use fair::{Key, Priority};
pub use permits::{Permit, Permits, WINDOW};
