//! Halving a batch whose error may be one id's fault: depth first, down to single ids,
//! so that one poisoned id does not hold back its neighbours. The open parts live in memory; a
//! restart begins anew with the whole batch.

use crate::answer::{Answer, Operation, Verdict};
use crate::ids::InstanceId;
use crate::ledger::desired::Desired;
use crate::ledger::plan::{Allowed, Batch, Priority};
use crate::ledger::record::Want;
use crate::ledger::rule::Next;
use crate::ledger::{Journal, Ledger};
use crate::time::ServiceTime;

/// Calls in a row without a success after which it is not one id's fault. A batch of 100 with one
/// poisoned id needs seven to find it.
pub const FRUITLESS_MAX: u32 = 16;

/// The open parts of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bisection {
    operation: Operation,
    /// The next part is the last.
    open: Vec<Vec<InstanceId>>,
    fruitless: u32,
}

/// Whether an answer to a call of `ids` ids may be the fault of one of them.
#[must_use]
pub fn may_be_one_ids_fault(answer: &Answer, ids: usize) -> bool {
    ids > 1 && matches!(answer.verdict, Verdict::Rejected | Verdict::Unclear)
}

impl Bisection {
    /// What is open after `answer` to the call of `journal`; nothing if it is `None`.
    /// `other_half_first` is for a batch whose split was given up before.
    #[must_use]
    pub fn after(
        before: Option<Self>,
        journal: &Journal,
        answer: &Answer,
        other_half_first: bool,
    ) -> Option<Self> {
        let suspect = may_be_one_ids_fault(answer, journal.instances.len());
        let mut bisection = match before {
            Some(bisection) if bisection.operation == journal.operation => bisection,
            Some(_) if !suspect => return before,
            _ if suspect => Self { operation: journal.operation, open: Vec::new(), fruitless: 0 },
            _ => return None,
        };
        for part in &mut bisection.open {
            part.retain(|id| journal.instances.binary_search(id).is_err());
        }
        match &answer.verdict {
            Verdict::Processed { succeeded, .. } if !succeeded.is_empty() => {
                bisection.fruitless = 0;
            }
            // It was not done, or nobody knows: the part is still open.
            Verdict::NothingDone(_) | Verdict::Unanswered => {
                bisection.open.push(journal.instances.clone());
            }
            _ => bisection.fruitless += 1,
        }
        if suspect {
            let (first, second) = journal.instances.split_at(journal.instances.len() / 2);
            let mut halves = [second.to_vec(), first.to_vec()];
            if other_half_first {
                halves.reverse();
            }
            bisection.open.extend(halves);
        }
        bisection.open.retain(|part| !part.is_empty());
        (!bisection.open.is_empty()).then_some(bisection)
    }

    /// Whether it can't be one id's fault any more.
    #[must_use]
    pub fn is_fruitless(&self) -> bool {
        self.fruitless >= FRUITLESS_MAX
    }

    /// Whether it is a removal that is being split: removals go before additions.
    #[must_use]
    pub fn detaches(&self) -> bool {
        self.operation == Operation::Detach
    }

