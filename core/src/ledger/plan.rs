//! What is due: the difference between what the spec wants and what the ledger holds.

use std::collections::BTreeSet;

use crate::answer::Operation;
use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::ledger::desired::Desired;
use crate::ledger::record::{Record, Want};
use crate::ledger::rule::Next;
use crate::time::ServiceTime;

/// How much a call matters against those of other objects; the order is that of their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A removal: somebody may wait for the phone.
    Detach,
    /// A first attempt to attach: somebody watches.
    Attach,
    /// Another attempt.
    Retry,
}

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// What it does.
    pub operation: Operation,
    /// To whom; sorted.
    pub instances: Vec<InstanceId>,
    /// How urgent it is.
    pub priority: Priority,
}

/// What may be called now; the backoff of the object decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Due {
    /// Instances that were not tried yet, or whose last call was a success.
    pub fresh: bool,
    /// Instances whose last call failed.
    pub failed: bool,
}

impl Due {
    /// Everything.
    pub const ALL: Self = Self { fresh: true, failed: true };
}

/// What may be called at all; how the object stands among those that name the session decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// Anything.
    All,
    /// No detach of an assumed instance that is not wanted: another object names the session too,
    /// and may have attached it.
    NotAssumed,
    /// Detaches of these, and nothing else: another object owns the session.
    Only(&'a BTreeSet<InstanceId>),
}

impl Allowed<'_> {
    /// Whether this may be called.
    #[must_use]
    pub fn allows(
        self,
        id: &InstanceId,
        record: Option<&Record>,
        want: Want,
        operation: Operation,
    ) -> bool {
        match (self, operation) {
            (Self::All, _) | (Self::NotAssumed, Operation::Attach) => true,
            (Self::NotAssumed, Operation::Detach) => {
                want == Want::In || record.is_some_and(|record| !record.assumed)
            }
            (Self::Only(ids), Operation::Detach) => ids.contains(id),
            (Self::Only(_), Operation::Attach) => false,
        }
    }
}

/// What is due for an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The next call, if one is due.
    pub batch: Option<Batch>,
    /// Whether a call is held back by the backoff alone.
    pub held_back: Held,
    /// Whether attaches are held back because the ledger is full.
    pub full: bool,
    /// Whether instances that a person told of are not in the ledger yet.
    pub adoption_pending: bool,
    /// Whether detaches of assumed instances are held back because another object names the
    /// session.
    pub held_back_assumed: bool,
    /// When a deadline passes, and something may change without anybody's doing.
    pub wake: Option<ServiceTime>,
}

/// What the backoff holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// Some instance that was not tried yet.
    pub fresh: bool,
    /// Some instance whose last call failed.
    pub failed: bool,
}

