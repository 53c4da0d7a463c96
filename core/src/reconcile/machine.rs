//! The state of one reconcile, and what all of its steps need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::conditions::messages::says_how_to_orphan;
use crate::conditions::{Conditions, Counts, invariant_violated};
use crate::identity::Identity;
use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::ledger::desired::DesiredMembers;
use crate::ledger::plan::Priority;
use crate::object::ObjectKey;
use crate::ownership::claims::Place;
use crate::ownership::hand_over::Shown;
use crate::reconcile::effect::{Effect, Notice, Requeue, StepContext};
use crate::reconcile::invariants::{RemovalReasons, Violation};
use crate::reconcile::retry::RETRY_MAX;
use crate::reconcile::settings::Settings;
use crate::reconcile::state::ReconcileState;
use crate::reconcile::view::{Handled, Status, View};

/// The longest sleep: a look too early costs a read, and a deadline that somebody wrote into the
/// far future must not break a timer.
pub(super) const WAKE_MAX: Duration = Duration::from_hours(1);

/// One reconcile of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reconcile {
    pub(super) settings: Arc<Settings>,
    pub(super) state: ReconcileState,
    pub(super) view: Option<Box<View>>,
    pub(super) phase: Phase,
    /// Whose the credentials are, once they were found.
    pub(super) identity: Option<Identity>,
    pub(super) permit: PermitState,
    /// The others that claim the session and were read since this copy came; and what they show, if
    /// they could be read.
    pub(super) others: BTreeMap<ObjectKey, Option<Shown>>,
    pub(super) reads: u32,
    pub(super) effects: u32,
    /// What stopped the work was reported, and the copy does not show it: it is not stored.
    pub(super) reported: bool,
    /// Nothing is left of the resync that was due.
    pub(super) resync_is_over: bool,
    pub(super) batch_size_max: usize,
}

/// Where the copy of the object comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// It was read, or is being read: another writer's journal may stand in it.
    Read,
    /// A status is being written.
    Writing(Write),
    /// The finalizer is being put on.
    AddingFinalizer,
    /// The finalizer is being taken off.
    RemovingFinalizer,
    /// It is what a write of this reconcile returned: our journal in it may be sent.
    Written,
}

/// A status on its way to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) status: Box<Status>,
    /// It shows what became of every call of ours that was sent.
    pub(super) covers_sent_calls: bool,
}

/// Whether the reconcile may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PermitState {
    /// It did not ask yet, or has used its permit.
    NotAsked,
    /// It holds a permit, for a call of that priority.
    Held(Priority),
    /// None was at hand.
    Denied,
}

/// What is known of an object, on its way into a status.
pub(super) struct Draft {
    pub(super) ledger: Ledger,
    /// It says more than the object does, and that can't wait for a permit.
    pub(super) must_write: bool,
    pub(super) handled: Handled,
    pub(super) notices: Vec<Notice>,
    pub(super) reasons: RemovalReasons,
    /// Instances that the annotation `adopt` names are not in the ledger yet.
    pub(super) adoption_pending: bool,
    /// These of them are not, since there is no room.
    pub(super) no_room_for: Vec<InstanceId>,
}

impl Draft {
    pub(super) fn of(view: &View, ledger: Ledger) -> Self {
        Self {
            ledger,
            must_write: false,
            handled: view.status.handled.clone(),
            notices: Vec::new(),
            reasons: RemovalReasons::default(),
            adoption_pending: false,
            no_room_for: Vec::new(),
        }
    }

    /// A ledger that has to be written at once, and why instances may be missing from it.
    pub(super) fn of_outcome(view: &View, ledger: Ledger, reasons: RemovalReasons) -> Self {
        Self { must_write: true, reasons, ..Self::of(view, ledger) }
    }

    /// Releases instances for the reason that `notice` names.
    pub(super) fn release(&mut self, ids: Vec<InstanceId>, notice: fn(Vec<InstanceId>) -> Notice) {
        if !ids.is_empty() {
            self.reasons.named.extend(ids.iter().cloned());
            self.notices.push(notice(ids));
            self.must_write = true;
        }
    }
}

