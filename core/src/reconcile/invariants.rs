//! The promises, checked where state is written, where it is read back, and before a call. The
//! tables of [`rule`](crate::ledger::rule) keep them; this is a second, simpler statement of the
//! same, so that an error in the rules stops the work on one object and harms nobody.

use std::collections::BTreeSet;

use crate::answer::Operation;
use crate::conditions::Mode;
use crate::ids::InstanceId;
use crate::ledger::desired::DeletionPolicy;
use crate::ledger::record::{Record, State, Want};
use crate::ledger::{Journal, Ledger};
use crate::ownership::claims::Ownership;
use crate::reconcile::view::{LedgerState, Status, View};
use crate::time::{ServiceTime, over};

/// A promise that would have been broken: I1 nothing leaks, I2 it converges and says so truly, I3
/// deletion is honest, I4 hands off what is not ours, I5 one writer, I6 no harm.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// An instance would leave the ledger without a reason.
    #[error("I1: {0} would leave the ledger without a reason")]
    Forgotten(InstanceId),
    /// Instances would be tracked in no session.
    #[error("I1: instances would be tracked in no session")]
    NoSession,
    /// The status could not hold so many records.
    #[error("I1: {0} records would not fit into the status")]
    TooManyRecords(usize),
    /// The journal of a call would not name each instance once, in order.
    #[error("I1: the journal of a call would not name each instance once")]
    UnorderedJournal,
    /// The API server did not store this field as it was written.
    #[error(
        "I1: the API server did not store {0} as it was written; is the CustomResourceDefinition \
         that of this version, and does an admission webhook or policy change the object?"
    )]
    NotStored(&'static str),
    /// Ready would be true while something is open.
    #[error("I2: Ready would be true while something is open")]
    FalseReady,
    /// The object would go while its ledger tracks something.
    #[error("I3: the object would go while its ledger tracks something")]
    EarlyRelease,
    /// A call would be made for an object that may go at any moment.
    #[error("I3: a call would be made for an object that may go at any moment")]
    NoFinalizer,
    /// An instance would be detached that this object never attached.
    #[error("I4: {0} would be detached, and this object never attached it")]
    NeverAttached(InstanceId),
    /// An instance would be attached while another object owns the session.
    #[error("I5: {0} would be attached, and another object owns the session")]
    NotOwner(InstanceId),
    /// An instance would be attached that the spec does not want.
    #[error("I6: {0} would be attached, and the spec does not want it")]
    Unwanted(InstanceId),
}

/// Why instances may leave the ledger.
#[derive(Clone, Debug, Default)]
pub struct RemovalReasons {
    /// The open call has an answer, or was not sent: its ids have an outcome.
    pub settled: bool,
    /// The session is gone, or the object leaves it and says that it releases everything.
    pub all: bool,
    /// It was said by name.
    pub named: BTreeSet<InstanceId>,
}

fn is_tracked(ledger: &Ledger, id: &InstanceId) -> bool {
    ledger.records.get(id).is_some_and(Record::is_tracked) || is_in_call(ledger, id)
}

fn is_in_call(ledger: &Ledger, id: &InstanceId) -> bool {
    let journal = ledger.journal.as_ref();
    journal.is_some_and(|journal| journal.instances.binary_search(id).is_ok())
}

