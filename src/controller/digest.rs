//! What scheduling needs of an object. The ids are read when a session is reconciled: memory grows with sessions, not with phones.

use std::collections::BTreeSet;

use kube::ResourceExt;

use crate::api::FINALIZER;
use crate::api::v1alpha1::{StreamSession, StreamSessionStatus};

/// A summary of one version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Its resource version.
    pub version: String,
    /// Nothing is to be done: a restart of a converged fleet reads nothing twice.
    pub converged: bool,
}

impl Digest {
    /// Summarises the object.
    #[must_use]
    pub fn of(object: &StreamSession) -> Self {
        let converged =
            object.metadata.deletion_timestamp.is_none() && object.status.as_ref().is_some_and(|status| converged(object, status));
        Self { version: object.resource_version().unwrap_or_default(), converged }
    }
}

fn converged(object: &StreamSession, status: &StreamSessionStatus) -> bool {
    let ready = status.conditions.iter().any(|condition| {
        condition.type_ == "Ready" && condition.status == "True" && condition.observed_generation == object.metadata.generation
    });
    let as_wanted = || {
        let desired: BTreeSet<&String> = object.spec.slave_instance_ids.iter().collect();
        desired.len() == status.attached_instance_ids.len() && status.attached_instance_ids.iter().all(|id| desired.contains(id))
    };
    let guarded = || status.attached_instance_ids.is_empty() || object.finalizers().iter().any(|name| name == FINALIZER);
    ready
        && status.observed_generation == object.metadata.generation
        && status.object_uid == object.metadata.uid
        && status.pending_call.is_none()
        && status.unsettled_instances.is_empty()
        && guarded()
        && as_wanted()
}
