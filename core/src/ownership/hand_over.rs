//! What an object does with its ledger while another one owns the session: it attaches nobody,
//! trusts nothing that it was told, and releases what the owner remembers.
//!
//! | a record that it does not want any more | then |
//! | --- | --- |
//! | a call of ours for it may still arrive | wait |
//! | the owner's ledger says that it is in | release it: the owner remembers it |
//! | the owner wants it, or has called for it and does not know | wait until the owner knows |
//! | neither, and it is assumed | release it, with a warning: nobody saw us attach it |
//! | neither, and we attached it | detach it |

use std::collections::BTreeSet;

use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::ledger::desired::{Desired, DesiredMembers};
use crate::ledger::record::{Record, State, Want};
use crate::ownership::claims::Place;
use crate::time::{ServiceTime, over};

/// What the object that owns the session shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnerView {
    /// Instances that are in, as its ledger says: it will not forget them.
    pub attached: BTreeSet<InstanceId>,
    /// Instances that it wants in, or has called for and does not know: an answer may yet make it
    /// forget them.
    pub wanted: BTreeSet<InstanceId>,
}

impl OwnerView {
    /// What an object with this `ledger` of its own and these wishes shows about the session at
    /// `place`.
    #[must_use]
    pub fn of(ledger: Option<&Ledger>, desired: &Desired, place: &Place) -> Self {
        let mut view = Self::default();
        if let Some(ledger) = ledger
            && let Some(target) = &ledger.target
            && target.session == place.session
            && target.endpoint == place.endpoint
        {
            let ids = |which: fn(&Record) -> bool| {
                let records = ledger.records.iter().filter(move |(_, record)| which(record));
                records.map(|(id, _)| id.clone())
            };
            let in_call: BTreeSet<_> = ledger
                .journal
                .iter()
                .flat_map(|journal| journal.instances.iter().cloned())
                .collect();
            view.attached.extend(ids(|record| record.state == State::Attached));
            view.attached.retain(|id| !in_call.contains(id));
            view.wanted.extend(ids(|record| record.may_be_attached() && !record.assumed));
            view.wanted.extend(in_call);
        }
        if desired.session == place.session && !desired.deleting {
            view.wanted.extend(desired.instances.iter().cloned());
        }
        view
    }
}

/// What an object that is not the owner may do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HandOver {
    /// Released, since the owner remembers them.
    pub handed_over: Vec<InstanceId>,
    /// Released without evidence that they are out, or that they ever were in.
    pub unproven: Vec<InstanceId>,
    /// To be detached.
    pub detach: BTreeSet<InstanceId>,
}

impl Ledger {
    /// Whether there is anything that the owner has to be asked about.
    #[must_use]
    pub fn has_stale_members(&self, members: DesiredMembers<'_>) -> bool {
        self.records.iter().any(|(id, record)| members.want(id) == Want::Out && record.is_tracked())
    }

    /// Trusts no confirmation any more: another object owns the session, or did.
    pub fn invalidate(&mut self) {
        for record in self.records.values_mut() {
            *record = std::mem::take(record).invalidated();
        }
    }

