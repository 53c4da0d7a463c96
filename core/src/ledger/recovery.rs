//! A ledger that is lost, cloned, restored or told of by a person: what can be known is kept, as
//! *assumed*, until the service has confirmed it. And the opposite: releasing what
//! the service never gives back, because a person says so.

use std::collections::BTreeSet;

use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::ledger::desired::Desired;
use crate::ledger::record::{Record, Want};
use crate::time::{ServiceTime, Validity, over};

impl Ledger {
    /// A ledger instead of one that is lost or another object's, `found` (which may be empty): its
    /// ids keep its target, those of the spec join them if they are about the same session. An
    /// earlier call for any of them may still arrive.
    ///
    /// ```
    /// use streamsession_core::ledger::Ledger;
    /// use streamsession_core::time::Validity;
    /// use streamsession_testkit::fixtures::{NOW, desired, id};
    ///
    /// let rebuilt =
    ///     Ledger::rebuilt(Ledger::default(), &desired("1", &["a"]), NOW, Validity::default());
    /// assert!(rebuilt.records[&id("a")].assumed, "nobody saw the operator attach it");
    /// ```
    #[must_use]
    pub fn rebuilt(found: Self, desired: &Desired, now: ServiceTime, validity: Validity) -> Self {
        let until = Self::last_arrival(now, validity);
        let target = found.target.unwrap_or_else(|| desired.target(None));
        let mut ledger = Self { target: Some(target), ..Self::default() };
        let kept =
            found.records.into_iter().filter(|(_, record)| record.is_tracked()).map(|(id, _)| id);
        ledger.assume(
            kept.chain(found.journal.into_iter().flat_map(|journal| journal.instances)),
            until,
        );
        if ledger.target.as_ref().is_some_and(|target| !desired.moves_from(target)) {
            ledger.assume(desired.instances.iter().cloned(), until);
        }
        ledger
    }

    /// A person knows of these instances: all of them join the ledger, or none if there is no room.
    /// Then it answers those that are not in it.
    pub fn adopt(
        &mut self,
        ids: &BTreeSet<InstanceId>,
        desired: &Desired,
        now: ServiceTime,
        validity: Validity,
    ) -> Result<(), Vec<InstanceId>> {
        let new = || ids.iter().filter(|id| !self.records.contains_key(*id));
        if self.records.len() + new().count() > Self::RECORDS_MAX {
            return Err(new().cloned().collect());
        }
        self.target.get_or_insert_with(|| desired.target(None));
        self.assume(ids.iter().cloned(), Self::last_arrival(now, validity));
        Ok(())
    }

    /// When no call of anybody can arrive any more: the clock of who made it may be ahead of ours.
    fn last_arrival(now: ServiceTime, validity: Validity) -> ServiceTime {
        validity.end(now).plus(validity.margin_seconds)
    }

    fn assume(&mut self, ids: impl Iterator<Item = InstanceId>, until: ServiceTime) {
        for id in ids {
            if self.records.len() >= Self::RECORDS_MAX && !self.records.contains_key(&id) {
                continue;
            }
            let record = self.records.entry(id).or_default();
            // One that is known to be out is so no more; a call for it may be on its way all the
            // same.
            if !record.may_be_attached() {
                let detach_until = record.detach_until.max(Some(until));
                let (refusals, last_failure) = (record.refusals, record.last_failure.take());
                *record = Record { detach_until, refusals, last_failure, ..Record::assumed(until) };
            }
        }
    }

