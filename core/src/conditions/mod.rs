//! What people are told, as kstatus, Flux, Argo CD and `kubectl wait` understand it: one pure
//! function from what is known to the conditions.
//!
//! ```text
//!  decide ──▶ messages ──▶ open ──▶ types
//!    which      what the     what is     modes, reasons,
//!    reason     texts say    to be done  what they are made from
//! ```

pub mod decide;
pub mod messages;
pub mod open;
pub mod types;

pub use decide::conditions;
pub use messages::{another_service, invariant_violated, ledger_unreadable, names};
pub use types::{ConditionInputs, Conditions, Counts, Mode, Problem, Reason};
