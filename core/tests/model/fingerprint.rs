//! Equal situations have equal fingerprints: times count from now, journals are numbered in the
//! order of their appearance, and what no rule reads is left out. A state itself keeps what it is;
//! only its fingerprint is remembered (128 bits: two of ten million states share one with a
//! probability of less than 10⁻²⁴).
//!
//! What is in the fingerprint of each, and why that is enough:
//!
//! - A deadline: the ticks to go, 0 when it is over; with a journal, whether it was over when that
//!   was written. Nothing else is asked of it.
//! - A journal's start: its age, up to the life of a request. Older ones expired, and the doubt of
//!   one is over at once.
//! - A refusal's since: its age, up to what `cannot_leave` asks; of attaches not at all. Nothing
//!   else reads it.
//! - Refusals: up to 5, the highest number that a rule compares with; of detaches only where the
//!   policy may release.
//! - The counters of a reconcile state: left out. They only make a pause longer, and no pause is
//!   waited for.
//! - Reason, message, code, attempts: left out, but Ready and `LedgerLost` (`coarse`). They decide
//!   on nothing but whether a status is written that says it anew: a write like any other, whose
//!   conflicts a touch makes as well. The runs of `convergence` tell them apart.
//! - The time of a failure: which of two came first. Nothing but turns could go by it.
//! - The time of the last call, how many it named: left out. No rule reads it.
//! - A version: whether an open reconcile's copy is the stored one. A write compares for equality,
//!   and no version comes back.
//! - Reads of a reconcile: left out. After eight conflicts it ends and comes back: no more than a
//!   pause.

use std::hash::{Hash, Hasher};

use streamsession_core::answer::Operation;
use streamsession_core::conditions::{Conditions, Mode, Reason};
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::ledger::record::{ATTEMPTS_BEFORE_STUCK, Record};
use streamsession_core::ledger::{Journal, Ledger};
use streamsession_core::reconcile::{Effect, LedgerState, ReconcileState, Status, View};
use streamsession_core::time::{ServiceTime, over};

use crate::setting::{LIFE, STUCK};
use crate::world::{EPOCH, Operator, State};

/// The highest number that a rule compares a count with.
const COUNT_MAX: u32 = 5;
/// Ids, codes and journals are no longer than that; `Sink::message` hashes messages.
const TEXT_MAX: usize = 40;

/// 128 bits of a state; if it is `coarse`, whatever the conditions say counts as the same, but for
/// what a promise is about.
pub fn of(state: &State, coarse: bool) -> u128 {
    let mut sink = Sink::new(state.now);
    (sink.forgets, sink.coarse) = (!state.refused.is_empty(), coarse);
    (state.budgets, state.service, state.keys).hash(&mut sink);
    sink.word(
        u64::from(state.members)
            | u64::from(state.tried) << 8
            | u64::from(state.released) << 16
            | u64::from(state.session_gone) << 24,
    );
    for refused in &state.refused {
        sink.word(u64::from(refused.count));
        sink.age(refused.since, STUCK);
    }
    for request in &state.in_flight {
        sink.word(u64::from(request.ids) << 8 | u64::from(request.operation == Operation::Attach));
        sink.age(request.start, LIFE);
    }
    match &state.object {
        None => sink.word(1),
        Some(object) => {
            sink.tag(2, [object.lost, object.stripped]);
            // A uid is told apart by what is bound to it: whether an open reconcile's copy is of
            // this object shows in its version.
            sink.view(&object.view);
        }
    }
    if let Some(previous) = &state.previous {
        sink.word(3);
        sink.view(&previous.view);
    }
    for operator in &state.operators {
        match operator {
            Operator::Idle(None) => sink.word(4),
            Operator::Idle(Some(state)) => {
                sink.word(5);
                sink.whole(&**state);
            }
            Operator::Busy(busy) => {
                let current =
                    state.object.as_ref().is_some_and(|object| object.version == busy.version);
                sink.tag(
                    6,
                    [current, busy.bisection, busy.wrote_journal, busy.has_permit, busy.resync],
                );
                busy.keys.hash(&mut sink);
                sink.effect(&busy.effect);
                if busy.effect == Effect::Read {
                    sink.whole(&busy.reconcile);
                } else {
                    sink.view(&busy.copy);
                    sink.word(busy.state_print);
                }
            }
        }
    }
    u128::from(sink.a) << 64 | u128::from(sink.b)
}

