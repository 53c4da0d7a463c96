//! No call of the object is open: what follows. What a person asked for comes first, then who
//! owns the session, then the next journal or a rest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Operation;
use crate::conditions::{ConditionInputs, Problem, Reason, conditions};
use crate::ids::{InstanceId, JournalId};
use crate::ledger::desired::DeletionPolicy;
use crate::ledger::plan::{Allowed, Batch, Plan, Priority};
use crate::ledger::{Journal, Ledger};
use crate::ownership::claims::Ownership;
use crate::ownership::hand_over::{HandOver, Others};
use crate::reconcile::effect::{Effect, Notice, Requeue, Resync, StepContext};
use crate::reconcile::invariants;
use crate::reconcile::machine::{Draft, PermitState, Phase, Reconcile, WAKE_MAX, Write};
use crate::reconcile::state::{Own, Stage};
use crate::reconcile::view::{Handled, LedgerState, Request, Status, View};
use crate::time::ServiceTime;

/// For so long an object believes that its keys are those of before, if that keeps it from believing
/// another one.
const IDENTITY_FRESH: Duration = Duration::from_mins(1);

/// What a person asked for and is not done yet.
fn open<'a>(asked: Option<&'a Request>, handled: Option<&String>) -> Option<&'a Request> {
    asked.filter(|request| Some(&request.value) != handled)
}

/// What may be called beside the others that claim the session.
enum Restriction {
    /// Anything.
    None,
    /// Anything, but not for these.
    AllBut(BTreeSet<InstanceId>),
    /// Detaches of these, and nothing else.
    Only(BTreeSet<InstanceId>),
}

impl Restriction {
    fn allowed(&self) -> Allowed<'_> {
        match self {
            Self::None => Allowed::All,
            Self::AllBut(ids) => Allowed::AllBut(ids),
            Self::Only(ids) => Allowed::Only(ids),
        }
    }
}

impl Reconcile {
    /// No call is open any more: `draft` is what is known.
    pub(super) fn advance(
        &mut self,
        view: &View,
        mut draft: Draft,
        context: &StepContext,
    ) -> Effect {
        let desired = &view.desired;
        let now = context.service;
        self.resync_is_over = false;
        if let Some(effect) = self.do_as_asked(view, &mut draft, context) {
            return effect;
        }
        draft.ledger = draft.ledger.tidied(desired, now);
        if matches!(context.ownership, Ownership::Unresolved(_)) && !draft.must_write {
            // Nothing is known that would be worth a write.
            return Effect::Done(Requeue::After(self.pause_for_others()));
        }
        let restriction = match self.stand_among_others(view, &mut draft, context) {
            Ok(restriction) => restriction,
            Err(effect) => return effect,
        };
        let allowed = restriction.allowed();
        // What has no room in an empty ledger never will.
        let waits_for_adoption = draft.adoption_pending && draft.no_room_for.is_empty();
        let is_done = draft.ledger.tracks_nothing() && !draft.must_write && !waits_for_adoption;
        if desired.deleting && is_done {
            return match invariants::may_go(view, &draft.ledger) {
                Ok(()) => Effect::RemoveFinalizer,
                Err(violation) => self.halt(view, violation),
            };
        }
        let mut plan = self.plan(view, &draft, allowed, context);
        // An owner that may call nobody could not read another claimant.
        let may_plan = !matches!(
            (&context.ownership, &restriction),
            (Ownership::Owner(_), Restriction::Only(_))
        );
        self.resync_is_over =
            context.resync != Resync::NotDue && may_plan && plan.batch.is_none() && !plan.held_back;
        let mut waits_for_resync = false;
        if let Some(batch) = plan.batch.take() {
            if self.identity.is_none() {
                return Effect::Credentials;
            }
            let Some(start_time) = now else { return Effect::AskTime };
            match self.permit {
                PermitState::NotAsked => return Effect::Permit(batch.priority),
                // A resync has permits of its own, so that it leaves most of the quota to others.
                PermitState::Held(granted)
                    if batch.priority != Priority::Resync || granted == Priority::Resync =>
                {
                    return self.journal(view, draft, batch, &plan, start_time, context);
                }
                // Nothing else waits for it: what there is to say is said, and timers go on.
                PermitState::Held(_) | PermitState::Denied
                    if batch.priority == Priority::Resync =>
                {
                    waits_for_resync = true;
                }
                PermitState::Held(_) | PermitState::Denied if !draft.must_write => {
                    return Effect::Done(Requeue::OnPermit(batch.priority));
                }
                PermitState::Held(_) | PermitState::Denied => {}
            }
        } else if plan.wake.is_some() && now.is_none() && self.may_ask(context) {
            return Effect::AskTime;
        }
        let Draft { ledger, handled, notices, reasons, .. } = draft;
        let status = self.status(view, ledger, handled, &plan, context);
        if let LedgerState::Current(ledger) = &status.ledger
            && status == view.status
        {
            let requeue = self.requeue(&plan, ledger, view, context);
            return Effect::Done(match requeue {
                Requeue::After(pause) if waits_for_resync => Requeue::OnResyncPermit(Some(pause)),
                _ if waits_for_resync => Requeue::OnResyncPermit(None),
                requeue => requeue,
            });
        }
        // The next decision starts from what was written, and may ask for a permit again.
        if self.permit == PermitState::Denied {
            self.permit = PermitState::NotAsked;
        }
        self.write(view, status, notices, &reasons, now)
    }

