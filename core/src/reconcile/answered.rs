//! An answer has come: what it means for the bisection and the backoff. What it means for the
//! ledger is settled with the next write.

use crate::answer::{Answer, Verdict};
use crate::reconcile::bisection::{Bisection, may_be_one_ids_fault};
use crate::reconcile::effect::StepContext;
use crate::reconcile::machine::Reconcile;
use crate::reconcile::state::Stage;
use crate::reconcile::view::LedgerState;

impl Reconcile {
    pub(super) fn answered(&mut self, answer: Answer, context: &StepContext) {
        if let Some(view) = &self.view
            && let LedgerState::Current(ledger) = &view.status.ledger
            && let Some(journal) = &ledger.journal
            && let Some(own) = self.state.own.iter_mut().find(|own| own.journal.id == journal.id)
        {
            let ids = journal.instances.len();
            let was_bisecting = self.state.bisection.is_some();
            let bisection = Bisection::after(
                self.state.bisection.take(),
                journal,
                &answer,
                self.state.other_half_first,
            );
            let given_up = bisection.as_ref().is_some_and(Bisection::is_fruitless);
            self.state.other_half_first ^= given_up;
            self.state.bisection = bisection.filter(|bisection| !bisection.is_fruitless());
            let bisecting = self.state.bisection.is_some() && may_be_one_ids_fault(&answer, ids);
            let rules = &self.settings.rules;
            let settled =
                ledger.clone().settle(&answer, &own.credential, &view.desired, rules, bisecting);
            let call_failed = settled.last_call.as_ref().is_some_and(|call| call.failed > 0);
            let failing = Self::counts(view, &settled).failed > 0;
            let blames_an_id = matches!(answer.verdict, Verdict::Rejected | Verdict::Unclear);
            let retry = &mut self.state.retry;
            if settled.target.is_none() {
                // The session that was to be left is gone: the way to the next one is free.
                retry.reset();
            } else if given_up {
                retry.failed(context.elapsed);
            } else if self.state.bisection.is_some() && blames_an_id {
                // The search goes on at once; however many it finds, they are tried again after one
                // pause.
            } else if was_bisecting && self.state.bisection.is_none() && failing {
                retry.instances_failed(context.elapsed);
            } else {
                retry.answered(&answer, call_failed, failing, context.elapsed);
            }
            own.stage = Stage::Answered(answer, bisecting);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::answer::Operation;
    use crate::fixtures::{NOW, answer, context, id, journal, ledger, processed, settings, view};
    use crate::ledger::Ledger;
    use crate::ledger::plan::Due;
    use crate::ledger::record::Record;
    use crate::ledger::record::{Failure, FailureReason};
    use crate::ownership::claims::Ownership;
    use crate::reconcile::state::Own;
    use crate::reconcile::state::ReconcileState;

    /// What is remembered after this answer to a call of `called`; the object wants a, b and z. The
    /// ledger as it is settled, too.
    fn after(
        mut state: ReconcileState,
        records: &[(&str, Record)],
        called: &[&str],
        verdict: Verdict,
    ) -> (ReconcileState, Ledger) {
        let settings = settings();
        let journal = journal(Operation::Attach, called);
        let stored = Ledger { journal: Some(journal.clone()), ..ledger(records) };
        let object = view(stored.clone(), &["a", "b", "z"]);
        let target = stored.target.clone().unwrap();
        let own = Own {
            journal,
            target,
            credential: "AKID".into(),
            deleting: false,
            ownership: Ownership::Uncontested,
            stage: Stage::Sent,
        };
        state.own.push(own);
        let mut reconcile = Reconcile::new(Arc::clone(&settings), state, false);
        reconcile.view = Some(Box::new(object.clone()));
        reconcile.answered(answer(verdict), &context());
        let Stage::Answered(answer, bisecting) = reconcile.state.own.remove(0).stage else {
            panic!("an answer")
        };
        let settled = stored.settle(&answer, "AKID", &object.desired, &settings.rules, bisecting);
        (reconcile.state, settled)
    }

    fn due(state: &ReconcileState) -> (bool, bool) {
        let Due { fresh, failed } = state.retry.due(Duration::ZERO);
        (fresh, failed)
    }

    fn failed_before() -> Record {
        let (operation, reason, code) = (Operation::Attach, FailureReason::Refused, String::new());
        Record {
            last_failure: Some(Failure { operation, reason, code, attempts: 1, time: NOW }),
            ..Record::default()
        }
    }

    #[test]
    fn who_failed_is_held_back_until_nobody_is_failing() {
        let new = || ReconcileState::new(&settings());
        let (refused, _) = after(new(), &[], &["a", "b"], processed(&["a"], &["b"]));
        assert_eq!(due(&refused), (true, false));
        assert_eq!(due(&after(new(), &[], &["a"], processed(&["a"], &[])).0), (true, true));
        let failing = [("z", failed_before())];
        assert_eq!(
            due(&after(refused.clone(), &failing, &["a"], processed(&["a"], &[])).0),
            (true, false),
            "z is failing"
        );
        assert_eq!(due(&after(refused, &[], &["b"], processed(&["b"], &[])).0), (true, true));
        assert_eq!(
            due(&after(new(), &failing, &["a"], Verdict::Unanswered).0),
            (false, false),
            "nobody is reached"
        );
        assert_eq!(
            due(&after(new(), &[], &["a"], Verdict::Rejected).0),
            (true, false),
            "it is the one"
        );
    }

    #[test]
    fn a_batch_is_split_at_once_and_who_is_found_waits_once() {
        let (halved, ledger) =
            after(ReconcileState::new(&settings()), &[], &["a", "b"], Verdict::Unclear);
        assert_eq!(
            (due(&halved), ledger.records.get("a").unwrap().refusals),
            ((true, true), None),
            "it is nobody's fault yet"
        );

        let (lost, _) = after(halved.clone(), &[], &["a"], Verdict::Unanswered);
        assert_eq!(
            (due(&lost), lost.bisection.is_some()),
            ((false, false), true),
            "nobody is reached: the search goes on later"
        );

        let (found, ledger) = after(halved.clone(), &[], &["a"], Verdict::Unclear);
        assert_eq!(
            (due(&found), found.bisection.is_some()),
            ((true, true), true),
            "its neighbour need not wait"
        );
        assert_eq!(ledger.records.get("a").unwrap().refusals.unwrap().count, 1, "it is the one");
        let (over, _) = after(found, &[("a", failed_before())], &["b"], processed(&["b"], &[]));
        assert_eq!((due(&over), over.bisection), ((true, false), None));

        let (one, _) = after(halved, &[], &["a"], processed(&["a"], &[]));
        assert_eq!(
            due(&after(one, &[], &["b"], processed(&["b"], &[])).0),
            (true, true),
            "it was nobody's"
        );
    }

    #[test]
    fn a_split_that_is_given_up_begins_with_the_other_half_next_time() {
        let mut state = ReconcileState::new(&settings());
        for other_half_first in [true, false] {
            let mut calls = 0;
            let mut settled = Ledger::default();
            while state.other_half_first != other_half_first {
                (state, settled) = after(state, &[], &["a", "b"], Verdict::Unclear);
                calls += 1;
                assert!(calls <= crate::reconcile::bisection::FRUITLESS_MAX, "it never ends");
            }
            assert_eq!(
                (calls, state.bisection.as_ref(), due(&state)),
                (crate::reconcile::bisection::FRUITLESS_MAX, None, (false, false))
            );
            assert!(settled.records.get(&id("a")).unwrap().refusals.is_some(), "now it counts");
            let (next, _) = after(state.clone(), &[], &["a", "b"], Verdict::Unclear);
            let called = journal(Operation::Attach, &["a", "b"]);
            assert_eq!(
                next.bisection,
                Bisection::after(None, &called, &answer(Verdict::Unclear), other_half_first)
            );
        }
    }
}
