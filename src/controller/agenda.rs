//! Which objects there are, and which are due: digests, not objects. Pure; the timers and the
//! permits are the controller's.

use std::collections::{BTreeMap, VecDeque};

use streamsession_protocol::step::Memory;

use super::digest::Digest;
use super::key::{ObjectKey, Scope};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doing {
    /// Nothing, or waiting for a time or a permit.
    #[default]
    Idle,
    /// In the queue of those that are due.
    Ready,
    /// A round is under way.
    Running,
    /// A round is under way, and something changed meanwhile.
    RunningAgain,
    /// A round is under way, and how the object stands among others has changed meanwhile: no
    /// version of its own tells that.
    RunningAnyway,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    doing: Doing,
    memory: Option<Box<Memory>>,
    /// The resource versions that the last round itself wrote: their echo is no news.
    own_versions: Vec<String>,
    listed: bool,
    /// The round that is under way: one of an object that was here before under this name has no
    /// say.
    round: u64,
}

/// The objects that the operator knows of.
#[derive(Debug, Default)]
pub struct Agenda {
    entries: BTreeMap<ObjectKey, Entry>,
    ready: VecDeque<ObjectKey>,
    rounds: u64,
}

impl Agenda {
    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A list of `scope` begins: what it does not name is gone.
    pub fn list_began(&mut self, scope: &Scope) {
        for (key, entry) in &mut self.entries {
            if scope.holds(key) {
                entry.listed = false;
            }
        }
    }