    /// What is due, the open parts of a bisection first.
    fn plan(
        &self,
        view: &View,
        draft: &Draft,
        allowed: Allowed<'_>,
        context: &StepContext,
    ) -> Plan {
        let (desired, now) = (&view.desired, context.service);
        let due =
            self.state.retry.due(context.elapsed, self.settings.rules.validity, &context.freed);
        let mut plan = draft.ledger.plan(desired, now, due, self.batch_size_max, allowed);
        plan.adoption_pending = draft.adoption_pending;
        plan.no_room_for.clone_from(&draft.no_room_for);
        plan.full |= !plan.no_room_for.is_empty();
        if let Some(bisection) = &self.state.bisection
            && due.open
            && !plan.puts_back
            && plan
                .batch
                .as_ref()
                .is_none_or(|batch| batch.operation == Operation::Attach || bisection.detaches())
        {
            plan.batch = bisection.next(&draft.ledger, desired, now, allowed).or(plan.batch);
        }
        if let Resync::Due(after) = &context.resync
            && plan.batch.is_none()
        {
            let size = self.batch_size_max;
            // One that another's detach may still hit is left alone: nothing follows from a resync.
            let others = self.others(context).ok().flatten();
            let busy = others.map(|others| others.busy(now)).unwrap_or_default();
            let allowed = if matches!(allowed, Allowed::AllBut(_)) {
                Allowed::AllBut(&busy)
            } else {
                allowed
            };
            plan.held_back |= !due.open;
            plan.batch = due
                .open
                .then(|| draft.ledger.resync(desired, after.as_ref(), size, allowed))
                .flatten();
        }
        if view.goes_on_elsewhere(&draft.ledger) {
            // First the old session is left in writing.
            plan.batch = None;
        }
        plan
    }

    /// What the spec says of leaving and what the annotations say; an effect if that has to come
    /// first.
    fn do_as_asked(
        &mut self,
        view: &View,
        draft: &mut Draft,
        context: &StepContext,
    ) -> Option<Effect> {
        let desired = &view.desired;
        let validity = self.settings.rules.validity;
        let moves = |ledger: &Ledger| {
            ledger.target.as_ref().is_some_and(|target| desired.moves_from(target))
        };
        if moves(&draft.ledger) && desired.deletion_policy == DeletionPolicy::Orphan {
            let mut left = Vec::new();
            for (id, record) in &mut draft.ledger.records {
                left.extend(record.may_be_attached().then(|| id.clone()));
                // A detach of ours may still hit it: who comes back has to know.
                *record = std::mem::take(record).forgotten();
            }
            draft.release(left, Notice::Orphaned);
        }
        if let Some(adopt) = open(view.asked.adopt.as_ref(), draft.handled.adopt.as_ref())
            && !moves(&draft.ledger)
        {
            match context.service {
                None if self.may_ask(context) => return Some(Effect::AskTime),
                None => draft.adoption_pending = true,
                Some(now) => match draft.ledger.adopt(&adopt.instances, desired, now, validity) {
                    Ok(()) => {
                        draft.handled.adopt = Some(adopt.value.clone());
                        draft.must_write = true;
                    }
                    Err(ids) => (draft.adoption_pending, draft.no_room_for) = (true, ids),
                },
            }
        }
        let forget = open(view.asked.forget.as_ref(), draft.handled.forget.as_ref());
        let named = forget.map(|forget| forget.instances.clone()).unwrap_or_default();
        let (forgotten, waits) = draft.ledger.forget(&named, desired, context.service, validity);
        draft.release(forgotten, Notice::Forgotten);
        if let Some(forget) = forget.filter(|_| !waits) {
            draft.must_write = true;
            draft.handled.forget = Some(forget.value.clone());
        }
        None
    }