impl Ledger {
    /// The next call, of at most `batch_size_max` ids. Removals go before additions: a phone that
    /// moves between two sessions must be free first. Fresh ids go before failed ones, and these in
    /// the order of their last failures.
    ///
    /// ```
    /// use streamsession_core::answer::Operation;
    /// use streamsession_core::ledger::Ledger;
    /// use streamsession_core::ledger::plan::{Allowed, Due};
    /// use streamsession_testkit::fixtures::{NOW, desired, ids};
    ///
    /// let plan = Ledger::default().plan(&desired("1", &["a", "b", "c"]), Some(NOW), Due::ALL, 2, Allowed::All);
    /// let batch = plan.batch.unwrap();
    /// assert_eq!(batch.operation, Operation::Attach);
    /// assert!(batch.instances.iter().eq(&ids(&["a", "b"])), "a call of at most two ids");
    /// ```
    #[must_use]
    pub fn plan(
        &self,
        desired: &Desired,
        now: Option<ServiceTime>,
        due: Due,
        batch_size_max: usize,
        allowed: Allowed<'_>,
    ) -> Plan {
        let members = desired.at(self.target.as_ref());
        let mut plan = Plan {
            wake: self.records.values().filter_map(|record| record.next_deadline(now)).min(),
            ..Plan::default()
        };
        let mut detach = Vec::new();
        let mut attach = Vec::new();
        // With the time of the last failure.
        let mut detach_again = Vec::new();
        let mut attach_again = Vec::new();
        let mut room = Self::RECORDS_MAX.saturating_sub(self.records.len());

        let mut wanted = members.in_order();
        let known = self.records.iter().map(|(id, record)| (id, Some(record), wanted(id)));
        for (id, record, want) in known.chain(self.missing(members).map(|id| (id, None, Want::In)))
        {
            let next =
                record.map_or(Next::Send(Operation::Attach), |record| record.next(want, now));
            let Next::Send(operation) = next else { continue };
            if !allowed.allows(id, record, want, operation) {
                plan.held_back_assumed |= allowed == Allowed::NotAssumed;
                continue;
            }
            let failure =
                record.and_then(|record| record.failure(want)).map(|failure| failure.time);
            let failed = failure.is_some();
            if !(if failed { due.failed } else { due.fresh }) {
                plan.held_back.failed |= failed;
                plan.held_back.fresh |= !failed;
                continue;
            }
            if record.is_none() {
                if room == 0 {
                    plan.full = true;
                    continue;
                }
                room -= 1;
            }
            match (operation, failure) {
                (Operation::Detach, None) => detach.push(id),
                (Operation::Detach, Some(time)) => detach_again.push((time, id)),
                (Operation::Attach, None) => attach.push(id),
                (Operation::Attach, Some(time)) => attach_again.push((time, id)),
            }
        }

        // What failed longest ago is tried first, of either operation: a phone that can't be
        // removed must not keep others waiting for ever.
        detach_again.sort_unstable();
        attach_again.sort_unstable();
        let oldest = |again: &[(ServiceTime, &InstanceId)]| again.first().map(|(time, _)| *time);
        let attach_waits_longer = oldest(&attach_again)
            .is_some_and(|time| oldest(&detach_again).is_none_or(|other| time < other));
        let again = |ids: Vec<(ServiceTime, _)>| ids.into_iter().map(|(_, id)| id);
        let (operation, priority, ids) = match (detach.is_empty(), attach.is_empty()) {
            (false, _) => (
                Operation::Detach,
                Priority::Detach,
                detach.into_iter().chain(again(detach_again)).collect(),
            ),
            (true, false) => (Operation::Attach, Priority::Attach, attach),
            (true, true) if attach_waits_longer => {
                (Operation::Attach, Priority::Retry, again(attach_again).collect())
            }
            _ => (
                Operation::Detach,
                Priority::Retry,
                again(detach_again).collect::<Vec<&InstanceId>>(),
            ),
        };
        if !ids.is_empty() {
            let mut instances: Vec<_> =
                ids.into_iter().take(batch_size_max.max(1)).cloned().collect();
            instances.sort();
            plan.batch = Some(Batch { operation, instances, priority });
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NOW, desired, id, ledger};
    use crate::ledger::record::{Failure, FailureReason, State};
    use Operation::{Attach, Detach};

    fn failed(state: State, operation: Operation, seconds: i64) -> Record {
        let (reason, time) = (FailureReason::Refused, ServiceTime(seconds));
        Record {
            state,
            last_failure: Some(Failure {
                operation,
                reason,
                code: String::new(),
                attempts: 1,
                time,
            }),
            ..Record::default()
        }
    }

    fn next(
        records: &[(&str, Record)],
        wanted: &[&str],
        batch_size_max: usize,
    ) -> (Operation, Vec<InstanceId>) {
        let batch = ledger(records)
            .plan(&desired("1", wanted), Some(NOW), Due::ALL, batch_size_max, Allowed::All)
            .batch
            .unwrap();
        (batch.operation, batch.instances)
    }

    #[test]
    fn a_phone_that_can_t_be_removed_does_not_keep_a_failed_attach_waiting_for_ever() {
        let stuck = |seconds| ("out", failed(State::Unknown, Detach, seconds));
        let lost = |seconds| ("in", failed(State::Unknown, Attach, seconds));

        assert_eq!(next(&[stuck(10), lost(10)], &["in"], 100), (Detach, vec![id("out")]));
        assert_eq!(
            next(&[stuck(11), lost(10)], &["in"], 100),
            (Attach, vec![id("in")]),
            "the detach has had its turn"
        );
        assert_eq!(
            next(&[stuck(11), lost(12)], &["in"], 100),
            (Detach, vec![id("out")]),
            "and so has the attach"
        );
    }

    #[test]
    fn more_failed_ones_than_a_call_can_name_take_turns() {
        let records: Vec<_> = [("a", 12), ("b", 11), ("c", 10)]
            .into_iter()
            .map(|(text, time)| (text, failed(State::Detached, Attach, time)))
            .collect();

        assert_eq!(next(&records, &["a", "b", "c"], 2), (Attach, vec![id("b"), id("c")]));
    }

    #[test]
    fn a_removal_that_was_not_tried_yet_goes_first_and_takes_failed_ones_along() {
        let records = [
            ("a", failed(State::Unknown, Detach, 10)),
            ("b", Record::attached()),
            ("c", failed(State::Unknown, Attach, 1)),
        ];

        assert_eq!(next(&records, &["c", "d"], 100), (Detach, vec![id("a"), id("b")]));
        assert_eq!(
            next(&records[..1], &["d"], 100),
            (Attach, vec![id("d")]),
            "what was not tried yet does not wait for what has failed"
        );
    }

    #[test]
    fn how_an_object_stands_says_what_may_be_called() {
        let (a, assumed, own) = (id("a"), Record::assumed(NOW), Record::attached());
        let (one, other) = ([a.clone()].into(), [id("b")].into());
        for (allowed, record, want, operation, may) in [
            (Allowed::All, &assumed, Want::Out, Detach, true),
            (Allowed::All, &assumed, Want::In, Attach, true),
            (Allowed::NotAssumed, &assumed, Want::In, Attach, true),
            (Allowed::NotAssumed, &assumed, Want::In, Detach, true),
            (Allowed::NotAssumed, &assumed, Want::Out, Detach, false),
            (Allowed::NotAssumed, &own, Want::Out, Detach, true),
            (Allowed::Only(&one), &own, Want::Out, Detach, true),
            (Allowed::Only(&one), &own, Want::In, Attach, false),
            (Allowed::Only(&other), &own, Want::Out, Detach, false),
        ] {
            assert_eq!(
                allowed.allows(&a, Some(record), want, operation),
                may,
                "{allowed:?} {record:?} {want:?} {operation:?}"
            );
        }
        assert!(!Allowed::NotAssumed.allows(&a, None, Want::Out, Detach));
    }

    fn plan(ledger: &Ledger, wanted: &[&str], due: Due, allowed: Allowed<'_>) -> Plan {
        ledger.plan(&desired("1", wanted), Some(NOW), due, 100, allowed)
    }

    #[test]
    fn a_guess_that_is_held_back_is_told() {
        let guess = ledger(&[("a", Record::assumed(NOW))]);
        let held = plan(&guess, &[], Due::ALL, Allowed::NotAssumed);
        assert_eq!((held.batch, held.held_back_assumed), (None, true));
        assert!(
            !plan(&guess, &[], Due::ALL, Allowed::Only(&[].into())).held_back_assumed,
            "another object owns the session: that is told"
        );
        assert!(plan(&guess, &[], Due::ALL, Allowed::All).batch.is_some());
    }

    #[test]
    fn what_the_backoff_holds_back_is_known_apart() {
        let both = ledger(&[("a", failed(State::Detached, Attach, 10))]);
        let held = |fresh, failed| {
            let plan = plan(&both, &["a", "b"], Due { fresh, failed }, Allowed::All);
            (plan.held_back, plan.batch.map_or(0, |batch| batch.instances.len()))
        };
        assert_eq!(held(true, true), (Held::default(), 1));
        assert_eq!(held(true, false), (Held { fresh: false, failed: true }, 1));
        assert_eq!(held(false, true), (Held { fresh: true, failed: false }, 1));
        assert_eq!(held(false, false), (Held { fresh: true, failed: true }, 0));
    }

    #[test]
    fn a_ledger_takes_as_many_as_it_has_room_for() {
        let texts: Vec<_> = (2..Ledger::RECORDS_MAX).map(|n| n.to_string()).collect();
        let mut wanted: Vec<&str> = texts.iter().map(String::as_str).collect();
        let ledger =
            ledger(&wanted.iter().map(|text| (*text, Record::attached())).collect::<Vec<_>>());
        wanted.extend(["x", "y", "z"]);

        let plan = plan(&ledger, &wanted, Due::ALL, Allowed::All);

        assert_eq!((plan.batch.unwrap().instances, plan.full), (vec![id("x"), id("y")], true));
    }

    #[test]
    fn the_next_deadline_that_is_still_to_come_wakes() {
        let until = |attach, detach| Record {
            attach_until: Some(ServiceTime(attach)),
            detach_until: Some(ServiceTime(detach)),
            ..Record::attached()
        };
        let records =
            [("a", until(1_100, 1_002)), ("b", until(1_001, 1_200)), ("c", until(1_000, 999))];
        assert_eq!(
            plan(&ledger(&records), &["a", "b", "c"], Due::ALL, Allowed::All).wake,
            Some(ServiceTime(1_001))
        );
        assert_eq!(plan(&ledger(&records[2..]), &["c"], Due::ALL, Allowed::All).wake, None);
    }
}
