//! What an object does with its ledger while another one drives the session: it attaches nobody,
//! trusts nothing that it was told, and lets go of what the owner remembers (design 3.8).
//!
//! | a record that it does not want any more | then |
//! | --- | --- |
//! | a call of ours for it may still arrive | wait |
//! | the owner's ledger says that it is in | let go: the owner remembers it |
//! | the owner wants it, or has called for it and does not know | wait until the owner knows |
//! | neither, and it is assumed | let go, with a warning: nobody saw us attach it |
//! | neither, and we attached it | detach it |

use std::collections::BTreeSet;

use crate::claims::Place;
use crate::desired::Wish;
use crate::effect::{Found, View};
use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::record::{Record, State, Want};
use crate::time::{ServiceTime, over};

/// What the object that drives the session shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Instances that are in, as its ledger says: it will not forget them.
    pub holds: BTreeSet<InstanceId>,
    /// Instances that it wants in, or has called for and does not know: an answer may yet make it
    /// forget them.
    pub claims: BTreeSet<InstanceId>,
}

impl Owner {
    /// What `view` shows about the session at `place`.
    #[must_use]
    pub fn of(view: &View, place: &Place) -> Self {
        let mut owner = Self::default();
        if let Found::Ours(ledger) = &view.status.found
            && let Some(target) = &ledger.target
            && target.session == place.session
            && *target.endpoint == *place.endpoint
        {
            let ids = |which: fn(&Record) -> bool| {
                ledger
                    .records
                    .iter()
                    .filter(move |(_, record)| which(record))
                    .map(|(id, _)| id.clone())
            };
            owner.holds.extend(ids(|record| record.state == State::Attached));
            owner.claims.extend(ids(|record| record.may_be_in() && !record.assumed));
            owner.claims.extend(
                ledger.journal.iter().flat_map(|journal| journal.instances.iter().cloned()),
            );
            owner.holds = &owner.holds
                - &ledger
                    .journal
                    .iter()
                    .flat_map(|journal| journal.instances.iter().cloned())
                    .collect();
        }
        if view.desired.session == place.session && !view.desired.deleting {
            owner.claims.extend(view.desired.instances.iter().cloned());
        }
        owner
    }
}

/// What an object that is not the owner may do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Concession {
    /// Let go of, since the owner remembers them.
    pub handed_over: Vec<InstanceId>,
    /// Let go of without evidence that they are out, or that they ever were in.
    pub doubtful: Vec<InstanceId>,
    /// To be detached.
    pub detach: BTreeSet<InstanceId>,
}

impl Ledger {
    /// Whether there is anything that the owner has to be asked about.
    #[must_use]
    pub fn has_leavings(&self, wish: Wish<'_>) -> bool {
        self.records.iter().any(|(id, record)| wish.want(id) == Want::Out && record.holds())
    }

    /// Trusts no confirmation any more: another object drives the session, or did.
    pub fn distrust(&mut self) {
        for record in self.records.values_mut() {
            *record = std::mem::take(record).distrusted();
        }
    }

