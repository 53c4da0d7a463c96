//! Which objects there are, and which are due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::object::{ObjectKey, Scope};
use crate::reconcile::ReconcileState;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EntryState {
    /// Nothing, or waiting for a time or a permit.
    #[default]
    Idle,
    /// In the queue of those that are due.
    Ready,
    /// A reconcile is under way.
    Running,
    /// A reconcile is under way, and something changed meanwhile.
    RunningAgain,
    /// A reconcile is under way, and something else than its own version makes it due again.
    RunningAnyway,
}

#[derive(Debug)]
struct Entry {
    version: Arc<str>,
    converged: bool,
    state: EntryState,
    /// What the last reconcile left for the next one.
    reconcile: Option<Box<ReconcileState>>,
    /// The resource versions that the last reconcile itself wrote: their echo is no news.
    own_versions: Vec<Arc<str>>,
    listed: bool,
    /// The run that is under way: one of an object that was here before under this name has no say.
    run: u64,
    /// When it is due, if nothing changes before.
    timer: Option<Duration>,
}

/// The objects that the operator knows of, and when each is due.
#[derive(Debug, Default)]
pub struct WorkQueue {
    entries: BTreeMap<ObjectKey, Entry>,
    ready: VecDeque<ObjectKey>,
    timers: BTreeSet<(Duration, ObjectKey)>,
    runs: u64,
    /// Only objects whose last answer could not be written yet are due: the process stops.
    stopping: bool,
}

impl Entry {
    fn owes_settle(&self) -> bool {
        self.reconcile.as_ref().is_some_and(|state| state.owes_settle())
    }
}

impl WorkQueue {
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

