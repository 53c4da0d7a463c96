//! The resource as the API server stores it, and its way into the core and back.
//!
//! [`v1alpha1`] is the schema. [`view()`] turns a copy of the object into the core's
//! [`View`](streamsession_core::reconcile::View), [`status()`] the core's status into the one that is
//! written.

#![deny(clippy::disallowed_methods)]

mod enums;
mod status;
pub mod v1alpha1;
mod view;

pub use status::status;
pub use view::{Defaults, Unreadable, conditions, view};

const READY: &str = "Ready";
const RECONCILING: &str = "Reconciling";
const STALLED: &str = "Stalled";

/// The finalizer: the object does not go before its instances are out.
pub const FINALIZER: &str = "gs.tencentcloud.dev/detach";
/// Releases instances that the service does not: their ids, separated by commas. Once for each
/// value.
pub const FORGET_INSTANCES: &str = "gs.tencentcloud.dev/forget-instances";
/// Takes instances into the ledger that something else has attached: their ids, separated by
/// commas. Once for each value.
pub const ADOPT: &str = "gs.tencentcloud.dev/adopt";
/// Who writes, as `kubectl get --show-managed-fields` shows it.
pub const FIELD_MANAGER: &str = "streamsession-operator";
