//! How a session passes from one object to another: what the others that claim it show, and what
//! that leaves to do.
//!
//! Of all ledgers at most one says Attached of an instance, or has a call open for it, and nobody
//! else calls for it. So an object that has lost the session gives way *in writing*, and nothing
//! rests on memory.
//!
//! | the owner | then |
//! | --- | --- |
//! | another ledger says Attached of the instance, or an open call of it names it | no call for it, until that one has given way |
//! | it attaches one that another's detach may still hit | that deadline becomes its own |
//!
//! | not the owner: a record | then |
//! | --- | --- |
//! | says Attached | Unknown, in writing |
//! | is wanted | no call: the owner's turn |
//! | is not wanted, the owner's ledger says Attached, no call of ours may arrive | release it: the owner remembers it |
//! | is not wanted, the owner wants it and is able, or another ledger says Attached or has a call open | wait |
//! | is not wanted, and none of these | detach it |
//!
//! Others are read anew for each copy of the object, so also between the write of a journal and its
//! call. Of two that write a journal at the same time, at least one sees the other's.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::Operation;
use crate::ids::InstanceId;
use crate::ledger::desired::{Desired, DesiredMembers};
use crate::ledger::record::{FailureReason, Record, State, Want};
use crate::ledger::{Journal, Ledger};
use crate::object::ObjectKey;
use crate::ownership::claims::{Ownership, Place};
use crate::time::{ServiceTime, over};

/// What an object that claims a session shows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shown {
    /// Its ledger says Attached of them.
    pub attached: BTreeSet<InstanceId>,
    /// A call of its own for them is open.
    pub called: BTreeSet<InstanceId>,
    /// It wants them in, is able to attach them, and there is such a session.
    pub wanted: BTreeSet<InstanceId>,
    /// Until when a detach of its own may take effect.
    pub detach_until: BTreeMap<InstanceId, ServiceTime>,
}

impl Shown {
    /// What an object with this ledger of its own and these wishes shows of the session at `place`.
    #[must_use]
    pub fn of(ledger: Option<&Ledger>, desired: &Desired, is_unable: bool, place: &Place) -> Self {
        let mut shown = Self::default();
        if let Some(ledger) = ledger
            && let Some(target) = &ledger.target
            && target.session == place.session
            && target.endpoint == place.endpoint
        {
            for (id, record) in &ledger.records {
                if record.state == State::Attached {
                    shown.attached.insert(id.clone());
                }
                if let Some(until) = record.detach_until {
                    shown.detach_until.insert(id.clone(), until);
                }
            }
            let open = ledger.journal.iter().flat_map(|journal| &journal.instances);
            shown.called.extend(open.cloned());
        }
        if desired.session == place.session && !desired.deleting && !is_unable {
            // The contender has to learn, too, that the session is gone.
            let is_gone = |id: &InstanceId| {
                let record = ledger.and_then(|ledger| ledger.records.get(id));
                let failure = record.and_then(|record| record.failure(Want::In));
                failure.is_some_and(|failure| failure.reason == FailureReason::SessionGone)
            };
            let wanted = desired.instances.iter().filter(|id| !is_gone(id));
            shown.wanted.extend(wanted.cloned());
        }
        shown
    }
}

/// What all others that claim a session show of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Others {
    /// A ledger of theirs says Attached, or a call of theirs is open.
    pub held: BTreeSet<InstanceId>,
    /// What the owner shows, if it is one of them.
    pub owner: Shown,
    /// Until when a detach of theirs may take effect.
    pub detach_until: BTreeMap<InstanceId, ServiceTime>,
}

