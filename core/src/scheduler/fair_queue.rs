//! Who goes first of those that wait for one quota: by priority, then by namespace in turn, then by
//! the order in which they came. Pure.

use std::collections::{BTreeMap, HashMap};
use std::iter::Cycle;
use std::slice::Iter;
use std::sync::Arc;

use crate::ledger::plan::Priority;
use crate::object::ObjectKey;

/// Which priority each grant favours, in turn. If nobody waits in that one, the grant goes to the
/// highest priority in which somebody waits.
///
/// Strict priorities would starve the lower ones for as long as there is enough to do above. So
/// attaches and retries are favoured by one grant in eight each. At 20 grants a second that is one
/// in 0.4 s, much less than a retry pauses anyway; at the floor of one a second it is one in 8 s.
/// The higher priorities lose at most a quarter of the grants. And whoever is first in line there
/// waits for one such grant at most: after each comes one that favours detaches.
///
/// Resyncs have no turn: they have a share of their own, which is both the most and the least.
const FAVOURED: [Priority; 8] = {
    use Priority::{Attach, Detach, Retry};
    [Detach, Detach, Detach, Attach, Detach, Detach, Detach, Retry]
};

/// The keys that wait for one quota.
///
/// A key waits once, so that this is bounded by the number of keys (objects) there are; namespaces
/// and priorities are there only while a key of theirs waits.
#[derive(Debug)]
pub(super) struct FairQueue {
    rotations: BTreeMap<Priority, Rotation>,
    places: HashMap<ObjectKey, Position>,
    next_ticket: u64,
    favoured: Cycle<Iter<'static, Priority>>,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    priority: Priority,
    ticket: u64,
}

/// The namespaces of one priority, in the order of their turns.
#[derive(Debug)]
struct Rotation {
    queues: BTreeMap<Turn, BTreeMap<u64, ObjectKey>>,
    turn_of: HashMap<Arc<str>, Turn>,
    /// How many grants this priority had.
    grants: u64,
}

/// A namespace's place in the rotation, in the order of the fields.
///
/// One that comes anew stands in front of the one that was served last and behind all others: a
/// single long queue is not in its way, and one that comes back at once, again and again, still
/// overtakes nobody twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    after_grants: u64,
    was_served: bool,
    ticket: u64,
}

impl FairQueue {
    pub(super) fn new() -> Self {
        Self {
            rotations: BTreeMap::new(),
            places: HashMap::new(),
            next_ticket: 0,
            favoured: FAVOURED.iter().cycle(),
        }
    }

    /// Puts `key` at the end of its namespace's queue. One that waits already moves there if it
    /// comes with a higher priority, and keeps its place if not; then the answer is false.
    pub(super) fn enqueue(&mut self, key: ObjectKey, priority: Priority) -> bool {
        if self.places.get(&key).is_some_and(|place| place.priority <= priority) {
            return false;
        }
        self.cancel(&key);
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.saturating_add(1);
        self.places.insert(key.clone(), Position { priority, ticket });
        self.rotations.entry(priority).or_insert_with(Rotation::new).push(ticket, key);
        true
    }

    /// Gives the place of `key` back; false if it had none.
    pub(super) fn cancel(&mut self, key: &ObjectKey) -> bool {
        let Some(Position { priority, ticket }) = self.places.remove(key) else { return false };
        if let Some(rotation) = self.rotations.get_mut(&priority) {
            rotation.remove(&key.namespace, ticket);
        }
        self.drop_if_empty(priority);
        true
    }

    /// Whose turn it is, and its priority. A resync's turn it is if it `may` be, and only then.
    pub(super) fn pop(&mut self, may_resync: bool) -> Option<(ObjectKey, Priority)> {
        if !may_resync && !self.has_others() {
            return None;
        }
        let first = *self.rotations.first_key_value()?.0;
        let priority = if may_resync && self.rotations.contains_key(&Priority::Resync) {
            Priority::Resync
        } else {
            let favoured = self.favoured.next().copied();
            favoured.filter(|favoured| self.rotations.contains_key(favoured)).unwrap_or(first)
        };
        let key = self.rotations.get_mut(&priority)?.pop()?;
        self.drop_if_empty(priority);
        self.places.remove(&key);
        Some((key, priority))
    }

