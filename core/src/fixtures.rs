//! What tests are made of: one maker of each thing. Only for tests, and for crates that test.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::{Answer, Operation, Verdict};
use crate::conditions::Counts;
use crate::ids::{InstanceId, JournalId, SessionId};
use crate::ledger::desired::{DeletionPolicy, Desired};
use crate::ledger::record::Record;
use crate::ledger::{Journal, Ledger, Rules};
use crate::object::ObjectKey;
use crate::ownership::claims::Ownership;
use crate::reconcile::{Asked, Handled, LedgerState, Resync, Settings, Status, StepContext, View};
use crate::time::{ServiceTime, Validity};

/// The service's own numbers.
pub const VALIDITY: Validity = Validity { signature_seconds: 300, margin_seconds: 5 };
/// The present of all tests.
pub const NOW: ServiceTime = ServiceTime(1_000);

/// The instance of that id.
#[must_use]
pub fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

/// The instances of these ids.
#[must_use]
pub fn ids(texts: &[&str]) -> BTreeSet<InstanceId> {
    texts.iter().map(|text| id(text)).collect()
}

/// These instances are wanted in that session.
#[must_use]
pub fn desired(session: &str, instances: &[&str]) -> Desired {
    Desired {
        session: SessionId::parse(session).unwrap(),
        region: None,
        default_region: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        instances: ids(instances),
        deleting: false,
        deletion_policy: DeletionPolicy::Delete,
        forgets_failures: false,
        resync_interval: None,
        generation: 1,
    }
}

/// A ledger of session 1.
#[must_use]
pub fn ledger(records: &[(&str, Record)]) -> Ledger {
    let records = records.iter().map(|(text, record)| (id(text), record.clone())).collect();
    Ledger { target: Some(desired("1", &[]).target(None)), records, ..Ledger::default() }
}

/// A call of these instances that begins now.
#[must_use]
pub fn journal(operation: Operation, instances: &[&str]) -> Journal {
    let instances = instances.iter().map(|text| id(text)).collect();
    Journal { id: JournalId("j".into()), operation, instances, start_time: NOW, resync: false }
}

/// The object `namespace/name`; of namespace `arcade` if only a name is given.
#[must_use]
pub fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("arcade", text));
    ObjectKey::new(namespace, name)
}

/// An answer that says nothing but this.
#[must_use]
pub fn answer(verdict: Verdict) -> Answer {
    Answer { verdict, code: String::new(), message: String::new(), request_id: String::new() }
}

/// A call in which these succeeded, and these were refused.
#[must_use]
pub fn processed(succeeded: &[&str], refused: &[&str]) -> Verdict {
    Verdict::Processed { succeeded: ids(succeeded), refused: ids(refused) }
}

/// A status with this ledger and nothing else.
#[must_use]
pub fn status(ledger: Ledger) -> Status {
    Status {
        observed_generation: 1,
        conditions: None,
        counts: Counts::default(),
        handled: Handled::default(),
        ledger: LedgerState::Current(ledger),
    }
}

/// The settings of a reconcile, all at their defaults.
#[must_use]
pub fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        rules: Rules { validity: VALIDITY, ..Rules::default() },
        journal_age_max_seconds: 5,
        foreign_journal_timeout: Duration::from_secs(20),
        retry_base: Duration::from_secs(1),
    })
}

/// A step of an object that is alone, now.
#[must_use]
pub fn context() -> StepContext {
    let ownership = Ownership::Uncontested;
    StepContext {
        service: Some(NOW),
        elapsed: Duration::ZERO,
        nonce: 1,
        ownership,
        others: Vec::new(),
        must_identify: false,
        freed: BTreeSet::new(),
        resync: Resync::NotDue,
        may_act: true,
    }
}

/// An object that wants `instances` in session 1.
#[must_use]
pub fn view(ledger: Ledger, instances: &[&str]) -> View {
    View {
        uid: "u".into(),
        version: "1".into(),
        created: 0,
        finalizer: true,
        desired: desired("1", instances),
        asked: Asked::default(),
        status: status(ledger),
    }
}