impl Others {
    /// All of them together, as an object sees them that stands like this.
    #[must_use]
    pub fn of<'a>(
        shown: impl IntoIterator<Item = (&'a ObjectKey, &'a Shown)>,
        ownership: &Ownership,
    ) -> Self {
        let mut others = Self::default();
        for (key, shown) in shown {
            others.held.extend(shown.attached.union(&shown.called).cloned());
            for (id, until) in &shown.detach_until {
                let latest = others.detach_until.entry(id.clone()).or_insert(*until);
                *latest = (*until).max(*latest);
            }
            if matches!(ownership, Ownership::Contender(owner) if owner == key) {
                others.owner = shown.clone();
            }
        }
        others
    }

    /// What they have, or may still detach.
    #[must_use]
    pub fn busy(&self, now: Option<ServiceTime>) -> BTreeSet<InstanceId> {
        let detached = self.detach_until.iter().filter(|(_, until)| !over(Some(**until), now));
        self.held.iter().chain(detached.map(|(id, _)| id)).cloned().collect()
    }

    /// Whether an object that does not own the session has to leave this unwanted instance to them.
    fn keep(&self, id: &InstanceId) -> bool {
        self.held.contains(id) || self.owner.wanted.contains(id)
    }

    /// Whether the call of this journal, which stands in `ledger`, may be made beside them.
    #[must_use]
    pub fn allow(&self, journal: &Journal, ledger: &Ledger, now: Option<ServiceTime>) -> bool {
        journal.instances.iter().all(|id| match journal.operation {
            Operation::Attach => {
                let own = ledger.records.get(id).and_then(|record| record.detach_until);
                let theirs = self.detach_until.get(id).copied();
                !self.held.contains(id) && (theirs <= own || over(theirs, now))
            }
            Operation::Detach => !self.keep(id),
        })
    }
}

/// What an object that is not the owner may do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HandOver {
    /// Released, since the owner remembers them.
    pub handed_over: Vec<InstanceId>,
    /// To be detached.
    pub detach: BTreeSet<InstanceId>,
}

impl Ledger {
    /// Whether there is anything that the others have to be asked about.
    #[must_use]
    pub fn has_stale_members(&self, members: DesiredMembers<'_>) -> bool {
        self.records.iter().any(|(id, record)| members.want(id) == Want::Out && record.is_tracked())
    }

    /// Gives way in writing: another object owns the session, and what the service last said to this
    /// one is worth nothing any more.
    pub fn invalidate(&mut self) {
        for record in self.records.values_mut() {
            *record = std::mem::take(record).invalidated();
        }
    }

    /// Releases what the owner remembers, and says what is left to detach.
    pub fn hand_over(
        &mut self,
        others: &Others,
        members: DesiredMembers<'_>,
        now: Option<ServiceTime>,
    ) -> HandOver {
        let mut hand_over = HandOver::default();
        for (id, record) in &mut self.records {
            if members.want(id) == Want::In || !record.is_tracked() {
                continue;
            }
            let may_arrive = !over(record.attach_until, now) || !over(record.detach_until, now);
            if !others.keep(id) {
                hand_over.detach.insert(id.clone());
            } else if others.owner.attached.contains(id) && !may_arrive {
                hand_over.handed_over.push(id.clone());
                *record = Record::default();
            }
        }
        hand_over
    }

