//! What is remembered of an object between rounds.

use std::time::Duration;

use crate::answer::Answer;
use crate::claims::Standing;
use crate::conditions::Problem;
use crate::desired::Target;
use crate::effect::View;
use crate::ids::{InstanceId, JournalId};
use crate::ledger::{Journal, Ledger};
use crate::retry::Retry;
use crate::split::Split;
use crate::step::Settings;
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
    pub(crate) credential: String,
    pub(crate) deleting: bool,
    pub(crate) standing: Standing,
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

/// What is remembered of an object between rounds, in memory alone: losing it costs a wait, never a
/// phone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    uid: String,
    pub(crate) generation: i64,
    /// The journal that stands in the object, and the one whose write is under way.
    pub(crate) own: Vec<Own>,
    pub(crate) foreign: Option<(JournalId, Duration)>,
    pub(crate) retry: Retry,
    pub(crate) split: Option<Split>,
    pub(crate) other_half_first: bool,
    pub(crate) api_failures: u32,
    pub(crate) lost_races: u32,
    pub(crate) problem: Option<Problem>,
    /// Looks at the object that drives the session, in a row.
    pub(crate) looks: u32,
    /// A promise would have been broken: nothing is done before the next edit.
    pub(crate) halted: Option<String>,
}

impl Memory {
    /// Nothing yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            uid: String::new(),
            generation: 0,
            own: Vec::new(),
            foreign: None,
            retry: Retry::new(settings.retry_base, 0),
            split: None,
            other_half_first: false,
            api_failures: 0,
            lost_races: 0,
            problem: None,
            looks: 0,
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
    pub(crate) fn meet(&mut self, view: &View, settings: &Settings) -> bool {
        if self.uid != view.uid {
            let seed = view
                .uid
                .bytes()
                .fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
            *self = Self {
                uid: view.uid.clone(),
                retry: Retry::new(settings.retry_base, seed),
                ..Self::new(settings)
            };
        }
        let edited = self.generation != view.generation;
        if edited {
            self.generation = view.generation;
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
    use crate::record::Record;
    use crate::testing::{NOW, VALIDITY, desired, id, journal, ledger, settings, view};

    fn own(stage: Stage) -> Own {
        Own {
            journal: journal(Operation::Attach, &["a"]),
            target: desired("1", &[]).target(None),
            credential: "AKID".into(),
            deleting: false,
            standing: Standing::Alone,
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
        let memory = |stage| Memory { own: vec![own(stage)], ..Memory::new(&settings()) };
        assert!(
            !memory(Stage::Journalled).owes_settle()
                && memory(Stage::Journalled).open_instances().is_empty()
        );
        assert!(!memory(Stage::Sent).owes_settle() && memory(answered()).owes_settle());
        for stage in [Stage::Sent, answered()] {
            assert_eq!(memory(stage).open_instances(), [&id("a")]);
        }
    }

    #[test]
    fn an_edit_opens_what_failed_and_another_object_of_that_name_begins_anew() {
        let settings = settings();
        let mut memory = Memory::new(&settings);
        let mut object = view(ledger(&[]), &[]);
        assert!(memory.meet(&object, &settings) && !memory.meet(&object, &settings));
        memory.own.push(own(Stage::Sent));
        memory.halted = Some("I1".into());
        memory.retry.failed(Duration::ZERO);
        let (failed, halted) = (memory.retry.clone(), memory.halted.clone());
        assert!(!memory.meet(&object, &settings));
        assert_eq!((&memory.retry, &memory.halted), (&failed, &halted));

        object.generation += 1;
        assert!(memory.meet(&object, &settings));
        assert_eq!(
            (memory.retry.whole_opens_in(Duration::ZERO), memory.halted.as_ref(), memory.own.len()),
            (Duration::ZERO, None, 1)
        );

        let retry = memory.retry.clone();
        object.uid = "v".into();
        assert!(memory.meet(&object, &settings));
        assert!(memory.own.is_empty());
        assert_ne!(memory.retry, retry, "its pauses are its own");
    }
}