/// I1: what the ledger tracked it still tracks, unless there is a reason. And no Ready that is not
/// true.
pub fn may_write(
    view: &View,
    status: &Status,
    reasons: &RemovalReasons,
    now: Option<ServiceTime>,
) -> Result<(), Violation> {
    let LedgerState::Current(after) = &status.ledger else { return Ok(()) };
    if let Some(before) = view.own_ledger()
        && !reasons.all
    {
        let is_excused = |id: &InstanceId| {
            let is_out =
                |record: &Record| !record.may_be_attached() && over(record.detach_until, now);
            let settled = if is_in_call(before, id) {
                reasons.settled
            } else {
                before.records.get(id).is_none_or(is_out)
            };
            settled || reasons.named.contains(id)
        };
        if let Some(id) = before.tracked().find(|id| !is_excused(id) && !is_tracked(after, id)) {
            return Err(Violation::Forgotten(id.clone()));
        }
    }
    let is_empty = after.records.is_empty() && after.journal.is_none();
    if after.target.is_none() && !is_empty {
        return Err(Violation::NoSession);
    }
    if after.records.len() > Ledger::RECORDS_MAX {
        return Err(Violation::TooManyRecords(after.records.len()));
    }
    let is_ordered = |journal: &Journal| {
        !journal.instances.is_empty() && journal.instances.is_sorted_by(|a, b| a < b)
    };
    if !after.journal.as_ref().is_none_or(is_ordered) {
        return Err(Violation::UnorderedJournal);
    }
    let ready = status.conditions.as_ref().is_some_and(|conditions| conditions.mode == Mode::Ready);
    if ready && !is_as_declared(view, after) { Err(Violation::FalseReady) } else { Ok(()) }
}

fn is_as_declared(view: &View, ledger: &Ledger) -> bool {
    let members = view.desired.at(ledger.target.as_ref());
    let is_attached = |id| {
        let record: Option<&Record> = ledger.records.get(id);
        record.is_some_and(|it| it.state == State::Attached && it.detach_until.is_none())
    };
    let is_stray = |(id, record): (&InstanceId, &Record)| {
        members.want(id) == Want::Out && record.may_be_attached()
    };
    !view.desired.deleting
        && !ledger.has_open_change()
        && !ledger.records.iter().any(is_stray)
        && view.desired.instances.iter().all(is_attached)
}

/// What was written is what is there, field by field of ours: no admission policy, and no schema of
/// another version, has taken something away.
pub fn was_written(status: &Status, copy: &View) -> Result<(), Violation> {
    let stored = &copy.status;
    let ledger = match (&status.ledger, &stored.ledger) {
        (LedgerState::Current(written), LedgerState::Current(stored)) => [
            ("status.target", written.target == stored.target),
            ("status.pendingCall", written.journal == stored.journal),
            (
                "status.attachedInstanceIds or status.unsettledInstances",
                written.records == stored.records,
            ),
            ("status.lastCall", written.last_call == stored.last_call),
        ],
        (written, stored) => [("status.objectUID", written == stored); 4],
    };
    let rest = [
        ("status.lastHandledForgetInstances", status.handled.forget == stored.handled.forget),
        ("status.lastHandledAdopt", status.handled.adopt == stored.handled.adopt),
        ("status.conditions", status.conditions == stored.conditions),
        ("a count of the status", status.counts == stored.counts),
        ("status.observedGeneration", status.observed_generation == stored.observed_generation),
    ];
    let mut fields = ledger.into_iter().chain(rest);
    fields.find(|(_, same)| !same).map_or(Ok(()), |(field, _)| Err(Violation::NotStored(field)))
}

/// I3: an object goes with an empty ledger, or with the policy that says so.
///
/// ```
/// use streamsession_core::ledger::record::Record;
/// use streamsession_core::reconcile::invariants::{Violation, may_go};
/// use streamsession_testkit::fixtures::{ledger, view};
///
/// let held = ledger(&[("a", Record::attached())]);
/// let mut object = view(held.clone(), &[]);
/// object.desired.deleting = true;
/// assert_eq!(may_go(&object, &held), Err(Violation::EarlyRelease));
/// assert_eq!(may_go(&object, &ledger(&[])), Ok(()));
/// ```
pub fn may_go(view: &View, ledger: &Ledger) -> Result<(), Violation> {
    let orphans = view.desired.deletion_policy == DeletionPolicy::Orphan;
    if view.desired.deleting && (orphans || ledger.tracks_nothing()) {
        Ok(())
    } else {
        Err(Violation::EarlyRelease)
    }
}

