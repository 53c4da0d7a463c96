//! A phone that moves from one session to another: as long as one object holds it, another one's
//! attach is refused. The detach that frees it makes that attach due at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::InstanceId;
use crate::object::ObjectKey;

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
}

impl Freed {
    /// The object's attaches of these have failed, and of no others.
    pub fn waits(&mut self, key: &ObjectKey, failed: BTreeSet<InstanceId>) {
        let before = self.failed.remove(key).unwrap_or_default();
        for id in before.difference(&failed) {
            if let Some(keys) = self.waiting.get_mut(id) {
                keys.remove(key);
                if keys.is_empty() {
                    self.waiting.remove(id);
                }
            }
        }
        for id in failed.difference(&before) {
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
