//! What is due: the difference between what the spec wants and what the ledger holds.

use std::collections::BTreeSet;

use crate::answer::Operation;
use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::ledger::desired::Desired;
use crate::ledger::due::{Again, Due};
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
    /// What is attached is attached again.
    Resync,
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

/// What may be called at all; how the object stands among those that name the session decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// Anything.
    All,
    /// Anything, but not for these: the ledger of another object says Attached of them.
    AllBut(&'a BTreeSet<InstanceId>),
    /// Detaches of these, and nothing else: another object owns the session.
    Only(&'a BTreeSet<InstanceId>),
}

impl Allowed<'_> {
    /// Whether this may be called.
    #[must_use]
    pub fn allows(self, id: &InstanceId, operation: Operation) -> bool {
        match (self, operation) {
            (Self::All, _) => true,
            (Self::AllBut(ids), _) => !ids.contains(id),
            (Self::Only(ids), Operation::Detach) => ids.contains(id),
            (Self::Only(_), Operation::Attach) => false,
        }
    }
}

/// What is due for an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Plan {
    /// The next call, if one is due.
    pub batch: Option<Batch>,
    /// Whether a call waits for the object as a whole.
    pub held_back: bool,
    /// Whether the next call puts back what we took out.
    pub puts_back: bool,
    /// Whether attaches are held back because the ledger is full.
    pub full: bool,
    /// Whether instances that a person told of are not in the ledger yet.
    pub adoption_pending: bool,
    /// These of them, since there is no room.
    pub no_room_for: Vec<InstanceId>,
    /// Instances that wait until the ledger of another object does not say Attached of them.
    pub left_to_others: Vec<InstanceId>,
    /// When a deadline or a pause is over, and something may change without anybody's doing.
    pub wake: Option<ServiceTime>,
}