struct Sink {
    now: i64,
    a: u64,
    b: u64,
    forgets: bool,
    coarse: bool,
    numbers: bool,
    journals: Vec<[u8; 32]>,
}

fn folded(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    let bytes = product.to_le_bytes();
    let half = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    half(0) ^ half(8)
}

/// What a reconcile remembers at its next effect: its own journals are that of its copy, and that
/// of the status that it is about to write.
pub fn of_state(state: &ReconcileState, copy: &View, effect: &Effect) -> u64 {
    let mut sink = Sink::new(0);
    let status = if let Effect::WriteStatus(status, _) = effect { Some(&**status) } else { None };
    for status in [&copy.status].into_iter().chain(status) {
        if let LedgerState::Current(Ledger { journal: Some(journal), .. }) = &status.ledger {
            journal.id.hash(&mut sink);
        } else {
            sink.journals.push([0; 32]);
        }
    }
    sink.whole(state);
    sink.a
}

impl Sink {
    fn new(now: i64) -> Self {
        let (a, b) = (0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344);
        Self { now, a, b, forgets: false, coarse: false, numbers: true, journals: Vec::new() }
    }

    fn word(&mut self, word: u64) {
        self.a = folded(self.a ^ word, 0x9E37_79B9_7F4A_7C15);
        self.b =
            folded(self.b.rotate_left(29) ^ word ^ 0xA409_3822_299F_31D0, 0xD6E8_FEB8_6659_FD93);
    }

    /// What comes next, and some bits of it.
    fn tag<const N: usize>(&mut self, tag: u64, bits: [bool; N]) {
        self.word(bits.into_iter().fold(tag, |word, bit| word << 1 | u64::from(bit)));
    }

    /// Ticks since then, up to `most`.
    fn age(&mut self, then: i64, most: i64) {
        self.word((self.now - then).min(most).cast_unsigned());
    }

    fn deadline(&mut self, until: Option<ServiceTime>, journal: Option<&Journal>) {
        self.word(until.map_or(u64::MAX, |until| (until.0 - self.now).max(0).cast_unsigned()));
        if let Some(journal) = journal {
            self.word(u64::from(over(until, Some(journal.start_time))));
        }
    }

    fn view(&mut self, view: &View) {
        let observed = view.status.observed_generation == view.desired.generation;
        let orphans = view.desired.deletion_policy == DeletionPolicy::Orphan;
        self.word(
            u64::from(view.finalizer)
                | u64::from(view.desired.deleting) << 1
                | u64::from(observed) << 2
                | u64::from(orphans) << 3
                | 7 << 8,
        );
        for id in &view.desired.instances {
            self.write(id.as_str().as_bytes());
        }
        self.status(&view.status);
    }

    fn status(&mut self, status: &Status) {
        if let Some(Conditions { mode, reason, message }) = &status.conditions {
            if self.coarse {
                self.tag(17, [*mode == Mode::Ready, *reason == Reason::LedgerLost]);
            } else {
                (mode, reason).hash(self);
                self.message(message);
            }
        }
        match &status.ledger {
            LedgerState::New => self.word(8),
            LedgerState::Lost { remains, .. } => {
                self.word(9);
                self.ledger(remains);
            }
            LedgerState::Current(ledger) => {
                self.word(10);
                self.ledger(ledger);
            }
        }
    }

