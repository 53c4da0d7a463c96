//! The promises, checked where state is written, where it is read back, and before a call (design
//! 3, I1 to I6). The rules of [`record`](crate::record) keep them; this is a second, simpler
//! statement of the same, so that an error in the rules stops the work on one object and harms
//! nobody.

use std::collections::BTreeSet;

use crate::answer::Operation;
use crate::claims::Standing;
use crate::conditions::Mode;
use crate::desired::DeletionPolicy;
use crate::effect::{Found, Status, View};
use crate::ids::InstanceId;
use crate::ledger::{Journal, Ledger};
use crate::record::{Record, State, Want};
use crate::time::{ServiceTime, over};

/// A promise that would have been broken; the text says which one and how.
pub type Violation = String;

/// On what grounds an instance may leave the ledger.
#[derive(Clone, Debug, Default)]
pub struct Grounds {
    /// The open call has an answer, or was not sent: its ids have an outcome.
    pub settled: bool,
    /// The session is gone, or the object leaves it and says that it lets go of everything.
    pub all: bool,
    /// It was said by name.
    pub named: BTreeSet<InstanceId>,
}

fn held<'a>(ledger: &'a Ledger) -> impl Iterator<Item = &'a InstanceId> {
    let records = ledger.records.iter().filter(|(_, record)| record.holds()).map(|(id, _)| id);
    records.chain(ledger.journal.iter().flat_map(|journal: &'a Journal| &journal.instances))
}

fn holds(ledger: &Ledger, id: &InstanceId) -> bool {
    ledger.records.get(id).is_some_and(Record::holds)
        || ledger
            .journal
            .as_ref()
            .is_some_and(|journal| journal.instances.binary_search(id).is_ok())
}

/// I1: what the ledger held it still holds, unless there are grounds. And no Ready that is not
/// true.
pub fn may_write(
    view: &View,
    status: &Status,
    grounds: &Grounds,
    now: ServiceTime,
) -> Result<(), Violation> {
    let Found::Ours(after) = &status.found else { return Ok(()) };
    if let Found::Ours(before) = &view.status.found
        && !grounds.all
    {
        for id in held(before) {
            let in_call = before
                .journal
                .as_ref()
                .is_some_and(|journal| journal.instances.binary_search(id).is_ok());
            let record = before.records.get(id);
            let out =
                record.is_none_or(|record| !record.may_be_in() && over(record.detach_until, now));
            let excused =
                grounds.named.contains(id) || (in_call && grounds.settled) || (!in_call && out);
            if !excused && !holds(after, id) {
                return Err(format!("I1: {id} would leave the ledger without a reason"));
            }
        }
    }
    if after.target.is_none() && !(after.records.is_empty() && after.journal.is_none()) {
        return Err("I1: instances would be held in no session".into());
    }
    if after.records.len() > Ledger::RECORDS_MAX {
        return Err(format!("I1: {} records would not fit into the status", after.records.len()));
    }
    if let Some(journal) = &after.journal
        && (journal.instances.is_empty() || !journal.instances.is_sorted_by(|a, b| a < b))
    {
        return Err("I1: the journal of a call would not name each instance once".into());
    }
    let ready = status.conditions.as_ref().is_some_and(|conditions| conditions.mode == Mode::Ready);
    if ready {
        let wish = view.desired.at(after.target.as_ref());
        let settled = |id| {
            after.records.get(id).is_some_and(|record| {
                record.state == State::Attached && record.detach_until.is_none()
            })
        };
        let stray = after
            .records
            .iter()
            .any(|(id, record)| wish.want(id) == Want::Out && record.may_be_in());
        if view.desired.deleting
            || after.journal.is_some()
            || stray
            || !view.desired.instances.iter().all(settled)
        {
            return Err("I2: Ready would be true while something is open".into());
        }
    }
    Ok(())
}

/// What was written is what is there: no admission policy, and no schema of another version, has
/// taken something away.
pub fn was_written(status: &Status, copy: &View) -> Result<(), Violation> {
    if status.found == copy.status.found && status.handled == copy.status.handled {
        return Ok(());
    }
    Err("I1: the API server did not store the status as it was written; is the CustomResourceDefinition that of this version, and does an admission webhook change the status?".into())
}

/// I3: an object goes with an empty ledger, or with the policy that says so.
pub fn may_go(view: &View, ledger: &Ledger) -> Result<(), Violation> {
    if view.desired.deleting
        && (view.desired.deletion_policy == DeletionPolicy::Orphan || ledger.holds_nothing())
    {
        Ok(())
    } else {
        Err("I3: the object would go while its ledger holds something".into())
    }
}

/// I3 to I6: what is called is wanted, and ours to call; and the object can't go before the call
/// has an outcome.
pub fn may_call(
    view: &View,
    ledger: &Ledger,
    journal: &Journal,
    standing: &Standing,
) -> Result<(), Violation> {
    let wish = view.desired.at(ledger.target.as_ref());
    let behind = matches!(standing, Standing::Behind(_));
    if !view.finalizer {
        return Err("I3: a call would be made for an object that may go at any moment".into());
    }
    for id in &journal.instances {
        match journal.operation {
            Operation::Attach if wish.want(id) == Want::Out => {
                return Err(format!("I6: {id} would be attached, and the spec does not want it"));
            }
            Operation::Attach if behind => {
                return Err(format!(
                    "I5: {id} would be attached, and another object drives the session"
                ));
            }
            Operation::Detach if !ledger.records.contains_key(id) => {
                return Err(format!(
                    "I4: {id} would be detached, and this object never attached it"
                ));
            }
            Operation::Attach | Operation::Detach => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Conditions, Reason};
    use crate::testing::{self, NOW, id, journal, ledger, view};

    fn status(ledger: Ledger, mode: Mode) -> Status {
        let conditions = Conditions { mode, reason: Reason::UpToDate, message: String::new() };
        Status { conditions: Some(conditions), ..testing::status(ledger) }
    }

    fn writes(before: Ledger, after: Ledger, grounds: &Grounds) -> Result<(), Violation> {
        may_write(&view(before, &[]), &status(after, Mode::Reconciling), grounds, NOW)
    }

    #[test]
    fn nothing_leaves_the_ledger_without_grounds() {
        let held = ledger(&[("a", Record::attached())]);
        let none = Grounds::default();
        assert!(writes(held.clone(), ledger(&[]), &none).unwrap_err().starts_with("I1: a "));
        assert!(writes(held.clone(), held.clone(), &none).is_ok());
        assert!(
            writes(held.clone(), ledger(&[]), &Grounds { all: true, ..Grounds::default() }).is_ok()
        );
        assert!(
            writes(held, ledger(&[]), &Grounds { named: [id("a")].into(), ..Grounds::default() })
                .is_ok()
        );
    }

    #[test]
    fn an_open_call_leaves_with_its_outcome_alone() {
        let open = Ledger { journal: Some(journal(Operation::Attach, &["a"])), ..ledger(&[]) };
        assert!(writes(open.clone(), ledger(&[]), &Grounds::default()).is_err());
        assert!(
            writes(open.clone(), ledger(&[]), &Grounds { settled: true, ..Grounds::default() })
                .is_ok()
        );
        assert!(writes(ledger(&[]), open, &Grounds::default()).is_ok());
    }

    #[test]
    fn an_instance_that_is_out_leaves_once_no_call_can_arrive() {
        let late = |until| {
            ledger(&[("a", Record { detach_until: Some(ServiceTime(until)), ..Record::default() })])
        };
        assert!(writes(late(1_001), ledger(&[]), &Grounds::default()).is_err());
        assert!(writes(late(1_000), ledger(&[]), &Grounds::default()).is_ok());
        let attach =
            ledger(&[("a", Record { attach_until: Some(ServiceTime(5)), ..Record::default() })]);
        assert!(
            writes(attach, ledger(&[]), &Grounds::default()).is_err(),
            "an attach that may have arrived is looked for first"
        );
    }

    #[test]
    fn a_ledger_is_no_larger_than_a_status_can_hold() {
        let of = |count| {
            let texts: Vec<_> = (0..count).map(|n| n.to_string()).collect();
            ledger(
                &texts.iter().map(|text| (text.as_str(), Record::attached())).collect::<Vec<_>>(),
            )
        };
        assert!(writes(ledger(&[]), of(Ledger::RECORDS_MAX), &Grounds::default()).is_ok());
        assert!(
            writes(ledger(&[]), of(Ledger::RECORDS_MAX + 1), &Grounds::default())
                .unwrap_err()
                .contains("2001 records")
        );
    }

    #[test]
    fn a_ledger_names_its_session_and_each_instance_of_a_call_once() {
        let homeless = Ledger { target: None, ..ledger(&[("a", Record::attached())]) };
        assert!(writes(ledger(&[]), homeless, &Grounds::default()).is_err());
        for twice in [&["b", "a"][..], &["a", "a"], &[]] {
            let open = Ledger { journal: Some(journal(Operation::Attach, twice)), ..ledger(&[]) };
            assert!(writes(ledger(&[]), open, &Grounds::default()).is_err(), "{twice:?}");
        }
    }

    #[test]
    fn ready_is_not_said_while_something_is_open() {
        let ready = |ledger: Ledger, wanted: &[&str]| {
            may_write(
                &view(ledger.clone(), wanted),
                &status(ledger, Mode::Ready),
                &Grounds::default(),
                NOW,
            )
        };
        assert!(ready(ledger(&[("a", Record::attached())]), &["a"]).is_ok());
        assert!(ready(ledger(&[("a", Record::attached())]), &["a", "b"]).is_err());
        assert!(ready(ledger(&[("a", Record::attached())]), &[]).is_err());
        let threatened = Record { detach_until: Some(ServiceTime(5)), ..Record::attached() };
        assert!(ready(ledger(&[("a", threatened)]), &["a"]).is_err());
        let open = Ledger {
            journal: Some(journal(Operation::Attach, &["a"])),
            ..ledger(&[("a", Record::attached())])
        };
        assert!(ready(open, &["a"]).is_err());
    }

    #[test]
    fn a_status_that_was_stored_otherwise_is_noticed() {
        let written = status(ledger(&[("a", Record::assumed(NOW))]), Mode::Reconciling);
        assert!(was_written(&written, &view(ledger(&[("a", Record::assumed(NOW))]), &[])).is_ok());
        let pruned = Record { assumed: false, ..Record::assumed(NOW) };
        assert!(was_written(&written, &view(ledger(&[("a", pruned)]), &[])).is_err());
    }

    #[test]
    fn an_object_goes_with_an_empty_ledger_or_the_policy_that_says_so() {
        let mut gone = view(ledger(&[("a", Record::attached())]), &[]);
        assert!(may_go(&gone, &ledger(&[])).is_err(), "it is not deleted");
        gone.desired.deleting = true;
        assert!(may_go(&gone, &ledger(&[])).is_ok());
        assert!(may_go(&gone, &ledger(&[("a", Record::attached())])).is_err());
        gone.desired.deletion_policy = DeletionPolicy::Orphan;
        assert!(may_go(&gone, &ledger(&[("a", Record::attached())])).is_ok());
    }

    #[test]
    fn nobody_is_called_who_is_not_wanted_or_not_ours() {
        let held = ledger(&[("a", Record::attached())]);
        let view = view(held.clone(), &["a"]);
        let may = |operation, ids: &[&str], standing: &Standing| {
            may_call(&view, &held, &journal(operation, ids), standing)
        };
        let bare = View { finalizer: false, ..view.clone() };
        assert!(
            may_call(&bare, &held, &journal(Operation::Attach, &["a"]), &Standing::Alone)
                .unwrap_err()
                .starts_with("I3: ")
        );
        let behind = Standing::Behind("x/y".into());
        assert!(may(Operation::Attach, &["a"], &Standing::Alone).is_ok());
        assert!(
            may(Operation::Attach, &["a", "b"], &Standing::Alone)
                .unwrap_err()
                .starts_with("I6: b ")
        );
        assert!(may(Operation::Attach, &["a"], &behind).unwrap_err().starts_with("I5: a "));
        assert!(may(Operation::Detach, &["a"], &behind).is_ok());
        assert!(
            may(Operation::Detach, &["b"], &Standing::Alone).unwrap_err().starts_with("I4: b ")
        );
    }
}