    /// The next part, less what an edit has made superfluous.
    #[must_use]
    pub fn next(
        &self,
        ledger: &Ledger,
        desired: &Desired,
        now: Option<ServiceTime>,
        allowed: Allowed<'_>,
    ) -> Option<Batch> {
        let members = desired.at(ledger.target.as_ref());
        let due = |id: &InstanceId| {
            let record = ledger.records.get(id);
            let next = record
                .map_or(Next::Send(Operation::Attach), |record| record.next(members.want(id), now));
            let wanted = record.is_some() || members.want(id) == Want::In;
            wanted && next == Next::Send(self.operation) && allowed.allows(id, self.operation)
        };
        let priority = if self.detaches() { Priority::Detach } else { Priority::Attach };
        self.open.iter().rev().find_map(|part| {
            let instances: Vec<_> = part.iter().filter(|id| due(id)).cloned().collect();
            (!instances.is_empty()).then_some(Batch {
                operation: self.operation,
                instances,
                priority,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NOW, answer, desired, id, ids, journal, ledger, processed};
    use crate::ledger::record::Record;

    /// Calls that it takes until nothing is open, with a service that refuses a call of any `bad`
    /// id; the rest succeeds.
    fn calls(count: usize, bad: &[usize]) -> (usize, usize) {
        let ids: Vec<_> =
            (0..count).map(|n| InstanceId::parse(&format!("{n:03}")).unwrap()).collect();
        let is_bad = |id: &InstanceId| bad.iter().any(|n| format!("{n:03}") == id.as_str());
        let (mut bisection, mut instances, mut calls, mut until_found) = (None, ids, 0, 0);
        loop {
            calls += 1;
            assert!(calls < 1_000, "it never ends");
            let failed = instances.iter().any(is_bad);
            if failed && instances.len() == 1 && until_found == 0 {
                until_found = calls;
            }
            let verdict = if failed {
                Verdict::Rejected
            } else {
                Verdict::Processed {
                    succeeded: instances.iter().cloned().collect(),
                    refused: [].into(),
                }
            };
            let journal = Journal { instances, ..journal(Operation::Attach, &[]) };
            bisection = Bisection::after(bisection, &journal, &answer(verdict), false);
            match &bisection {
                Some(open) if !open.is_fruitless() => instances = open.open.last().unwrap().clone(),
                _ => return (calls, until_found),
            }
        }
    }

    #[test]
    fn a_poisoned_id_of_a_hundred_is_found_in_halvings_and_its_neighbours_go_in() {
        let worst = (0..100).map(|bad| calls(100, &[bad])).max().unwrap();
        assert!(worst.0 <= 15, "{worst:?}: one for the batch and two for each of seven halvings");
        assert_eq!(
            calls(100, &[0]),
            (13, 7),
            "the batch, six halvings of it, and the other halves"
        );
    }

    #[test]
    fn an_error_that_is_nobodys_fault_costs_no_more_than_the_bound() {
        let all: Vec<_> = (0..100).collect();
        assert_eq!(calls(100, &all).0, 16);
    }

    #[test]
    fn a_part_that_was_not_done_stays_open() {
        let bisection = Bisection::after(
            None,
            &journal(Operation::Attach, &["a", "b"]),
            &answer(Verdict::Unclear),
            false,
        );

        let bisection = Bisection::after(
            bisection,
            &journal(Operation::Attach, &["a"]),
            &answer(Verdict::Unanswered),
            false,
        )
        .unwrap();

        assert_eq!(bisection.open.last().unwrap(), &[id("a")]);
    }

    #[test]
    fn a_call_of_the_other_operation_leaves_a_split_alone_unless_it_is_to_be_split_itself() {
        let attach = Bisection::after(
            None,
            &journal(Operation::Attach, &["a", "b"]),
            &answer(Verdict::Unclear),
            false,
        );
        let detach = journal(Operation::Detach, &["a", "c"]);

        assert_eq!(
            Bisection::after(attach.clone(), &detach, &answer(Verdict::Unanswered), false),
            attach
        );
        let other = Bisection::after(attach, &detach, &answer(Verdict::Unclear), true).unwrap();
        assert!(other.detaches());
        assert_eq!(other.open, [[id("a")], [id("c")]], "the other half comes first");
    }

    #[test]
    fn nothing_is_split_that_is_not_one_ids_fault() {
        for verdict in [Verdict::Unanswered, Verdict::SessionGone] {
            assert_eq!(
                Bisection::after(
                    None,
                    &journal(Operation::Attach, &["a", "b"]),
                    &answer(verdict),
                    false
                ),
                None
            );
        }
        assert!(!may_be_one_ids_fault(&answer(Verdict::Unclear), 1), "there is no other one");
        assert_eq!(
            Bisection::after(
                None,
                &journal(Operation::Attach, &["a"]),
                &answer(Verdict::Rejected),
                false
            ),
            None
        );
    }

    #[test]
    fn only_a_success_shows_that_a_split_bears_fruit() {
        let bisection = Bisection::after(
            None,
            &journal(Operation::Attach, &["a", "b", "c"]),
            &answer(Verdict::Unclear),
            false,
        );
        let one = journal(Operation::Attach, &["a"]);
        let fruitless = |verdict| {
            Bisection::after(bisection.clone(), &one, &answer(verdict), false).unwrap().fruitless
        };
        assert_eq!(fruitless(processed(&["a"], &[])), 0);
        assert_eq!(fruitless(processed(&[], &["a"])), 2);
        assert_eq!(fruitless(Verdict::Rejected), 2);
        assert_eq!(fruitless(Verdict::Unanswered), 1, "nothing is known");
    }

    #[test]
    fn the_next_part_is_what_is_still_due_of_it() {
        let next = |operation, wanted: &[&str], allowed: Allowed<'_>| {
            let bisection = Bisection::after(
                None,
                &journal(operation, &["a", "b", "c", "d"]),
                &answer(Verdict::Unclear),
                false,
            )
            .unwrap();
            let ledger = ledger(&[("a", Record::attached()), ("c", Record::attached())]);
            let batch = bisection.next(&ledger, &desired("1", wanted), Some(NOW), allowed)?;
            assert_eq!(batch.operation, operation);
            Some((batch.priority, batch.instances))
        };
        let attach = |wanted: &[&str]| next(Operation::Attach, wanted, Allowed::All);
        assert_eq!(
            attach(&["a", "b", "d"]),
            Some((Priority::Attach, vec![id("b")])),
            "the other one of it is in"
        );
        assert_eq!(
            attach(&["a", "d"]),
            Some((Priority::Attach, vec![id("d")])),
            "nothing of the first part is due"
        );
        assert_eq!(attach(&["a", "c"]), None);
        assert_eq!(next(Operation::Attach, &["b"], Allowed::Only(&ids(&["b"]))), None);
        assert_eq!(
            next(Operation::Detach, &[], Allowed::All),
            Some((Priority::Detach, vec![id("a")])),
            "what has no record is out"
        );
        assert_eq!(
            next(Operation::Detach, &["a"], Allowed::All),
            Some((Priority::Detach, vec![id("c")]))
        );
    }
}
