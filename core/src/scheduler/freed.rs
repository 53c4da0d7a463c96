//! A phone that moves from one session to another: as long as one object holds it, another one's
//! attach is refused. The detach that frees it makes that attach due at once; and who else wants it is
//! found out, once, so that both can be told.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::InstanceId;
use crate::object::ObjectKey;

/// Instances that are waited for, at most: while the service refuses everything, memory must not grow
/// with the instances of the fleet. Whoever waits for one more waits for its pause.
const WAITING_MAX: usize = 10_000;

/// Who waits to attach an instance, and for whom one was freed. It is in memory alone: losing it
/// costs a pause.
#[derive(Debug, Default)]
pub struct Freed {
    /// Whose attach of an instance has failed.
    waiting: BTreeMap<InstanceId, BTreeSet<ObjectKey>>,
    /// Likewise, by object.
    failed: BTreeMap<ObjectKey, BTreeSet<InstanceId>>,
    /// What was detached for others since they tried last.
    free: BTreeMap<ObjectKey, BTreeSet<InstanceId>>,
    changed: BTreeSet<ObjectKey>,
    /// Who else wants these is not found out yet.
    unexplained: BTreeSet<InstanceId>,
}

impl Freed {
    /// The object's attaches of these have failed, and of no others.
    pub fn waits(&mut self, key: &ObjectKey, mut failed: BTreeSet<InstanceId>) {
        let before = self.failed.remove(key).unwrap_or_default();
        let mut room = WAITING_MAX.saturating_sub(self.waiting.len());
        failed.retain(|id| {
            let is_known = before.contains(id) || self.waiting.contains_key(id);
            let has_room = is_known || room > 0;
            room -= usize::from(has_room && !is_known);
            has_room
        });
        for id in before.difference(&failed) {
            if let Some(keys) = self.waiting.get_mut(id) {
                keys.remove(key);
                if keys.is_empty() {
                    self.waiting.remove(id);
                    self.unexplained.remove(id);
                }
            }
        }
        let over: Vec<_> = before.difference(&failed).cloned().collect();
        self.tried(key, &over);
        for id in failed.difference(&before) {
            self.unexplained.insert(id.clone());
            self.waiting.entry(id.clone()).or_default().insert(key.clone());
        }
        if !failed.is_empty() {
            self.failed.insert(key.clone(), failed);
        }
    }

    /// The object has detached these.
    pub fn detached(&mut self, by: &ObjectKey, ids: &BTreeSet<InstanceId>) {
        for id in ids {
            for key in self.waiting.get(id).into_iter().flatten().filter(|key| *key != by) {
                self.free.entry(key.clone()).or_default().insert(id.clone());
                self.changed.insert(key.clone());
            }
        }
    }

    /// The object has attached these: who still waits for one of them may want to know who has it.
    pub fn attached(&mut self, by: &ObjectKey, ids: &BTreeSet<InstanceId>) {
        for id in ids {
            if self.waiting.get(id).is_some_and(|keys| keys.iter().any(|key| key != by)) {
                self.unexplained.insert(id.clone());
            }
        }
    }

    /// What was freed for the object: its pauses count for nothing.
    #[must_use]
    pub fn of(&self, key: &ObjectKey) -> BTreeSet<InstanceId> {
        self.free.get(key).cloned().unwrap_or_default()
    }

    /// The object has tried these again.
    pub fn tried(&mut self, key: &ObjectKey, ids: &[InstanceId]) {
        if let Some(freed) = self.free.get_mut(key) {
            freed.retain(|id| !ids.contains(id));
            if freed.is_empty() {
                self.free.remove(key);
            }
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.waits(key, BTreeSet::new());
        self.free.remove(key);
        self.changed.remove(key);
    }

    /// Instances whose attach has failed, and of which nobody has asked yet who else wants them.
    pub fn take_unexplained(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.unexplained)
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_unexplained(&self) -> bool {
        !self.unexplained.is_empty()
    }

    /// The objects for which something was freed since the last time that this was asked.
    pub fn take_changed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.changed)
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{id, ids, key};

    fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
        names.iter().map(|name| key(name)).collect()
    }

    #[test]
    fn who_waits_for_an_instance_learns_that_it_is_free() {
        let mut freed = Freed::default();
        freed.waits(&key("b"), ids(&["x", "y"]));
        freed.waits(&key("c"), ids(&["z"]));
        assert!(!freed.has_changed());
        freed.detached(&key("a"), &ids(&["w", "x"]));
        assert!(freed.has_changed());
        assert_eq!(freed.take_changed(), keys(&["b"]));
        assert_eq!(freed.take_changed(), keys(&[]));
        assert_eq!((freed.of(&key("b")), freed.of(&key("c"))), (ids(&["x"]), ids(&[])));

        freed.tried(&key("b"), &[id("y")]);
        assert_eq!(freed.of(&key("b")), ids(&["x"]));
        freed.tried(&key("b"), &[id("x")]);
        assert_eq!(freed.of(&key("b")), ids(&[]));
        assert!(freed.free.is_empty());

        freed.detached(&key("a"), &ids(&["x"]));
        freed.waits(&key("b"), ids(&["y"]));
        assert!(freed.free.is_empty(), "it does not want x any more");
    }

    #[test]
    fn who_else_wants_an_instance_is_asked_once_as_long_as_somebody_waits() {
        let mut freed = Freed::default();
        freed.waits(&key("b"), ids(&["x", "y"]));
        freed.waits(&key("b"), ids(&["x"]));
        assert!(freed.has_unexplained());
        assert_eq!(freed.take_unexplained(), ids(&["x"]), "y was attached meanwhile");
        freed.waits(&key("b"), ids(&["x"]));
        assert!(!freed.has_unexplained());
        freed.waits(&key("c"), ids(&["x"]));
        assert_eq!(freed.take_unexplained(), ids(&["x"]), "another one wants it, too");
        freed.waits(&key("b"), ids(&[]));
        assert!(!freed.has_unexplained() && freed.take_unexplained().is_empty());
        freed.attached(&key("c"), &ids(&["x", "z"]));
        assert!(!freed.has_unexplained(), "nobody else waits");
        freed.attached(&key("a"), &ids(&["x", "z"]));
        assert_eq!(freed.take_unexplained(), ids(&["x"]));
        freed.waits(&key("c"), ids(&[]));
        freed.waits(&key("c"), ids(&["x"]));
        assert_eq!(freed.take_unexplained(), ids(&["x"]));
    }

    #[test]
    fn memory_does_not_grow_with_the_fleet() {
        let mut freed = Freed::default();
        let many = |name: &str| (0..8_000).map(|number| id(&format!("{name}{number}"))).collect();
        freed.waits(&key("a"), many("a"));
        freed.waits(&key("b"), many("b"));
        assert_eq!((freed.waiting.len(), freed.unexplained.len()), (WAITING_MAX, WAITING_MAX));
        freed.waits(&key("c"), ids(&["a0", "c0"]));
        assert_eq!(freed.failed.get(&key("c")), Some(&ids(&["a0"])), "what is known has room");
        freed.waits(&key("a"), ids(&["a0"]));
        freed.waits(&key("c"), ids(&["a0", "c0"]));
        assert_eq!(freed.failed.get(&key("c")), Some(&ids(&["a0", "c0"])));
        for name in ["a", "b", "c"] {
            freed.remove(&key(name));
        }
        assert!(freed.waiting.is_empty() && freed.unexplained.is_empty());
    }

    #[test]
    fn nobody_frees_anything_for_himself_or_for_one_that_does_not_wait_any_more() {
        let mut freed = Freed::default();
        freed.waits(&key("b"), ids(&["x"]));
        freed.detached(&key("b"), &ids(&["x"]));
        assert!(!freed.has_changed());
        freed.waits(&key("b"), ids(&["y"]));
        freed.detached(&key("a"), &ids(&["x"]));
        assert!(!freed.has_changed());

        freed.detached(&key("a"), &ids(&["y"]));
        freed.remove(&key("b"));
        assert!(!freed.has_changed() && freed.waiting.is_empty() && freed.failed.is_empty());
        assert_eq!(freed.of(&key("b")), ids(&[]));
    }
}
