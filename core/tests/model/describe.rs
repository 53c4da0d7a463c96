//! Counterexamples to read: one line a move.

use std::fmt::Write as _;

use streamsession_core::reconcile::{Effect, LedgerState};
use streamsession_testkit::describe::{ledger, operation};

use crate::convergence;
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
    let mut text = format!("  {:44} {}\n", "at the start", situation(setting, &state));
    for step in moves.into_iter().rev() {
        match setting.after(&state, step) {
            Ok(Some(next)) => state = next,
            Ok(None) => unreachable!("the way was gone before"),
            Err(_) => {
                let _ = writeln!(text, "  {:44} breaks it", format!("{step:?}"));
                break;
            }
        }
        let _ = writeln!(text, "  {:44} {}", format!("{step:?}"), situation(setting, &state));
    }
    text
}

/// What the first operator does alone from there.
pub fn convergence(setting: &Setting, from: &State) -> String {
    let mut text = "  and without faults from here:\n".to_owned();
    let mut state = convergence::alone(from);
    for _ in 0..40 {
        let step = convergence::next(&state);
        match setting.after(&state, step) {
            Ok(Some(next)) => state = next,
            _ => break,
        }
        let _ = writeln!(text, "  {:44} {}", format!("{step:?}"), situation(setting, &state));
    }
    text
}

fn situation(setting: &Setting, state: &State) -> String {
    let mut text = format!("t={}", state.now - EPOCH);
    match &state.object {
        None => text.push_str(" gone"),
        Some(object) => {
            let view = &object.view;
            let _ = write!(
                text,
                " uid{} gen{} v{}{}{} wants{:?} {}",
                view.uid,
                view.desired.generation,
                object.version,
                if view.finalizer { " fin" } else { "" },
                if view.desired.deleting { " deleting" } else { "" },
                setting.bits(&view.desired.instances),
                ledger_state(&view.status.ledger)
            );
            if let Some(conditions) = &view.status.conditions {
                let _ = write!(
                    text,
                    " {:?}/{:?}@gen{}",
                    conditions.mode, conditions.reason, view.status.observed_generation
                );
            }
        }
    }
    let _ = write!(
        text,
        " | members {:?}{}",
        state.members,
        if state.session_gone { " session gone" } else { "" }
    );
    for request in &state.in_flight {
        let (operation, signed) = (operation(request.operation), request.start - EPOCH);
        let _ = write!(text, " coming {operation} of {:?} signed {signed}", request.ids);
    }
    for operator in &state.operators {
        match operator {
            Operator::Idle(None) => text.push_str(" | idle"),
            Operator::Idle(Some(state)) => {
                let _ = write!(
                    text,
                    " | idle{}",
                    if state.owes_settle() { ", owes a settle" } else { ", remembers a journal" }
                );
            }
            Operator::Busy(busy) => {
                let what = match &busy.effect {
                    Effect::WriteStatus(status, _) => {
                        format!("status {}", ledger_state(&status.ledger))
                    }
                    Effect::Call(call) => {
                        let journal = call.journal();
                        let signed = journal.start_time.0 - EPOCH;
                        format!("{} signed {signed}", operation(journal.operation))
                    }
                    effect => format!("{effect:?}"),
                };
                let _ = write!(text, " | v{}: about to {what}", busy.version);
            }
        }
    }
    text
}

fn ledger_state(state: &LedgerState) -> String {
    match state {
        LedgerState::New => "new".into(),
        LedgerState::Lost { remains, .. } => format!("lost {}", ledger(remains, EPOCH)),
        LedgerState::Current(current) => ledger(current, EPOCH),
    }
}