    fn ledger(&mut self, ledger: &Ledger) {
        if let Some(target) = &ledger.target {
            self.tag(11, [target.credential_proven, target.account.is_some()]);
            target.credential.hash(self);
        }
        let mut failed = None;
        for (id, record) in &ledger.records {
            self.write(id.as_str().as_bytes());
            self.record(record, ledger.journal.as_ref());
            // Who failed longer ago: turns may go by that.
            if let Some(failure) = &record.last_failure {
                failed.replace(failure.time).cmp(&Some(failure.time)).hash(self);
            }
        }
        if let Some(journal) = &ledger.journal {
            self.word(12);
            journal.id.hash(self);
            (journal.operation, journal.resync).hash(self);
            for id in &journal.instances {
                self.write(id.as_str().as_bytes());
            }
            self.age(journal.start_time.0, LIFE);
        }
        if let Some(call) = &ledger.last_call {
            self.word(13);
            if !self.coarse {
                call.code.hash(self);
            }
        }
    }

    fn record(&mut self, record: &Record, journal: Option<&Journal>) {
        (record.state, record.assumed).hash(self);
        self.deadline(record.attach_until, journal);
        self.deadline(record.detach_until, journal);
        if let Some(refusals) = &record.refusals {
            self.word(14);
            refusals.operation.hash(self);
            match refusals.operation {
                Operation::Attach => self.write_u32(refusals.count),
                Operation::Detach if self.forgets => {
                    self.write_u32(refusals.count);
                    self.age(refusals.since.0, STUCK);
                }
                Operation::Detach => {}
            }
        }
        if let Some(failure) = &record.last_failure {
            self.word(15);
            failure.operation.hash(self);
            if !self.coarse {
                (failure.reason, &failure.code).hash(self);
                self.word(u64::from(
                    failure.operation == Operation::Attach
                        && failure.attempts >= ATTEMPTS_BEFORE_STUCK,
                ));
            }
        }
    }

    /// Times in a message count from now too: whether it has to be written anew depends on it.
    fn message(&mut self, message: &str) {
        const TIME: usize = "2000-01-01T".len();
        let Some((before, rest)) = message
            .split_once("until ")
            .filter(|(_, rest)| rest.as_bytes().get(TIME - 1) == Some(&b'T'))
        else {
            return self.write(message.as_bytes());
        };
        let number = |from: usize| rest[from..from + 2].parse::<i64>().unwrap();
        let until = EPOCH + number(TIME) * 3600 + number(TIME + 3) * 60 + number(TIME + 6);
        self.write(before.as_bytes());
        self.word((until - self.now).max(0).cast_unsigned());
        self.write(&rest.as_bytes()[TIME + "00:00:00Z".len()..]);
    }

    /// A reconcile or its state as it is, its own hash: but times and counts are in the copy and in
    /// the effect already, or only make a pause longer.
    fn whole(&mut self, whole: &impl Hash) {
        self.numbers = false;
        whole.hash(self);
        self.numbers = true;
    }

    fn effect(&mut self, effect: &Effect) {
        std::mem::discriminant(effect).hash(self);
        if let Effect::WriteStatus(status, notices) = effect {
            self.status(status);
            notices.hash(self);
        }
    }
}

impl Hasher for Sink {
    fn finish(&self) -> u64 {
        self.a
    }

    /// A text; that of a journal's id stands for its number.
    fn write(&mut self, bytes: &[u8]) {
        if !self.numbers && bytes.len() > TEXT_MAX {
            return; // a message has times in it
        }
        if let Ok(name) = <[u8; 32]>::try_from(bytes)
            && bytes.iter().all(u8::is_ascii_hexdigit)
        {
            let number =
                self.journals.iter().position(|known| *known == name).unwrap_or_else(|| {
                    self.journals.push(name);
                    self.journals.len() - 1
                });
            return self.word(16 | u64::try_from(number).unwrap() << 8);
        }
        self.word(u64::try_from(bytes.len()).unwrap());
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.word(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        if self.numbers {
            self.word(u64::from(number.min(COUNT_MAX)));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }

    fn write_i64(&mut self, number: i64) {
        assert!(!self.numbers, "the time {number} is not counted from now");
    }

    fn write_usize(&mut self, number: usize) {
        if self.numbers {
            self.word(u64::try_from(number).unwrap());
        }
    }

    fn write_isize(&mut self, number: isize) {
        self.word(u64::try_from(number).unwrap_or(u64::MAX));
    }
}
