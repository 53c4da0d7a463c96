//! Who goes first of those that wait for one quota: by class, then by group in turn, then by the
//! order in which they came. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::iter::Cycle;
use std::slice::Iter;

/// What waits: the name of an object, cheap to clone.
pub trait Key: Clone + Eq + Hash {
    /// Whom it shares a turn with: its namespace. Always the same for one key.
    fn group(&self) -> &str;
}

/// The classes of those that wait; the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Detaches and deletions: they give back what is paid for, and somebody waits for the object
    /// to be gone.
    Detach,
    /// First attaches and edits: a person may be looking.
    Attach,
    /// What has failed before.
    Retry,
}

/// Which class is favoured at each grant in turn. Where it does not wait, the first class that does
/// goes.
///
/// Strict classes would starve the lower ones for as long as there is enough to do above, so that
/// each has one grant in eight. At 20 a second that is one in 0.4 s, much less than a retry pauses
/// anyway, and at the floor of one a second still one in 8 s. It costs the classes above at most a
/// quarter of the grants, and one that comes first in its class a single grant: no two favours of
/// lower classes are next to each other.
const FAVOURED: [Priority; 8] = {
    use Priority::{Attach, Detach, Retry};
    [Detach, Detach, Detach, Attach, Detach, Detach, Detach, Retry]
};

/// The keys that wait for one quota.
///
/// A key waits once, so that this is bounded by the number of keys (objects) there are; groups and
/// classes are there only while a key of theirs waits.
#[derive(Debug)]
pub(super) struct Fair<K> {
    classes: BTreeMap<Priority, Class<K>>,
    places: HashMap<K, Place>,
    next_ticket: u64,
    favoured: Cycle<Iter<'static, Priority>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    priority: Priority,
    ticket: u64,
}

/// The groups of one class, in the order of their turns.
#[derive(Debug)]
struct Class<K> {
    lines: BTreeMap<Turn, BTreeMap<u64, K>>,
    turn_of: HashMap<Box<str>, Turn>,
    /// How many grants this class had.
    grants: u64,
}

/// A group's place in the rotation, in the order of the fields.
///
/// One that comes anew stands in front of the one that was served last and behind all others: a
/// single long line is not in its way, and one that comes back at once, again and again, still
/// overtakes nobody twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    after_grants: u64,
    was_served: bool,
    ticket: u64,
}

impl<K: Key> Fair<K> {
    pub(super) fn new() -> Self {
        Self {
            classes: BTreeMap::new(),
            places: HashMap::new(),
            next_ticket: 0,
            favoured: FAVOURED.iter().cycle(),
        }
    }

    /// Puts `key` at the end of its group's line. One that waits already moves there if it comes
    /// with a higher priority, and keeps its place if not; then the answer is false.
    pub(super) fn enqueue(&mut self, key: K, priority: Priority) -> bool {
        if self.places.get(&key).is_some_and(|place| place.priority <= priority) {
            return false;
        }
        self.cancel(&key);
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.saturating_add(1);
        self.places.insert(key.clone(), Place { priority, ticket });
        self.classes.entry(priority).or_insert_with(Class::new).push(ticket, key);
        true
    }

