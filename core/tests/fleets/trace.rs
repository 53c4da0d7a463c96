//! What happened, in lines that people can read: only where somebody will read them.

use std::fmt::Write as _;

use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::State;
use streamsession_core::reconcile::{Effect, LedgerState};
use streamsession_core::scheduler::Facts;

use crate::api::{Name, Object};
use crate::service::Request;
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

fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Attach => "attach",
        Operation::Detach => "detach",
    }
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a InstanceId>) -> String {
    ids.into_iter().map(InstanceId::as_str).collect::<Vec<_>>().join(" ")
}

/// `s0.0 [p1 p2?+1022-1020!] journal attach p3 @1000`: state, deadlines of attach and detach,
/// assumed.
pub fn ledger(ledger: &Ledger) -> String {
    let mut text = ledger.target.as_ref().map_or("-".to_owned(), |target| {
        format!(
            "{}{}{}",
            target.session,
            target
                .credential
                .as_deref()
                .map_or("", |key| key.strip_prefix("AKID").unwrap_or("-nobody")),
            if target.credential_proven { "" } else { "?" }
        )
    });
    text.push_str(" [");
    for (position, (id, record)) in ledger.records.iter().enumerate() {
        let state = match record.state {
            State::Attached => "",
            State::Detached => "-out",
            State::Unknown => "?",
        };
        let _ = write!(text, "{}{id}{state}", if position == 0 { "" } else { " " });
        if let Some(until) = record.attach_until {
            let _ = write!(text, "+{}", until.0);
        }
        if let Some(until) = record.detach_until {
            let _ = write!(text, "-{}", until.0);
        }
        if let Some(refusals) = record.refusals {
            let _ = write!(text, "({} {}x)", operation(refusals.operation), refusals.count);
        }
        if record.assumed {
            text.push('!');
        }
    }
    text.push(']');
    if let Some(journal) = &ledger.journal {
        let _ = write!(
            text,
            " journal {} {} @{}",
            operation(journal.operation),
            ids(&journal.instances),
            journal.start_time.0
        );
    }
    text
}

/// What a reconcile does next.
pub fn effect(run_id: RunId, name: Name, effect: &Effect, facts: &Facts) -> String {
    let what = match effect {
        Effect::WriteStatus(status, notices) => {
            let said = status
                .conditions
                .as_ref()
                .map_or(String::new(), |said| format!("{:?}/{}", said.mode, said.reason.as_str()));
            let ledger_text = match &status.ledger {
                LedgerState::Current(found) => ledger(found),
                LedgerState::New => "new".to_owned(),
                LedgerState::Lost { .. } => "lost".to_owned(),
            };
            let notices = if notices.is_empty() { String::new() } else { format!(" {notices:?}") };
            format!("WriteStatus {said} {ledger_text}{notices}")
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
pub fn served(request: &Request, answer: &Answer, done: &[InstanceId]) -> String {
    let Request { operation: what, instances, session, name, start_time, credential, .. } = request;
    let said = match &answer.verdict {
        Verdict::Processed { succeeded, refused } => {
            format!("succeeded [{}] refused [{}]", ids(succeeded), ids(refused))
        }
        _ => answer.code.clone(),
    };
    let (what, instances, done) = (operation(*what), ids(instances), ids(done));
    format!(
        "SERVICE {session}: {what} {instances} of {name}, signed at {start_time} by {credential}: {said}; done [{done}]"
    )
}

/// What stands in an object after a write.
pub fn wrote(name: Name, object: Option<&Object>) -> String {
    let Some(object) = object else { return format!("API {name} is gone") };
    let state = format!("{:?}", object.mode());
    let flags = format!(
        "{}{}",
        if object.finalizer { " finalizer" } else { "" },
        if object.deleting { " deleting" } else { "" }
    );
    let found = if object.is_lost() { "lost".to_owned() } else { ledger(&object.status.ledger) };
    format!("API {name} version {}{flags}, {state}: {found}", object.version)
}
