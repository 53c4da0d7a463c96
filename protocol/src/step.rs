//! One round: what is known goes in, the next effect comes out (design 3.1). The controller performs it and feeds the response back.
//!
//! ```text
//!  Read ─▶ nothing due ─▶ End
//!       ─▶ a call is due: Credentials, AskTime, Permit ─▶ WriteStatus(journal) ─▶ AddFinalizer? ─▶ Call ─▶ WriteStatus(outcome, next journal?) ─▶ …
//!       ─▶ deleted and nothing held ─▶ RemoveFinalizer ─▶ End
//! ```
//!
//! There is no program counter: after each response [`Round::step`] decides anew from the object's copy and from [`Memory`]. So it makes no
//! difference at which effect a round was cut off: the next one reads and goes on, or, in another process, finds the journal.

use std::sync::Arc;
use std::time::Duration;

use crate::answer::{Answer, NothingDone, Operation, Verdict};
use crate::conditions::{Counts, Problem, conditions, ledger_lost};
pub use crate::effect::{Effect, End, Found, Moment, Response, Status, View};
use crate::ids::JournalId;
use crate::ledger::{DeletionPolicy, Journal, Ledger, Rules, Target};
use crate::plan::{Batch, Plan};
use crate::retry::Retry;
use crate::split::{Split, may_be_one_ids_fault};
use crate::time::ServiceTime;

/// Reads in a round, at most: each conflict costs one, and who keeps losing comes back later.
const READS_MAX: u32 = 8;

/// The longest sleep: a look too early costs a read, and a deadline that somebody wrote into the far future must not break a timer.
const WAKE_MAX: Duration = Duration::from_hours(1);

/// The settings of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The numbers of the protocol.
    pub rules: Rules,
    /// A journal that is older than this is taken back, not sent: 5 s.
    pub journal_age_max_seconds: i64,
    /// How long a journal of someone else is left alone: the longest time that its writer may still be at work.
    pub patience: Duration,
    /// The first pause of the backoff.
    pub retry_base: Duration,
}

/// A call whose journal stands in the object: only this module makes one, and only from the copy that the journal's write returned.
#[derive(Clone, Debug)]
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

#[derive(Clone, Debug)]
enum Stage {
    /// The journal's write is under way or done.
    Journalled,
    /// The request may be on its way.
    Sent,
    /// This is its answer; whether its batch is being split because of it.
    Answered(Answer, bool),
}

#[derive(Clone, Debug)]
struct Own {
    journal: JournalId,
    credential: String,
    deleting: bool,
    stage: Stage,
}

/// What is remembered of an object between rounds, in memory alone: losing it costs a wait, never a phone.
#[derive(Clone, Debug)]
pub struct Memory {
    uid: String,
    generation: i64,
    /// The journal that stands in the object, and the one whose write is under way.
    own: Vec<Own>,
    foreign: Option<(JournalId, Duration)>,
    retry: Retry,
    split: Option<Split>,
    other_half_first: bool,
    api_failures: u32,
    lost_races: u32,
    problem: Option<Problem>,
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
        }
    }

    /// Whether an answer is known that the object does not show yet.
    #[must_use]
    pub fn owes_settle(&self) -> bool {
        self.own.iter().any(|own| matches!(own.stage, Stage::Answered(..)))
    }

    /// Takes note of the copy; says whether its spec is another one than before.
    fn meet(&mut self, view: &View, settings: &Settings) -> bool {
        if self.uid != view.uid {
            let seed = view.uid.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
            *self = Self { uid: view.uid.clone(), retry: Retry::new(settings.retry_base, seed), ..Self::new(settings) };
        }
        let edited = self.generation != view.generation;
        if edited {
            self.generation = view.generation;
            self.retry.reset();
        }
        edited
    }
}

