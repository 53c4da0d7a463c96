//! Counterexamples for people: one line a move.

use std::fmt::Write as _;

use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::Record;
use streamsession_core::reconcile::Effect;
use streamsession_core::reconcile::LedgerState;
use streamsession_core::time::ServiceTime;

use crate::calm;
use crate::setting::Setting;
use crate::world::{EPOCH, Move, Operator, State};

/// The moves from the start to the state of that index, and one more.
pub fn way(setting: &Setting, ways: &[(u32, Move)], mut at: u32, last: Option<Move>) -> String {
    let mut moves: Vec<_> = last.into_iter().collect();
    while at != 0 {
        let (before, step) = ways[usize::try_from(at).unwrap()];
        moves.push(step);
        at = before;
    }
    let mut state = setting.start();
    let mut told = format!("  {:44} {}\n", "at the start", situation(setting, &state));
    for step in moves.into_iter().rev() {
        match setting.after(&state, step) {
            Ok(Some(next)) => state = next,
            Ok(None) => unreachable!("the way was gone before"),
            Err(_) => {
                let _ = writeln!(told, "  {:44} breaks it", format!("{step:?}"));
                break;
            }
        }
        let _ = writeln!(told, "  {:44} {}", format!("{step:?}"), situation(setting, &state));
    }
    told
}

/// What the first operator does alone from there.
pub fn calm(setting: &Setting, from: &State) -> String {
    let mut told = "  and without faults from here:\n".to_owned();
    let mut state = calm::alone(from);
    for _ in 0..40 {
        let step = calm::next(&state);
        match setting.after(&state, step) {
            Ok(Some(next)) => state = next,
            _ => break,
        }
        let _ = writeln!(told, "  {:44} {}", format!("{step:?}"), situation(setting, &state));
    }
    told
}

fn situation(setting: &Setting, state: &State) -> String {
    let mut told = format!("t={}", state.now - EPOCH);
    match &state.object {
        None => told.push_str(" gone"),
        Some(object) => {
            let view = &object.view;
            let _ = write!(
                told,
                " uid{} gen{} v{}{}{} wants{:?} {}",
                view.uid,
                view.generation,
                object.version,
                if view.finalizer { " fin" } else { "" },
                if view.desired.deleting { " deleting" } else { "" },
                setting.bits(&view.desired.instances),
                found(&view.status.ledger)
            );
            if let Some(said) = &view.status.conditions {
                let _ = write!(
                    told,
                    " {:?}/{:?}@gen{}",
                    said.mode, said.reason, view.status.observed_generation
                );
            }
        }
    }
    let _ = write!(
        told,
        " | members {:?}{}",
        state.members,
        if state.session_gone { " session gone" } else { "" }
    );
    for request in &state.net {
        let _ = write!(
            told,
            " coming {:?} of {:?} signed {}",
            request.operation,
            request.ids,
            request.start - EPOCH
        );
    }
    for operator in &state.operators {
        match operator {
            Operator::Idle(None) => told.push_str(" | idle"),
            Operator::Idle(Some(state)) => {
                let _ = write!(
                    told,
                    " | idle{}",
                    if state.owes_settle() { ", owes a settle" } else { ", remembers a journal" }
                );
            }
            Operator::Busy(busy) => {
                let what = match &busy.effect {
                    Effect::WriteStatus(status, _) => format!("status {}", found(&status.ledger)),
                    Effect::Call(call) => format!(
                        "{:?} signed {}",
                        call.journal().operation,
                        call.journal().start_time.0 - EPOCH
                    ),
                    effect => format!("{effect:?}"),
                };
                let _ = write!(told, " | v{}: about to {what}", busy.saw);
            }
        }
    }
    told
}

fn found(found: &LedgerState) -> String {
    match found {
        LedgerState::New => "new".into(),
        LedgerState::Lost { remains, .. } => format!("lost {}", ledger(remains)),
        LedgerState::Current(ours) => ledger(ours),
    }
}

fn ledger(ledger: &Ledger) -> String {
    let mut told = "{".to_owned();
    for (id, record) in &ledger.records {
        let _ = write!(told, "{id}:{}", self::record(record));
    }
    if let Some(journal) = &ledger.journal {
        let _ = write!(
            told,
            " journal {:?} {} at {}",
            journal.operation,
            journal.instances.len(),
            journal.start_time.0 - EPOCH
        );
    }
    told + "}"
}

fn record(record: &Record) -> String {
    let until = |until: Option<ServiceTime>| {
        until.map_or("-".into(), |until| (until.0 - EPOCH).to_string())
    };
    let mut told = format!(
        "{:?} attach<{} detach<{}",
        record.state,
        until(record.attach_until),
        until(record.detach_until)
    );
    if let Some(refusals) = &record.refusals {
        let _ = write!(
            told,
            " {:?} refused×{} since {}",
            refusals.operation,
            refusals.count,
            refusals.since.0 - EPOCH
        );
    }
    told + if record.assumed { " assumed" } else { "" }
}
