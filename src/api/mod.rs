//! The resource as the API server stores it, and its way into the protocol and back.
//!
//! `v1alpha1` is the schema; `ledger` turns a copy of the object into the protocol's
//! [`View`](streamsession_core::reconcile::View) and the protocol's status into the one that is
//! written.

pub mod ledger;
pub mod v1alpha1;

/// The finalizer: the object does not go before its instances are out.
pub const FINALIZER: &str = "gs.tencentcloud.dev/detach";
/// Lets go of instances that the service does not: their ids, separated by commas. Once for each
/// value.
pub const FORGET_INSTANCES: &str = "gs.tencentcloud.dev/forget-instances";
/// Takes instances into the record that something else has attached: their ids, separated by
/// commas. Once for each value.
pub const ADOPT: &str = "gs.tencentcloud.dev/adopt";
/// Who writes, as `kubectl get --show-managed-fields` shows it.
pub const FIELD_MANAGER: &str = "streamsession-operator";
