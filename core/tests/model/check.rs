//! The promises I1 to I6 (docs/design.md, 3), as someone would state them who sees everything: the
//! service and the network too.

use streamsession_core::answer::Operation;
use streamsession_core::conditions::{Mode, Reason};
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::ledger::record::{Record, State as RecordState};
use streamsession_core::reconcile::{Effect, LedgerState, Notice, View};
use streamsession_core::time::{ServiceTime, over};

use crate::service::Ids;
use crate::setting::Setting;
use crate::world::{Busy, Object, Promise, State, Violation};

fn broken(promise: Promise, how: impl Into<String>) -> Result<(), Violation> {
    Err((promise, how.into()))
}

/// Whoever the ledger remembers: in it as long as it holds something, or in an open call. A ledger
/// that is lost is made anew from the spec.
fn tracked(setting: &Setting, view: &View) -> Ids {
    match &view.status.ledger {
        LedgerState::New => 0,
        LedgerState::Lost { remains, .. } => {
            setting.bits(view.desired.instances.iter().chain(remains.records.keys()))
        }
        LedgerState::Current(ledger) => {
            let held =
                ledger.records.iter().filter(|(_, record)| record.is_tracked()).map(|(id, _)| id);
            setting.bits(held.chain(ledger.journal.iter().flat_map(|journal| &journal.instances)))
        }
    }
}

/// In every state.
pub fn state(setting: &Setting, state: &State) -> Result<(), Violation> {
    let attaches = state.coming(setting, Some(Operation::Attach));
    let detaches = state.coming(setting, Some(Operation::Detach));
    let ours = (state.members | attaches) & !state.released;
    let Some(object) = &state.object else {
        if state.orphaned {
            return Ok(());
        }
        if ours != 0 {
            return broken(
                Promise::I1NothingLeaks,
                "the object is gone, and instances of it are in the session or will be",
            );
        }
        if detaches != 0 {
            return broken(
                Promise::I3DeletionIsHonest,
                "the object is gone, and a detach of it may still arrive",
            );
        }
        return Ok(());
    };
    let forgotten = ours & !tracked(setting, &object.view);
    if forgotten != 0 {
        return broken(
            Promise::I1NothingLeaks,
            format!("{:?} may be in, and nobody remembers it", setting.set(forgotten)),
        );
    }
    let Some(conditions) = &object.view.status.conditions else { return Ok(()) };
    if conditions.reason == Reason::LedgerLost && !object.lost {
        return broken(Promise::NoFalseLoss, "the ledger was never lost");
    }
    if conditions.mode == Mode::Ready
        && object.view.status.observed_generation == object.view.desired.generation
        && !state.session_gone
    {
        let wanted = setting.bits(&object.view.desired.instances);
        if (state.members ^ wanted) & !state.released != 0 {
            return broken(Promise::NoFalseReady, "Ready, and the service holds others");
        }
        if detaches & wanted != 0 {
            return broken(Promise::NoFalseReady, "Ready, and a detach may still arrive");
        }
    }
    Ok(())
}

/// What an operator is about to do, on the copy that it decided on.
pub fn effect(
    setting: &Setting,
    state: &State,
    copy: &View,
    effect: &Effect,
) -> Result<(), Violation> {
    match effect {
        Effect::WriteStatus(status, notices) => {
            let violated = notices.iter().find_map(|notice| {
                if let Notice::Violated(how) = notice { Some(how.to_string()) } else { None }
            });
            let halted = status
                .conditions
                .as_ref()
                .filter(|conditions| conditions.reason == Reason::InvariantViolated);
            match violated.or(halted.map(|conditions| conditions.message.clone())) {
                Some(how) => broken(Promise::NeverHalted, how),
                None => Ok(()),
            }
        }
        Effect::Call(call) => {
            let ids = setting.bits(&call.journal().instances);
            let unwanted = ids
                & !if copy.desired.deleting { 0 } else { setting.bits(&copy.desired.instances) };
            match call.journal().operation {
                Operation::Attach if unwanted != 0 => {
                    broken(Promise::I6NoHarm, "it would be attached, and the spec does not want it")
                }
                Operation::Detach if ids & !(state.tried | assumed(setting, copy)) != 0 => broken(
                    Promise::I4HandsOff,
                    "it would be detached, and this object never tried to attach it",
                ),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn assumed(setting: &Setting, copy: &View) -> Ids {
    match &copy.status.ledger {
        LedgerState::Current(ledger) => setting
            .bits(ledger.records.iter().filter(|(_, record)| record.assumed).map(|(id, _)| id)),
        _ => 0,
    }
}

/// A write that succeeds.
pub fn write(state: &State, object: &Object, busy: &Busy) -> Result<(), Violation> {
    let orphans = object.view.desired.deletion_policy == DeletionPolicy::Orphan;
    if busy.effect != Effect::RemoveFinalizer || orphans || state.session_gone {
        return Ok(());
    }
    let holds = match &object.view.status.ledger {
        LedgerState::New => false,
        LedgerState::Lost { .. } => true,
        // A detach that can't arrive any more is nothing; an attach that may have arrived is looked
        // for first.
        LedgerState::Current(ledger) => {
            let holds = |record: &Record| {
                record.may_be_attached() || !over(record.detach_until, Some(ServiceTime(state.now)))
            };
            ledger.journal.is_some() || ledger.records.values().any(holds)
        }
    };
    if holds {
        broken(Promise::I3DeletionIsHonest, "the finalizer goes, and the ledger holds something")
    } else {
        Ok(())
    }
}

/// Who is released though it is in: only after the refusals that the policy asks for, and never
/// while an attach may still arrive.
pub fn released(setting: &Setting, state: &State, notices: &[Notice]) -> Result<Ids, Violation> {
    let named = notices.iter().filter_map(|notice| {
        if let Notice::Forgotten(ids) = notice { Some(setting.bits(ids)) } else { None }
    });
    let named = named.fold(0, |all, ids| all | ids);
    if named & state.coming(setting, Some(Operation::Attach)) != 0 {
        broken(Promise::NoHastyRelease, "released while an attach may still arrive")?;
    }
    for (n, refused) in state.refused.iter().enumerate() {
        if named & state.members & (1 << n) != 0 && !refused.is_enough(state.now) {
            broken(
                Promise::NoHastyRelease,
                format!("released after {} quiet refusals", refused.count),
            )?;
        }
    }
    Ok(named & state.members)
}

/// Whether the object is as it should be, with nothing left to do.
pub fn at_rest(setting: &Setting, state: &State) -> Result<(), String> {
    let Some(object) = &state.object else { return Ok(()) };
    let view = &object.view;
    let wanted = setting.bits(&view.desired.instances);
    let LedgerState::Current(ledger) = &view.status.ledger else {
        return Err("there is no ledger".into());
    };
    let clean = |record: &Record| {
        record.state == RecordState::Attached
            && record.attach_until.is_none()
            && record.detach_until.is_none()
    };
    if view.desired.deleting {
        Err("a deleted object stays".into())
    } else if (state.members ^ wanted) & !state.released != 0 && !state.session_gone {
        Err("the service holds others".into())
    } else if ledger.journal.is_some()
        || !ledger.records.values().all(clean)
        || setting.bits(ledger.records.keys()) != wanted
    {
        Err("the ledger says something else than the spec".into())
    } else if view.status.observed_generation != view.desired.generation
        || view.status.conditions.as_ref().is_none_or(|conditions| conditions.mode != Mode::Ready)
    {
        Err("it is not said to be Ready".into())
    } else {
        Ok(())
    }
}