/// I3 to I6: what is called is wanted, and ours to call; and the object can't go before the call
/// has an outcome.
pub fn may_call(
    view: &View,
    ledger: &Ledger,
    journal: &Journal,
    ownership: &Ownership,
) -> Result<(), Violation> {
    let members = view.desired.at(ledger.target.as_ref());
    if !view.finalizer {
        return Err(Violation::NoFinalizer);
    }
    for id in &journal.instances {
        match journal.operation {
            Operation::Attach if members.want(id) == Want::Out => {
                return Err(Violation::Unwanted(id.clone()));
            }
            Operation::Attach if matches!(ownership, Ownership::Contender(_)) => {
                return Err(Violation::NotOwner(id.clone()));
            }
            Operation::Detach if !ledger.records.contains_key(id) => {
                return Err(Violation::NeverAttached(id.clone()));
            }
            Operation::Attach | Operation::Detach => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::CallResult;
    use crate::conditions::{Conditions, Reason};
    use crate::fixtures::{self, NOW, id, journal, key, ledger, view};
    use crate::ledger::LastCall;

    fn status(ledger: Ledger, mode: Mode) -> Status {
        let conditions = Conditions { mode, reason: Reason::UpToDate, message: String::new() };
        Status { conditions: Some(conditions), ..fixtures::status(ledger) }
    }

    fn writes(before: Ledger, after: Ledger, reasons: &RemovalReasons) -> Result<(), Violation> {
        may_write(&view(before, &[]), &status(after, Mode::Reconciling), reasons, Some(NOW))
    }

    #[test]
    fn nothing_leaves_the_ledger_without_a_reason() {
        let held = ledger(&[("a", Record::attached())]);
        let none = RemovalReasons::default();
        assert!(
            writes(held.clone(), ledger(&[]), &none).unwrap_err() == Violation::Forgotten(id("a"))
        );
        assert!(writes(held.clone(), held.clone(), &none).is_ok());
        assert!(
            writes(
                held.clone(),
                ledger(&[]),
                &RemovalReasons { all: true, ..RemovalReasons::default() }
            )
            .is_ok()
        );
        assert!(
            writes(
                held,
                ledger(&[]),
                &RemovalReasons { named: [id("a")].into(), ..RemovalReasons::default() }
            )
            .is_ok()
        );
    }

    #[test]
    fn an_open_call_leaves_with_its_outcome_alone() {
        let open = Ledger { journal: Some(journal(Operation::Attach, &["a"])), ..ledger(&[]) };
        assert!(writes(open.clone(), ledger(&[]), &RemovalReasons::default()).is_err());
        assert!(
            writes(
                open.clone(),
                ledger(&[]),
                &RemovalReasons { settled: true, ..RemovalReasons::default() }
            )
            .is_ok()
        );
        assert!(writes(ledger(&[]), open, &RemovalReasons::default()).is_ok());
    }

    #[test]
    fn an_instance_that_is_out_leaves_once_no_call_can_arrive() {
        let late = |until| {
            ledger(&[("a", Record { detach_until: Some(ServiceTime(until)), ..Record::default() })])
        };
        assert!(writes(late(1_001), ledger(&[]), &RemovalReasons::default()).is_err());
        assert!(writes(late(1_000), ledger(&[]), &RemovalReasons::default()).is_ok());
        let attach =
            ledger(&[("a", Record { attach_until: Some(ServiceTime(5)), ..Record::default() })]);
        assert!(
            writes(attach, ledger(&[]), &RemovalReasons::default()).is_err(),
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
        assert!(writes(ledger(&[]), of(Ledger::RECORDS_MAX), &RemovalReasons::default()).is_ok());
        assert!(
            writes(ledger(&[]), of(Ledger::RECORDS_MAX + 1), &RemovalReasons::default())
                == Err(Violation::TooManyRecords(2001))
        );
    }

    #[test]
    fn a_ledger_names_its_session_and_each_instance_of_a_call_once() {
        let homeless = Ledger { target: None, ..ledger(&[("a", Record::attached())]) };
        assert!(writes(ledger(&[]), homeless, &RemovalReasons::default()).is_err());
        for twice in [&["b", "a"][..], &["a", "a"], &[]] {
            let open = Ledger { journal: Some(journal(Operation::Attach, twice)), ..ledger(&[]) };
            assert!(writes(ledger(&[]), open, &RemovalReasons::default()).is_err(), "{twice:?}");
        }
    }

    #[test]
    fn ready_is_not_said_while_something_is_open() {
        let ready = |ledger: Ledger, wanted: &[&str]| {
            may_write(
                &view(ledger.clone(), wanted),
                &status(ledger, Mode::Ready),
                &RemovalReasons::default(),
                Some(NOW),
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
    fn a_field_that_was_stored_otherwise_is_named() {
        type Change = fn(&mut Status, &mut Ledger);
        let call = journal(Operation::Detach, &["a"]);
        let last_call = LastCall {
            operation: Operation::Attach,
            request_id: String::new(),
            time: NOW,
            succeeded: 1,
            failed: 0,
            result: CallResult::Processed,
            code: String::new(),
        };
        let held = Ledger {
            journal: Some(call),
            last_call: Some(last_call),
            ..ledger(&[("a", Record::assumed(NOW))])
        };
        let written = status(held.clone(), Mode::Reconciling);
        let copy = View { status: written.clone(), ..view(ledger(&[]), &[]) };
        assert_eq!(was_written(&written, &copy), Ok(()));

        let changes: [(&str, Change); 10] = [
            ("status.target", |_, ledger| ledger.target = None),
            ("status.pendingCall", |_, ledger| ledger.journal = None),
            ("status.attachedInstanceIds or status.unsettledInstances", |_, ledger| {
                ledger.records.values_mut().for_each(|record| record.attach_until = None);
            }),
            ("status.lastCall", |_, ledger| ledger.last_call = None),
            ("status.objectUID", |status, ledger| {
                let remains = ledger.clone();
                status.ledger = LedgerState::Lost { why: "another's".into(), remains };
            }),
            ("status.lastHandledForgetInstances", |status, _| {
                status.handled.forget = Some("a".into());
            }),
            ("status.lastHandledAdopt", |status, _| status.handled.adopt = Some("a".into())),
            ("status.conditions", |status, _| status.conditions = None),
            ("a count of the status", |status, _| status.counts.failed += 1),
            ("status.observedGeneration", |status, _| status.observed_generation -= 1),
        ];
        for (field, change) in changes {
            let (mut stored, mut ledger) = (written.clone(), held.clone());
            change(&mut stored, &mut ledger);
            if let LedgerState::Current(current) = &mut stored.ledger {
                *current = ledger;
            }
            let copy = View { status: stored, ..copy.clone() };
            assert_eq!(was_written(&written, &copy), Err(Violation::NotStored(field)));
        }
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
        let may = |operation, ids: &[&str], ownership: &Ownership| {
            may_call(&view, &held, &journal(operation, ids), ownership)
        };
        let bare = View { finalizer: false, ..view.clone() };
        assert!(
            may_call(&bare, &held, &journal(Operation::Attach, &["a"]), &Ownership::Uncontested)
                == Err(Violation::NoFinalizer)
        );
        let contender = Ownership::Contender(key("y"));
        assert!(may(Operation::Attach, &["a"], &Ownership::Uncontested).is_ok());
        assert!(
            may(Operation::Attach, &["a", "b"], &Ownership::Uncontested)
                == Err(Violation::Unwanted(id("b")))
        );
        assert!(may(Operation::Attach, &["a"], &contender) == Err(Violation::NotOwner(id("a"))));
        assert!(may(Operation::Detach, &["a"], &contender).is_ok());
        assert!(
            may(Operation::Detach, &["b"], &Ownership::Uncontested)
                == Err(Violation::NeverAttached(id("b")))
        );
    }
}