    /// Yields to `owner`; if what it shows could not be read, nothing is released.
    pub fn hand_over(
        &mut self,
        owner: Option<&OwnerView>,
        members: DesiredMembers<'_>,
        now: Option<ServiceTime>,
    ) -> HandOver {
        let mut hand_over = HandOver::default();
        self.invalidate();
        let Some(owner) = owner else { return hand_over };
        for (id, record) in &mut self.records {
            if members.want(id) == Want::In
                || !record.is_tracked()
                || !(over(record.attach_until, now) && over(record.detach_until, now))
            {
                continue;
            }
            let assumed = record.assumed;
            match (owner.attached.contains(id), owner.wanted.contains(id)) {
                (true, _) => hand_over.handed_over.push(id.clone()),
                (false, true) => continue,
                (false, false) if assumed => hand_over.unproven.push(id.clone()),
                (false, false) => {
                    hand_over.detach.insert(id.clone());
                    continue;
                }
            }
            *record = Record::default();
        }
        hand_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Operation;
    use crate::fixtures::{NOW, desired, id, ids, journal, ledger, view};
    use crate::reconcile::{LedgerState, View};

    fn yielded(
        record: Record,
        wanted: &[&str],
        attached: &[&str],
        owner_wants: &[&str],
    ) -> (HandOver, Ledger) {
        let mut ledger = Ledger { records: [(id("a"), record)].into(), ..Ledger::default() };
        let owner = OwnerView { attached: ids(attached), wanted: ids(owner_wants) };
        let hand_over = ledger.hand_over(Some(&owner), desired("1", wanted).at(None), Some(NOW));
        (hand_over, ledger)
    }

    fn past(record: Record) -> Record {
        Record {
            attach_until: Some(ServiceTime(999)),
            detach_until: Some(ServiceTime(999)),
            ..record
        }
    }

    #[test]
    fn what_is_wanted_stays_but_is_not_believed_any_more() {
        let (hand_over, ledger) = yielded(Record::attached(), &["a"], &["a"], &["a"]);
        assert_eq!(hand_over, HandOver::default());
        assert_eq!(ledger.records.get(&id("a")).unwrap().state, State::Unknown);
    }

    #[test]
    fn what_the_owner_remembers_is_released_and_what_it_only_wants_is_waited_for() {
        for record in [Record::attached(), past(Record::assumed(NOW))] {
            let (hand_over, ledger) = yielded(record.clone(), &[], &["a"], &[]);
            assert_eq!(hand_over.handed_over, [id("a")]);
            assert!(!ledger.records.get(&id("a")).unwrap().is_tracked());

            let (hand_over, ledger) = yielded(record, &[], &[], &["a"]);
            assert_eq!(hand_over, HandOver::default());
            assert!(ledger.records.get(&id("a")).unwrap().is_tracked());
        }
    }

    #[test]
    fn what_nobody_else_knows_is_detached_if_we_attached_it_and_doubted_if_not() {
        assert_eq!(yielded(Record::attached(), &[], &[], &[]).0.detach, ids(&["a"]));
        assert_eq!(yielded(past(Record::assumed(NOW)), &[], &[], &[]).0.unproven, [id("a")]);
    }

    #[test]
    fn nothing_is_released_while_a_call_of_ours_may_arrive() {
        for (attach, detach) in [(Some(ServiceTime(1_001)), None), (None, Some(ServiceTime(1_001)))]
        {
            let record =
                Record { attach_until: attach, detach_until: detach, ..Record::attached() };
            let (hand_over, ledger) = yielded(record, &[], &["a"], &[]);
            assert_eq!(hand_over, HandOver::default());
            assert!(ledger.records.get(&id("a")).unwrap().is_tracked());
        }
    }

    fn place(endpoint: &str, session: &str) -> Place {
        Place { endpoint: endpoint.into(), session: desired(session, &[]).session }
    }

    #[test]
    fn an_owner_shows_what_is_attached_and_what_it_has_called_for_or_wants() {
        let unknown = Record { state: State::Unknown, ..Record::default() };
        let records = [
            ("assumed", Record::assumed(NOW)),
            ("called", Record::attached()),
            ("in", Record::attached()),
            ("unknown", unknown),
        ];
        let ledger =
            Ledger { journal: Some(journal(Operation::Detach, &["called"])), ..ledger(&records) };
        let here = place("gs.tencentcloudapi.com", "1");
        let mut object = view(ledger, &["wanted"]);

        let shown = |object: &View, place: &Place| {
            OwnerView::of(object.own_ledger(), &object.desired, place)
        };
        let owner = shown(&object, &here);
        assert_eq!(
            (owner.attached, owner.wanted),
            (ids(&["in"]), ids(&["called", "in", "unknown", "wanted"]))
        );
        let elsewhere = shown(&object, &place("e", "1"));
        assert_eq!(
            (elsewhere.attached, elsewhere.wanted),
            (ids(&[]), ids(&["wanted"])),
            "its ledger is about another endpoint"
        );
        assert_eq!(shown(&object, &place("gs.tencentcloudapi.com", "2")), OwnerView::default());

        object.desired.deleting = true;
        assert_eq!(
            shown(&object, &here).wanted,
            ids(&["called", "in", "unknown"]),
            "it wants nobody any more"
        );
        object.desired = desired("2", &["wanted"]);
        assert_eq!(
            shown(&object, &here).wanted,
            ids(&["called", "in", "unknown"]),
            "it wants them elsewhere"
        );
        object.status.ledger = LedgerState::New;
        assert_eq!(
            shown(&object, &place("e", "2")).wanted,
            ids(&["wanted"]),
            "wherever its ledger will begin"
        );
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
