//! When the confirmed members of an object are attached again. It is in memory alone: a process that
//! begins asks everybody once within the interval, spread over it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::answer::CallResult;
use crate::ids::InstanceId;
use crate::object::ObjectKey;
use crate::reconcile::Resync;

/// What kept a resync from success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResyncFailure {
    /// What came of the call as a whole.
    pub result: CallResult,
    /// Its error code; empty if it was processed.
    pub code: String,
}

#[derive(Debug)]
struct Entry {
    interval: Duration,
    due_at: Duration,
    /// When the first call of the resync that is under way was answered.
    began_at: Option<Duration>,
    /// The last instance that had its turn in it.
    after: Option<InstanceId>,
    /// What kept it from success and was told.
    told: Vec<ResyncFailure>,
    /// Something kept the resync that is under way from success.
    failed: bool,
}

/// The objects that are resynced, and when each is due.
#[derive(Debug, Default)]
pub struct Resyncs {
    entries: BTreeMap<ObjectKey, Entry>,
    timers: BTreeSet<(Duration, ObjectKey)>,
}

/// A part of the interval: a fleet that begins at one time is not due at one time. It is another one
/// in each process, so that restarts keep nobody from its turn.
fn spread(key: &ObjectKey, interval: Duration, now: Duration) -> Duration {
    let bytes = key.namespace.bytes().chain(key.name.bytes());
    let hash = bytes.fold(u64::from(now.subsec_nanos()), |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    interval / 256 * u32::from(mixed.to_be_bytes()[0])
}

impl Resyncs {
    /// The object asks for a resync so often; none: never.
    pub fn set(&mut self, key: &ObjectKey, interval: Option<Duration>, now: Duration) {
        if self.entries.get(key).map(|entry| entry.interval) == interval {
            return;
        }
        self.remove(key);
        if let Some(interval) = interval {
            let due_at = now + spread(key, interval, now);
            let (began_at, after, told, failed) = (None, None, Vec::new(), false);
            let entry = Entry { interval, due_at, began_at, after, told, failed };
            self.entries.insert(key.clone(), entry);
            self.timers.insert((due_at, key.clone()));
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.timers.remove(&(entry.due_at, key.clone()));
        }
    }

    /// The objects whose resync is due since this was asked last.
    pub fn take_due(&mut self, now: Duration) -> Vec<ObjectKey> {
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.timers.pop_first()
        {
            due.push(key);
        }
        due
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What is left of the object's resync, if it is due.
    #[must_use]
    pub fn of(&self, key: &ObjectKey, now: Duration) -> Resync {
        let due = self.entries.get(key).filter(|entry| entry.due_at <= now);
        due.map_or(Resync::NotDue, |entry| Resync::Due(entry.after.clone()))
    }

    /// A call of it was answered, whose last instance this is. Each has one turn, whatever the answer
    /// is. Answers what kept it from success, if that is news.
    pub fn answered(
        &mut self,
        key: &ObjectKey,
        last: &InstanceId,
        failure: Option<ResyncFailure>,
        now: Duration,
    ) -> Option<ResyncFailure> {
        let entry = self.entries.get_mut(key)?;
        entry.began_at.get_or_insert(now);
        entry.after = Some(last.clone());
        let failure = failure?;
        entry.failed = true;
        if entry.told.contains(&failure) {
            return None;
        }
        entry.told.push(failure.clone());
        Some(failure)
    }

    /// Nothing is left of it. The next one is due an interval after it began: with more to do than
    /// there are permits for, it goes round and round.
    pub fn over(&mut self, key: &ObjectKey, now: Duration) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.due_at <= now) else {
            return;
        };
        if !std::mem::take(&mut entry.failed) {
            entry.told.clear();
        }
        self.timers.remove(&(entry.due_at, key.clone()));
        entry.due_at = entry.began_at.take().unwrap_or(now) + entry.interval;
        entry.after = None;
        self.timers.insert((entry.due_at, key.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{id, key};

    const MINUTE: Duration = Duration::from_mins(1);

    /// One object that was seen at zero, and when it is due first.
    fn one() -> (Resyncs, Duration) {
        let mut resyncs = Resyncs::default();
        resyncs.set(&key("a"), Some(MINUTE), Duration::ZERO);
        let due_at = resyncs.next().unwrap();
        (resyncs, due_at)
    }

    #[test]
    fn each_is_due_within_the_interval_and_not_all_at_once() {
        let mut resyncs = Resyncs::default();
        for number in 0..100 {
            resyncs.set(&key(&number.to_string()), Some(MINUTE), MINUTE);
        }
        let times: BTreeSet<_> = resyncs.entries.values().map(|entry| entry.due_at).collect();
        assert!(times.len() > 50, "{times:?}");
        assert!(times.iter().all(|at| *at >= MINUTE && *at < 2 * MINUTE), "{times:?}");
        let halves = times.iter().filter(|at| **at < 3 * MINUTE / 2).count();
        assert!(halves > times.len() / 4 && halves < times.len() * 3 / 4, "{times:?}");
    }

    #[test]
    fn one_that_is_due_is_told_once_and_stays_due_until_it_is_over() {
        let (mut resyncs, due_at) = one();
        let before = due_at.saturating_sub(Duration::from_nanos(1));
        assert_eq!(resyncs.take_due(before), []);
        assert_eq!(resyncs.of(&key("a"), before), Resync::NotDue);
        resyncs.over(&key("a"), before);
        assert_eq!(resyncs.next(), Some(due_at), "it has not begun");

        assert_eq!(resyncs.take_due(due_at), [key("a")]);
        assert_eq!(resyncs.take_due(due_at), []);
        assert_eq!(resyncs.of(&key("a"), due_at), Resync::Due(None));
        assert_eq!(resyncs.next(), None);

        let began = due_at + MINUTE / 2;
        resyncs.answered(&key("a"), &id("x"), None, began);
        assert_eq!(resyncs.of(&key("a"), began), Resync::Due(Some(id("x"))));
        resyncs.answered(&key("a"), &id("y"), None, began + MINUTE / 4);
        resyncs.over(&key("a"), began + MINUTE / 3);
        assert_eq!(resyncs.of(&key("a"), began + MINUTE / 3), Resync::NotDue);
        assert_eq!(resyncs.next(), Some(began + MINUTE), "an interval after it began");
        assert_eq!(resyncs.of(&key("a"), began + MINUTE), Resync::Due(None));
        resyncs.over(&key("a"), began + 2 * MINUTE);
        assert_eq!(resyncs.next(), Some(began + 3 * MINUTE), "there was nothing to call");
    }

    #[test]
    fn a_failure_is_told_once_until_a_resync_goes_well() {
        let (mut resyncs, mut now) = one();
        let mut resync = |parts: &[Option<&str>]| {
            let told: Vec<_> = parts
                .iter()
                .map(|code| {
                    let failure = code.map(|code| ResyncFailure {
                        result: CallResult::Unclear,
                        code: code.to_owned(),
                    });
                    resyncs.answered(&key("a"), &id("x"), failure, now).is_some()
                })
                .collect();
            resyncs.over(&key("a"), now);
            now += MINUTE;
            told
        };
        assert_eq!(resync(&[None, Some("X"), Some("X")]), [false, true, false]);
        assert_eq!(resync(&[None, Some("X")]), [false, false]);
        assert_eq!(resync(&[Some("Y")]), [true]);
        assert_eq!(resync(&[None]), [false]);
        assert_eq!(resync(&[Some("Y")]), [true]);
    }

    #[test]
    fn another_interval_counts_at_once_and_none_ends_it() {
        let (mut resyncs, due_at) = one();
        resyncs.set(&key("a"), Some(MINUTE), MINUTE);
        assert_eq!(resyncs.next(), Some(due_at), "it is no other one");
        resyncs.set(&key("a"), Some(10 * MINUTE), MINUTE);
        assert_eq!(resyncs.timers.len(), 1);
        assert!(resyncs.next().unwrap() > MINUTE);
        resyncs.set(&key("a"), None, MINUTE);
        assert!(resyncs.entries.is_empty() && resyncs.timers.is_empty());

        let (mut resyncs, _) = one();
        resyncs.remove(&key("a"));
        assert!(resyncs.entries.is_empty() && resyncs.timers.is_empty());
    }
}
