//! One round: what is known goes in, the next effect comes out (design 3.1). The controller
//! performs it and feeds the response back.
//!
//! ```text
//!  Read ─▶ nothing due ─▶ End
//!       ─▶ a call is due: Credentials, AskTime, Permit ─▶ WriteStatus(journal) ─▶ AddFinalizer? ─▶ Call ─▶ WriteStatus(outcome, next journal?) ─▶ …
//!       ─▶ deleted and nothing held ─▶ RemoveFinalizer ─▶ End
//! ```
//!
//! There is no program counter: after each response [`Round::step`] decides anew from the object's
//! copy and from [`Memory`]. So it makes no difference at which effect a round was cut off: the
//! next one reads and goes on, or, in another process, finds the journal.

mod advance;

use std::sync::Arc;
use std::time::Duration;

use crate::answer::{Answer, NothingDone, Operation, Verdict};
use crate::claims::Place;
use crate::conditions::{Conditions, Counts, Problem, invariant_violated, ledger_unreadable};
use crate::desired::{DeletionPolicy, Target};
pub use crate::effect::{
    Asked, Effect, End, Found, Handled, Moment, Notice, Request, Response, Status, View,
};
use crate::invariants::{self, Grounds};
use crate::ledger::{Journal, Ledger, Rules};
pub use crate::memory::Memory;
use crate::memory::Stage;
use crate::record::{Record, State, Want};
use crate::rival::Owner;
use crate::split::{Split, may_be_one_ids_fault};
use advance::Account;

/// Reads in a round, at most: each conflict costs one, and who keeps losing comes back later.
const READS_MAX: u32 = 8;

/// The longest sleep: a look too early costs a read, and a deadline that somebody wrote into the
/// far future must not break a timer.
const WAKE_MAX: Duration = Duration::from_hours(1);

/// The settings of a round.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The numbers of the protocol.
    pub rules: Rules,
    /// A journal that is older than this is taken back, not sent: 5 s.
    pub journal_age_max_seconds: i64,
    /// How long a journal of someone else is left alone: the longest time that its writer may still
    /// be at work.
    pub patience: Duration,
    /// The first pause of the backoff.
    pub retry_base: Duration,
}

/// A call whose journal stands in the object: only this module makes one, and only from the copy
/// that the journal's write returned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Journalled {
    journal: Journal,
    target: Target,
}

impl Journalled {
    /// What to call, and the time to sign with.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// One round of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Round<'a> {
    settings: &'a Settings,
    memory: Memory,
    view: Option<Box<View>>,
    /// The copy is what a write of this round returned, not what was merely read.
    from_write: bool,
    /// What the write that is under way writes.
    written: Option<Box<Status>>,
    /// It accounts for every call of ours that was sent.
    accounts: bool,
    credential: Option<String>,
    permit: Permit,
    /// The object that was looked at, since it drives the session or did; and what it shows, if it
    /// could be read.
    owner: Option<(Arc<str>, Option<Owner>)>,
    reads: u32,
    batch_size_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Permit {
    Unknown,
    Held,
    Denied,
}

impl<'a> Round<'a> {
    /// A round; `permit` says whether one was granted to it.
    #[must_use]
    pub fn new(settings: &'a Settings, memory: Memory, permit: bool) -> Self {
        let permit = if permit { Permit::Held } else { Permit::Unknown };
        Self {
            settings,
            memory,
            view: None,
            from_write: false,
            written: None,
            accounts: false,
            credential: None,
            permit,
            owner: None,
            reads: 0,
            batch_size_max: settings.rules.batch_size_max,
        }
    }

    /// The account's calls may name so many ids and no more.
    pub fn limit_batches(&mut self, ids: usize) {
        self.batch_size_max = self.batch_size_max.min(ids);
    }

    /// The permit is gone: it was for another account.
    pub fn lose_permit(&mut self) {
        self.permit = Permit::Unknown;
    }

    /// What to keep for the next round.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        self.memory
    }