    /// Gives the place of `key` back; false if it had none.
    pub(super) fn cancel(&mut self, key: &K) -> bool {
        let Some(Place { priority, ticket }) = self.places.remove(key) else { return false };
        if let Some(class) = self.classes.get_mut(&priority) {
            class.remove(key.group(), ticket);
        }
        self.drop_if_empty(priority);
        true
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<K> {
        let first = *self.classes.first_key_value()?.0;
        let priority = self
            .favoured
            .next()
            .copied()
            .filter(|favoured| self.classes.contains_key(favoured))
            .unwrap_or(first);
        let key = self.classes.get_mut(&priority)?.pop()?;
        self.drop_if_empty(priority);
        self.places.remove(&key);
        Some(key)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn drop_if_empty(&mut self, priority: Priority) {
        if self.classes.get(&priority).is_some_and(|class| class.lines.is_empty()) {
            self.classes.remove(&priority);
        }
    }
}

impl<K: Key> Class<K> {
    fn new() -> Self {
        Self { lines: BTreeMap::new(), turn_of: HashMap::new(), grants: 0 }
    }

    fn push(&mut self, ticket: u64, key: K) {
        let turn = self.turn_of.get(key.group()).copied().unwrap_or_else(|| {
            let turn = Turn { after_grants: self.grants, was_served: false, ticket };
            self.turn_of.insert(key.group().into(), turn);
            turn
        });
        self.lines.entry(turn).or_default().insert(ticket, key);
    }

    fn remove(&mut self, group: &str, ticket: u64) {
        let Some(turn) = self.turn_of.get(group) else { return };
        let Some(line) = self.lines.get_mut(turn) else { return };
        line.remove(&ticket);
        if line.is_empty() {
            self.lines.remove(turn);
            self.turn_of.remove(group);
        }
    }

    fn pop(&mut self) -> Option<K> {
        let (_, mut line) = self.lines.pop_first()?;
        let (ticket, key) = line.pop_first()?;
        self.grants = self.grants.saturating_add(1);
        if line.is_empty() {
            self.turn_of.remove(key.group());
        } else {
            let turn = Turn { after_grants: self.grants, was_served: true, ticket };
            self.turn_of.insert(key.group().into(), turn);
            self.lines.insert(turn, line);
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{Attach, Detach, Retry};
    use super::*;
    use proptest::prelude::*;

    /// `"group/name"`, or a name in the group without a name.
    impl Key for &'static str {
        fn group(&self) -> &str {
            self.split_once('/').map_or("", |(group, _)| group)
        }
    }

    /// The hundreds are the group.
    impl Key for u32 {
        fn group(&self) -> &str {
            ["0", "1", "2", "3"][usize::try_from(*self / 100).unwrap()]
        }
    }

    fn drain<K: Key>(fair: &mut Fair<K>) -> Vec<K> {
        std::iter::from_fn(|| fair.pop()).collect()
    }

    #[test]
    fn detaches_go_before_attaches_and_attaches_before_retries() {
        let mut fair = Fair::new();
        fair.enqueue("retry", Retry);
        fair.enqueue("attach", Attach);
        fair.enqueue("detach", Detach);

        assert_eq!(drain(&mut fair), ["detach", "attach", "retry"]);
    }

    #[test]
    fn groups_take_turns_and_their_keys_go_in_their_order() {
        let mut fair = Fair::new();
        for key in ["a/1", "a/2", "a/3", "b/1", "c/1", "c/2"] {
            fair.enqueue(key, Attach);
        }

        assert_eq!(drain(&mut fair), ["a/1", "b/1", "c/1", "a/2", "c/2", "a/3"]);
    }

    #[test]
    fn a_group_that_comes_anew_goes_before_the_one_that_was_served_last() {
        let mut fair = Fair::new();
        for key in ["a/1", "a/2", "b/1", "b/2"] {
            fair.enqueue(key, Attach);
        }
        assert_eq!(fair.pop(), Some("a/1"));

        fair.enqueue("new/1", Attach);

        assert_eq!(drain(&mut fair), ["b/1", "new/1", "a/2", "b/2"]);
    }

    #[test]
    fn a_group_that_comes_back_at_once_overtakes_nobody_twice() {
        let mut fair = Fair::new();
        for key in ["crowd/1", "crowd/2", "crowd/3"] {
            fair.enqueue(key, Attach);
        }

        let mut order = Vec::new();
        for _ in 0..6 {
            fair.enqueue("eager/1", Attach);
            order.extend(fair.pop());
        }

        assert_eq!(order, ["crowd/1", "eager/1", "crowd/2", "eager/1", "crowd/3", "eager/1"]);
    }

    #[test]
    fn a_higher_priority_moves_up_and_a_lower_one_changes_nothing() {
        let mut fair = Fair::new();
        fair.enqueue("a", Retry);
        fair.enqueue("b", Attach);

        assert!(fair.enqueue("a", Detach));
        assert!(!fair.enqueue("a", Retry));
        assert!(!fair.enqueue("a", Detach));

        assert_eq!(fair.len(), 2);
        assert_eq!(drain(&mut fair), ["a", "b"]);
    }

    #[test]
    fn what_is_left_behind_is_nothing() {
        let mut fair = Fair::new();
        for key in 0..400 {
            fair.enqueue(key, [Detach, Attach, Retry][usize::try_from(key).unwrap() % 3]);
        }

        for key in 0..200 {
            assert!(fair.cancel(&key));
        }
        assert_eq!(drain(&mut fair).len(), 200);

        assert!(fair.is_empty() && fair.classes.is_empty());
    }

    #[test]
    fn a_cancelled_key_costs_its_group_no_turn() {
        let mut fair = Fair::new();
        for key in ["a/1", "b/1", "a/2", "b/2"] {
            fair.enqueue(key, Attach);
        }

        fair.cancel(&"a/1");

        assert_eq!(drain(&mut fair), ["a/2", "b/1", "b/2"]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Move {
        Enqueue(u32, Priority),
        Cancel(u32),
        Pop,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let priority = prop_oneof![Just(Detach), Just(Attach), Just(Retry)];
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
        fn whoever_waits_is_served_once_in_its_groups_order_and_no_class_starves(moves in moves()) {
            let (mut fair, mut model) = (Fair::new(), Vec::<(Priority, u32)>::new());
            let mut passed = HashMap::from([(Attach, 0), (Retry, 0)]);
            for one in moves.into_iter().chain(std::iter::repeat_n(Move::Pop, 400)) {
                match one {
                    Move::Enqueue(key, priority) => {
                        let better = model.iter().all(|(has, other)| *other != key || priority < *has);
                        prop_assert_eq!(fair.enqueue(key, priority), better);
                        if better {
                            model.retain(|(_, other)| *other != key);
                            model.push((priority, key));
                        }
                    }
                    Move::Cancel(key) => {
                        prop_assert_eq!(fair.cancel(&key), model.iter().any(|(_, other)| *other == key));
                        model.retain(|(_, other)| *other != key);
                    }
                    Move::Pop => {
                        let Some(key) = fair.pop() else {
                            prop_assert!(model.is_empty());
                            continue;
                        };
                        let at = model.iter().position(|(_, other)| *other == key).expect("it waited");
                        let (class, _) = model[at];
                        let earlier = |(other_class, other): &(Priority, u32)| *other_class == class && other.group() == key.group();
                        prop_assert!(!model[..at].iter().any(earlier), "its group's line is in order");
                        for (lower, count) in &mut passed {
                            let waits = model.iter().any(|(other, _)| other == lower);
                            *count = if waits && *lower != class { *count + 1 } else { 0 };
                            prop_assert!(*count < 8, "{lower:?} was passed over {count} times");
                        }
                        model.remove(at);
                    }
                }
                prop_assert_eq!(fair.len(), model.len());
            }
            prop_assert!(fair.classes.is_empty());
        }
    }
}
