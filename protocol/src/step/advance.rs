//! What follows once no call of the object is open: what a person asked for, who drives the
//! session, then the next journal or a rest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Permit, Round, WAKE_MAX};
use crate::answer::Operation;
use crate::claims::Standing;
use crate::conditions::{Counts, Problem, Reason, Scene, conditions, invariant_violated};
use crate::desired::DeletionPolicy;
use crate::effect::{Effect, End, Found, Handled, Moment, Notice, Request, Status, View};
use crate::ids::{InstanceId, JournalId};
use crate::invariants::{self, Grounds};
use crate::ledger::{Journal, Ledger};
use crate::memory::{Own, Stage};
use crate::plan::{Allowed, Batch, Plan};
use crate::rival::Concession;
use crate::time::ServiceTime;

/// What is known of an object whose call is over, on its way into a write.
pub(super) struct Account {
    pub(super) ledger: Ledger,
    /// It says more than the object does, and that can't wait for a permit.
    pub(super) must_write: bool,
    pub(super) handled: Handled,
    pub(super) notices: Vec<Notice>,
    pub(super) grounds: Grounds,
    /// Instances that a person told of are not in the ledger yet.
    pub(super) untold: bool,
    /// There is no room for them.
    pub(super) full: bool,
}

impl Account {
    pub(super) fn of(view: &View, ledger: Ledger) -> Self {
        let handled = view.status.handled.clone();
        Self {
            ledger,
            must_write: false,
            handled,
            notices: Vec::new(),
            grounds: Grounds::default(),
            untold: false,
            full: false,
        }
    }

    /// Lets go of instances on the grounds that `notice` names.
    pub(super) fn let_go(&mut self, ids: Vec<InstanceId>, notice: fn(Vec<InstanceId>) -> Notice) {
        if !ids.is_empty() {
            self.grounds.named.extend(ids.iter().cloned());
            self.notices.push(notice(ids));
            self.must_write = true;
        }
    }
}

/// What a person asked for and is not done yet.
fn open<'a>(asked: Option<&'a Request>, handled: Option<&String>) -> Option<&'a Request> {
    asked.filter(|request| Some(&request.value) != handled)
}

