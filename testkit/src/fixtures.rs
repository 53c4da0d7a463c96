//! One maker of each thing that a test is made of: those of the core's own unit tests, and those
//! that only tests beside the core need.

use std::collections::BTreeSet;
use std::ops::Range;

use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::conditions::Counts;
use streamsession_core::ids::{InstanceId, SessionId};
use streamsession_core::ledger::desired::{Desired, Target};
use streamsession_core::ledger::record::Record;
use streamsession_core::ledger::{LastCall, Ledger};
use streamsession_core::reconcile::{Asked, Handled, LedgerState, Status, View};

pub use streamsession_core::fixtures::*;

/// The session of that id.
#[must_use]
pub fn session(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

/// Instances as long as the service's own, by number.
#[must_use]
pub fn numbered_ids(numbers: Range<usize>) -> BTreeSet<InstanceId> {
    numbers
        .map(|number| id(&format!("RK8S37P1402445261_69f8d3e2-8867-462c-a8cf-7c1d1a{number:06}")))
        .collect()
}

/// The target of a ledger that the service has answered well, to the credential `AKID`.
#[must_use]
pub fn proven_target(session: &str) -> Target {
    Target { credential_proven: true, ..desired(session, &[]).target(Some(&"AKID".into())) }
}

/// A ledger of that session, with a proven credential, in which these are attached.
#[must_use]
pub fn attached_at(session: &str, instances: &BTreeSet<InstanceId>) -> Ledger {
    let records = instances.iter().map(|id| (id.clone(), Record::attached())).collect();
    Ledger { target: Some(proven_target(session)), records, ..Ledger::default() }
}

/// An attach that came to an end with this code, now.
#[must_use]
pub fn last_call(code: &str) -> LastCall {
    LastCall {
        operation: Operation::Attach,
        request_id: "r".into(),
        time: NOW,
        succeeded: 0,
        failed: 1,
        result: Verdict::of_code(code, &[]).result(),
        code: code.into(),
    }
}

/// The status of an object that no operator has seen yet.
#[must_use]
pub fn new_status() -> Status {
    Status {
        observed_generation: -1,
        conditions: None,
        counts: Counts::default(),
        handled: Handled::default(),
        ledger: LedgerState::New,
    }
}

/// An object that no operator has seen yet.
#[must_use]
pub fn new_object(desired: Desired) -> View {
    View {
        uid: "1".into(),
        version: "1".into(),
        created: 0,
        finalizer: false,
        desired,
        asked: Asked::default(),
        status: new_status(),
    }
}

/// A copy of the object with another status, as a write answers it.
#[must_use]
pub fn with_status(object: &View, status: Status) -> View {
    // Without a clone of the status that there was.
    let View { uid, version, created, finalizer, desired, asked, status: _ } = object;
    View {
        uid: uid.clone(),
        version: version.clone(),
        created: *created,
        finalizer: *finalizer,
        desired: desired.clone(),
        asked: asked.clone(),
        status,
    }
}

/// An answer with this error code; empty for a call that was processed and names nobody.
#[must_use]
pub fn error(code: &str) -> Answer {
    let verdict = if code.is_empty() { processed(&[], &[]) } else { Verdict::of_code(code, &[]) };
    Answer { code: code.into(), ..answer(verdict) }
}

/// An answer to a call in which all of these succeeded.
#[must_use]
pub fn success(succeeded: BTreeSet<InstanceId>) -> Answer {
    answer(Verdict::Processed { succeeded, refused: BTreeSet::new() })
}
