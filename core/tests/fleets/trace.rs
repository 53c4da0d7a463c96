//! What happened, in lines to read: only where somebody will read them.

use std::collections::BTreeSet;

use streamsession_core::answer::{Answer, Verdict};
use streamsession_core::ids::InstanceId;
use streamsession_core::reconcile::{Effect, LedgerState};
use streamsession_core::scheduler::Facts;
use streamsession_testkit::describe::{ids, ledger, operation};

use crate::api::{Name, Object};
use crate::calls::SentCall;
use crate::world::RunId;

/// The log of a world, if one is kept.
#[derive(Default)]
pub struct Trace {
    pub lines: Option<Vec<String>>,
}

impl Trace {
    /// One that is kept.
    pub fn kept() -> Self {
        Self { lines: Some(Vec::new()) }
    }

    pub fn log(&mut self, now_ms: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>5}.{:03}  {}", now_ms / 1_000, now_ms % 1_000, line()));
        }
    }
}

/// What a reconcile does next.
pub fn effect(run_id: RunId, name: Name, effect: &Effect, facts: &Facts) -> String {
    let what = match effect {
        Effect::WriteStatus(status, notices) => {
            let conditions = status.conditions.as_ref();
            let conditions = conditions
                .map_or(String::new(), |is| format!("{:?}/{}", is.mode, is.reason.as_str()));
            let ledger_text = match &status.ledger {
                LedgerState::Current(current) => ledger(current, 0),
                LedgerState::New => "new".to_owned(),
                LedgerState::Lost { .. } => "lost".to_owned(),
            };
            let notices = if notices.is_empty() { String::new() } else { format!(" {notices:?}") };
            format!("WriteStatus {conditions} {ledger_text}{notices}")
        }
        Effect::Call(call) => format!(
            "Call {} {}",
            operation(call.journal().operation),
            ids(&call.journal().instances)
        ),
        other => format!("{other:?}"),
    };
    let clock = facts.service.map_or("-".to_owned(), |time| time.0.to_string());
    format!("op{} {name} #{} ({clock}): {what}", run_id.operator, run_id.run)
}

/// What the service made of a call.
pub fn served(call: &SentCall, answer: &Answer, done: &BTreeSet<InstanceId>) -> String {
    let outcome = match &answer.verdict {
        Verdict::Processed { succeeded, refused } => {
            format!("succeeded [{}] refused [{}]", ids(succeeded), ids(refused))
        }
        _ => answer.code.clone(),
    };
    let what = format!("{} {}", operation(call.operation), ids(&call.instances));
    let SentCall { name, credential, request, .. } = call;
    let signed = format!("signed at {} by {credential}", request.start_time);
    format!("SERVICE {}: {what} of {name}, {signed}: {outcome}; done [{}]", call.session, ids(done))
}

/// An object after a write.
pub fn written(name: Name, object: Option<&Object>) -> String {
    let Some(object) = object else { return format!("API {name} is gone") };
    let state = format!("{:?}", object.mode());
    let flags = format!(
        "{}{}",
        if object.finalizer { " finalizer" } else { "" },
        if object.deleting { " deleting" } else { "" }
    );
    let ledger =
        if object.is_lost() { "lost".to_owned() } else { ledger(&object.status.ledger, 0) };
    format!("API {name} version {}{flags}, {state}: {ledger}", object.version)
}
