//! What the unit tests of this crate are made of.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::answer::{Answer, Operation, Verdict};
use crate::claims::Standing;
use crate::conditions::Counts;
use crate::desired::{DeletionPolicy, Desired};
use crate::effect::{Asked, Found, Handled, Moment, Status, View};
use crate::ids::{InstanceId, JournalId, SessionId};
use crate::ledger::{Journal, Ledger, Rules};
use crate::record::Record;
use crate::step::Settings;
use crate::time::{ServiceTime, Validity};

pub(crate) const VALIDITY: Validity = Validity { signature_seconds: 300, margin_seconds: 5 };
pub(crate) const NOW: ServiceTime = ServiceTime(1_000);

pub(crate) fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

pub(crate) fn ids(texts: &[&str]) -> BTreeSet<InstanceId> {
    texts.iter().map(|text| id(text)).collect()
}

pub(crate) fn desired(session: &str, instances: &[&str]) -> Desired {
    Desired {
        session: SessionId::parse(session).unwrap(),
        region: None,
        default_region: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        instances: ids(instances),
        deleting: false,
        deletion_policy: DeletionPolicy::Delete,
        forgets_failures: false,
    }
}

/// A ledger of session 1.
pub(crate) fn ledger(records: &[(&str, Record)]) -> Ledger {
    let records = records.iter().map(|(text, record)| (id(text), record.clone())).collect();
    Ledger { target: Some(desired("1", &[]).target(None)), records, ..Ledger::default() }
}

pub(crate) fn journal(operation: Operation, instances: &[&str]) -> Journal {
    let instances = instances.iter().map(|text| id(text)).collect();
    Journal { id: JournalId("j".into()), operation, instances, start_time: NOW }
}

/// An answer that says nothing but this.
pub(crate) fn answer(verdict: Verdict) -> Answer {
    Answer { verdict, code: String::new(), message: String::new(), request_id: String::new() }
}

pub(crate) fn processed(succeeded: &[&str], refused: &[&str]) -> Verdict {
    Verdict::Processed { succeeded: ids(succeeded), refused: ids(refused) }
}

pub(crate) fn status(ledger: Ledger) -> Status {
    Status {
        observed_generation: 1,
        conditions: None,
        counts: Counts::default(),
        handled: Handled::default(),
        found: Found::Ours(ledger),
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        rules: Rules { validity: VALIDITY, ..Rules::default() },
        journal_age_max_seconds: 5,
        patience: Duration::from_secs(20),
        retry_base: Duration::from_secs(1),
    }
}

pub(crate) fn moment() -> Moment {
    let standing = Standing::Alone;
    Moment {
        service: Some(NOW),
        elapsed: Duration::ZERO,
        nonce: 1,
        standing,
        displaced: false,
        may_act: true,
    }
}

/// An object that wants `instances` in session 1.
pub(crate) fn view(ledger: Ledger, instances: &[&str]) -> View {
    View {
        uid: "u".into(),
        generation: 1,
        finalizer: true,
        desired: desired("1", instances),
        asked: Asked::default(),
        status: status(ledger),
    }
}