    /// Whether somebody waits for something else than a resync.
    pub(super) fn has_others(&self) -> bool {
        let first = self.rotations.first_key_value();
        first.is_some_and(|(priority, _)| *priority != Priority::Resync)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn drop_if_empty(&mut self, priority: Priority) {
        if self.rotations.get(&priority).is_some_and(|rotation| rotation.queues.is_empty()) {
            self.rotations.remove(&priority);
        }
    }
}

impl Rotation {
    fn new() -> Self {
        Self { queues: BTreeMap::new(), turn_of: HashMap::new(), grants: 0 }
    }

    fn push(&mut self, ticket: u64, key: ObjectKey) {
        let turn = self.turn_of.get(&key.namespace).copied().unwrap_or_else(|| {
            let turn = Turn { after_grants: self.grants, was_served: false, ticket };
            self.turn_of.insert(Arc::clone(&key.namespace), turn);
            turn
        });
        self.queues.entry(turn).or_default().insert(ticket, key);
    }

    fn remove(&mut self, namespace: &str, ticket: u64) {
        let Some(turn) = self.turn_of.get(namespace) else { return };
        let Some(queue) = self.queues.get_mut(turn) else { return };
        queue.remove(&ticket);
        if queue.is_empty() {
            self.queues.remove(turn);
            self.turn_of.remove(namespace);
        }
    }