impl Reconcile {
    /// A reconcile that continues from `state`; `permit` says for which priority one was granted to
    /// it, if one was.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        mut state: ReconcileState,
        permit: Option<Priority>,
    ) -> Self {
        // Whatever kept the API server from storing it may be gone.
        state.halted.take_if(|violation| matches!(violation, Violation::NotStored(_)));
        Self {
            batch_size_max: settings.rules.batch_size_max,
            settings,
            state,
            view: None,
            phase: Phase::Read,
            identity: None,
            permit: permit.map_or(PermitState::NotAsked, PermitState::Held),
            others: BTreeMap::new(),
            reads: 0,
            effects: 0,
            reported: false,
            resync_is_over: false,
        }
    }

    /// The account's calls may name so many ids and no more.
    pub fn limit_batches(&mut self, ids: usize) {
        self.batch_size_max = self.batch_size_max.min(ids);
    }

    /// The permit is gone: it was for another account, or the process stops.
    pub fn lose_permit(&mut self) {
        self.permit = PermitState::NotAsked;
    }

    /// Whether nothing is left of the resync that was due.
    #[must_use]
    pub fn resync_is_over(&self) -> bool {
        self.resync_is_over
    }

    /// What is known besides the object.
    #[must_use]
    pub fn state(&self) -> &ReconcileState {
        &self.state
    }

    /// What to keep for the next reconcile.
    #[must_use]
    pub fn into_state(self) -> ReconcileState {
        self.state
    }

    /// The session whose ownership counts, once the object was read.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.view.as_ref().map(|view| view.place())
    }

    /// Who is to be in the session that the ledger is about, once the object was read.
    #[must_use]
    pub fn wanted(&self) -> BTreeSet<&InstanceId> {
        let members = self.view.iter().map(|view| {
            let target = view.own_ledger().and_then(|ledger| ledger.target.as_ref());
            view.desired.at(target)
        });
        members.flat_map(DesiredMembers::instances).collect()
    }

    /// The endpoint whose clock and permits count, once the object was read.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Arc<str>> {
        self.view.as_ref().map(|view| view.endpoint())
    }

    /// How long until the deletion has waited for the longest time that any doubt takes; then
    /// users are told how to end it.
    pub(super) fn deletion_is_late_in(&self, context: &StepContext) -> Option<Duration> {
        let late = self.settings.rules.validity.duration();
        self.state.deleting_since.map(|since| (since + late).saturating_sub(context.elapsed))
    }

    /// Whether users are told how to end the deletion. What another operator told them stays: it
    /// may have seen the deletion earlier, and the two would write for ever.
    pub(super) fn deletion_is_late(&self, view: &View, context: &StepContext) -> bool {
        let told = view.status.conditions.as_ref().is_some_and(says_how_to_orphan);
        view.desired.deleting && (told || self.deletion_is_late_in(context) == Some(Duration::ZERO))
    }

    /// Whether the service may be asked for its time, and a Secret be looked for.
    pub(super) fn may_ask(&self, context: &StepContext) -> bool {
        self.state.retry.is_open(context.elapsed)
    }

    /// Reports these conditions and touches nothing else; looks again after `pause`.
    pub(super) fn report(
        &mut self,
        view: &View,
        conditions: Conditions,
        notices: Vec<Notice>,
        pause: Duration,
    ) -> Effect {
        let status = Status {
            observed_generation: view.desired.generation,
            conditions: Some(conditions),
            ..view.status.clone()
        };
        if status == view.status || self.reported {
            Effect::Done(Requeue::After(pause.min(WAKE_MAX)))
        } else {
            self.reported = true;
            Effect::WriteStatus(Box::new(status), notices)
        }
    }

    /// A promise would be broken: that is an error in this program, and guessing would make it
    /// worse.
    pub(super) fn halt(&mut self, view: &View, violation: Violation) -> Effect {
        self.state.halted = Some(violation.clone());
        self.report_violation(view, violation)
    }

    /// The work on this object has stopped. What was not stored is tried again after a while: it
    /// is not our error.
    pub(super) fn report_violation(&mut self, view: &View, violation: Violation) -> Effect {
        let pause = match violation {
            Violation::NotStored(_) => RETRY_MAX,
            _ => WAKE_MAX,
        };
        let conditions = invariant_violated(&violation);
        self.report(view, conditions, vec![Notice::Violated(violation)], pause)
    }

    /// How many instances are as the spec wants them.
    pub(super) fn counts(view: &View, ledger: &Ledger) -> Counts {
        Counts::of(&view.desired, ledger)
    }
}