impl Round<'_> {
    /// No call is open any more: `account` is what is known.
    pub(super) fn advance(&mut self, view: &View, mut account: Account, moment: &Moment) -> Effect {
        let desired = &view.desired;
        // Without a clock no deadline is over.
        let now = moment.service.unwrap_or(ServiceTime(i64::MIN));
        if let Some(effect) = self.do_as_asked(view, &mut account, moment) {
            return effect;
        }
        account.ledger = account.ledger.tidied(desired, now);
        if moment.displaced {
            account.ledger.distrust();
        }
        let detach;
        let allowed = match &moment.standing {
            Standing::Alone => Allowed::All,
            Standing::First(_) => Allowed::NoGuesses,
            Standing::Behind(owner) => match self.give_way(view, &mut account, owner, moment) {
                Ok(ours) => {
                    detach = ours;
                    Allowed::Only(&detach)
                }
                Err(effect) => return effect,
            },
        };
        if desired.deleting
            && account.ledger.holds_nothing()
            && !account.must_write
            && !account.untold
        {
            return match invariants::may_go(view, &account.ledger) {
                Ok(()) => Effect::RemoveFinalizer,
                Err(violation) => self.halt(view, violation),
            };
        }
        let due = self.memory.retry.due(moment.elapsed);
        let mut plan = account.ledger.plan(desired, now, due, self.batch_size_max, allowed);
        plan.untold = account.untold;
        plan.full |= account.full;
        if let Some(split) = &self.memory.split
            && due.fresh
            && plan
                .batch
                .as_ref()
                .is_none_or(|batch| batch.operation == Operation::Attach || split.detaches())
        {
            plan.batch = split.next(&account.ledger, desired, now, allowed).or(plan.batch);
        }
        if view.goes_on_elsewhere(&account.ledger) {
            // First the old session is left in writing.
            plan.batch = None;
        }
        if let Some(batch) = plan.batch.take() {
            if self.credential.is_none() {
                return Effect::Credentials;
            }
            if moment.service.is_none() {
                return Effect::AskTime;
            }
            match self.permit {
                Permit::Unknown => return Effect::Permit,
                Permit::Denied if !account.must_write => {
                    return Effect::End(End::AwaitPermit(batch.urgency));
                }
                Permit::Denied => {}
                Permit::Held => return self.journal(view, account, batch, now, moment),
            }
        } else if plan.wake.is_some() && moment.service.is_none() && self.may_ask(moment) {
            return Effect::AskTime;
        }
        let said = self.status(view, account.ledger, account.handled, &plan, now, moment);
        if let Found::Ours(ledger) = &said.found
            && said == view.status
        {
            return Effect::End(self.wake(&plan, ledger, view, moment));
        }
        // The next decision starts from what was written, and may ask for a permit again.
        if self.permit == Permit::Denied {
            self.permit = Permit::Unknown;
        }
        self.write(view, said, account.notices, &account.grounds, now)
    }

    /// What the spec says of leaving and what the annotations say; an effect if that has to come
    /// first.
    fn do_as_asked(
        &mut self,
        view: &View,
        account: &mut Account,
        moment: &Moment,
    ) -> Option<Effect> {
        let desired = &view.desired;
        let validity = self.settings.rules.validity;
        let moves = |ledger: &Ledger| {
            ledger.target.as_ref().is_some_and(|target| desired.moves_from(target))
        };
        if moves(&account.ledger) && desired.deletion_policy == DeletionPolicy::Orphan {
            let left = std::mem::take(&mut account.ledger);
            account.let_go(
                left.records
                    .into_iter()
                    .filter(|(_, record)| record.holds())
                    .map(|(id, _)| id)
                    .collect(),
                Notice::Orphaned,
            );
        }
        if let Some(adopt) = open(view.asked.adopt.as_ref(), account.handled.adopt.as_ref())
            && !moves(&account.ledger)
        {
            match moment.service {
                None if self.may_ask(moment) => return Some(Effect::AskTime),
                Some(now) if account.ledger.adopt(&adopt.instances, desired, now, validity) => {
                    account.handled.adopt = Some(adopt.value.clone());
                    account.must_write = true;
                }
                clock => (account.untold, account.full) = (true, clock.is_some()),
            }
        }
        let forget = open(view.asked.forget.as_ref(), account.handled.forget.as_ref());
        let named = forget.map(|forget| forget.instances.clone()).unwrap_or_default();
        let now = moment.service.unwrap_or(ServiceTime(i64::MIN));
        let (forgotten, waits) = account.ledger.forget(&named, desired, now, validity);
        account.let_go(forgotten, Notice::Forgotten);
        if let Some(forget) = forget.filter(|_| !waits) {
            account.must_write = true;
            account.handled.forget = Some(forget.value.clone());
        }
        None
    }

    /// Another object drives the session: answers what may be detached all the same, or the effect
    /// that has to come first.
    fn give_way(
        &mut self,
        view: &View,
        account: &mut Account,
        owner: &Arc<str>,
        moment: &Moment,
    ) -> Result<BTreeSet<InstanceId>, Effect> {
        self.memory.split = None;
        if view.status.observed_generation != view.generation {
            // An edit may have brought other credentials: what was said of the old ones keeps it
            // from its turn no longer.
            account.ledger.last_call = None;
        }
        let told = view.status.conditions.as_ref().map(|conditions| conditions.reason);
        if told == Some(Reason::CredentialsNotFound)
            && self.credential.is_none()
            && self.memory.retry.due(moment.elapsed).fresh
        {
            // One without credentials never drives a session: whether it still has none is worth a
            // look.
            return Err(Effect::Credentials);
        }
        let wish = view.desired.at(account.ledger.target.as_ref());
        let shown = match &self.owner {
            Some((name, shown)) if name == owner => shown.clone(),
            _ if account.ledger.has_leavings(wish) => {
                self.owner = Some((Arc::clone(owner), None));
                return Err(Effect::ReadOwner(Arc::clone(owner)));
            }
            _ => None,
        };
        let now = moment.service.unwrap_or(ServiceTime(i64::MIN));
        let Concession { handed_over, doubtful, detach } =
            account.ledger.concede(shown.as_ref(), wish, now);
        account.let_go(handed_over, Notice::HandedOver);
        account.let_go(doubtful, Notice::Doubtful);
        account.ledger = std::mem::take(&mut account.ledger).tidied(&view.desired, now);
        Ok(detach)
    }

    pub(super) fn may_ask(&self, moment: &Moment) -> bool {
        self.memory.retry.due(moment.elapsed).fresh
    }

    fn journal(
        &mut self,
        view: &View,
        mut account: Account,
        batch: Batch,
        now: ServiceTime,
        moment: &Moment,
    ) -> Effect {
        let Some(credential) = self.credential.clone() else { return Effect::Credentials };
        let target = account.ledger.target_for(&view.desired, &credential);
        account.ledger.target = Some(target.clone());
        let journal = Journal {
            id: JournalId(Arc::from(format!("{:032x}", moment.nonce))),
            operation: batch.operation,
            instances: batch.instances,
            start_time: now,
        };
        account.ledger.journal = Some(journal.clone());
        let standing = moment.standing.clone();
        // Of those whose write was not answered the last one is enough: an earlier one meets a
        // conflict.
        let unanswered =
            self.memory.own.extract_if(.., |own| own.stage == Stage::Journalled).last();
        self.memory.own.extend(unanswered);
        self.memory.own.push(Own {
            journal,
            target,
            credential,
            deleting: view.desired.deleting,
            standing,
            stage: Stage::Journalled,
        });
        let said =
            self.status(view, account.ledger, account.handled, &Plan::default(), now, moment);
        self.write(view, said, account.notices, &account.grounds, now)
    }

    fn status(
        &self,
        view: &View,
        ledger: Ledger,
        handled: Handled,
        plan: &Plan,
        now: ServiceTime,
        moment: &Moment,
    ) -> Status {
        let scene = Scene {
            desired: &view.desired,
            ledger: &ledger,
            problem: self.memory.problem.as_ref(),
            full: plan.full,
            untold: plan.untold,
            guesses: plan.guesses,
            standing: &moment.standing,
            now,
            rules: &self.settings.rules,
        };
        Status {
            observed_generation: view.generation,
            conditions: Some(conditions(&scene)),
            counts: Counts::of(&view.desired, &ledger),
            handled,
            found: Found::Ours(ledger),
        }
    }

    fn write(
        &mut self,
        view: &View,
        status: Status,
        notices: Vec<Notice>,
        grounds: &Grounds,
        now: ServiceTime,
    ) -> Effect {
        self.accounts = true;
        match invariants::may_write(view, &status, grounds, now) {
            Ok(()) => Effect::WriteStatus(Box::new(status), notices),
            Err(violation) => self.halt(view, violation),
        }
    }

    /// A promise would be broken: that is an error in this program, and guessing would make it
    /// worse.
    pub(super) fn halt(&mut self, view: &View, violation: String) -> Effect {
        self.memory.halted = Some(violation.clone());
        Self::say(view, invariant_violated(&violation), vec![Notice::Violated(violation)], WAKE_MAX)
    }

    fn wake(&mut self, plan: &Plan, ledger: &Ledger, view: &View, moment: &Moment) -> End {
        let deadline = plan
            .wake
            .zip(moment.service)
            .map(|(until, now)| Duration::from_secs(until.since(now).try_into().unwrap_or(0)));
        // What needs a clock, and there is none: when the service may be asked again.
        let clock = ((plan.wake.is_some() || plan.untold) && moment.service.is_none())
            .then(|| self.memory.retry.whole_opens_in(moment.elapsed));
        let backoff = self.memory.retry.opens_in(plan.held_back, moment.elapsed);
        let owner = self.look_again(ledger, view, moment);
        let wake = deadline.into_iter().chain(clock).chain(backoff).chain(owner).min();
        wake.map_or(End::OnChange, |wake| End::After(wake.min(WAKE_MAX)))
    }

    /// When to look at the owner again, or for the credentials: nobody tells.
    fn look_again(&mut self, ledger: &Ledger, view: &View, moment: &Moment) -> Option<Duration> {
        if !matches!(moment.standing, Standing::Behind(_)) {
            self.memory.looks = 0;
            return None;
        }
        if matches!(self.memory.problem, Some(Problem::Credentials(_))) {
            return Some(self.memory.retry.whole_opens_in(moment.elapsed));
        }
        ledger.has_leavings(view.desired.at(ledger.target.as_ref())).then(|| {
            self.memory.looks = self.memory.looks.saturating_add(1);
            self.memory.retry.pause(self.memory.looks)
        })
    }
}