    /// Gives way to `owner`; if what it shows could not be read, nothing is let go of.
    pub fn concede(
        &mut self,
        owner: Option<&Owner>,
        wish: Wish<'_>,
        now: ServiceTime,
    ) -> Concession {
        let mut concession = Concession::default();
        self.distrust();
        let Some(owner) = owner else { return concession };
        for (id, record) in &mut self.records {
            if wish.want(id) == Want::In
                || !record.holds()
                || !(over(record.attach_until, now) && over(record.detach_until, now))
            {
                continue;
            }
            let assumed = record.assumed;
            match (owner.holds.contains(id), owner.claims.contains(id)) {
                (true, _) => concession.handed_over.push(id.clone()),
                (false, true) => continue,
                (false, false) if assumed => concession.doubtful.push(id.clone()),
                (false, false) => {
                    concession.detach.insert(id.clone());
                    continue;
                }
            }
            *record = Record::default();
        }
        concession
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Operation;
    use crate::testing::{NOW, desired, id, ids, journal, ledger, view};

    fn conceded(
        record: Record,
        wanted: &[&str],
        holds: &[&str],
        claims: &[&str],
    ) -> (Concession, Ledger) {
        let mut ledger = Ledger { records: [(id("a"), record)].into(), ..Ledger::default() };
        let owner = Owner { holds: ids(holds), claims: ids(claims) };
        let concession = ledger.concede(Some(&owner), desired("1", wanted).at(None), NOW);
        (concession, ledger)
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
        let (concession, ledger) = conceded(Record::attached(), &["a"], &["a"], &["a"]);
        assert_eq!(concession, Concession::default());
        assert_eq!(ledger.records.get(&id("a")).unwrap().state, State::Unknown);
    }

    #[test]
    fn what_the_owner_remembers_is_let_go_of_and_what_it_only_wants_is_waited_for() {
        for record in [Record::attached(), past(Record::assumed(NOW))] {
            let (concession, ledger) = conceded(record.clone(), &[], &["a"], &[]);
            assert_eq!(concession.handed_over, [id("a")]);
            assert!(!ledger.records.get(&id("a")).unwrap().holds());

            let (concession, ledger) = conceded(record, &[], &[], &["a"]);
            assert_eq!(concession, Concession::default());
            assert!(ledger.records.get(&id("a")).unwrap().holds());
        }
    }

    #[test]
    fn what_nobody_else_knows_is_detached_if_we_attached_it_and_doubted_if_not() {
        assert_eq!(conceded(Record::attached(), &[], &[], &[]).0.detach, ids(&["a"]));
        assert_eq!(conceded(past(Record::assumed(NOW)), &[], &[], &[]).0.doubtful, [id("a")]);
    }

    #[test]
    fn nothing_is_let_go_of_while_a_call_of_ours_may_arrive() {
        for (attach, detach) in [(Some(ServiceTime(1_001)), None), (None, Some(ServiceTime(1_001)))]
        {
            let record =
                Record { attach_until: attach, detach_until: detach, ..Record::attached() };
            let (concession, ledger) = conceded(record, &[], &["a"], &[]);
            assert_eq!(concession, Concession::default());
            assert!(ledger.records.get(&id("a")).unwrap().holds());
        }
    }

    fn place(endpoint: &str, session: &str) -> Place {
        Place { endpoint: endpoint.into(), session: desired(session, &[]).session }
    }

    #[test]
    fn an_owner_shows_what_it_holds_and_what_it_has_called_for_or_wants() {
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

        let owner = Owner::of(&object, &here);
        assert_eq!(
            (owner.holds, owner.claims),
            (ids(&["in"]), ids(&["called", "in", "unknown", "wanted"]))
        );
        let elsewhere = Owner::of(&object, &place("e", "1"));
        assert_eq!(
            (elsewhere.holds, elsewhere.claims),
            (ids(&[]), ids(&["wanted"])),
            "its ledger is about another endpoint"
        );
        assert_eq!(Owner::of(&object, &place("gs.tencentcloudapi.com", "2")), Owner::default());

        object.desired.deleting = true;
        assert_eq!(
            Owner::of(&object, &here).claims,
            ids(&["called", "in", "unknown"]),
            "it wants nobody any more"
        );
        object.desired = desired("2", &["wanted"]);
        assert_eq!(
            Owner::of(&object, &here).claims,
            ids(&["called", "in", "unknown"]),
            "it wants them elsewhere"
        );
        object.status.found = Found::New;
        assert_eq!(
            Owner::of(&object, &place("e", "2")).claims,
            ids(&["wanted"]),
            "wherever its ledger will begin"
        );
    }

    #[test]
    fn what_is_held_and_not_wanted_are_leavings() {
        let leavings = |record: Record, wanted: &[&str]| {
            ledger(&[("a", record)]).has_leavings(desired("1", wanted).at(None))
        };
        assert!(leavings(Record::attached(), &[]));
        assert!(!leavings(Record::attached(), &["a"]));
        assert!(!leavings(Record::default(), &[]));
    }
}
