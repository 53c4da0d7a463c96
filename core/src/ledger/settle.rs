//! What came of a call, written into the ledger.

use crate::answer::{Answer, Operation, Outcome, Verdict};
use crate::identity::Identity;
use crate::ids::InstanceId;
use crate::ledger::desired::{Desired, DesiredMembers};
use crate::ledger::record::{FailureReason, Record};
use crate::ledger::rule::FinishedCall;
use crate::ledger::{Journal, LastCall, Ledger, Rules};
use crate::time::Validity;

fn bounded(text: &str, length_max: usize) -> String {
    text.chars().take(length_max).collect()
}

impl Ledger {
    /// The journal's outcome is known: each of its ids gets it. Without a journal there is nothing
    /// to settle. `splitting`: the batch is being halved to find whose fault an error is, so that
    /// it is nobody's yet.
    ///
    /// ```
    /// use streamsession_core::answer::Operation;
    /// use streamsession_core::ledger::{Ledger, Rules};
    /// use streamsession_core::ledger::record::State;
    /// use streamsession_testkit::fixtures::{answer, desired, id, journal, ledger, processed};
    ///
    /// let open = Ledger { journal: Some(journal(Operation::Attach, &["a", "b"])), ..ledger(&[]) };
    /// let answer = answer(processed(&["a"], &["b"]));
    /// let settled = open.settle(&answer, &"AKID".into(), &desired("1", &["a", "b"]), &Rules::default(), false);
    /// assert_eq!(settled.records[&id("a")].state, State::Attached);
    /// assert_eq!(settled.records[&id("b")].refusals.unwrap().count, 1);
    /// ```
    #[must_use]
    pub fn settle(
        mut self,
        answer: &Answer,
        identity: &Identity,
        desired: &Desired,
        rules: &Rules,
        splitting: bool,
    ) -> Self {
        let Some(journal) = self.journal.take() else { return self };
        let members = desired.at(self.target.as_ref());
        let believed = self.target.as_ref().is_some_and(|target| target.believes(identity));
        let code = bounded(&answer.code, Self::CODE_LENGTH_MAX);
        let call = FinishedCall {
            operation: journal.operation,
            start_time: journal.start_time,
            code: &code,
            validity: rules.validity,
            generation: desired.generation,
            resync: journal.resync,
        };
        let is_gone = answer.verdict == Verdict::SessionGone && believed;
        let mut succeeded = 0;
        if is_gone {
            self.session_gone(&journal, call, members);
        } else {
            let mut wanted = members.in_order();
            let mut settled = Vec::with_capacity(journal.instances.len());
            for (id, outcome) in answer.outcomes(&journal.instances) {
                let record = self.records.remove(id).unwrap_or_default();
                let outcome = match outcome {
                    Outcome::Rejected if splitting => Outcome::NothingDone,
                    Outcome::Unclear if splitting => Outcome::Suspect,
                    outcome => outcome,
                };
                succeeded += usize::from(outcome == Outcome::Done);
                settled.push((id.clone(), record.after(call, outcome, wanted(id))));
            }
            if self.records.is_empty() {
                // Built at once, which is a third of the work.
                self.records = settled.into_iter().collect();
            } else {
                self.records.extend(settled);
            }
        }
        if succeeded > 0
            && let Some(target) = &mut self.target
        {
            target.prove(identity);
        }
        if !journal.resync || is_gone || succeeded > 0 {
            self.last_call = Some(LastCall {
                operation: journal.operation,
                request_id: bounded(&answer.request_id, Self::REQUEST_ID_LENGTH_MAX),
                time: journal.start_time,
                succeeded,
                failed: journal.instances.len() - succeeded,
                result: answer.verdict.result(),
                code: code.clone(),
            });
        }
        self.tidied(desired, Some(journal.start_time))
    }

    /// The session is gone, and everything that it held with it; nothing can arrive there any more.
    fn session_gone(
        &mut self,
        journal: &Journal,
        call: FinishedCall<'_>,
        members: DesiredMembers<'_>,
    ) {
        for id in &journal.instances {
            self.records.entry(id.clone()).or_default();
        }
        for (id, record) in &mut self.records {
            let want = members.want(id);
            let failure = record.last_failure.take();
            *record = Record { last_failure: failure, ..Record::default() };
            let attach = FinishedCall { operation: Operation::Attach, ..call };
            record.note_failure(attach, FailureReason::SessionGone, want);
        }
    }

