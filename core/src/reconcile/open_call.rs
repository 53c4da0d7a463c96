//! A call may be open: its journal stands in the object, or only we know of it.

use crate::answer::{Operation, Verdict};
use crate::conditions::ledger_unreadable;
use crate::ledger::record::{Record, State, Want};
use crate::ledger::{Journal, Ledger};
use crate::reconcile::effect::{Effect, Journalled, Notice, Requeue, StepContext};
use crate::reconcile::invariants::{self, RemovalReasons};
use crate::reconcile::machine::{Draft, PermitState, Phase, Reconcile};
use crate::reconcile::state::Stage;
use crate::reconcile::view::View;

impl Reconcile {
    /// No journal stands in the object: a call of ours may be open all the same, if somebody edited
    /// the status while it was under way.
    pub(super) fn no_open_call(
        &mut self,
        view: &View,
        stored: Ledger,
        context: &StepContext,
    ) -> Effect {
        let rules = &self.settings.rules;
        self.state.foreign = None;
        // A journal whose write was not answered may yet be stored.
        self.state.own.retain(|own| {
            own.stage == Stage::Journalled || own.is_missing_from(&stored, rules.validity)
        });
        let draft = match self.state.own.iter().find(|own| own.stage != Stage::Journalled) {
            None => Draft::of(view, stored),
            // Neither settled nor in doubt: it is remembered until that is written.
            Some(own) => {
                let target = stored.target.clone().or_else(|| Some(own.target.clone()));
                let open = Ledger { target, journal: Some(own.journal.clone()), ..stored };
                let doubt = open.doubt(&view.desired, rules);
                Draft::of_outcome(view, doubt, RemovalReasons::default())
            }
        };
        self.advance(view, draft, context)
    }

    /// The ledger is lost: it is made anew from what can be known, once there is a clock to date it
    /// with.
    pub(super) fn rebuild(
        &mut self,
        view: &View,
        why: &str,
        remains: &Ledger,
        context: &StepContext,
    ) -> Effect {
        let Some(now) = context.service else {
            if self.may_ask(context) {
                return Effect::AskTime;
            }
            let late = self.deletion_is_late(view, context);
            let conditions = ledger_unreadable(why, self.state.problem.as_ref(), late);
            let pause = self.state.retry.opens_in(context.elapsed);
            return self.report(view, conditions, Vec::new(), pause);
        };
        let mut remains = remains.clone();
        // What a call of ours may have done is not lost with the status; it is remembered until
        // that is written.
        for own in self.state.own.iter().filter(|own| own.stage != Stage::Journalled) {
            remains.target.get_or_insert_with(|| own.target.clone());
            for id in &own.journal.instances {
                let unknown = Record { state: State::Unknown, ..Record::default() };
                remains.records.insert(id.clone(), unknown);
            }
        }
        let validity = self.settings.rules.validity;
        let ledger = Ledger::rebuilt(remains, &view.desired, now, validity);
        let mut draft = Draft::of_outcome(view, ledger, RemovalReasons::default());
        draft.notices.push(Notice::Rebuilt(why.to_owned()));
        self.advance(view, draft, context)
    }

    /// A journal stands in the object: ours goes on where it is, someone else's is left alone for a
    /// while and then becomes doubt.
    pub(super) fn open_call(
        &mut self,
        view: &View,
        stored: Ledger,
        journal: Journal,
        context: &StepContext,
    ) -> Effect {
        let desired = &view.desired;
        self.state.own.retain(|own| own.journal.id == journal.id);
        let Some(own) = self.state.own.first() else {
            return self.foreign_call(view, stored, journal, context);
        };
        match &own.stage {
            Stage::Answered(answer, bisecting) => {
                let (believed, proven) = stored.target.as_ref().map_or((false, true), |target| {
                    (target.believes(&own.identity), target.credential_proven)
                });
                let gone = answer.verdict == Verdict::SessionGone && believed;
                let assumed = stored.records.iter().filter(|(_, record)| record.assumed);
                let assumed = assumed.map(|(id, _)| id.clone()).collect();
                let rules = &self.settings.rules;
                let settled = stored.settle(answer, &own.identity, desired, rules, *bisecting);
                let reasons =
                    RemovalReasons { settled: true, all: gone, ..RemovalReasons::default() };
                let mut draft = Draft::of_outcome(view, settled, reasons);
                if gone && !proven {
                    // A wrong key may have said so: what a lost ledger only assumed goes with a
                    // warning.
                    draft.release(assumed, Notice::Unproven);
                }
                self.advance(view, draft, context)
            }
            // The reconcile was cut off while it called.
            Stage::Sent => self.doubt(view, stored, context),
            Stage::Journalled => self.send(view, stored, journal, context),
        }
    }

    fn doubt(&mut self, view: &View, stored: Ledger, context: &StepContext) -> Effect {
        let doubt = stored.doubt(&view.desired, &self.settings.rules);
        self.advance(view, Draft::of_outcome(view, doubt, RemovalReasons::default()), context)
    }

    /// The writer of this journal may still be at work on it.
    fn foreign_call(
        &mut self,
        view: &View,
        stored: Ledger,
        journal: Journal,
        context: &StepContext,
    ) -> Effect {
        let since = match &self.state.foreign {
            Some((id, since)) if *id == journal.id => *since,
            _ => {
                self.state.foreign = Some((journal.id, context.elapsed));
                context.elapsed
            }
        };
        let waited = context.elapsed.saturating_sub(since);
        let rest = self.settings.foreign_journal_timeout.saturating_sub(waited);
        if rest.is_zero() {
            self.doubt(view, stored, context)
        } else {
            Effect::Done(Requeue::After(rest))
        }
    }

    /// Our journal is stored: its call is sent, or taken back if it was not written just now for
    /// what the copy shows.
    fn send(
        &mut self,
        view: &View,
        stored: Ledger,
        journal: Journal,
        context: &StepContext,
    ) -> Effect {
        let desired = &view.desired;
        let young = context.service.is_some_and(|now| {
            now.since(journal.start_time) <= self.settings.journal_age_max_seconds
        });
        let members = desired.at(stored.target.as_ref());
        // The copy may show another spec than the one that was planned for: the finalizer was
        // written in between.
        let wanted = journal.operation == Operation::Detach
            || journal.instances.iter().all(|id| members.want(id) == Want::In);
        let may_send = self.phase == Phase::Written
            && matches!(self.permit, PermitState::Held(_))
            && context.may_act;
        // Read after the journal was written: whoever writes one of his own now sees it.
        let others = match self.others(context) {
            Err(effect) if may_send => return effect,
            others => others.ok().flatten(),
        };
        let beside_others =
            others.is_some_and(|others| others.allow(&journal, &stored, context.service));
        if let Some(own) = self.state.own.first_mut()
            && let Some(target) = &stored.target
            && young
            && wanted
            && may_send
            && own.deleting == desired.deleting
            && own.ownership == context.ownership
            && beside_others
        {
            if let Err(violation) =
                invariants::may_call(view, &stored, &journal, &context.ownership)
            {
                return self.halt(view, violation);
            }
            own.stage = Stage::Sent;
            self.permit = PermitState::NotAsked;
            return Effect::Call(Box::new(Journalled::new(journal, target.clone())));
        }
        let taken_back = Ledger { journal: None, ..stored };
        let reasons = RemovalReasons { settled: true, ..RemovalReasons::default() };
        self.advance(view, Draft::of_outcome(view, taken_back, reasons), context)
    }
}
