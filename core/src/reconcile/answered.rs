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
            let is_believed =
                ledger.target.as_ref().is_some_and(|target| target.believes(&own.identity));
            let is_gone = answer.verdict == Verdict::SessionGone && is_believed;
            if journal.resync && !is_gone {
                // Nobody waits for it, and nothing is found out by it.
                own.stage = Stage::Answered(answer, false);
                return;
            }
            let ids = journal.instances.len();
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
                ledger.clone().settle(&answer, &own.identity, &view.desired, rules, bisecting);
            let retry = &mut self.state.retry;
            if settled.target.is_none() {
                // The session that was to be left is gone: the way to the next one is free.
                retry.reset();
            } else if given_up {
                retry.failed(context.elapsed);
            } else {
                retry.answered(&answer, context.elapsed);
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
    use crate::fixtures::{answer, context, id, journal, ledger, processed, settings, view};
    use crate::ledger::Ledger;
    use crate::ledger::record::Record;
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
            identity: "AKID".into(),
            deleting: false,
            ownership: Ownership::Uncontested,
            stage: Stage::Sent,
        };
        state.own.push(own);
        let mut reconcile = Reconcile::new(Arc::clone(&settings), state, None);
        reconcile.view = Some(Box::new(object.clone()));
        reconcile.answered(answer(verdict), &context());
        let Stage::Answered(answer, bisecting) = reconcile.state.own.remove(0).stage else {
            panic!("an answer")
        };
        let settled =
            stored.settle(&answer, &"AKID".into(), &object.desired, &settings.rules, bisecting);
        (reconcile.state, settled)
    }

    fn is_open(state: &ReconcileState) -> bool {
        state.retry.is_open(Duration::ZERO)
    }

    #[test]
    fn who_is_reached_holds_nobody_back() {
        let new = || ReconcileState::new(&settings());
        let (refused, _) = after(new(), &[], &["a", "b"], processed(&["a"], &["b"]));
        assert!(is_open(&refused), "b waits by itself");
        assert!(is_open(&after(new(), &[], &["a"], Verdict::Rejected).0), "it is the one");
        assert!(!is_open(&after(new(), &[], &["a"], Verdict::Unanswered).0), "nobody is reached");
    }

    #[test]
    fn a_batch_is_split_at_once_and_who_is_found_is_blamed() {
        let (halved, ledger) =
            after(ReconcileState::new(&settings()), &[], &["a", "b"], Verdict::Unclear);
        assert_eq!(
            (is_open(&halved), ledger.records.get("a").unwrap().refusals),
            (true, None),
            "it is nobody's fault yet"
        );

        let (lost, _) = after(halved.clone(), &[], &["a"], Verdict::Unanswered);
        assert_eq!(
            (is_open(&lost), lost.bisection.is_some()),
            (false, true),
            "nobody is reached: the search goes on later"
        );

        let (found, ledger) = after(halved.clone(), &[], &["a"], Verdict::Unclear);
        assert_eq!(
            (is_open(&found), found.bisection.is_some()),
            (true, true),
            "its neighbour need not wait"
        );
        assert_eq!(ledger.records.get("a").unwrap().refusals.unwrap().count, 1, "it is the one");
        let (over, _) = after(found, &[], &["b"], processed(&["b"], &[]));
        assert_eq!((is_open(&over), over.bisection), (true, None));
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
                (calls, state.bisection.as_ref(), is_open(&state)),
                (crate::reconcile::bisection::FRUITLESS_MAX, None, false)
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