    /// Whether the object is there.
    #[must_use]
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.entries.contains_key(key)
    }

    /// A list of `scope` begins: what it does not name is gone.
    pub fn list_began(&mut self, scope: &Scope) {
        for (key, entry) in &mut self.entries {
            if scope.contains(key) {
                entry.listed = false;
            }
        }
    }

    /// The list has ended; answers the objects that are gone.
    pub fn list_ended(&mut self, scope: &Scope) -> Vec<ObjectKey> {
        let unlisted = self.entries.iter().filter(|(_, entry)| !entry.listed).map(|(key, _)| key);
        let gone: Vec<_> = unlisted.filter(|key| scope.contains(key)).cloned().collect();
        for key in &gone {
            self.remove(key);
        }
        gone
    }

    /// The watch saw this version of the object: if that is news, it is due, whatever it waits for.
    pub fn saw(&mut self, key: &ObjectKey, version: Arc<str>, converged: bool) {
        let Some(entry) = self.entries.get_mut(key) else {
            let entry = Entry {
                version,
                converged,
                state: EntryState::Idle,
                reconcile: None,
                own_versions: Vec::new(),
                listed: true,
                run: 0,
                timer: None,
            };
            self.entries.insert(key.clone(), entry);
            if !converged {
                self.due(key);
            }
            return;
        };
        entry.listed = true;
        let news = entry.version != version && !entry.own_versions.contains(&version);
        (entry.version, entry.converged) = (version, converged);
        if news && !(converged && entry.state == EntryState::Idle) {
            self.cancel_timer(key);
            self.due(key);
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.cancel_timer(key);
        self.entries.remove(key);
    }

    /// The object is due; while a reconcile is under way, another one after it.
    pub fn due(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if self.stopping && !entry.owes_settle() {
            return;
        }
        match entry.state {
            EntryState::Idle => {
                entry.state = EntryState::Ready;
                self.ready.push_back(key.clone());
            }
            EntryState::Running => entry.state = EntryState::RunningAgain,
            EntryState::Ready | EntryState::RunningAgain | EntryState::RunningAnyway => {}
        }
    }

    /// The object is due, whatever a reconcile that is under way has seen: no version of its own tells
    /// why.
    pub fn due_anyway(&mut self, key: &ObjectKey) {
        self.due(key);
        if let Some(entry) = self.entries.get_mut(key)
            && entry.state == EntryState::RunningAgain
        {
            entry.state = EntryState::RunningAnyway;
        }
    }

    /// The object is due at `at`, unless something else makes it due before.
    pub fn set_timer(&mut self, key: &ObjectKey, at: Duration) {
        self.cancel_timer(key);
        if let Some(entry) = self.entries.get_mut(key)
            && (!self.stopping || entry.owes_settle())
        {
            entry.timer = Some(at);
            self.timers.insert((at, key.clone()));
        }
    }

    /// Time alone makes the object due no more.
    pub fn cancel_timer(&mut self, key: &ObjectKey) {
        if let Some(at) = self.entries.get_mut(key).and_then(|entry| entry.timer.take()) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    /// Whether time alone will make the object due.
    #[must_use]
    pub fn has_timer(&self, key: &ObjectKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.timer.is_some())
    }

    /// The objects whose time has come are due.
    pub fn expire_timers(&mut self, now: Duration) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.timers.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.timer = None;
            }
            self.due(&key);
        }
    }

    /// When the next object is due by time.
    #[must_use]
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The process stops: from now on only objects whose last answer could not be written yet are
    /// due, and these at once.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.ready.clear();
        self.timers.clear();
        for (key, entry) in &mut self.entries {
            entry.timer = None;
            if matches!(entry.state, EntryState::Idle | EntryState::Ready) {
                entry.state = EntryState::Idle;
                if entry.owes_settle() {
                    entry.state = EntryState::Ready;
                    self.ready.push_back(key.clone());
                }
            }
        }
    }

    /// Whether nothing is due, now or by time.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.ready.is_empty() && self.timers.is_empty()
    }

    /// The next object that is due, outside of the scopes that are `closed`.
    pub fn pop(&mut self, closed: &[Scope]) -> Option<ObjectKey> {
        if closed.contains(&Scope::All) {
            return None;
        }
        for _ in 0..self.ready.len() {
            let key = self.ready.pop_front()?;
            if closed.iter().any(|scope| scope.contains(&key)) {
                self.ready.push_back(key);
            } else if self.entries.get(&key).is_some_and(|entry| entry.state == EntryState::Ready) {
                return Some(key);
            }
        }
        None
    }

    /// Whether a reconcile of the object may start out of turn: it is there, and none is under way.
    #[must_use]
    pub fn may_start(&self, key: &ObjectKey) -> bool {
        let state = self.entries.get(key).map(|entry| entry.state);
        matches!(state, Some(EntryState::Idle | EntryState::Ready))
    }

    /// A reconcile of the object starts; answers the number of its run and what the last one left.
    pub fn started(&mut self, key: &ObjectKey) -> (u64, Option<Box<ReconcileState>>) {
        self.cancel_timer(key);
        self.runs += 1;
        let left = self.entries.get_mut(key).and_then(|entry| {
            entry.state = EntryState::Running;
            entry.run = self.runs;
            entry.reconcile.take()
        });
        (self.runs, left)
    }

    /// That run is over, has written `versions` and leaves something for the next one. Answers
    /// whether its own word on when the object is due again counts: it doesn't if the object is
    /// gone or another one, or due at once because something else changed.
    pub fn finished(
        &mut self,
        key: &ObjectKey,
        run: u64,
        left: Option<Box<ReconcileState>>,
        versions: Vec<Arc<str>>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.run == run) else {
            return false;
        };
        entry.reconcile = left;
        let changed = match entry.state {
            EntryState::RunningAnyway => true,
            EntryState::RunningAgain => !versions.contains(&entry.version) && !entry.converged,
            EntryState::Idle | EntryState::Ready | EntryState::Running => false,
        };
        entry.own_versions = versions;
        entry.state = EntryState::Idle;
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
        crate::fixtures::key("lobby")
    }

    fn saw(queue: &mut WorkQueue, version: &str, converged: bool) {
        queue.saw(&key(), version.into(), converged);
    }

    #[test]
    fn a_converged_object_is_never_due() {
        let mut queue = WorkQueue::default();

        saw(&mut queue, "1", true);

        assert_eq!(queue.pop(&[]), None);
    }

    #[test]
    fn the_echo_of_a_reconcile_starts_no_other_one() {
        let mut queue = WorkQueue::default();
        saw(&mut queue, "1", false);
        let (run, _) = queue.started(&queue.ready[0].clone());

        saw(&mut queue, "2", false); // before the run ends
        assert!(queue.finished(&key(), run, None, vec!["2".into(), "3".into()]));
        saw(&mut queue, "3", false); // and after it

        assert!(
            !queue
                .ready
                .iter()
                .any(|ready| *ready == key() && queue.entries[ready].state == EntryState::Ready)
        );
    }

    #[test]
    fn an_edit_during_a_reconcile_starts_another_one() {
        let mut queue = WorkQueue::default();
        saw(&mut queue, "1", false);
        let due = queue.pop(&[]).unwrap();
        let (run, _) = queue.started(&due);

        saw(&mut queue, "7", false);

        assert!(!queue.finished(&key(), run, None, vec!["2".into()]));
        assert_eq!(queue.pop(&[]), Some(key()));
    }

    #[test]
    fn an_edit_that_takes_an_edit_back_starts_a_reconcile_if_one_is_under_way() {
        let mut queue = WorkQueue::default();
        saw(&mut queue, "1", false);
        let due = queue.pop(&[]).unwrap();
        let (run, _) = queue.started(&due);

        saw(&mut queue, "7", true);

        assert!(
            queue.finished(&key(), run, None, vec!["2".into()]),
            "what the watch shows last needs nothing"
        );
        assert_eq!(queue.pop(&[]), None);
    }

    #[test]
    fn the_run_of_an_object_that_is_gone_has_no_say_in_the_next_one_of_its_name() {
        let mut queue = WorkQueue::default();
        saw(&mut queue, "1", false);
        let due = queue.pop(&[]).unwrap();
        let (old, _) = queue.started(&due);
        queue.remove(&key());
        saw(&mut queue, "5", false);

        assert!(!queue.finished(&key(), old, None, Vec::new()));

        let due = queue.pop(&[]).expect("the new object is still due");
        let (new, _) = queue.started(&due);
        assert!(!queue.finished(&key(), old, None, Vec::new()));
        assert!(!queue.may_start(&key()), "the new object's run is still under way");
        assert!(queue.finished(&key(), new, None, Vec::new()));
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone() {
        let mut queue = WorkQueue::default();
        saw(&mut queue, "1", true);
        assert!(!queue.is_empty());

        queue.list_began(&Scope::All);

        assert_eq!(queue.list_ended(&Scope::All), [key()]);
        assert!(queue.is_empty());
    }

    #[test]
    fn nothing_is_worked_on_where_the_first_list_is_still_under_way() {
        let mut queue = WorkQueue::default();
        saw(&mut queue, "1", false);
        let other = Scope::Namespace("stage".into());
        let own = Scope::Namespace("arcade".into());

        assert_eq!(queue.pop(&[Scope::All]), None);
        assert_eq!(queue.pop(&[own, other.clone()]), None);
        assert_eq!(queue.pop(&[other]), Some(key()));
    }

    #[test]
    fn another_owner_during_a_reconcile_starts_another_one_though_no_version_tells() {
        let mut queue = WorkQueue::default();
        saw(&mut queue, "1", false);
        let due = queue.pop(&[]).unwrap();
        let (run, _) = queue.started(&due);

        queue.due_anyway(&key());

        assert!(!queue.finished(&key(), run, None, vec!["1".into()]));
        assert_eq!(queue.pop(&[]), Some(key()));
    }
}
