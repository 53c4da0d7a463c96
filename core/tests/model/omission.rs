//! The rules that are left out: what is stored is something else than what was written, and its
//! writer does not notice.

use streamsession_core::answer::Operation;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::Refusals;
use streamsession_core::reconcile::{LedgerState, View};

use crate::setting::Setting;
use crate::world::Busy;

/// A rule that is left out: what lies between a reconcile and the world does something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    /// The journal is acknowledged, and not stored.
    NoJournal,
    /// A write succeeds though the object has changed.
    NoPrecondition,
    /// A write of an object hits the next one of its name.
    NoUid,
    /// Likewise, but only one of the finalizer (kube's own helper sends no uid).
    NoUidOfFinalizer,
    /// Deadlines are not stored.
    NoDeadlines,
    /// A success ends the opposite doubt though it is not over.
    EarlyTrust,
    /// "Over" is judged when the answer is written, not when the journal was.
    JudgedAtSettle,
    /// Refusals count though the opposite may still arrive.
    CountsEarly,
    /// The detach that finds out and is refused does not begin the count anew.
    KeepsCount,
    /// The count never reaches the detach that finds out.
    NeverFindsOut,
    /// A deleted object does not wait for a detach that may still arrive.
    HastyFinalizer,
    /// A request is signed when it is sent.
    SignsNow,
    /// An unclear answer is taken for a refusal.
    UnclearIsRefused,
    /// A resync that nobody answered leaves no deadline.
    ResyncWithoutDeadline,
    /// The finalizer is put on before the first status.
    FinalizerFirst,
}

impl Setting {
    /// What is stored instead, without a rule.
    pub fn omit(&self, stored: &mut View, busy: &Busy, foreign: bool, now: i64) {
        let deleting = stored.desired.deleting;
        let (Some(omission), LedgerState::Current(ledger)) =
            (self.omission, &mut stored.status.ledger)
        else {
            return;
        };
        if foreign {
            let remains = std::mem::take(ledger);
            stored.status.ledger = LedgerState::Lost { why: "another object's".into(), remains };
            return;
        }
        let nothing = Ledger::default();
        let before = if let LedgerState::Current(before) = &busy.copy.status.ledger {
            before
        } else {
            &nothing
        };
        if omission == Omission::NoJournal {
            ledger.journal = None;
        }
        // From here on only the settle of an answer is another one.
        let settled = before.journal.as_ref().filter(|_| busy.answered);
        for (id, record) in &mut ledger.records {
            match omission {
                Omission::NoDeadlines => (record.attach_until, record.detach_until) = (None, None),
                Omission::HastyFinalizer if deleting && !record.may_be_attached() => {
                    record.detach_until = None;
                }
                Omission::NeverFindsOut => {
                    if let Some(refusals) = &mut record.refusals {
                        refusals.count = refusals.count.min(2);
                    }
                }
                _ => {}
            }
            let resynced = before.journal.as_ref().filter(|journal| journal.resync);
            if omission == Omission::ResyncWithoutDeadline
                && resynced.is_some_and(|journal| journal.instances.contains(id))
            {
                record.attach_until = None;
            }
            let Some(journal) = settled.filter(|journal| journal.instances.contains(id)) else {
                continue;
            };
            let succeeded = ledger.last_call.as_ref().is_some_and(|call| call.succeeded > 0);
            let opposite = match journal.operation {
                Operation::Attach => &mut record.detach_until,
                Operation::Detach => &mut record.attach_until,
            };
            match omission {
                Omission::EarlyTrust if succeeded => *opposite = None,
                Omission::JudgedAtSettle if succeeded => {
                    *opposite = opposite.filter(|until| until.0 > now);
                }
                Omission::KeepsCount if !succeeded && record.refusals.is_none() => {
                    record.refusals = before.records.get(id).and_then(|record| record.refusals);
                }
                Omission::CountsEarly
                    if !succeeded && opposite.is_some_and(|until| until > journal.start_time) =>
                {
                    let same =
                        record.refusals.filter(|refusals| refusals.operation == journal.operation);
                    let (count, since) = same.map_or((0, journal.start_time), |refusals| {
                        (refusals.count, refusals.since)
                    });
                    record.refusals =
                        Some(Refusals { operation: journal.operation, count: count + 1, since });
                }
                _ => {}
            }
        }
    }
}
