//! One step: the response to the last effect goes in, the next effect comes out. The driver
//! performs it and feeds its response back.
//!
//! ```text
//!  Read ─▶ nothing is due ─▶ Done
//!       ─▶ a call is due: Credentials, AskTime, Permit ─▶ WriteStatus(journal) ─▶ AddFinalizer?
//!          ─▶ Call ─▶ WriteStatus(outcome, next journal?) ─▶ …
//!       ─▶ deleted, and nothing is tracked ─▶ RemoveFinalizer ─▶ Done
//! ```
//!
//! There is no program counter: after each response [`Reconcile::step`] decides anew from the
//! object's copy and from [`ReconcileState`](super::ReconcileState). So it makes no difference at
//! which effect a reconcile was cut off: the next one reads and goes on, or, in another process,
//! finds the journal.

use crate::answer::{NothingDone, Verdict};
use crate::conditions::{Problem, another_service};
use crate::ledger::Ledger;
use crate::ledger::desired::DeletionPolicy;
use crate::reconcile::effect::{Effect, Requeue, Response, StepContext};
use crate::reconcile::invariants::{self, Violation};
use crate::reconcile::machine::{PermitState, Phase, Reconcile, WAKE_MAX, Write};
use crate::reconcile::state::Stage;
use crate::reconcile::view::{LedgerState, View};

/// Reads in a reconcile, at most: each conflict costs one, and who keeps losing comes back later.
const READS_MAX: u32 = 8;
/// Effects in a reconcile, at most: then others have their turn, whatever becomes of what it writes.
const EFFECTS_MAX: u32 = 64;

impl Reconcile {
    /// Takes the response to the last effect and says what to do next. After [`Effect::Done`] the
    /// reconcile is over.
    ///
    /// ```
    /// use streamsession_core::ledger::{Ledger, plan::Priority};
    /// use streamsession_core::reconcile::{Effect, Reconcile, ReconcileState, Response};
    /// use streamsession_testkit::fixtures::{context, settings, view};
    ///
    /// let settings = settings();
    /// let mut reconcile = Reconcile::new(settings.clone(), ReconcileState::new(&settings), Some(Priority::Attach));
    /// assert_eq!(reconcile.step(Response::Started, &context()), Effect::Read);
    ///
    /// let object = Box::new(view(Ledger::default(), &["a"]));
    /// assert_eq!(reconcile.step(Response::Object(Some(object)), &context()), Effect::Credentials);
    ///
    /// let effect = reconcile.step(Response::Credentials(Ok("AKID".into())), &context());
    /// assert!(matches!(effect, Effect::WriteStatus(..)), "the journal of an attach");
    /// ```
    pub fn step(&mut self, response: Response, context: &StepContext) -> Effect {
        if context.service.is_some() && matches!(self.state.problem, Some(Problem::Unreachable(_)))
        {
            // Somebody else has asked for the time meanwhile.
            self.state.problem = None;
        }
        match response {
            Response::Started | Response::Time(Ok(())) => {}
            Response::Object(None) => return Effect::Done(Requeue::Never),
            Response::Object(Some(view)) => self.received(view),
            Response::Conflict => {
                self.view = None;
                self.phase = Phase::Read;
            }
            Response::Failed => return self.pause_for_api_server(),
            Response::Credentials(Ok(identity)) => {
                self.identity = Some(identity);
                if matches!(self.state.problem, Some(Problem::Credentials(_))) {
                    self.state.problem = None;
                }
            }
            Response::Credentials(Err(text)) => {
                self.state.problem = Some(Problem::Credentials(text));
                self.state.retry.credentials_failed(context.elapsed);
            }
            Response::Time(Err(text)) => {
                self.state.problem = Some(Problem::Unreachable(text));
                self.state.retry.failed(context.elapsed);
            }
            Response::Permit(granted) => {
                self.permit = granted.map_or(PermitState::Denied, PermitState::Held);
            }
            Response::Answer(answer) => {
                if answer.verdict == Verdict::NothingDone(NothingDone::Credentials) {
                    // They may have been rotated meanwhile.
                    self.identity = None;
                }
                self.answered(answer, context);
            }
            Response::Claimant(key, view) => {
                let shown = self.place().zip(view).map(|(place, view)| view.shown(&place));
                self.others.insert(key, shown);
            }
        }
        self.decide(context)
    }