    /// Lets go of the instances that nobody wants and that `asked` names, or that can't be removed
    /// if the policy says so; never while an attach of ours may still arrive. Answers their ids,
    /// and whether some of `asked` has to wait.
    pub fn forget(
        &mut self,
        asked: &BTreeSet<InstanceId>,
        desired: &Desired,
        now: Option<ServiceTime>,
        validity: Validity,
    ) -> (Vec<InstanceId>, bool) {
        let members = desired.at(self.target.as_ref());
        let (mut forgotten, mut waits) = (Vec::new(), false);
        for (id, record) in &mut self.records {
            let by_policy = desired.forgets_failures && record.cannot_leave(now, validity);
            if members.want(id) == Want::In
                || !(by_policy || asked.contains(id))
                || !record.may_be_attached()
            {
                continue;
            }
            if over(record.attach_until, now) {
                *record = record.clone().forgotten();
                forgotten.push(id.clone());
            } else {
                waits = true;
            }
        }
        (forgotten, waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Operation;
    use crate::fixtures::{NOW, VALIDITY, desired, id, ids, journal};
    use crate::ledger::Journal;
    use crate::ledger::desired::Target;
    use crate::ledger::record::{Failure, FailureReason, Refusals, State};

    fn target(session: &str) -> Target {
        desired(session, &[]).target(None)
    }

    fn tracked(ledger: &Ledger) -> BTreeSet<InstanceId> {
        assert!(
            ledger.records.values().all(|record| *record == Record::assumed(ServiceTime(1_310)))
        );
        ledger.records.keys().cloned().collect()
    }

    #[test]
    fn without_any_ledger_the_ids_of_the_spec_are_assumed() {
        let rebuilt = Ledger::rebuilt(Ledger::default(), &desired("1", &["a", "b"]), NOW, VALIDITY);

        assert_eq!(tracked(&rebuilt), ids(&["a", "b"]));
        let target = rebuilt.target.unwrap();
        assert_eq!((target.session.as_str(), target.credential), ("1", None));
    }

    #[test]
    fn a_foreign_ledger_keeps_its_ids_its_open_call_and_its_target() {
        let found = Ledger {
            target: Some(target("1")),
            records: [(id("x"), Record::attached()), (id("void"), Record::default())].into(),
            journal: Some(Journal {
                start_time: ServiceTime(0),
                ..journal(Operation::Attach, &["y"])
            }),
            last_call: None,
        };
        let same = Ledger::rebuilt(found.clone(), &desired("1", &["a"]), NOW, VALIDITY);
        assert_eq!(tracked(&same), ids(&["a", "x", "y"]));
        assert_eq!(same.journal, None);

        let elsewhere = Ledger::rebuilt(found, &desired("2", &["a"]), NOW, VALIDITY);
        assert_eq!(tracked(&elsewhere), ids(&["x", "y"]), "the spec speaks of another session");
        assert_eq!(elsewhere.target.unwrap().session.as_str(), "1");
    }

    #[test]
    fn a_rebuilt_ledger_keeps_within_its_bound_and_what_was_held_comes_first() {
        let many: Vec<_> = (0..Ledger::RECORDS_MAX).map(|n| format!("held-{n}")).collect();
        let held = many.iter().map(|text| (id(text), Record::attached())).collect();
        let found = Ledger { target: Some(target("1")), records: held, ..Ledger::default() };

        let rebuilt = Ledger::rebuilt(found, &desired("1", &["a"]), NOW, VALIDITY);

        assert_eq!(rebuilt.records.len(), Ledger::RECORDS_MAX);
        assert!(!rebuilt.records.contains_key(&id("a")));
    }

    #[test]
    fn all_that_a_person_tells_of_join_the_ledger_or_none() {
        let texts: Vec<_> =
            (2..Ledger::RECORDS_MAX).map(|number| id(&number.to_string())).collect();
        let records = texts.iter().map(|id| (id.clone(), Record::attached())).collect();
        let mut ledger = Ledger { records, ..Ledger::default() };
        let before = ledger.clone();

        let mut adopt = |texts: &[&str]| {
            let adopted = ledger.adopt(&ids(texts), &desired("1", &[]), NOW, VALIDITY);
            (adopted, ledger.clone())
        };
        let without_room = Err(vec![id("x"), id("y"), id("z")]);
        assert_eq!(adopt(&["2", "x", "y", "z"]), (without_room, before));
        assert_eq!(adopt(&["2", "x", "y"]).0, Ok(()));
        assert_eq!(ledger.records.len(), Ledger::RECORDS_MAX);
    }

    #[test]
    fn what_is_known_of_an_adopted_instance_stays() {
        let mut ledger =
            Ledger { records: [(id("a"), Record::attached())].into(), ..Ledger::default() };

        assert_eq!(ledger.adopt(&ids(&["a", "b"]), &desired("1", &["c"]), NOW, VALIDITY), Ok(()));

        assert_eq!(ledger.records.get(&id("a")), Some(&Record::attached()));
        assert_eq!(ledger.records.get(&id("b")), Some(&Record::assumed(ServiceTime(1_310))));
        assert_eq!(ledger.records.len(), 2, "the spec's own are not assumed");
        assert!(ledger.target.is_some());
    }

    #[test]
    fn what_was_forgotten_can_be_adopted_while_a_detach_of_it_may_arrive() {
        let late = Record { detach_until: Some(ServiceTime(2_000)), ..Record::default() };
        let mut ledger = Ledger { records: [(id("a"), late.clone())].into(), ..Ledger::default() };

        assert_eq!(ledger.adopt(&ids(&["a"]), &desired("1", &[]), NOW, VALIDITY), Ok(()));

        let known =
            Record { detach_until: late.detach_until, ..Record::assumed(ServiceTime(1_310)) };
        assert_eq!(ledger.records.get(&id("a")), Some(&known));
    }

    fn stuck() -> Record {
        let refusals = Refusals { operation: Operation::Detach, count: 5, since: ServiceTime(0) };
        Record {
            refusals: Some(refusals),
            detach_until: Some(ServiceTime(1_200)),
            ..Record::attached()
        }
    }

    #[test]
    fn a_person_may_let_go_of_what_the_spec_does_not_want() {
        let mut ledger = Ledger {
            records: [(id("a"), stuck()), (id("b"), stuck()), (id("c"), stuck())].into(),
            ..Ledger::default()
        };

        let (forgotten, waits) =
            ledger.forget(&ids(&["a", "b", "x"]), &desired("1", &["b"]), Some(NOW), VALIDITY);

        assert_eq!((forgotten, waits), (vec![id("a")], false));
        let kept = Record { detach_until: Some(ServiceTime(1_200)), ..Record::default() };
        assert_eq!(
            ledger.records.get(&id("a")),
            Some(&kept),
            "a detach of ours may still hit who comes next"
        );
        assert_eq!(ledger.records.get(&id("c")), Some(&stuck()));
        assert_eq!(
            ledger.forget(&ids(&["a"]), &desired("1", &[]), Some(NOW), VALIDITY),
            (Vec::new(), false),
            "it is done"
        );
    }

    #[test]
    fn the_policy_lets_go_by_itself_but_never_while_an_attach_may_arrive() {
        let forgetting = Desired { forgets_failures: true, ..desired("1", &[]) };
        let arriving =
            Record { attach_until: Some(ServiceTime(1_001)), state: State::Unknown, ..stuck() };
        let mut ledger = Ledger {
            records: [(id("a"), stuck()), (id("b"), arriving.clone())].into(),
            ..Ledger::default()
        };

        assert_eq!(
            ledger.forget(&BTreeSet::new(), &forgetting, Some(NOW), VALIDITY),
            (vec![id("a")], false)
        );
        assert_eq!(
            ledger.forget(&ids(&["b"]), &forgetting, Some(NOW), VALIDITY),
            (Vec::new(), true),
            "the person's word waits for the same"
        );
        assert_eq!(ledger.records.get(&id("b")), Some(&arriving));
        assert_eq!(
            ledger.forget(&BTreeSet::new(), &forgetting, Some(ServiceTime(1_001)), VALIDITY),
            (vec![id("b")], false)
        );
    }

    #[test]
    fn what_was_refused_before_is_known_of_an_adopted_instance() {
        let failure = Failure {
            operation: Operation::Detach,
            reason: FailureReason::Refused,
            code: "X".into(),
            attempts: 5,
            time: NOW,
            generation: 1,
        };
        let told = Record { last_failure: Some(failure), ..stuck() };
        let out = Record { state: State::Detached, ..told.clone() };
        let mut ledger = Ledger { records: [(id("a"), out)].into(), ..Ledger::default() };

        assert_eq!(ledger.adopt(&ids(&["a"]), &desired("1", &[]), NOW, VALIDITY), Ok(()));

        let until = Some(ServiceTime(1_310));
        let adopted = Record {
            state: State::Unknown,
            attach_until: until,
            detach_until: until,
            assumed: true,
            ..told
        };
        assert_eq!(ledger.records.get(&id("a")), Some(&adopted));
    }

    #[test]
    fn an_assumed_instance_may_be_in_and_calls_for_it_may_arrive() {
        let (state, until) = (State::Unknown, Some(NOW));
        let assumed = Record {
            state,
            attach_until: until,
            detach_until: until,
            assumed: true,
            ..Record::default()
        };
        assert_eq!(Record::assumed(NOW), assumed);
        assert!(assumed.may_be_attached());
    }
}