impl Ledger {
    /// The next call, of at most `batch_size_max` ids. What we took out though it is wanted goes
    /// back before anything else. Then removals go before additions: a phone that moves between two
    /// sessions must be free first. Fresh ids go before failed ones, and of these the one that is
    /// due for longest decides, whichever operation it needs.
    ///
    /// ```
    /// use streamsession_core::answer::Operation;
    /// use streamsession_core::ledger::Ledger;
    /// use streamsession_core::ledger::{due::Due, plan::Allowed};
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
        due: Due<'_>,
        batch_size_max: usize,
        allowed: Allowed<'_>,
    ) -> Plan {
        let members = desired.at(self.target.as_ref());
        let stuck = |record: &Record| {
            record.stuck_at(due.validity).filter(|at| now.is_some_and(|now| now < *at))
        };
        let wakes =
            |record: &Record| [record.next_deadline(now), stuck(record)].into_iter().flatten();
        let mut plan =
            Plan { wake: self.records.values().flat_map(wakes).min(), ..Plan::default() };
        let mut put_back = Vec::new();
        let mut detach = Vec::new();
        let mut attach = Vec::new();
        let (mut detach_again, mut attach_again) = (Again::default(), Again::default());
        let mut room = Self::RECORDS_MAX.saturating_sub(self.records.len());

        let mut wanted = members.in_order();
        let known = self.records.iter().map(|(id, record)| (id, Some(record), wanted(id)));
        for (id, record, want) in known.chain(self.missing(members).map(|id| (id, None, Want::In)))
        {
            let next =
                record.map_or(Next::Send(Operation::Attach), |record| record.next(want, now));
            let Next::Send(operation) = next else { continue };
            if !allowed.allows(id, operation) {
                if matches!(allowed, Allowed::AllBut(_)) {
                    plan.left_to_others.push(id.clone());
                }
                continue;
            }
            if !due.open {
                plan.held_back = true;
                continue;
            }
            if record.is_none() {
                if room == 0 {
                    plan.full = true;
                    continue;
                }
                room -= 1;
            }
            let is_out = record.is_some_and(|it| it.is_out_by_our_hand(want, now, due.validity));
            let failure = record.and_then(|record| record.failure(want));
            let (fresh, again) = match operation {
                Operation::Attach if is_out => (&mut put_back, &mut attach_again),
                Operation::Attach => (&mut attach, &mut attach_again),
                Operation::Detach => (&mut detach, &mut detach_again),
            };
            let Some((record, failure)) = record.zip(failure).filter(|_| !is_out) else {
                fresh.push(id);
                continue;
            };
            match due.again(id, record, failure, desired.generation, now) {
                None => again.due.push((failure.time, id)),
                Some((at, early)) => {
                    plan.wake = plan.wake.into_iter().chain([at]).min();
                    if now.is_some_and(|now| early <= now) {
                        again.early.push((failure.time, id));
                    }
                }
            }
        }

        // What failed longest ago is tried first, of either operation: a phone that can't be
        // removed must not keep others waiting for ever.
        let (detach_since, detach_again) = detach_again.in_turn();
        let (attach_since, attach_again) = attach_again.in_turn();
        let attach_waits_longer =
            attach_since.is_some_and(|time| detach_since.is_none_or(|other| time < other));
        plan.puts_back = !put_back.is_empty();
        let (operation, priority, ids): (_, _, Vec<&InstanceId>) =
            match (detach.is_empty(), attach.is_empty()) {
                // Somebody waits for it as for a removal.
                _ if plan.puts_back => (Operation::Attach, Priority::Detach, put_back),
                (false, _) => {
                    detach.extend(detach_again);
                    (Operation::Detach, Priority::Detach, detach)
                }
                (true, false) => (Operation::Attach, Priority::Attach, attach),
                (true, true) if attach_waits_longer => {
                    (Operation::Attach, Priority::Retry, attach_again)
                }
                (true, true) => (Operation::Detach, Priority::Retry, detach_again),
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
    use std::time::Duration;

    use super::*;
    use crate::fixtures::{NOW, desired, id, ledger};
    use crate::ledger::due::Backoff;
    use crate::ledger::record::{Failure, FailureReason, Refusals, State};
    use Operation::{Attach, Detach};

    fn failed(state: State, operation: Operation, seconds: i64) -> Record {
        let (reason, time) = (FailureReason::Refused, ServiceTime(seconds));
        let code = String::new();
        let failure = Failure { operation, reason, code, attempts: 1, time, generation: 1 };
        let refusals = Some(Refusals { operation, count: 1, since: time });
        Record { state, refusals, last_failure: Some(failure), ..Record::default() }
    }

    /// It was wanted and refused, and then we took it out.
    fn taken_out() -> Record {
        Record { refusals: None, ..failed(State::Detached, Attach, NOW.0 - 1) }
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
        let (a, b) = ([id("a")].into(), [id("b")].into());
        for (allowed, operation, may) in [
            (Allowed::All, Detach, true),
            (Allowed::All, Attach, true),
            (Allowed::AllBut(&b), Detach, true),
            (Allowed::AllBut(&b), Attach, true),
            (Allowed::AllBut(&a), Detach, false),
            (Allowed::AllBut(&a), Attach, false),
            (Allowed::Only(&a), Detach, true),
            (Allowed::Only(&a), Attach, false),
            (Allowed::Only(&b), Detach, false),
        ] {
            assert_eq!(allowed.allows(&id("a"), operation), may, "{allowed:?} {operation:?}");
        }
    }

    fn plan(ledger: &Ledger, wanted: &[&str], due: Due<'_>, allowed: Allowed<'_>) -> Plan {
        ledger.plan(&desired("1", wanted), Some(NOW), due, 100, allowed)
    }

    #[test]
    fn what_another_ledger_has_is_told() {
        let theirs = [id("a"), id("c")].into();
        let stale = ledger(&[("a", Record::attached())]);
        let held = plan(&stale, &["c"], Due::ALL, Allowed::AllBut(&theirs));
        assert_eq!((held.batch, held.left_to_others), (None, vec![id("a"), id("c")]));
        let contender = plan(&stale, &[], Due::ALL, Allowed::Only(&[].into()));
        assert_eq!((contender.batch, contender.left_to_others), (None, vec![]));
        assert!(plan(&stale, &[], Due::ALL, Allowed::All).batch.is_some());
    }

    #[test]
    fn an_object_that_waits_as_a_whole_calls_nobody() {
        let both = ledger(&[("a", failed(State::Detached, Attach, 10))]);
        let held = |open| {
            let plan = plan(&both, &["a", "b"], Due { open, ..Due::ALL }, Allowed::All);
            (plan.held_back, plan.batch.is_some())
        };
        assert_eq!((held(true), held(false)), ((false, true), (true, false)));
    }

    /// Pauses of 8, 16, 32 seconds and so on.
    const SLOW: Due = Due {
        records: Backoff { base: Duration::from_secs(8), max: Duration::from_secs(64), seed: 0 },
        ..Due::ALL
    };

    fn pause(failures: u32) -> i64 {
        SLOW.records.seconds(failures)
    }

    #[test]
    fn a_record_waits_for_its_own_failures_alone() {
        let since = NOW.0 - pause(1);
        let waits = failed(State::Detached, Attach, since + 1);
        let records = [("a", failed(State::Detached, Attach, since)), ("b", waits.clone())];
        let called = |records: &[(&str, Record)], wanted: &[&str]| {
            let plan = plan(&ledger(records), wanted, SLOW, Allowed::All);
            (plan.batch.map_or(vec![], |batch| batch.instances), plan.wake)
        };
        let wakes = Some(ServiceTime(NOW.0 + 1));
        assert_eq!(called(&records[1..], &["b"]), (vec![], wakes));
        assert_eq!(
            called(&records, &["a", "b"]),
            (vec![id("a"), id("b")], wakes),
            "one that is nearly due goes along"
        );
        assert_eq!(called(&records[1..], &["b", "c"]).0, [id("c")], "a new one need not wait");

        let first = failed(State::Detached, Attach, NOW.0 - 1);
        assert_eq!(
            called(&[records[0].clone(), ("b", first)], &["a", "b"]).0,
            [id("a")],
            "one that failed just now does not go along"
        );
        let mut often = waits.clone();
        often.last_failure.as_mut().unwrap().attempts = 2;
        let often_until = Some(ServiceTime(since + 1 + pause(2)));
        assert_eq!(called(&[("b", often)], &["b"]), (vec![], often_until));
    }

    #[test]
    fn who_keeps_being_refused_is_looked_at_when_a_person_has_to_act() {
        let refused = |count, since| {
            let refusals = Some(Refusals { operation: Detach, count, since: ServiceTime(since) });
            let record = Record { refusals, ..failed(State::Attached, Detach, NOW.0) };
            plan(&ledger(&[("a", record)]), &[], Due::ALL, Allowed::All).wake
        };
        assert_eq!(refused(5, NOW.0 - 599), Some(NOW.plus(1)));
        assert_eq!((refused(5, NOW.0 - 600), refused(4, NOW.0 - 599)), (None, None));
    }

    #[test]
    fn an_edit_an_outage_and_a_wrong_date_are_worth_a_try_at_once() {
        let called = |change: fn(&mut Failure)| {
            let mut record = failed(State::Detached, Attach, NOW.0);
            change(record.last_failure.as_mut().unwrap());
            plan(&ledger(&[("a", record)]), &["a"], SLOW, Allowed::All).batch.is_some()
        };
        assert!(!called(|_| ()));
        assert!(called(|failure| failure.generation = 0));
        assert!(called(|failure| failure.reason = FailureReason::Unanswered));
        assert!(called(|failure| failure.time = ServiceTime(NOW.0 + 1)));
        assert!(!called(|failure| failure.reason = FailureReason::Unclear));
    }

    #[test]
    fn what_we_took_out_goes_back_before_anything_else() {
        let refused = failed(State::Detached, Attach, NOW.0 - 1);
        let lost = Record {
            detach_until: Some(Due::ALL.validity.end(NOW)),
            ..failed(State::Unknown, Attach, NOW.0 - 1)
        };
        let records = [("a", taken_out()), ("b", Record::attached()), ("c", lost), ("d", refused)];
        let plan = plan(&ledger(&records), &["a", "c", "d", "e"], SLOW, Allowed::All);
        let batch = plan.batch.unwrap();
        assert_eq!((batch.operation, batch.instances), (Attach, vec![id("a"), id("c")]));
        assert_eq!((batch.priority, plan.puts_back), (Priority::Detach, true));
    }

    #[test]
    fn what_was_refused_while_a_detach_could_arrive_is_due_at_its_end() {
        let late = |seconds| Record {
            detach_until: Some(ServiceTime(NOW.0 + seconds)),
            ..failed(State::Detached, Attach, NOW.0 - 1)
        };
        let batch =
            |record| plan(&ledger(&[("a", record)]), &["a"], SLOW, Allowed::All).batch.is_some();
        assert!(batch(late(0)) && !batch(late(1)) && !batch(late(-1)));
    }

    #[test]
    fn what_another_object_has_freed_is_due_at_once() {
        let records = [("a", failed(State::Detached, Attach, NOW.0))];
        let batch = |freed: &str| {
            let freed = [id(freed)].into();
            plan(&ledger(&records), &["a"], Due { freed: &freed, ..SLOW }, Allowed::All).batch
        };
        assert_eq!(batch("b"), None);
        let (priority, instances) = (Priority::Retry, vec![id("a")]);
        assert_eq!(batch("a"), Some(Batch { operation: Attach, instances, priority }));
    }

    #[test]
    fn what_was_tried_since_our_detach_waits_and_so_does_a_session_that_is_gone() {
        let is_out =
            |record: &Record| record.is_out_by_our_hand(Want::In, Some(NOW), SLOW.validity);
        let out = taken_out();
        assert!(is_out(&out) && !out.is_out_by_our_hand(Want::Out, Some(NOW), SLOW.validity));
        let until = Some(SLOW.validity.end(ServiceTime(NOW.0 - 2)));
        assert!(!is_out(&Record { detach_until: until, ..out.clone() }));
        // Which of the two came first in that second, nobody knows; it must not be tried without end.
        let until = Some(SLOW.validity.end(ServiceTime(NOW.0 - 1)));
        let tried = Record { detach_until: until, state: State::Unknown, ..out.clone() };
        assert!(!is_out(&tried));
        assert!(!is_out(&Record { state: State::Unknown, ..out.clone() }));
        assert!(!is_out(&Record { last_failure: None, ..out.clone() }));
        let mut gone = out;
        gone.last_failure.as_mut().unwrap().reason = FailureReason::SessionGone;
        assert!(!is_out(&gone));
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
