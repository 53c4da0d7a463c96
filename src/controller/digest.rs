//! What scheduling needs of an object. The ids are read when a session is reconciled: memory grows
//! with sessions, not with phones.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use streamsession_protocol::claims::{Claim, Place, Stake};
use streamsession_protocol::conditions::Reason;
use streamsession_protocol::ids::SessionId;

use crate::api::v1alpha1::{InstanceState, StreamSession, StreamSessionStatus, UnsettledInstance};
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
        let converged = object.metadata.deletion_timestamp.is_none()
            && object.status.as_ref().is_some_and(|status| converged(object, status));
        Self { version: object.resource_version().unwrap_or_default(), converged }
    }
}

fn converged(object: &StreamSession, status: &StreamSessionStatus) -> bool {
    let ready = status.conditions.iter().any(|condition| {
        condition.type_ == "Ready"
            && condition.status == "True"
            && condition.observed_generation == object.metadata.generation
    });
    let as_wanted = || {
        let desired: BTreeSet<&String> = object.spec.slave_instance_ids.iter().collect();
        desired.len() == status.attached_instance_ids.len()
            && status.attached_instance_ids.iter().all(|id| desired.contains(id))
    };
    let guarded = || {
        status.attached_instance_ids.is_empty()
            || object.finalizers().iter().any(|name| name == FINALIZER)
    };
    ready
        && status.observed_generation == object.metadata.generation
        && status.object_uid == object.metadata.uid
        && status.pending_call.is_none()
        && status.unsettled_instances.is_empty()
        && status.target.as_ref().is_none_or(|target| target.session_id == object.spec.session_id)
        && status.target.as_ref().is_none_or(|target| {
            object.spec.region.is_none() || object.spec.region == target.region
        })
        && !ledger::is_asked(object, status)
        && guarded()
        && as_wanted()
}

/// What the object claims: its spec's session and, until its ledger is empty, the one that the
/// ledger is about.
#[must_use]
pub fn claim(object: &StreamSession, default_endpoint: &Arc<str>) -> Claim {
    let empty = StreamSessionStatus::default();
    let status = object.status.as_ref().unwrap_or(&empty);
    let deleting = object.metadata.deletion_timestamp.is_some();
    let target = status.target.as_ref().filter(|_| {
        !status.attached_instance_ids.is_empty()
            || !status.unsettled_instances.is_empty()
            || status.pending_call.is_some()
    });
    // A status that is not this object's, or a record that is assumed, is no evidence.
    let in_doubt = |record: &UnsettledInstance| {
        record.attach_may_arrive_until.is_some() || record.detach_may_arrive_until.is_some()
    };
    let open = |record: &UnsettledInstance| {
        !record.assumed && (record.state != InstanceState::Detached || in_doubt(record))
    };
    let holds = status.object_uid == object.metadata.uid
        && (!status.attached_instance_ids.is_empty()
            || status.pending_call.is_some()
            || status.unsettled_instances.iter().any(open));
    let stirs = status.pending_call.is_some()
        || status.unsettled_instances.iter().any(|record| !record.assumed && in_doubt(record));
    let place = |session: &str, endpoint: &Arc<str>| {
        Some(Place { endpoint: Arc::clone(endpoint), session: SessionId::parse(session).ok()? })
    };
    let mut stakes = Vec::new();
    if let Some(target) = target {
        let endpoint = if *target.endpoint == **default_endpoint {
            Arc::clone(default_endpoint)
        } else {
            target.endpoint.as_str().into()
        };
        let leaving = deleting || target.session_id != object.spec.session_id;
        stakes.extend(place(&target.session_id, &endpoint).map(|place| Stake {
            place,
            holds,
            stirs,
            leaving,
        }));
    }
    if target.is_none_or(|target| target.session_id != object.spec.session_id) {
        let place = place(&object.spec.session_id, default_endpoint);
        stakes.extend(place.map(|place| Stake {
            place,
            holds: false,
            stirs: false,
            leaving: deleting,
        }));
    }
    let reason = ledger::said(status).map(|said| said.reason);
    Claim {
        uid: object.uid().unwrap_or_default().into(),
        created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
        hindered: matches!(reason, Some(Reason::CredentialsNotFound | Reason::CredentialsRejected)),
        stakes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(session: &str, status: &Value) -> StreamSession {
        let object = json!({
            "apiVersion": "gs.tencentcloud.dev/v1alpha1",
            "kind": "StreamSession",
            "metadata": {"name": "lobby", "uid": "u", "generation": 1, "finalizers": [FINALIZER], "resourceVersion": "7"},
            "spec": {"sessionId": session, "slaveInstanceIds": ["a"]},
            "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn attached() -> Value {
        json!({
            "observedGeneration": 1, "objectUID": "u", "attachedInstances": 1, "attachedInstanceIds": ["a"],
            "target": {"sessionId": "1", "endpoint": "e"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "UpToDate", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-08T10:00:00Z"}],
        })
    }

    fn stakes(object: &StreamSession) -> Vec<(String, bool, bool)> {
        let claim = claim(object, &"e".into());
        claim
            .stakes
            .iter()
            .map(|stake| (stake.place.session.to_string(), stake.holds, stake.leaving))
            .collect()
    }

    #[test]
    fn an_object_claims_its_session_and_until_it_has_left_it_the_one_before() {
        assert_eq!(stakes(&object("1", &json!({}))), [("1".into(), false, false)]);
        assert_eq!(stakes(&object("1", &attached())), [("1".into(), true, false)]);
        assert_eq!(
            stakes(&object("2", &attached())),
            [("1".into(), true, true), ("2".into(), false, false)]
        );
    }

    #[test]
    fn what_another_objects_status_holds_is_no_evidence() {
        let mut copied = attached();
        copied["objectUID"] = "another".into();
        assert_eq!(stakes(&object("1", &copied)), [("1".into(), false, false)]);
    }

    #[test]
    fn an_object_without_credentials_says_so_in_its_claim() {
        let mut stalled = attached();
        stalled["conditions"] = json!([
            {"type": "Ready", "status": "False", "reason": "CredentialsNotFound", "message": "", "lastTransitionTime": "2026-01-08T10:00:00Z"},
            {"type": "Stalled", "status": "True", "reason": "CredentialsNotFound", "message": "", "lastTransitionTime": "2026-01-08T10:00:00Z"},
        ]);
        assert!(claim(&object("1", &stalled), &"e".into()).hindered);
        assert!(!claim(&object("1", &attached()), &"e".into()).hindered);
    }

    #[test]
    fn an_object_at_rest_is_due_again_when_its_session_changes_or_a_person_asks_for_something() {
        assert!(Digest::of(&object("1", &attached())).converged);
        assert!(!Digest::of(&object("2", &attached())).converged);
        let mut asked = object("1", &attached());
        asked.metadata.annotations = Some([(crate::api::ADOPT.to_owned(), "b".to_owned())].into());
        assert!(!Digest::of(&asked).converged);
        asked.status.as_mut().unwrap().last_handled_adopt = Some("b".into());
        assert!(Digest::of(&asked).converged);
    }
}