    /// A copy of the object: it was read, or a write returned it.
    fn received(&mut self, view: Box<View>) {
        self.state.api_failures = 0;
        self.others.clear();
        if self.state.observe(&view, &self.settings) {
            // It may name another Secret now.
            self.identity = None;
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Written);
        match phase {
            Phase::Read | Phase::Written => self.phase = Phase::Read,
            Phase::Writing(write) => self.wrote(&write, &view),
            Phase::AddingFinalizer if !view.finalizer && !view.desired.deleting => {
                self.state.halted = Some(Violation::NotStored("metadata.finalizers"));
            }
            Phase::AddingFinalizer | Phase::RemovingFinalizer => {}
        }
        if self.phase == Phase::Written {
            self.state.conflicts = 0;
        }
        self.view = Some(view);
    }

    /// A status is stored. The calls that it covers are done with; and what was written before it
    /// and not answered can't be stored any more.
    fn wrote(&mut self, write: &Write, copy: &View) {
        let Write { status, covers_sent_calls } = write;
        match (invariants::was_written(status, copy), &status.ledger) {
            (Err(violation), _) => self.state.halted = Some(violation),
            (Ok(()), LedgerState::Current(ledger)) => {
                let current = ledger.journal.as_ref().map(|journal| &journal.id);
                self.state.own.retain(|own| {
                    Some(&own.journal.id) == current
                        || (!covers_sent_calls && own.stage != Stage::Journalled)
                });
            }
            (Ok(()), LedgerState::New | LedgerState::Lost { .. }) => {}
        }
    }

    fn decide(&mut self, context: &StepContext) -> Effect {
        let Some(view) = self.view.take() else { return self.read() };
        let effect = self.decide_on(&view, context);
        self.view = Some(view);
        let acts = match &effect {
            Effect::WriteStatus(status, _) => {
                if !matches!(self.phase, Phase::Writing(_)) {
                    let write = Write { status: status.clone(), covers_sent_calls: false };
                    self.phase = Phase::Writing(write);
                }
                true
            }
            Effect::AddFinalizer => {
                self.phase = Phase::AddingFinalizer;
                true
            }
            Effect::RemoveFinalizer => {
                self.phase = Phase::RemovingFinalizer;
                true
            }
            Effect::Call(_) => true,
            _ => false,
        };
        // Those that claim the session too are read once for each copy.
        self.effects += u32::from(!matches!(effect, Effect::ReadClaimant(_)));
        let may_end = self.effects > EFFECTS_MAX && !self.state.owes_settle();
        match effect {
            _ if acts && !context.may_act => self.pause_for_api_server(),
            Effect::WriteStatus(..) | Effect::AddFinalizer if may_end => {
                Effect::Done(Requeue::After(self.state.retry.pause(1)))
            }
            effect => effect,
        }
    }

    fn read(&mut self) -> Effect {
        self.reads += 1;
        if self.reads > READS_MAX {
            // Each write lost: another writer, or an admission policy that denies it for good.
            self.state.conflicts = self.state.conflicts.saturating_add(1);
            return Effect::Done(Requeue::After(self.state.retry.pause(self.state.conflicts)));
        }
        Effect::Read
    }

    fn pause_for_api_server(&mut self) -> Effect {
        self.state.api_failures = self.state.api_failures.saturating_add(1);
        Effect::Done(Requeue::After(self.state.retry.pause(self.state.api_failures)))
    }

    fn decide_on(&mut self, view: &View, context: &StepContext) -> Effect {
        let deleting = view.desired.deleting;
        if deleting {
            self.state.deleting_since.get_or_insert(context.elapsed);
        }
        if deleting && !view.finalizer {
            return Effect::Done(Requeue::OnChange);
        }
        let found_none = matches!(self.state.problem, Some(Problem::Credentials(_)));
        if context.must_identify
            && self.identity.is_none()
            && (!found_none || self.may_ask(context))
        {
            return Effect::Credentials;
        }
        if deleting && view.desired.deletion_policy == DeletionPolicy::Orphan {
            return Effect::RemoveFinalizer;
        }
        if let Some(violation) = self.state.halted.clone() {
            return self.report_violation(view, violation);
        }
        if let Some(service) = view.foreign_service() {
            let conditions = another_service(service, &view.desired);
            return self.report(view, conditions, Vec::new(), WAKE_MAX);
        }
        let stored = match &view.status.ledger {
            LedgerState::New => Ledger::default(),
            LedgerState::Current(ledger) => ledger.clone(),
            LedgerState::Lost { why, remains } => return self.rebuild(view, why, remains, context),
        };
        if !deleting && !view.finalizer && !stored.tracks_nothing() {
            return Effect::AddFinalizer;
        }
        match stored.journal.clone() {
            None => self.no_open_call(view, stored, context),
            Some(journal) => self.open_call(view, stored, journal, context),
        }
    }
}