    /// What the object may do beside the others that claim the session; an effect if that has to
    /// come first.
    fn stand_among_others(
        &mut self,
        view: &View,
        draft: &mut Draft,
        context: &StepContext,
    ) -> Result<Restriction, Effect> {
        match &context.ownership {
            Ownership::Uncontested => Ok(Restriction::None),
            Ownership::Owner(_) => {
                // What they have matters to who calls.
                if self.plan(view, draft, Allowed::All, context).batch.is_none() {
                    return Ok(Restriction::None);
                }
                let others = self.others(context)?;
                Ok(others.map_or(Restriction::Only(BTreeSet::new()), |others| {
                    Restriction::AllBut(others.held)
                }))
            }
            Ownership::Contender(_) => self.give_way(view, draft, context),
            Ownership::Unresolved(_) => Ok(Restriction::Only(BTreeSet::new())),
        }
    }

    /// Another object owns the session: gives way in writing, and answers what may be detached all
    /// the same.
    fn give_way(
        &mut self,
        view: &View,
        draft: &mut Draft,
        context: &StepContext,
    ) -> Result<Restriction, Effect> {
        self.state.bisection = None;
        if view.status.observed_generation != view.desired.generation {
            // An edit may have brought other credentials: what was said of the old ones keeps it
            // from its turn no longer.
            draft.ledger.last_call = None;
        }
        let reason = view.status.conditions.as_ref().map(|conditions| conditions.reason);
        if reason == Some(Reason::CredentialsNotFound)
            && self.identity.is_none()
            && self.may_ask(context)
        {
            // One without credentials comes after all that have some: whether it still has none is
            // worth a look.
            return Err(Effect::Credentials);
        }
        draft.ledger.invalidate();
        let members = view.desired.at(draft.ledger.target.as_ref());
        if !draft.ledger.has_stale_members(members) {
            return Ok(Restriction::Only(BTreeSet::new()));
        }
        let Some(others) = self.others(context)? else {
            return Ok(Restriction::Only(BTreeSet::new()));
        };
        let HandOver { handed_over, detach } =
            draft.ledger.hand_over(&others, members, context.service);
        draft.release(handed_over, Notice::HandedOver);
        draft.ledger = std::mem::take(&mut draft.ledger).tidied(&view.desired, context.service);
        Ok(Restriction::Only(detach))
    }

    /// What all others that claim the session show; none if one of them could not be read.
    pub(super) fn others(&self, context: &StepContext) -> Result<Option<Others>, Effect> {
        let unread = context.others.iter().find(|key| !self.others.contains_key(*key));
        if let Some(key) = unread {
            return Err(Effect::ReadClaimant(key.clone()));
        }
        let read = |key| self.others.get(key).and_then(Option::as_ref).map(|shown| (key, shown));
        let shown: Option<Vec<_>> = context.others.iter().map(read).collect();
        Ok(shown.map(|shown| Others::of(shown, &context.ownership)))
    }

    /// Writes the journal of the next call. What `plan` says of the rest stays told: a retry is no
    /// news.
    fn journal(
        &mut self,
        view: &View,
        mut draft: Draft,
        batch: Batch,
        plan: &Plan,
        start_time: ServiceTime,
        context: &StepContext,
    ) -> Effect {
        let Some(identity) = self.identity.clone() else { return Effect::Credentials };
        let target = draft.ledger.target_for(&view.desired, &identity);
        draft.ledger.target = Some(target.clone());
        if batch.operation == Operation::Attach
            && let Ok(Some(others)) = self.others(context)
        {
            draft.ledger.take_over_detaches(&batch.instances, &others, context.service);
        }
        let journal = Journal {
            id: JournalId(Arc::from(format!("{:032x}", context.nonce))),
            operation: batch.operation,
            instances: batch.instances,
            start_time,
            resync: batch.priority == Priority::Resync,
        };
        draft.ledger.journal = Some(journal.clone());
        // Of those whose write was not answered the last one is enough: an earlier one meets a
        // conflict.
        let unanswered = self.state.own.extract_if(.., |own| own.stage == Stage::Journalled).last();
        self.state.own.extend(unanswered);
        self.state.own.push(Own {
            journal,
            target,
            identity,
            deleting: view.desired.deleting,
            ownership: context.ownership.clone(),
            stage: Stage::Journalled,
        });
        let status = self.status(view, draft.ledger, draft.handled, plan, context);
        self.write(view, status, draft.notices, &draft.reasons, Some(start_time))
    }

