//! What scheduling needs of an object. The ids are read when a session is reconciled: memory grows with sessions, not with phones.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use streamsession_protocol::claims::{Claim, Place, Stake};
use streamsession_protocol::conditions::Reason;
use streamsession_protocol::ids::SessionId;

use crate::api::v1alpha1::{InstanceState, StreamSession, StreamSessionStatus};
use crate::api::{FINALIZER, ledger};

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
        && status.target.as_ref().is_none_or(|target| target.session_id == object.spec.session_id)
        && status.target.as_ref().is_none_or(|target| object.spec.region.is_none() || object.spec.region == target.region)
        && !ledger::is_asked(object, status)
        && guarded()
        && as_wanted()
}

/// What the object claims: its spec's session and, until its ledger is empty, the one that the ledger is about.
#[must_use]
pub fn claim(object: &StreamSession, default_endpoint: &Arc<str>) -> Claim {
    let empty = StreamSessionStatus::default();
    let status = object.status.as_ref().unwrap_or(&empty);
    let deleting = object.metadata.deletion_timestamp.is_some();
    let holds = !status.attached_instance_ids.is_empty() || !status.unsettled_instances.is_empty() || status.pending_call.is_some();
    let attached = || status.unsettled_instances.iter().any(|record| record.state == InstanceState::Attached);
    let confirmed = status.object_uid == object.metadata.uid && (!status.attached_instance_ids.is_empty() || attached());
    let place =
        |session: &str, endpoint: &Arc<str>| Some(Place { endpoint: Arc::clone(endpoint), session: SessionId::parse(session).ok()? });
    let mut stakes = Vec::new();
    let target = status.target.as_ref().filter(|_| holds);
    if let Some(target) = target {
        let endpoint = if *target.endpoint == **default_endpoint { Arc::clone(default_endpoint) } else { target.endpoint.as_str().into() };
        let leaving = deleting || target.session_id != object.spec.session_id;
        stakes.extend(place(&target.session_id, &endpoint).map(|place| Stake { place, confirmed, leaving }));
    }
    if target.is_none_or(|target| target.session_id != object.spec.session_id) {
        let place = place(&object.spec.session_id, default_endpoint);
        stakes.extend(place.map(|place| Stake { place, confirmed: false, leaving: deleting }));
    }
    let reason = ledger::said(status).map(|said| said.reason);
    Claim {
        uid: object.uid().unwrap_or_default().into(),
        created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
        hindered: matches!(reason, Some(Reason::CredentialsNotFound | Reason::CredentialsRejected)),
        stakes,
    }
}