/// One round of one object.
#[derive(Debug)]
pub struct Round<'a> {
    settings: &'a Settings,
    memory: Memory,
    view: Option<Box<View>>,
    /// The copy is what a write of this round returned, not what was merely read.
    from_write: bool,
    credential: Option<String>,
    permit: Permit,
    reads: u32,
    batch_size_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            credential: None,
            permit,
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

    /// The endpoint whose clock and permits count, once the object was read.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.view.as_ref().map(|view| view.endpoint())
    }

    /// Takes the response to the last effect and says what to do next. After [`Effect::End`] the round is over.
    pub fn step(&mut self, response: Response, moment: &Moment) -> Effect {
        if moment.service.is_some() && matches!(self.memory.problem, Some(Problem::Unreachable(_))) {
            // Somebody else has asked for the time meanwhile.
            self.memory.problem = None;
        }
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
            Response::Permit(granted) => self.permit = if granted { Permit::Held } else { Permit::Denied },
            Response::Answer(answer) => {
                if answer.verdict == Verdict::NothingDone(NothingDone::Credentials) {
                    // They may have been rotated meanwhile.
                    self.credential = None;
                }
                self.answered(answer, moment);
            }
        }
        self.decide(moment)
    }

    fn answered(&mut self, answer: Answer, moment: &Moment) {
        if let Some(view) = &self.view
            && let Found::Ours(ledger) = &view.status.found
            && let Some(journal) = &ledger.journal
            && let Some(own) = self.memory.own.iter_mut().find(|own| own.journal == journal.id)
        {
            let was_split = self.memory.split.is_some();
            let split = Split::after(self.memory.split.take(), journal, &answer, self.memory.other_half_first);
            let given_up = split.as_ref().is_some_and(Split::is_fruitless);
            self.memory.other_half_first ^= given_up;
            self.memory.split = split.filter(|split| !split.is_fruitless());
            let splitting = self.memory.split.is_some() && may_be_one_ids_fault(&answer, journal.instances.len());
            let settled = ledger.clone().settle(&answer, &own.credential, &view.desired, &self.settings.rules, splitting);
            let call_failed = settled.last_call.as_ref().is_some_and(|call| call.failed > 0);
            let failing = Counts::of(&view.desired, &settled).failed > 0;
            let blames_an_id = matches!(answer.verdict, Verdict::Invalid | Verdict::NotFound | Verdict::Unclear);
            if given_up {
                self.memory.retry.failed(moment.elapsed);
            } else if self.memory.split.is_some() && blames_an_id {
                // The search goes on at once; however many it finds, they are tried again after one pause.
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
        let effect = self.decide_on(&view, moment);
        self.view = Some(view);
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
            return self.write(Effect::RemoveFinalizer);
        }
        let stored = match &view.status.found {
            Found::New => Ledger::default(),
            Found::Ours(ledger) => ledger.clone(),
            Found::Lost(why) => {
                let said = Status {
                    observed_generation: view.generation,
                    conditions: Some(ledger_lost(why, deleting)),
                    counts: view.status.counts,
                    found: view.status.found.clone(),
                };
                return if said == view.status { Effect::End(End::OnChange) } else { self.write(Effect::WriteStatus(Box::new(said))) };
            }
        };
        if !deleting && !view.finalizer && !stored.holds_nothing() {
            return self.write(Effect::AddFinalizer);
        }
        match stored.journal.clone() {
            None => {
                self.memory.own.clear();
                self.memory.foreign = None;
                self.advance(view, stored, moment, false)
            }
            Some(journal) => self.journalled(view, stored, journal, moment),
        }
    }

    /// A journal stands in the object: ours goes on where it is, someone else's is left alone for a while and then becomes doubt.
    fn journalled(&mut self, view: &View, stored: Ledger, journal: Journal, moment: &Moment) -> Effect {
        let desired = &view.desired;
        let rules = &self.settings.rules;
        self.memory.own.retain(|own| own.journal == journal.id);
        let Some(own) = self.memory.own.first_mut() else {
            let since = match &self.memory.foreign {
                Some((id, since)) if *id == journal.id => *since,
                _ => {
                    self.memory.foreign = Some((journal.id.clone(), moment.elapsed));
                    moment.elapsed
                }
            };
            let waited = moment.elapsed.saturating_sub(since);
            return match self.settings.patience.checked_sub(waited) {
                Some(rest) if !rest.is_zero() => Effect::End(End::After(rest)),
                _ => self.advance(view, stored.doubt(desired, rules), moment, true),
            };
        };
        match &own.stage {
            Stage::Answered(answer, splitting) => {
                let settled = stored.settle(answer, &own.credential, desired, rules, *splitting);
                self.advance(view, settled, moment, true)
            }
            // The round was cut off while it called.
            Stage::Sent => self.advance(view, stored.doubt(desired, rules), moment, true),
            Stage::Journalled => {
                let young = moment.service.is_some_and(|now| now.since(journal.start_time) <= self.settings.journal_age_max_seconds);
                let as_planned = self.from_write && view.finalizer && own.deleting == desired.deleting && self.permit == Permit::Held;
                match stored.target.clone() {
                    Some(target) if young && as_planned => {
                        own.stage = Stage::Sent;
                        self.permit = Permit::Unknown;
                        Effect::Call(Box::new(Journalled { journal, target }))
                    }
                    _ => self.advance(view, Ledger { journal: None, ..stored }, moment, true),
                }
            }
        }
    }

    /// No call is open any more: `ledger` is what is known. `must_write`: it says more than the object does, and that can't wait for a permit.
    fn advance(&mut self, view: &View, ledger: Ledger, moment: &Moment, must_write: bool) -> Effect {
        let desired = &view.desired;
        // Without a clock no deadline is over.
        let now = moment.service.unwrap_or(ServiceTime(i64::MIN));
        let ledger = ledger.tidied(desired, now);
        if desired.deleting && ledger.holds_nothing() && !must_write {
            return self.write(Effect::RemoveFinalizer);
        }
        let due = self.memory.retry.due(moment.elapsed);
        let mut plan = ledger.plan(desired, now, due, self.batch_size_max);
        if let Some(split) = &self.memory.split
            && due.fresh
            && plan.batch.as_ref().is_none_or(|batch| batch.operation == Operation::Attach || split.detaches())
        {
            plan.batch = split.next(&ledger, desired, now).or(plan.batch);
        }
        if let Some(batch) = &plan.batch {
            if self.credential.is_none() {
                return Effect::Credentials;
            }
            if moment.service.is_none() {
                return Effect::AskTime;
            }
            match self.permit {
                Permit::Unknown => return Effect::Permit,
                Permit::Denied if !must_write => return Effect::End(End::AwaitPermit(batch.urgency)),
                Permit::Denied => {}
                Permit::Held => return self.journal(view, ledger, batch, now, moment),
            }
        } else if plan.wake.is_some() && moment.service.is_none() && self.may_ask(moment) {
            return Effect::AskTime;
        }
        let said = self.status(view, ledger, plan.full, now);
        if said == view.status {
            return Effect::End(self.wake(&plan, moment));
        }
        // The next decision starts from what was written, and may ask for a permit again.
        if self.permit == Permit::Denied {
            self.permit = Permit::Unknown;
        }
        self.write(Effect::WriteStatus(Box::new(said)))
    }

    fn may_ask(&self, moment: &Moment) -> bool {
        self.memory.retry.due(moment.elapsed).fresh
    }

    fn journal(&mut self, view: &View, mut ledger: Ledger, batch: &Batch, now: ServiceTime, moment: &Moment) -> Effect {
        let Some(credential) = self.credential.clone() else { return Effect::Credentials };
        let id = JournalId(Arc::from(format!("{:032x}", moment.nonce)));
        ledger.target = Some(ledger.target_for(&view.desired, &credential));
        ledger.journal = Some(Journal { id: id.clone(), operation: batch.operation, instances: batch.instances.clone(), start_time: now });
        self.memory.own.push(Own { journal: id, credential, deleting: view.desired.deleting, stage: Stage::Journalled });
        let said = self.status(view, ledger, false, now);
        self.write(Effect::WriteStatus(Box::new(said)))
    }

    fn status(&self, view: &View, ledger: Ledger, full: bool, now: ServiceTime) -> Status {
        let rules = &self.settings.rules;
        Status {
            observed_generation: view.generation,
            conditions: Some(conditions(&view.desired, &ledger, self.memory.problem.as_ref(), full, now, rules)),
            counts: Counts::of(&view.desired, &ledger),
            found: Found::Ours(ledger),
        }
    }

    /// A write's answer is a copy to go on from.
    fn write(&mut self, effect: Effect) -> Effect {
        self.from_write = true;
        effect
    }

    fn wake(&self, plan: &Plan, moment: &Moment) -> End {
        let deadline = plan.wake.zip(moment.service).map(|(until, now)| Duration::from_secs(until.since(now).try_into().unwrap_or(0)));
        // A deadline that can't be judged for want of a clock: when the service may be asked again.
        let clock = (plan.wake.is_some() && moment.service.is_none()).then(|| self.memory.retry.whole_opens_in(moment.elapsed));
        let backoff = self.memory.retry.opens_in(plan.held_back, moment.elapsed);
        deadline.into_iter().chain(clock).chain(backoff).min().map_or(End::OnChange, |wake| End::After(wake.min(WAKE_MAX)))
    }
}