    fn status(
        &self,
        view: &View,
        ledger: Ledger,
        handled: Handled,
        plan: &Plan,
        context: &StepContext,
    ) -> Status {
        let inputs = ConditionInputs {
            desired: &view.desired,
            ledger: &ledger,
            problem: self.state.problem.as_ref(),
            full: plan.full,
            no_room_for: &plan.no_room_for,
            adoption_pending: plan.adoption_pending,
            left_to_others: &plan.left_to_others,
            deletion_is_late: self.deletion_is_late(view, context),
            ownership: &context.ownership,
            now: context.service,
            rules: &self.settings.rules,
        };
        Status {
            observed_generation: view.desired.generation,
            conditions: Some(conditions(&inputs)),
            counts: Self::counts(view, &ledger),
            handled,
            ledger: LedgerState::Current(ledger),
        }
    }

    /// Writes a status that shows what became of every call of ours.
    fn write(
        &mut self,
        view: &View,
        status: Status,
        notices: Vec<Notice>,
        reasons: &invariants::RemovalReasons,
        now: Option<ServiceTime>,
    ) -> Effect {
        match invariants::may_write(view, &status, reasons, now) {
            Ok(()) => {
                let status = Box::new(status);
                let write = Write { status: status.clone(), covers_sent_calls: true };
                self.phase = Phase::Writing(write);
                Effect::WriteStatus(status, notices)
            }
            Err(violation) => self.halt(view, violation),
        }
    }

    /// When the object is due again, if nothing changes before.
    fn requeue(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        view: &View,
        context: &StepContext,
    ) -> Requeue {
        let retry = &self.state.retry;
        let deadline = plan
            .wake
            .zip(context.service)
            .map(|(until, now)| Duration::from_secs(until.since(now).try_into().unwrap_or(0)));
        // What needs a clock, and there is none: when the service may be asked again.
        let needs_clock = plan.wake.is_some() || plan.adoption_pending;
        let clock =
            (needs_clock && context.service.is_none()).then(|| retry.opens_in(context.elapsed));
        let backoff = plan.held_back.then(|| retry.opens_in(context.elapsed));
        let others = self.others_change_in(plan, ledger, view, context);
        let late = self.deletion_is_late_in(context).filter(|late| !late.is_zero());
        let wake = deadline.into_iter().chain(clock).chain(backoff).chain(others).chain(late).min();
        wake.map_or(Requeue::OnChange, |wake| Requeue::After(wake.min(WAKE_MAX)))
    }

    /// When to read the others again, or to look for the credentials: nobody tells.
    fn others_change_in(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        view: &View,
        context: &StepContext,
    ) -> Option<Duration> {
        let is_contender = matches!(context.ownership, Ownership::Contender(_));
        let asks_for_credentials = is_contender
            && matches!(self.state.problem, Some(Problem::Credentials(_)))
            && !(view.desired.wants_nothing() && ledger.tracks_nothing());
        if asks_for_credentials {
            let opens = self.state.retry.opens_in(context.elapsed);
            return Some(opens.max(self.state.retry.pause(1)));
        }
        let members = view.desired.at(ledger.target.as_ref());
        let waits = match &context.ownership {
            Ownership::Contender(_) => ledger.has_stale_members(members),
            Ownership::Unresolved(_) => true,
            Ownership::Uncontested | Ownership::Owner(_) => {
                !plan.left_to_others.is_empty() || self.others.values().any(Option::is_none)
            }
        };
        if !waits {
            self.state.waits_for_others = 0;
            return context.must_identify.then_some(IDENTITY_FRESH);
        }
        Some(self.pause_for_others())
    }

    fn pause_for_others(&mut self) -> Duration {
        self.state.waits_for_others = self.state.waits_for_others.saturating_add(1);
        self.state.retry.pause(self.state.waits_for_others)
    }
}
