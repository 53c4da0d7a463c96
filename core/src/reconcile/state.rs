//! What is remembered of an object between reconciles.

use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::conditions::Problem;
use crate::identity::Identity;
use crate::ids::{InstanceId, JournalId};
use crate::ledger::desired::Target;
use crate::ledger::{Journal, Ledger};
use crate::ownership::claims::Ownership;
use crate::reconcile::bisection::Bisection;
use crate::reconcile::invariants::Violation;
use crate::reconcile::retry::Retry;
use crate::reconcile::settings::Settings;
use crate::reconcile::view::View;
use crate::time::Validity;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// The journal's write is under way or done.
    Journalled,
    /// The request may be on its way.
    Sent,
    /// This is its answer; whether its batch is being split because of it.
    Answered(Answer, bool),
}

/// A journal of this process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Own {
    pub(crate) journal: Journal,
    pub(crate) target: Target,
    pub(crate) identity: Identity,
    pub(crate) deleting: bool,
    pub(crate) ownership: Ownership,
    pub(crate) stage: Stage,
}

impl Own {
    /// The request may have left, and `stored`, whose journal is gone, shows neither its outcome
    /// nor the doubt about it.
    pub(crate) fn is_missing_from(&self, stored: &Ledger, validity: Validity) -> bool {
        // A ledger is about another session only once it has done with this one.
        let same_place = |target: &Target| {
            target.session == self.target.session && target.endpoint == self.target.endpoint
        };
        if !stored.target.as_ref().is_none_or(same_place) {
            return false;
        }
        let answer = match &self.stage {
            Stage::Journalled => return false,
            Stage::Sent => None,
            Stage::Answered(answer, _) => Some(answer),
        };
        !stored.remembers(&self.journal, answer, validity)
    }
}

/// What is remembered of an object between reconciles, in memory alone: losing it costs a wait,
/// never a phone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReconcileState {
    uid: Arc<str>,
    pub(crate) generation: i64,
    /// The journal that stands in the object, and the one whose write is under way.
    pub(crate) own: Vec<Own>,
    pub(crate) foreign: Option<(JournalId, Duration)>,
    pub(crate) retry: Retry,
    pub(crate) bisection: Option<Bisection>,
    pub(crate) other_half_first: bool,
    pub(crate) api_failures: u32,
    pub(crate) conflicts: u32,
    pub(crate) problem: Option<Problem>,
    /// How often in a row the reconcile ended because of what another object has.
    pub(crate) waits_for_others: u32,
    /// When its deletion was seen first.
    pub(crate) deleting_since: Option<Duration>,
    /// A promise would have been broken: nothing is done before the next edit.
    pub(crate) halted: Option<Violation>,
}

impl ReconcileState {
    /// Nothing yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            uid: "".into(),
            generation: 0,
            own: Vec::new(),
            foreign: None,
            retry: Retry::new(settings.backoff(0)),
            bisection: None,
            other_half_first: false,
            api_failures: 0,
            conflicts: 0,
            problem: None,
            waits_for_others: 0,
            deleting_since: None,
            halted: None,
        }
    }

    /// Whether an answer is known that the object does not show yet.
    #[must_use]
    pub fn owes_settle(&self) -> bool {
        self.own.iter().any(|own| matches!(own.stage, Stage::Answered(..)))
    }

    /// Instances of calls that were sent and are not accounted for in the object.
    #[must_use]
    pub fn open_instances(&self) -> Vec<&InstanceId> {
        self.own
            .iter()
            .filter(|own| own.stage != Stage::Journalled)
            .flat_map(|own| &own.journal.instances)
            .collect()
    }

    /// Takes note of the copy; says whether its spec is another one than before.
    pub(crate) fn observe(&mut self, view: &View, settings: &Settings) -> bool {
        if self.uid != view.uid {
            let seed = view
                .uid
                .bytes()
                .fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
            *self = Self {
                uid: Arc::clone(&view.uid),
                retry: Retry::new(settings.backoff(seed)),
                ..Self::new(settings)
            };
        }
        let edited = self.generation != view.desired.generation;
        if edited {
            self.generation = view.desired.generation;
            self.retry.reset();
            self.halted = None;
        }
        edited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Operation;
    use crate::fixtures::{NOW, VALIDITY, desired, id, journal, ledger, settings, view};
    use crate::ledger::record::Record;

    fn own(stage: Stage) -> Own {
        Own {
            journal: journal(Operation::Attach, &["a"]),
            target: desired("1", &[]).target(None),
            identity: "AKID".into(),
            deleting: false,
            ownership: Ownership::Uncontested,
            stage,
        }
    }

    fn answered() -> Stage {
        Stage::Answered(Answer::unanswered("", ""), false)
    }

    #[test]
    fn a_call_that_was_sent_is_missing_from_a_ledger_of_its_session_that_does_not_show_it() {
        let empty = ledger(&[]);
        for stage in [Stage::Sent, answered()] {
            let own = own(stage);
            assert!(own.is_missing_from(&empty, VALIDITY));
            assert!(
                own.is_missing_from(&Ledger::default(), VALIDITY),
                "one that says nothing of any session shows it neither"
            );
            let doubt = Record { attach_until: Some(VALIDITY.end(NOW)), ..Record::default() };
            assert!(!own.is_missing_from(&ledger(&[("a", doubt)]), VALIDITY));
            let of = |target| Ledger { target: Some(target), ..empty.clone() };
            let there = own.target.clone();
            assert!(!own.is_missing_from(&of(desired("2", &[]).target(None)), VALIDITY));
            assert!(!own.is_missing_from(&of(Target { endpoint: "e".into(), ..there }), VALIDITY));
        }
        assert!(!own(Stage::Journalled).is_missing_from(&empty, VALIDITY));
    }

    #[test]
    fn what_was_sent_is_open_and_what_was_answered_is_owed() {
        let state =
            |stage| ReconcileState { own: vec![own(stage)], ..ReconcileState::new(&settings()) };
        assert!(
            !state(Stage::Journalled).owes_settle()
                && state(Stage::Journalled).open_instances().is_empty()
        );
        assert!(!state(Stage::Sent).owes_settle() && state(answered()).owes_settle());
        for stage in [Stage::Sent, answered()] {
            assert_eq!(state(stage).open_instances(), [&id("a")]);
        }
    }

    #[test]
    fn an_edit_opens_what_failed_and_another_object_of_that_name_begins_anew() {
        let settings = settings();
        let mut state = ReconcileState::new(&settings);
        let mut object = view(ledger(&[]), &[]);
        assert!(state.observe(&object, &settings) && !state.observe(&object, &settings));
        state.own.push(own(Stage::Sent));
        state.halted = Some(Violation::FalseReady);
        state.retry.failed(Duration::ZERO);
        let (failed, halted) = (state.retry.clone(), state.halted.clone());
        assert!(!state.observe(&object, &settings));
        assert_eq!((&state.retry, &state.halted), (&failed, &halted));

        object.desired.generation += 1;
        assert!(state.observe(&object, &settings));
        assert_eq!(
            (state.retry.opens_in(Duration::ZERO), state.halted.as_ref(), state.own.len()),
            (Duration::ZERO, None, 1)
        );

        let retry = state.retry.clone();
        object.uid = "v".into();
        assert!(state.observe(&object, &settings));
        assert!(state.own.is_empty());
        assert_ne!(state.retry, retry, "its pauses are its own");
    }
}