    /// The session whose standing counts, once the object was read.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.view.as_ref().map(|view| view.place())
    }

    /// The endpoint whose clock and permits count, once the object was read.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.view.as_ref().map(|view| view.endpoint())
    }

    /// Takes the response to the last effect and says what to do next. After [`Effect::End`] the
    /// round is over.
    pub fn step(&mut self, response: Response, moment: &Moment) -> Effect {
        if moment.service.is_some() && matches!(self.memory.problem, Some(Problem::Unreachable(_)))
        {
            // Somebody else has asked for the time meanwhile.
            self.memory.problem = None;
        }
        let written = self.written.take();
        match response {
            Response::Started | Response::Time(Ok(())) => {}
            Response::Object(None) => return Effect::End(End::Gone),
            Response::Object(Some(view)) => {
                self.memory.api_failures = 0;
                if self.from_write {
                    self.memory.lost_races = 0;
                }
                if self.memory.meet(&view, self.settings) {
                    // It may name another Secret now.
                    self.credential = None;
                }
                if let Some(status) = written {
                    self.wrote(&status, &view);
                }
                self.view = Some(view);
            }
            Response::Conflict => self.view = None,
            Response::Failed => {
                self.memory.api_failures = self.memory.api_failures.saturating_add(1);
                return Effect::End(End::After(self.memory.retry.pause(self.memory.api_failures)));
            }
            Response::Credentials(Ok(name)) => {
                self.credential = Some(name);
                if matches!(self.memory.problem, Some(Problem::Credentials(_))) {
                    self.memory.problem = None;
                }
            }
            Response::Credentials(Err(text)) => {
                self.memory.problem = Some(Problem::Credentials(text));
                self.memory.retry.credentials_failed(moment.elapsed);
            }
            Response::Time(Err(text)) => {
                self.memory.problem = Some(Problem::Unreachable(text));
                self.memory.retry.failed(moment.elapsed);
            }
            Response::Permit(granted) => {
                self.permit = if granted { Permit::Held } else { Permit::Denied }
            }
            Response::Answer(answer) => {
                if answer.verdict == Verdict::NothingDone(NothingDone::Credentials) {
                    // They may have been rotated meanwhile.
                    self.credential = None;
                }
                self.answered(answer, moment);
            }
            Response::Owner(view) => {
                let place = self.place();
                if let (Some((_, shown)), Some(place)) = (&mut self.owner, place) {
                    *shown = view.map(|view| Owner::of(&view, &place));
                }
            }
        }
        self.decide(moment)
    }

    /// A status is stored. It accounts for the calls that were sent, if that is what it was written
    /// for; and what was written before it and not answered can't be stored any more.
    fn wrote(&mut self, status: &Status, copy: &View) {
        match (invariants::was_written(status, copy), &status.found) {
            (Err(violation), _) => self.memory.halted = Some(violation),
            (Ok(()), Found::Ours(ledger)) => {
                let current = ledger.journal.as_ref().map(|journal| &journal.id);
                let accounts = self.accounts;
                self.memory.own.retain(|own| {
                    Some(&own.journal.id) == current
                        || (!accounts && own.stage != Stage::Journalled)
                });
            }
            (Ok(()), Found::New | Found::Lost { .. }) => {}
        }
    }

    fn answered(&mut self, answer: Answer, moment: &Moment) {
        if let Some(view) = &self.view
            && let Found::Ours(ledger) = &view.status.found
            && let Some(journal) = &ledger.journal
            && let Some(own) = self.memory.own.iter_mut().find(|own| own.journal.id == journal.id)
        {
            let was_split = self.memory.split.is_some();
            let split = Split::after(
                self.memory.split.take(),
                journal,
                &answer,
                self.memory.other_half_first,
            );
            let given_up = split.as_ref().is_some_and(Split::is_fruitless);
            self.memory.other_half_first ^= given_up;
            self.memory.split = split.filter(|split| !split.is_fruitless());
            let splitting = self.memory.split.is_some()
                && may_be_one_ids_fault(&answer, journal.instances.len());
            let settled = ledger.clone().settle(
                &answer,
                &own.credential,
                &view.desired,
                &self.settings.rules,
                splitting,
            );
            let call_failed = settled.last_call.as_ref().is_some_and(|call| call.failed > 0);
            let failing = Counts::of(&view.desired, &settled).failed > 0;
            let blames_an_id =
                matches!(answer.verdict, Verdict::Invalid | Verdict::NotFound | Verdict::Unclear);
            if settled.target.is_none() {
                // The session that was to be left is gone: the way to the next one is free.
                self.memory.retry.reset();
            } else if given_up {
                self.memory.retry.failed(moment.elapsed);
            } else if self.memory.split.is_some() && blames_an_id {
                // The search goes on at once; however many it finds, they are tried again after one
                // pause.
            } else if was_split && self.memory.split.is_none() && failing {
                self.memory.retry.instances_failed(moment.elapsed);
            } else {
                self.memory.retry.answered(&answer, call_failed, failing, moment.elapsed);
            }
            own.stage = Stage::Answered(answer, splitting);
        }
    }

    fn decide(&mut self, moment: &Moment) -> Effect {
        let Some(view) = self.view.take() else { return self.read() };
        self.accounts = false;
        let effect = self.decide_on(&view, moment);
        let acts = matches!(
            effect,
            Effect::Call(_)
                | Effect::WriteStatus(..)
                | Effect::AddFinalizer
                | Effect::RemoveFinalizer
        );
        self.from_write |= acts;
        self.written =
            if let Effect::WriteStatus(status, _) = &effect { Some(status.clone()) } else { None };
        self.view = Some(view);
        if acts && !moment.may_act {
            self.memory.api_failures = self.memory.api_failures.saturating_add(1);
            return Effect::End(End::After(self.memory.retry.pause(self.memory.api_failures)));
        }
        effect
    }

    fn read(&mut self) -> Effect {
        self.reads += 1;
        self.from_write = false;
        if self.reads > READS_MAX {
            // Each write lost: another writer, or an admission policy that denies it for good.
            self.memory.lost_races = self.memory.lost_races.saturating_add(1);
            return Effect::End(End::After(self.memory.retry.pause(self.memory.lost_races)));
        }
        Effect::Read
    }

    fn decide_on(&mut self, view: &View, moment: &Moment) -> Effect {
        let deleting = view.desired.deleting;
        if deleting && !view.finalizer {
            return Effect::End(End::OnChange);
        }
        if deleting && view.desired.deletion_policy == DeletionPolicy::Orphan {
            return Effect::RemoveFinalizer;
        }
        if let Some(violation) = self.memory.halted.clone() {
            return Self::say(
                view,
                invariant_violated(&violation),
                vec![Notice::Violated(violation)],
                WAKE_MAX,
            );
        }
        let stored = match &view.status.found {
            Found::New => Ledger::default(),
            Found::Ours(ledger) => ledger.clone(),
            Found::Lost { why, remains } => return self.rebuild(view, why, remains, moment),
        };
        if !deleting && !view.finalizer && !stored.holds_nothing() {
            return Effect::AddFinalizer;
        }
        match stored.journal.clone() {
            None => {
                let validity = self.settings.rules.validity;
                self.memory.foreign = None;
                // A journal whose write was not answered may yet be stored.
                self.memory.own.retain(|own| {
                    own.stage == Stage::Journalled || own.is_missing_from(&stored, validity)
                });
                match self.memory.own.iter().find(|own| own.stage != Stage::Journalled) {
                    None => self.advance(view, Account::of(view, stored), moment),
                    // Neither settled nor in doubt: somebody has edited the status while the call
                    // was under way. It is remembered until that is written.
                    Some(own) => {
                        let (journal, target) = (
                            Some(own.journal.clone()),
                            stored.target.clone().or_else(|| Some(own.target.clone())),
                        );
                        let doubt = Ledger { target, journal, ..stored }
                            .doubt(&view.desired, &self.settings.rules);
                        self.advance(
                            view,
                            Account { must_write: true, ..Account::of(view, doubt) },
                            moment,
                        )
                    }
                }
            }
            Some(journal) => self.journalled(view, stored, journal, moment),
        }
    }

    /// The ledger is lost: it is made anew from what can be known, once there is a clock to date it
    /// with.
    fn rebuild(&mut self, view: &View, why: &str, remains: &Ledger, moment: &Moment) -> Effect {
        let Some(now) = moment.service else {
            if self.may_ask(moment) {
                return Effect::AskTime;
            }
            let said = ledger_unreadable(why, self.memory.problem.as_ref());
            return Self::say(
                view,
                said,
                Vec::new(),
                self.memory.retry.whole_opens_in(moment.elapsed),
            );
        };
        let mut remains = remains.clone();
        // What a call of ours may have done is not lost with the status; it is remembered until
        // that is written.
        for own in self.memory.own.iter().filter(|own| own.stage != Stage::Journalled) {
            remains.target.get_or_insert_with(|| own.target.clone());
            for id in &own.journal.instances {
                remains
                    .records
                    .insert(id.clone(), Record { state: State::Unknown, ..Record::default() });
            }
        }
        let ledger = Ledger::rebuilt(remains, &view.desired, now, self.settings.rules.validity);
        let notices = vec![Notice::Rebuilt(why.to_owned())];
        self.advance(
            view,
            Account { must_write: true, notices, ..Account::of(view, ledger) },
            moment,
        )
    }

    /// Says something of an object and touches nothing else; looks again after `pause`.
    fn say(view: &View, conditions: Conditions, notices: Vec<Notice>, pause: Duration) -> Effect {
        let said = Status {
            observed_generation: view.generation,
            conditions: Some(conditions),
            ..view.status.clone()
        };
        if said == view.status {
            Effect::End(End::After(pause.min(WAKE_MAX)))
        } else {
            Effect::WriteStatus(Box::new(said), notices)
        }
    }

    /// A journal stands in the object: ours goes on where it is, someone else's is left alone for a
    /// while and then becomes doubt.
    fn journalled(
        &mut self,
        view: &View,
        stored: Ledger,
        journal: Journal,
        moment: &Moment,
    ) -> Effect {
        let desired = &view.desired;
        let rules = &self.settings.rules;
        self.memory.own.retain(|own| own.journal.id == journal.id);
        let over = |ledger: Ledger, grounds: Grounds| Account {
            must_write: true,
            grounds,
            ..Account::of(view, ledger)
        };
        let Some(own) = self.memory.own.first_mut() else {
            let since = match &self.memory.foreign {
                Some((id, since)) if *id == journal.id => *since,
                _ => {
                    self.memory.foreign = Some((journal.id.clone(), moment.elapsed));
                    moment.elapsed
                }
            };
            let rest = self.settings.patience.saturating_sub(moment.elapsed.saturating_sub(since));
            return if rest.is_zero() {
                self.advance(view, over(stored.doubt(desired, rules), Grounds::default()), moment)
            } else {
                Effect::End(End::After(rest))
            };
        };
        match &own.stage {
            Stage::Answered(answer, splitting) => {
                let believed =
                    stored.target.as_ref().is_some_and(|target| target.believes(&own.credential));
                let gone = answer.verdict == Verdict::SessionGone && believed;
                // A wrong key may have said so: what a lost ledger only assumed goes with a
                // warning.
                let unproven =
                    stored.target.as_ref().is_some_and(|target| !target.credential_proven);
                let assumed = stored
                    .records
                    .iter()
                    .filter(|(_, record)| record.assumed)
                    .map(|(id, _)| id.clone())
                    .collect();
                let settled = stored.settle(answer, &own.credential, desired, rules, *splitting);
                let mut account =
                    over(settled, Grounds { settled: true, all: gone, ..Grounds::default() });
                if gone && unproven {
                    account.let_go(assumed, Notice::Doubtful);
                }
                self.advance(view, account, moment)
            }
            // The round was cut off while it called.
            Stage::Sent => {
                self.advance(view, over(stored.doubt(desired, rules), Grounds::default()), moment)
            }
            Stage::Journalled => {
                let young = moment.service.is_some_and(|now| {
                    now.since(journal.start_time) <= self.settings.journal_age_max_seconds
                });
                let wish = desired.at(stored.target.as_ref());
                // The copy may show another spec than the one that was planned for: the finalizer
                // was written in between.
                let wanted = journal.operation == Operation::Detach
                    || journal.instances.iter().all(|id| wish.want(id) == Want::In);
                let as_planned =
                    own.deleting == desired.deleting && own.standing == moment.standing && wanted;
                let may_go = self.from_write && self.permit == Permit::Held && moment.may_act;
                match stored.target.clone() {
                    Some(target) if young && as_planned && may_go => {
                        if let Err(violation) =
                            invariants::may_call(view, &stored, &journal, &moment.standing)
                        {
                            return self.halt(view, violation);
                        }
                        own.stage = Stage::Sent;
                        self.permit = Permit::Unknown;
                        Effect::Call(Box::new(Journalled { journal, target }))
                    }
                    _ => {
                        let taken_back = Ledger { journal: None, ..stored };
                        self.advance(
                            view,
                            over(taken_back, Grounds { settled: true, ..Grounds::default() }),
                            moment,
                        )
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Standing;
    use crate::memory::Own;
    use crate::plan::Due;
    use crate::record::{Failure, FailureReason};
    use crate::testing::{NOW, answer, id, journal, ledger, moment, processed, settings, view};

    /// What is remembered after this answer to a call of `called`; the object wants a, b and z. The
    /// ledger as it is settled, too.
    fn after(
        mut memory: Memory,
        records: &[(&str, Record)],
        called: &[&str],
        verdict: Verdict,
    ) -> (Memory, Ledger) {
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
            standing: Standing::Alone,
            stage: Stage::Sent,
        };
        memory.own.push(own);
        let mut round = Round::new(&settings, memory, false);
        round.view = Some(Box::new(object.clone()));
        round.answered(answer(verdict), &moment());
        let Stage::Answered(answer, splitting) = round.memory.own.remove(0).stage else {
            panic!("an answer")
        };
        let settled = stored.settle(&answer, "AKID", &object.desired, &settings.rules, splitting);
        (round.memory, settled)
    }

    fn due(memory: &Memory) -> (bool, bool) {
        let Due { fresh, failed } = memory.retry.due(Duration::ZERO);
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
        let new = || Memory::new(&settings());
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
            due(&after(new(), &[], &["a"], Verdict::Invalid).0),
            (true, false),
            "it is the one"
        );
    }

    #[test]
    fn a_batch_is_split_at_once_and_who_is_found_waits_once() {
        let (halved, ledger) = after(Memory::new(&settings()), &[], &["a", "b"], Verdict::Unclear);
        assert_eq!(
            (due(&halved), ledger.records.get("a").unwrap().refusals),
            ((true, true), None),
            "it is nobody's fault yet"
        );

        let (lost, _) = after(halved.clone(), &[], &["a"], Verdict::Unanswered);
        assert_eq!(
            (due(&lost), lost.split.is_some()),
            ((false, false), true),
            "nobody is reached: the search goes on later"
        );

        let (found, ledger) = after(halved.clone(), &[], &["a"], Verdict::Unclear);
        assert_eq!(
            (due(&found), found.split.is_some()),
            ((true, true), true),
            "its neighbour need not wait"
        );
        assert_eq!(ledger.records.get("a").unwrap().refusals.unwrap().count, 1, "it is the one");
        let (over, _) = after(found, &[("a", failed_before())], &["b"], processed(&["b"], &[]));
        assert_eq!((due(&over), over.split), ((true, false), None));

        let (one, _) = after(halved, &[], &["a"], processed(&["a"], &[]));
        assert_eq!(
            due(&after(one, &[], &["b"], processed(&["b"], &[])).0),
            (true, true),
            "it was nobody's"
        );
    }

    #[test]
    fn a_split_that_is_given_up_begins_with_the_other_half_next_time() {
        let mut memory = Memory::new(&settings());
        for other_half_first in [true, false] {
            let mut calls = 0;
            let mut settled = Ledger::default();
            while memory.other_half_first != other_half_first {
                (memory, settled) = after(memory, &[], &["a", "b"], Verdict::Unclear);
                calls += 1;
                assert!(calls <= crate::split::FRUITLESS_MAX, "it never ends");
            }
            assert_eq!(
                (calls, memory.split.as_ref(), due(&memory)),
                (crate::split::FRUITLESS_MAX, None, (false, false))
            );
            assert!(settled.records.get(&id("a")).unwrap().refusals.is_some(), "now it counts");
            let (next, _) = after(memory.clone(), &[], &["a", "b"], Verdict::Unclear);
            let called = journal(Operation::Attach, &["a", "b"]);
            assert_eq!(
                next.split,
                Split::after(None, &called, &answer(Verdict::Unclear), other_half_first)
            );
        }
    }
}