    /// The list has ended; answers the objects that are gone.
    pub fn list_ended(&mut self, scope: &Scope) -> Vec<ObjectKey> {
        let gone: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, entry)| scope.holds(key) && !entry.listed)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.entries.remove(key);
        }
        gone
    }

    /// The watch saw the object as `digest` says. Answers whether it is due now because of that.
    pub fn saw(&mut self, key: &ObjectKey, digest: Digest) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            let due = !digest.converged;
            let entry = Entry {
                digest,
                doing: Doing::Idle,
                memory: None,
                own_versions: Vec::new(),
                listed: true,
                round: 0,
            };
            self.entries.insert(key.clone(), entry);
            if due {
                self.due(key);
            }
            return due;
        };
        entry.listed = true;
        let news =
            entry.digest.version != digest.version && !entry.own_versions.contains(&digest.version);
        let converged = digest.converged;
        entry.digest = digest;
        if !news || (converged && entry.doing == Doing::Idle) {
            return false;
        }
        self.due(key);
        true
    }

    /// The object is gone.
    pub fn gone(&mut self, key: &ObjectKey) {
        self.entries.remove(key);
    }

    /// The object is due; while a round is under way, another one after it.
    pub fn due(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match entry.doing {
            Doing::Idle => {
                entry.doing = Doing::Ready;
                self.ready.push_back(key.clone());
            }
            Doing::Running => entry.doing = Doing::RunningAgain,
            Doing::Ready | Doing::RunningAgain | Doing::RunningAnyway => {}
        }
    }

    /// How the object stands among others has changed: it is due, whatever a round that is under
    /// way has seen.
    pub fn stands_otherwise(&mut self, key: &ObjectKey) {
        self.due(key);
        if let Some(entry) =
            self.entries.get_mut(key).filter(|entry| entry.doing == Doing::RunningAgain)
        {
            entry.doing = Doing::RunningAnyway;
        }
    }

    /// Idle objects whose last answer could not be written yet.
    #[must_use]
    pub fn owing(&self) -> Vec<ObjectKey> {
        let owes = |entry: &Entry| entry.memory.as_ref().is_some_and(|memory| memory.owes_settle());
        self.entries.iter().filter(|(_, entry)| owes(entry)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the object is there.
    #[must_use]
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.entries.contains_key(key)
    }

    /// The next object that is due, outside of the scopes that are `closed`.
    pub fn pop(&mut self, closed: &[Scope]) -> Option<ObjectKey> {
        for _ in 0..self.ready.len() {
            if closed.contains(&Scope::All) {
                return None;
            }
            let key = self.ready.pop_front()?;
            if closed.iter().any(|scope| scope.holds(&key)) {
                self.ready.push_back(key);
            } else if self.entries.get(&key).is_some_and(|entry| entry.doing == Doing::Ready) {
                return Some(key);
            }
        }
        None
    }

    /// Whether a round of the object may start out of turn: it is there, and none is under way.
    #[must_use]
    pub fn may_start(&self, key: &ObjectKey) -> bool {
        self.entries.get(key).is_some_and(|entry| matches!(entry.doing, Doing::Idle | Doing::Ready))
    }

    /// A round of the object starts; answers its number and what to remember.
    pub fn started(&mut self, key: &ObjectKey) -> (u64, Option<Box<Memory>>) {
        self.rounds += 1;
        let memory = self.entries.get_mut(key).and_then(|entry| {
            entry.doing = Doing::Running;
            entry.round = self.rounds;
            entry.memory.take()
        });
        (self.rounds, memory)
    }

    /// The round of that number has ended and wrote `versions`. Answers whether its own word on
    /// when the object is due again counts: it doesn't if the object is gone or another one, or due
    /// at once because something else changed.
    pub fn finished(
        &mut self,
        key: &ObjectKey,
        round: u64,
        memory: Option<Box<Memory>>,
        versions: Vec<String>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.round == round) else {
            return false;
        };
        entry.memory = memory;
        let news = || !versions.contains(&entry.digest.version) && !entry.digest.converged;
        let changed =
            entry.doing == Doing::RunningAnyway || (entry.doing == Doing::RunningAgain && news());
        entry.own_versions = versions;
        entry.doing = Doing::Idle;
        if changed {
            self.due(key);
        }
        !changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey { namespace: "arcade".into(), name: "lobby".into() }
    }

    fn digest(version: &str, converged: bool) -> Digest {
        Digest { version: version.into(), converged }
    }

    fn saw(agenda: &mut Agenda, version: &str, converged: bool) -> bool {
        agenda.saw(&key(), digest(version, converged))
    }

    #[test]
    fn a_converged_object_is_never_due() {
        let mut agenda = Agenda::default();

        saw(&mut agenda, "1", true);

        assert_eq!(agenda.pop(&[]), None);
    }

    #[test]
    fn the_echo_of_a_round_starts_no_other_round() {
        let mut agenda = Agenda::default();
        saw(&mut agenda, "1", false);
        let (round, _) = agenda.started(&agenda.ready[0].clone());

        saw(&mut agenda, "2", false); // before the round ends
        assert!(agenda.finished(&key(), round, None, vec!["2".into(), "3".into()]));
        saw(&mut agenda, "3", false); // and after it

        assert!(
            !agenda
                .ready
                .iter()
                .any(|ready| *ready == key() && agenda.entries[ready].doing == Doing::Ready)
        );
    }

    #[test]
    fn an_edit_during_a_round_starts_another_one() {
        let mut agenda = Agenda::default();
        saw(&mut agenda, "1", false);
        let due = agenda.pop(&[]).unwrap();
        let (round, _) = agenda.started(&due);

        saw(&mut agenda, "7", false);

        assert!(!agenda.finished(&key(), round, None, vec!["2".into()]));
        assert_eq!(agenda.pop(&[]), Some(key()));
    }

    #[test]
    fn an_edit_that_takes_an_edit_back_starts_a_round_if_one_is_under_way() {
        let mut agenda = Agenda::default();
        saw(&mut agenda, "1", false);
        let due = agenda.pop(&[]).unwrap();
        let (round, _) = agenda.started(&due);

        saw(&mut agenda, "7", true);

        assert!(
            agenda.finished(&key(), round, None, vec!["2".into()]),
            "what the watch shows last needs nothing"
        );
        assert_eq!(agenda.pop(&[]), None);
    }

    #[test]
    fn the_round_of_an_object_that_is_gone_has_no_say_in_the_next_one_of_its_name() {
        let mut agenda = Agenda::default();
        saw(&mut agenda, "1", false);
        let due = agenda.pop(&[]).unwrap();
        let (old, _) = agenda.started(&due);
        agenda.gone(&key());
        saw(&mut agenda, "5", false);

        assert!(!agenda.finished(&key(), old, None, Vec::new()));

        let due = agenda.pop(&[]).expect("the new object is still due");
        let (new, _) = agenda.started(&due);
        assert!(!agenda.finished(&key(), old, None, Vec::new()));
        assert!(!agenda.may_start(&key()), "the new object's round is still under way");
        assert!(agenda.finished(&key(), new, None, Vec::new()));
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone() {
        let mut agenda = Agenda::default();
        saw(&mut agenda, "1", true);

        agenda.list_began(&Scope::All);

        assert_eq!(agenda.list_ended(&Scope::All), [key()]);
        assert!(agenda.is_empty());
    }

    #[test]
    fn nothing_is_worked_on_where_the_first_list_is_still_under_way() {
        let mut agenda = Agenda::default();
        saw(&mut agenda, "1", false);
        let other = Scope::Namespace("stage".into());
        let own = Scope::Namespace("arcade".into());

        assert_eq!(agenda.pop(&[Scope::All]), None);
        assert_eq!(agenda.pop(&[own, other.clone()]), None);
        assert_eq!(agenda.pop(&[other]), Some(key()));
    }

    #[test]
    fn another_standing_during_a_round_starts_another_one_though_no_version_tells() {
        let mut agenda = Agenda::default();
        saw(&mut agenda, "1", false);
        let due = agenda.pop(&[]).unwrap();
        let (round, _) = agenda.started(&due);

        agenda.stands_otherwise(&key());

        assert!(!agenda.finished(&key(), round, None, vec!["1".into()]));
        assert_eq!(agenda.pop(&[]), Some(key()));
    }
}