    fn pop(&mut self) -> Option<ObjectKey> {
        let (_, mut queue) = self.queues.pop_first()?;
        let (ticket, key) = queue.pop_first()?;
        self.grants = self.grants.saturating_add(1);
        if queue.is_empty() {
            self.turn_of.remove(&key.namespace);
        } else {
            let turn = Turn { after_grants: self.grants, was_served: true, ticket };
            self.turn_of.insert(Arc::clone(&key.namespace), turn);
            self.queues.insert(turn, queue);
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::key;
    use Priority::{Attach, Detach, Resync, Retry};
    use proptest::prelude::*;

    /// The hundreds are the namespace.
    fn numbered(number: u32) -> ObjectKey {
        key(&format!("{}/{number}", number / 100))
    }

    fn names(keys: impl IntoIterator<Item = ObjectKey>) -> Vec<String> {
        keys.into_iter().map(|key| key.to_string()).collect()
    }

    fn pop(queue: &mut FairQueue) -> Option<ObjectKey> {
        queue.pop(true).map(|(key, _)| key)
    }

    fn drain(queue: &mut FairQueue) -> Vec<String> {
        names(std::iter::from_fn(|| pop(queue)))
    }

    #[test]
    fn detaches_go_before_attaches_and_attaches_before_retries() {
        let mut queue = FairQueue::new();
        queue.enqueue(key("x/retry"), Retry);
        queue.enqueue(key("x/attach"), Attach);
        queue.enqueue(key("x/detach"), Detach);

        assert_eq!(drain(&mut queue), ["x/detach", "x/attach", "x/retry"]);
    }

    #[test]
    fn namespaces_take_turns_and_their_keys_go_in_their_order() {
        let mut queue = FairQueue::new();
        for name in ["a/1", "a/2", "a/3", "b/1", "c/1", "c/2"] {
            queue.enqueue(key(name), Attach);
        }

        assert_eq!(drain(&mut queue), ["a/1", "b/1", "c/1", "a/2", "c/2", "a/3"]);
    }

    #[test]
    fn a_namespace_that_comes_anew_goes_before_the_one_that_was_served_last() {
        let mut queue = FairQueue::new();
        for name in ["a/1", "a/2", "b/1", "b/2"] {
            queue.enqueue(key(name), Attach);
        }
        assert_eq!(pop(&mut queue), Some(key("a/1")));

        queue.enqueue(key("new/1"), Attach);

        assert_eq!(drain(&mut queue), ["b/1", "new/1", "a/2", "b/2"]);
    }

    #[test]
    fn a_namespace_that_comes_back_at_once_overtakes_nobody_twice() {
        let mut queue = FairQueue::new();
        for name in ["crowd/1", "crowd/2", "crowd/3"] {
            queue.enqueue(key(name), Attach);
        }

        let mut order = Vec::new();
        for _ in 0..6 {
            queue.enqueue(key("eager/1"), Attach);
            order.extend(pop(&mut queue));
        }

        assert_eq!(
            names(order),
            ["crowd/1", "eager/1", "crowd/2", "eager/1", "crowd/3", "eager/1"]
        );
    }

    #[test]
    fn a_higher_priority_moves_up_and_a_lower_one_changes_nothing() {
        let mut queue = FairQueue::new();
        queue.enqueue(key("x/a"), Retry);
        queue.enqueue(key("x/b"), Attach);

        assert!(queue.enqueue(key("x/a"), Detach));
        assert!(!queue.enqueue(key("x/a"), Retry));
        assert!(!queue.enqueue(key("x/a"), Detach));

        assert_eq!(queue.len(), 2);
        assert_eq!(drain(&mut queue), ["x/a", "x/b"]);
    }

    #[test]
    fn a_resync_goes_when_it_may_and_is_passed_over_when_it_may_not() {
        let mut queue = FairQueue::new();
        assert!(queue.is_empty() && !queue.has_others());
        assert_eq!((queue.pop(true), queue.pop(false)), (None, None));
        queue.enqueue(key("resync"), Resync);
        assert!(!queue.is_empty() && !queue.has_others());
        assert_eq!(queue.pop(false), None);
        for name in 0..20 {
            queue.enqueue(key(&name.to_string()), Attach);
        }
        assert!(queue.has_others());
        assert_eq!(queue.pop(false), Some((key("0"), Attach)));
        assert_eq!(queue.pop(true), Some((key("resync"), Resync)));
        assert_eq!(queue.pop(true), Some((key("1"), Attach)));
    }

    #[test]
    fn what_is_left_behind_is_nothing() {
        let mut queue = FairQueue::new();
        for key in 0..400 {
            queue.enqueue(
                numbered(key),
                [Detach, Attach, Retry, Resync][usize::try_from(key).unwrap() % 4],
            );
        }

        for key in 0..200 {
            assert!(queue.cancel(&numbered(key)));
        }
        assert_eq!(drain(&mut queue).len(), 200);

        assert!(queue.is_empty() && queue.rotations.is_empty());
    }

    #[test]
    fn a_cancelled_key_costs_its_namespace_no_turn() {
        let mut queue = FairQueue::new();
        for name in ["a/1", "b/1", "a/2", "b/2"] {
            queue.enqueue(key(name), Attach);
        }

        queue.cancel(&key("a/1"));

        assert_eq!(drain(&mut queue), ["a/2", "b/1", "b/2"]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Move {
        Enqueue(u32, Priority),
        Cancel(u32),
        Pop,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let priority = prop_oneof![Just(Detach), Just(Attach), Just(Retry), Just(Resync)];
        let one = prop_oneof![
            4 => (0_u32..400, priority).prop_map(|(key, priority)| Move::Enqueue(key, priority)),
            1 => (0_u32..400).prop_map(Move::Cancel),
            2 => Just(Move::Pop),
        ];
        proptest::collection::vec(one, 1..400)
    }

    proptest! {
        /// Against a list of who waits, with the place of each.
        #[test]
        fn whoever_waits_is_served_once_in_its_namespaces_order_and_no_priority_starves(moves in moves()) {
            let (mut queue, mut model) = (FairQueue::new(), Vec::<(Priority, u32)>::new());
            let mut passed = HashMap::from([(Attach, 0), (Retry, 0)]);
            for one in moves.into_iter().chain(std::iter::repeat_n(Move::Pop, 400)) {
                match one {
                    Move::Enqueue(key, priority) => {
                        let better = model.iter().all(|(has, other)| *other != key || priority < *has);
                        prop_assert_eq!(queue.enqueue(numbered(key), priority), better);
                        if better {
                            model.retain(|(_, other)| *other != key);
                            model.push((priority, key));
                        }
                    }
                    Move::Cancel(key) => {
                        prop_assert_eq!(queue.cancel(&numbered(key)), model.iter().any(|(_, other)| *other == key));
                        model.retain(|(_, other)| *other != key);
                    }
                    Move::Pop => {
                        let Some(key) = pop(&mut queue) else {
                            prop_assert!(model.is_empty());
                            continue;
                        };
                        let at = model.iter().position(|(_, other)| numbered(*other) == key).expect("it waited");
                        let (priority, _) = model[at];
                        let earlier = |(other_priority, other): &(Priority, u32)| *other_priority == priority && numbered(*other).namespace == key.namespace;
                        prop_assert!(!model[..at].iter().any(earlier), "its namespace's queue is in order");
                        for (lower, count) in &mut passed {
                            let waits = model.iter().any(|(other, _)| other == lower);
                            let passed = u32::from(priority != Resync);
                            *count = if waits && *lower != priority { *count + passed } else { 0 };
                            prop_assert!(*count < 8, "{lower:?} was passed over {count} times");
                        }
                        model.remove(at);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            prop_assert!(queue.rotations.is_empty());
        }
    }
}