    /// Whether the ledger shows what became of the call of `journal`, whose `answer` is known if it
    /// came: its doubt is there, its answer was the last one that was settled, or a later call has
    /// ended since.
    #[must_use]
    pub fn remembers(
        &self,
        journal: &Journal,
        answer: Option<&Answer>,
        validity: Validity,
    ) -> bool {
        let until = validity.end(journal.start_time);
        let in_doubt = |id: &InstanceId| {
            let own = self.records.get(id).and_then(|record| match journal.operation {
                Operation::Attach => record.attach_until,
                Operation::Detach => record.detach_until,
            });
            own.is_some_and(|own| own >= until)
        };
        // Two calls may be signed in one second.
        let settled = |call: &LastCall| {
            answer.is_some_and(|answer| {
                bounded(&answer.request_id, Self::REQUEST_ID_LENGTH_MAX) == call.request_id
            })
        };
        let ended = self.last_call.as_ref().is_some_and(|call| {
            call.time > journal.start_time
                || (call.time == journal.start_time
                    && call.operation == journal.operation
                    && settled(call))
        });
        ended || journal.instances.iter().all(in_doubt)
    }

    /// Nobody knows the journal's outcome: its writer died, or is another operator.
    #[must_use]
    pub fn doubt(mut self, desired: &Desired, rules: &Rules) -> Self {
        let Some(journal) = self.journal.take() else { return self };
        let members = desired.at(self.target.as_ref());
        let call = FinishedCall {
            operation: journal.operation,
            start_time: journal.start_time,
            code: "",
            validity: rules.validity,
            generation: desired.generation,
            resync: journal.resync,
        };
        for id in journal.instances {
            let record = self.records.remove(&id).unwrap_or_default();
            let want = members.want(&id);
            self.records.insert(id, record.after(call, Outcome::Unanswered, want));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::answer::NothingDone;
    use crate::fixtures::{answer, id, journal, processed};
    use crate::ledger::desired::Target;
    use crate::ledger::record::State;
    use crate::time::ServiceTime;
    use Operation::{Attach, Detach};

    fn desired(instances: &[&str]) -> Desired {
        crate::fixtures::desired("1", instances)
    }

    /// A ledger of the proven credential `AKID` with these records and an open call.
    fn ledger(records: &[(&str, State)], operation: Operation, called: &[&str]) -> Ledger {
        Ledger {
            target: Some(Target {
                credential_proven: true,
                ..Ledger::default().target_for(&desired(&[]), &"AKID".into())
            }),
            records: records
                .iter()
                .map(|(text, state)| (id(text), Record { state: *state, ..Record::default() }))
                .collect(),
            journal: Some(journal(operation, called)),
            last_call: None,
        }
    }

    fn settle(ledger: Ledger, verdict: Verdict, credential: &str, wanted: &[&str]) -> Ledger {
        ledger.settle(
            &answer(verdict),
            &credential.into(),
            &desired(wanted),
            &Rules::default(),
            false,
        )
    }

    fn state(ledger: &Ledger, text: &str) -> Option<State> {
        ledger.records.get(text).map(|record| record.state)
    }

    #[test]
    fn a_session_that_is_gone_empties_the_whole_ledger_if_it_is_believed() {
        let held = [("a", State::Attached), ("b", State::Unknown)];

        let gone =
            settle(ledger(&held, Attach, &["c"]), Verdict::SessionGone, "AKID", &["a", "b", "c"]);

        assert!(gone.tracks_nothing());
        assert!(gone.records.values().all(
            |record| record.last_failure.as_ref().unwrap().reason == FailureReason::SessionGone
        ));
        let deleting = settle(ledger(&held, Detach, &["a"]), Verdict::SessionGone, "AKID", &[]);
        assert_eq!(deleting.records, BTreeMap::new());
    }

    #[test]
    fn a_session_that_another_credential_does_not_see_empties_nothing() {
        let held = [("a", State::Attached), ("b", State::Unknown)];

        let kept =
            settle(ledger(&held, Attach, &["c"]), Verdict::SessionGone, "OTHER", &["a", "b", "c"]);

        assert_eq!(state(&kept, "a"), Some(State::Attached));
        assert_eq!(state(&kept, "b"), Some(State::Unknown));
        assert_eq!(state(&kept, "c"), Some(State::Unknown));
    }

    #[test]
    fn a_rejected_call_proves_nothing_of_any_id_whoever_made_it() {
        for before in [State::Attached, State::Unknown] {
            for called in [&["a"][..], &["a", "b"]] {
                let held = ledger(&[("a", before), ("b", before)], Detach, called);
                let settled = settle(held, Verdict::Rejected, "AKID", &[]);
                let record = settled.records.get(&id("a")).unwrap();
                assert_eq!((record.state, record.refusals.unwrap().count), (before, 1));
                assert!(settled.target.unwrap().credential_proven);
            }
        }
        let new = settle(ledger(&[], Attach, &["a"]), Verdict::Rejected, "AKID", &["a"]);
        assert!(new.tracks_nothing(), "a typing error leaves nothing behind");
    }

    #[test]
    fn an_error_proves_no_credential() {
        for verdict in [Verdict::Rejected, Verdict::Unclear, Verdict::SessionGone] {
            let unproven = Ledger::default().target_for(&desired(&[]), &"AKID".into());
            let open = Ledger { target: Some(unproven), ..ledger(&[], Detach, &["a"]) };
            let settled = settle(open, verdict, "AKID", &["b"]);
            assert!(settled.target.is_none_or(|target| !target.credential_proven));
        }
    }

    #[test]
    fn a_rejected_part_of_a_batch_that_is_split_counts_for_nobody_yet() {
        let held = ledger(&[("a", State::Attached)], Detach, &["a", "b"]);
        let split = held.settle(
            &answer(Verdict::Rejected),
            &"AKID".into(),
            &desired(&[]),
            &Rules::default(),
            true,
        );
        assert_eq!(split.records.get(&id("a")), Some(&Record::attached()));
    }

    #[test]
    fn a_call_that_did_nothing_leaves_no_record_of_a_new_instance() {
        let settled = settle(
            ledger(&[], Attach, &["a"]),
            Verdict::NothingDone(NothingDone::Throttled),
            "AKID",
            &["a"],
        );

        assert_eq!(settled.records, BTreeMap::new());
        assert_eq!(settled.last_call.unwrap().failed, 1);
    }

    #[test]
    fn a_success_proves_the_credential_and_an_unproven_one_gives_way_to_nobody() {
        let unproven = Ledger::default().target_for(&desired(&[]), &"AKID".into());
        assert!(unproven.believes(&"AKID".into()), "a mistyped session can be deleted again");
        let contested = unproven.journalled_by(&"OTHER".into());
        assert!(!contested.believes(&"AKID".into()) && !contested.believes(&"OTHER".into()));
        let open = Ledger { target: Some(contested), ..ledger(&[], Attach, &["a"]) };

        let proven = settle(open, processed(&["a"], &[]), "OTHER", &["a"]);

        let target = proven.target.unwrap();
        assert!(target.credential_proven && target.believes(&"OTHER".into()));
        assert!(
            target.journalled_by(&"AKID".into()).believes(&"OTHER".into()),
            "a proven name stays"
        );
    }

    #[test]
    fn a_target_stays_while_it_protects_something_or_is_proven_at_the_place_that_is_wanted() {
        let home = Desired { default_region: Some("south".into()), ..desired(&[]) };
        let proven = Target { credential_proven: true, ..home.target(Some(&"AKID".into())) };
        let target_for = |target: &Target, records: &[(&str, Record)], desired: &Desired| {
            Ledger { target: Some(target.clone()), ..crate::fixtures::ledger(records) }
                .target_for(desired, &"OTHER".into())
        };
        let unproven = Target { credential_proven: false, ..proven.clone() };
        let elsewhere = [
            Desired { session: crate::fixtures::desired("2", &[]).session, ..home.clone() },
            Desired { region: Some("north".into()), ..home.clone() },
            Desired { default_region: Some("north".into()), ..home.clone() },
            Desired { endpoint: "e".into(), ..home.clone() },
        ];

        assert_eq!(target_for(&proven, &[], &home), proven);
        assert_eq!(
            target_for(&unproven, &[], &home),
            home.target(Some(&"OTHER".into())),
            "a name that never worked is nobody's"
        );
        for desired in elsewhere {
            assert_eq!(
                target_for(&proven, &[], &desired),
                desired.target(Some(&"OTHER".into())),
                "{desired:?}"
            );
            let held = target_for(&proven, &[("a", Record::attached())], &desired);
            assert_eq!(held, proven, "{desired:?}");
        }
        let contested = target_for(&unproven, &[("a", Record::attached())], &home);
        assert_eq!(contested, unproven.journalled_by(&"OTHER".into()));
    }

    #[test]
    fn the_last_call_is_told_in_bounds() {
        let answer = Answer {
            code: "c".repeat(99),
            request_id: "r".repeat(999),
            ..answer(processed(&["a"], &["b", "c"]))
        };

        let settled = ledger(&[], Attach, &["a", "b", "c"]).settle(
            &answer,
            &"AKID".into(),
            &desired(&[]),
            &Rules::default(),
            false,
        );

        let call = settled.last_call.unwrap();
        assert_eq!((call.succeeded, call.failed), (1, 2));
        assert_eq!((call.code, call.request_id), ("c".repeat(64), "r".repeat(128)));
    }

    #[test]
    fn an_error_whose_fault_is_being_looked_for_is_nobodys_yet() {
        let settle = |splitting| {
            let settled = ledger(&[], Attach, &["a", "b"]).settle(
                &answer(Verdict::Unclear),
                &"AKID".into(),
                &desired(&["a", "b"]),
                &Rules::default(),
                splitting,
            );
            settled.records.get("a").unwrap().clone()
        };
        assert_eq!(settle(true), Record { state: State::Unknown, ..Record::default() });
        let blamed = settle(false);
        assert_eq!((blamed.state, blamed.refusals.unwrap().count), (State::Unknown, 1));
    }

    #[test]
    fn a_refusal_proves_no_credential() {
        let unproven = Ledger {
            target: Some(desired(&[]).target(Some(&"AKID".into()))),
            ..ledger(&[], Attach, &["a"])
        };
        assert!(
            !settle(unproven, processed(&[], &["a"]), "AKID", &["a"])
                .target
                .unwrap()
                .credential_proven
        );
    }

    #[test]
    fn a_gone_session_is_counted_for_whom_the_spec_wants_whatever_the_call_was() {
        let held = [("a", State::Attached), ("b", State::Attached)];
        let mut gone = settle(ledger(&held, Detach, &["b"]), Verdict::SessionGone, "AKID", &["a"]);
        assert_eq!(
            gone.records.keys().collect::<Vec<_>>(),
            [&id("a")],
            "the other one is out, as it should be"
        );
        gone.journal = Some(journal(Attach, &["a"]));
        let gone = settle(gone, Verdict::SessionGone, "AKID", &["a"]);
        assert_eq!(gone.records.get("a").unwrap().last_failure.as_ref().unwrap().attempts, 2);
    }

    #[test]
    fn a_ledger_remembers_a_call_by_its_doubt_by_its_answer_or_by_a_later_call() {
        let validity = Rules::default().validity;
        let open = ledger(&[], Attach, &["a", "b"]);
        let call = open.journal.clone().unwrap();
        let done = |request_id: &str| Answer {
            request_id: request_id.into(),
            ..answer(processed(&["a"], &[]))
        };
        let remembers =
            |ledger: &Ledger, answer: Option<&Answer>| ledger.remembers(&call, answer, validity);
        let nothing = Ledger { journal: None, ..open.clone() };
        assert!(!remembers(&nothing, None) && !remembers(&nothing, Some(&done("r"))));

        let doubted = open.clone().doubt(&desired(&["a", "b"]), &Rules::default());
        assert!(remembers(&doubted, None) && remembers(&doubted, Some(&done("r"))));
        let mut half = doubted.clone();
        half.records.remove("a");
        assert!(!remembers(&half, None), "one of its instances is not in doubt");
        let mut earlier = doubted;
        earlier.records.get_mut("a").unwrap().attach_until =
            Some(validity.end(call.start_time.plus(-1)));
        assert!(!remembers(&earlier, None), "that doubt is about an earlier call");
        let detach = Ledger { journal: Some(journal(Detach, &["a", "b"])), ..open.clone() };
        assert!(
            !remembers(&detach.doubt(&desired(&[]), &Rules::default()), None),
            "that doubt is about the other operation"
        );

        let settled =
            open.settle(&done("r"), &"AKID".into(), &desired(&["a"]), &Rules::default(), false);
        assert!(remembers(&settled, Some(&done("r"))));
        assert!(
            !remembers(&settled, Some(&done("other"))) && !remembers(&settled, None),
            "two calls may be signed in one second"
        );
        let last = |time: ServiceTime, operation| {
            let call = LastCall { operation, time, ..settled.last_call.clone().unwrap() };
            Ledger { last_call: Some(call), ..settled.clone() }
        };
        assert!(
            remembers(&last(call.start_time.plus(1), Attach), None),
            "a later call has ended since"
        );
        assert!(!remembers(&last(call.start_time.plus(-1), Attach), Some(&done("r"))));
        assert!(!remembers(&last(call.start_time, Detach), Some(&done("r"))));
    }
}
