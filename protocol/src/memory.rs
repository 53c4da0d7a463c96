//! What is remembered of an object between rounds.

use std::time::Duration;

use crate::answer::Answer;
use crate::claims::Standing;
use crate::conditions::Problem;
use crate::effect::View;
use crate::ids::{InstanceId, JournalId};
use crate::ledger::{Journal, Ledger, Target};
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
    /// The request may have left, and `stored`, whose journal is gone, shows neither its outcome nor the doubt about it.
    pub(crate) fn is_missing_from(&self, stored: &Ledger, validity: Validity) -> bool {
        // A ledger is about another session only once it has done with this one.
        let same_place = |target: &Target| target.session == self.target.session && target.endpoint == self.target.endpoint;
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

/// What is remembered of an object between rounds, in memory alone: losing it costs a wait, never a phone.
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
        self.own.iter().filter(|own| own.stage != Stage::Journalled).flat_map(|own| &own.journal.instances).collect()
    }

    /// Takes note of the copy; says whether its spec is another one than before.
    pub(crate) fn meet(&mut self, view: &View, settings: &Settings) -> bool {
        if self.uid != view.uid {
            let seed = view.uid.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
            *self = Self { uid: view.uid.clone(), retry: Retry::new(settings.retry_base, seed), ..Self::new(settings) };
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