    /// An owner attaches these next: a detach of others that may still hit them counts as its own.
    pub fn take_over_detaches(
        &mut self,
        attach: &[InstanceId],
        others: &Others,
        now: Option<ServiceTime>,
    ) {
        for id in attach {
            let theirs = others.detach_until.get(id).copied();
            if !over(theirs, now) {
                let record = self.records.entry(id.clone()).or_default();
                record.detach_until = record.detach_until.max(theirs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Conditions, Mode, Reason};
    use crate::fixtures::{NOW, desired, id, ids, journal, key, ledger, view};
    use crate::ledger::record::Failure;
    use crate::reconcile::{LedgerState, View};

    const OPEN: Option<ServiceTime> = Some(ServiceTime(NOW.0 + 1));
    const PAST: Option<ServiceTime> = Some(ServiceTime(NOW.0 - 1));

    fn shows(attached: &[&str], wanted: &[&str]) -> Shown {
        Shown { attached: ids(attached), wanted: ids(wanted), ..Shown::default() }
    }

    /// What an object sees of these others, the first of which owns the session.
    fn others(all: &[Shown]) -> Others {
        let keys: Vec<_> = (0..all.len()).map(|number| key(&format!("o{number}"))).collect();
        Others::of(keys.iter().zip(all), &Ownership::Contender(keys[0].clone()))
    }

    fn handed_over(record: Record, wanted: &[&str], others: &Others) -> (HandOver, Ledger) {
        let mut ledger = Ledger { records: [(id("a"), record)].into(), ..Ledger::default() };
        let hand_over = ledger.hand_over(others, desired("1", wanted).at(None), Some(NOW));
        (hand_over, ledger)
    }

    fn unknown() -> Record {
        Record { state: State::Unknown, ..Record::default() }
    }

    #[test]
    fn who_gives_way_believes_nothing_any_more() {
        let mut ledger = ledger(&[("a", Record::attached()), ("b", Record::default())]);
        ledger.invalidate();
        assert_eq!(ledger.records.get(&id("a")), Some(&unknown()));
        assert_eq!(ledger.records.get(&id("b")), Some(&Record::default()));
    }

    #[test]
    fn what_is_wanted_stays_and_what_the_owner_remembers_is_released() {
        let owner = others(&[shows(&["a"], &["a"])]);
        let assumed = Record { attach_until: PAST, detach_until: PAST, ..Record::assumed(NOW) };
        for record in [unknown(), assumed] {
            let (kept, ledger) = handed_over(record.clone(), &["a"], &owner);
            assert_eq!(kept, HandOver::default());
            assert_eq!(ledger.records.get(&id("a")), Some(&record));

            let (released, ledger) = handed_over(record, &[], &owner);
            let expected = HandOver { handed_over: vec![id("a")], ..HandOver::default() };
            assert_eq!(released, expected);
            assert_eq!(ledger.records.get(&id("a")), Some(&Record::default()));
        }
    }

    #[test]
    fn what_the_owner_wants_and_what_a_ledger_says_attached_of_is_waited_for() {
        let (nothing, owner_wants) = (shows(&[], &[]), shows(&[], &["a"]));
        for others in [others(&[owner_wants]), others(&[nothing.clone(), shows(&["a"], &[])])] {
            let (waits, ledger) = handed_over(unknown(), &[], &others);
            assert_eq!(waits, HandOver::default());
            assert_eq!(ledger.records.get(&id("a")), Some(&unknown()));
        }
        let a_third_one_wants = others(&[nothing, shows(&[], &["a"])]);
        assert_eq!(handed_over(unknown(), &[], &a_third_one_wants).0.detach, ids(&["a"]));
    }

    #[test]
    fn nothing_is_released_while_a_call_of_ours_may_arrive() {
        let owner = others(&[shows(&["a"], &["a"])]);
        for (attach_until, detach_until) in [(OPEN, None), (None, OPEN)] {
            let record = Record { attach_until, detach_until, ..unknown() };
            let (hand_over, ledger) = handed_over(record.clone(), &[], &owner);
            assert_eq!(hand_over, HandOver::default());
            assert_eq!(ledger.records.get(&id("a")), Some(&record));
            assert_eq!(handed_over(record, &[], &Others::default()).0.detach, ids(&["a"]));
        }
    }

    #[test]
    fn a_call_is_made_if_nobody_else_has_the_instance_and_no_detach_of_theirs_is_unknown() {
        let late = |until: Option<ServiceTime>| Shown {
            detach_until: until.map(|until| (id("a"), until)).into_iter().collect(),
            ..Shown::default()
        };
        let own = |detach_until| ledger(&[("a", Record { detach_until, ..unknown() })]);
        let has = shows(&["a"], &[]);
        let calls = others(&[Shown { called: ids(&["a"]), ..Shown::default() }]);
        for (why, operation, others, own, may) in [
            ("nobody has it", Operation::Attach, Others::default(), own(None), true),
            ("one has it", Operation::Attach, others(&[late(None), has.clone()]), own(None), false),
            ("one calls for it", Operation::Attach, calls.clone(), own(None), false),
            ("one calls for it", Operation::Detach, calls, own(None), false),
            ("one detaches it", Operation::Attach, others(&[late(OPEN)]), own(None), false),
            ("that is ours too", Operation::Attach, others(&[late(OPEN)]), own(OPEN), true),
            ("that is over", Operation::Attach, others(&[late(PAST)]), own(None), true),
            ("nobody has it", Operation::Detach, others(&[late(OPEN)]), own(None), true),
            ("one has it", Operation::Detach, others(&[late(None), has]), own(None), false),
            ("it is wanted", Operation::Detach, others(&[shows(&[], &["a"])]), own(None), false),
        ] {
            let journal = journal(operation, &["a"]);
            assert_eq!(others.allow(&journal, &own, Some(NOW)), may, "{operation:?}: {why}");
        }
    }

    #[test]
    fn the_latest_detach_of_another_one_counts_as_an_own_one() {
        let late = |seconds| Shown {
            detach_until: [(id("a"), ServiceTime(NOW.0 + seconds))].into(),
            ..Shown::default()
        };
        let taken = |own: Option<ServiceTime>, others: &Others| {
            let mut ledger = ledger(&[("a", Record { detach_until: own, ..unknown() })]);
            ledger.take_over_detaches(&[id("a"), id("b")], others, Some(NOW));
            assert!(!ledger.records.contains_key(&id("b")));
            ledger.records.remove(&id("a")).unwrap().detach_until
        };
        let two = others(&[late(3), late(2)]);
        assert_eq!(taken(None, &two), Some(ServiceTime(NOW.0 + 3)));
        assert_eq!(taken(Some(ServiceTime(NOW.0 + 5)), &two), Some(ServiceTime(NOW.0 + 5)));
        assert_eq!(taken(PAST, &others(&[late(0)])), PAST);

        let mut new = Ledger::default();
        new.take_over_detaches(&[id("a")], &two, Some(NOW));
        let until = Some(ServiceTime(NOW.0 + 3));
        let expected = Record { detach_until: until, ..Record::default() };
        assert_eq!(new.records.get(&id("a")), Some(&expected));
    }

    fn place(endpoint: &str, session: &str) -> Place {
        Place { endpoint: endpoint.into(), session: desired(session, &[]).session }
    }

    #[test]
    fn an_object_shows_what_is_attached_what_it_wants_and_what_it_detaches() {
        let records = [
            ("in", Record::attached()),
            ("late", Record { detach_until: Some(ServiceTime(5_000)), ..Record::default() }),
            ("unknown", Record { detach_until: PAST, ..unknown() }),
        ];
        let journal = journal(Operation::Attach, &["in", "new"]);
        let mut object = view(Ledger { journal: Some(journal), ..ledger(&records) }, &["wanted"]);
        let shown = |object: &View, place: &Place| object.shown(place);
        let here = place("gs.tencentcloudapi.com", "1");
        let late = [("late", ServiceTime(5_000)), ("unknown", PAST.unwrap())];
        let all = Shown {
            attached: ids(&["in"]),
            called: ids(&["in", "new"]),
            wanted: ids(&["wanted"]),
            detach_until: late.map(|(text, until)| (id(text), until)).into(),
        };
        assert_eq!(shown(&object, &here), all);

        let elsewhere = shown(&object, &place("e", "1"));
        assert_eq!(elsewhere, shows(&[], &["wanted"]), "its ledger is about another endpoint");
        let other_session = shown(&object, &place("gs.tencentcloudapi.com", "2"));
        assert_eq!(other_session, Shown::default());

        let failed = |reason, attempts| {
            let failure = Failure {
                operation: Operation::Attach,
                reason,
                code: String::new(),
                attempts,
                time: NOW,
                generation: 1,
            };
            let record = Record { last_failure: Some(failure), ..Record::default() };
            shown(&view(ledger(&[("wanted", record)]), &["wanted"]), &here).wanted
        };
        assert_eq!(failed(FailureReason::Refused, 9), ids(&["wanted"]), "it may be in");
        assert!(failed(FailureReason::SessionGone, 1).is_empty(), "there is no session");

        let mut unable = object.clone();
        unable.status.conditions = Some(Conditions {
            mode: Mode::Stalled,
            reason: Reason::CredentialsNotFound,
            message: String::new(),
        });
        assert!(shown(&unable, &here).wanted.is_empty(), "it can't attach it");
        object.desired.deleting = true;
        assert!(shown(&object, &here).wanted.is_empty(), "it wants nobody any more");
        object.desired = desired("2", &["wanted"]);
        assert!(shown(&object, &here).wanted.is_empty(), "it wants them elsewhere");
        assert_eq!(shown(&object, &here).attached, ids(&["in"]));
        object.status.ledger = LedgerState::New;
        let new = shown(&object, &place("e", "2"));
        assert_eq!(new, shows(&[], &["wanted"]), "wherever its ledger will begin");
    }

    #[test]
    fn what_is_tracked_and_not_wanted_is_stale() {
        let stale_members = |record: Record, wanted: &[&str]| {
            ledger(&[("a", record)]).has_stale_members(desired("1", wanted).at(None))
        };
        assert!(stale_members(Record::attached(), &[]));
        assert!(!stale_members(Record::attached(), &["a"]));
        assert!(!stale_members(Record::default(), &[]));
    }
}
