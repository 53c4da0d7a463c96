//! The rules that are left out: what is stored is something else than what was written, and its
//! writer does not notice.

use streamsession_core::answer::Operation;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::Refusals;
use streamsession_core::reconcile::LedgerState;
use streamsession_core::reconcile::View;

use crate::setting::{Bend, Setting};
use crate::world::Busy;

impl Setting {
    /// What is stored instead, without a rule.
    pub fn bend(&self, stored: &mut View, busy: &Busy, foreign: bool, now: i64) {
        let deleting = stored.desired.deleting;
        let (Some(bend), LedgerState::Current(ledger)) = (self.bend, &mut stored.status.ledger)
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
        if bend == Bend::NoJournal {
            ledger.journal = None;
        }
        // Only the settle of an answer is bent from here on.
        let settled = before.journal.as_ref().filter(|_| busy.answered);
        for (id, record) in &mut ledger.records {
            match bend {
                Bend::NoDeadlines => (record.attach_until, record.detach_until) = (None, None),
                Bend::HastyFinalizer if deleting && !record.may_be_attached() => {
                    record.detach_until = None
                }
                Bend::NeverFindsOut => {
                    if let Some(refusals) = &mut record.refusals {
                        refusals.count = refusals.count.min(2);
                    }
                }
                _ => {}
            }
            let Some(journal) = settled.filter(|journal| journal.instances.contains(id)) else {
                continue;
            };
            let succeeded = ledger.last_call.as_ref().is_some_and(|call| call.succeeded > 0);
            let opposite = match journal.operation {
                Operation::Attach => &mut record.detach_until,
                Operation::Detach => &mut record.attach_until,
            };
            match bend {
                Bend::EarlyTrust if succeeded => *opposite = None,
                Bend::JudgedAtSettle if succeeded => {
                    *opposite = opposite.filter(|until| until.0 > now)
                }
                Bend::KeepsCount if !succeeded && record.refusals.is_none() => {
                    record.refusals = before.records.get(id).and_then(|record| record.refusals);
                }
                Bend::CountsEarly
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
