//! Which objects an operator knows of, and which are due: the rules of the operator's own agenda
//! (src/controller/agenda.rs), with the claims beside it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use streamsession_protocol::claims::Claims;
use streamsession_protocol::step::Memory;

use crate::api::{Digest, Name};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doing {
    #[default]
    Idle,
    Ready,
    Running,
}

#[derive(Debug)]
struct Entry {
    digest: Arc<Digest>,
    doing: Doing,
    /// The object changed while its round was under way.
    changed: bool,
    /// It stands otherwise since then: that is no echo of a write of its own.
    stands_otherwise: bool,
    memory: Option<Box<Memory>>,
    own_versions: Vec<u64>,
    round: u64,
    /// Only the last timer counts.
    timer: u64,
}

#[derive(Default)]
pub struct Agenda {
    pub claims: Claims<Name>,
    entries: BTreeMap<Name, Entry>,
    ready: VecDeque<Name>,
    rounds: u64,
}

/// What an object waits for is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    Nothing,
    /// It is due now.
    Timer,
    /// Nothing is due any more.
    TimerAndPermit,
}

impl Agenda {
    /// The watch saw the object.
    pub fn saw(&mut self, name: Name, digest: &Arc<Digest>) -> Void {
        self.claims.set(&name, digest.claim.clone());
        let Some(entry) = self.entries.get_mut(&name) else {
            let entry = Entry {
                digest: Arc::clone(digest),
                doing: Doing::Idle,
                changed: false,
                stands_otherwise: false,
                memory: None,
                own_versions: Vec::new(),
                round: 0,
                timer: 0,
            };
            self.entries.insert(name, entry);
            if !digest.converged {
                self.due(name);
            }
            self.tell();
            return Void::Nothing;
        };
        let news =
            entry.digest.version != digest.version && !entry.own_versions.contains(&digest.version);
        entry.digest = Arc::clone(digest);
        let idle = entry.doing == Doing::Idle;
        let void = if news && !(digest.converged && idle) {
            self.due(name);
            Void::Timer
        } else if digest.converged {
            Void::TimerAndPermit
        } else {
            Void::Nothing
        };
        self.tell();
        void
    }

    pub fn gone(&mut self, name: Name) {
        self.entries.remove(&name);
        self.claims.remove(&name);
        self.tell();
    }

    /// Those that stand otherwise than before are due.
    fn tell(&mut self) {
        for name in self.claims.take_changed() {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.stands_otherwise = entry.doing == Doing::Running;
            }
            self.due(name);
        }
    }

    pub fn names(&self) -> Vec<Name> {
        self.entries.keys().copied().collect()
    }

    /// The object is due; while a round is under way, another one after it.
    pub fn due(&mut self, name: Name) {
        let Some(entry) = self.entries.get_mut(&name) else { return };
        match entry.doing {
            Doing::Idle => {
                entry.doing = Doing::Ready;
                self.ready.push_back(name);
            }
            Doing::Running => entry.changed = true,
            Doing::Ready => {}
        }
    }

    pub fn pop(&mut self) -> Option<Name> {
        while let Some(name) = self.ready.pop_front() {
            if self.entries.get(&name).is_some_and(|entry| entry.doing == Doing::Ready) {
                return Some(name);
            }
        }
        None
    }

    pub fn may_start(&self, name: Name) -> bool {
        self.entries.get(&name).is_some_and(|entry| entry.doing != Doing::Running)
    }

    pub fn started(&mut self, name: Name) -> (u64, Option<Box<Memory>>) {
        self.rounds += 1;
        let memory = self.entries.get_mut(&name).and_then(|entry| {
            entry.doing = Doing::Running;
            (entry.changed, entry.stands_otherwise) = (false, false);
            entry.round = self.rounds;
            entry.memory.take()
        });
        self.cancel_timer(name);
        (self.rounds, memory)
    }

    /// Answers whether the round's own word on when the object is due again counts.
    pub fn finished(
        &mut self,
        name: Name,
        round: u64,
        memory: Option<Box<Memory>>,
        versions: Vec<u64>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&name).filter(|entry| entry.round == round) else {
            return false;
        };
        entry.memory = memory;
        let news =
            entry.changed && !versions.contains(&entry.digest.version) && !entry.digest.converged;
        let again = news || entry.stands_otherwise;
        entry.own_versions = versions;
        entry.doing = Doing::Idle;
        if again {
            self.due(name);
        }
        !again
    }

    /// A new timer of the object; an older one does not count any more.
    pub fn new_timer(&mut self, name: Name) -> u64 {
        self.entries.get_mut(&name).map_or(0, |entry| {
            entry.timer += 1;
            entry.timer
        })
    }

    pub fn cancel_timer(&mut self, name: Name) {
        self.new_timer(name);
    }

    pub fn timer_counts(&self, name: Name, timer: u64) -> bool {
        self.entries.get(&name).is_some_and(|entry| entry.timer == timer)
    }
}
