//! Ledgers in a line, for traces and counterexamples.

use std::fmt::Write as _;

use streamsession_core::answer::Operation;
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::{Record, State};

/// `attach` or `detach`.
#[must_use]
pub fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Attach => "attach",
        Operation::Detach => "detach",
    }
}

/// The ids, with spaces between them.
pub fn ids<'a>(ids: impl IntoIterator<Item = &'a InstanceId>) -> String {
    ids.into_iter().map(InstanceId::as_str).collect::<Vec<_>>().join(" ")
}

/// `s1-a? [p1 p2?+22-20(detach 5x)!] journal attach p3 @0`, times from `epoch` on: session,
/// credential, `?` if that is not proven; then each record, with state (nothing, `-out` or `?`),
/// deadlines of attach and detach, refusals, `!` if it is assumed.
#[must_use]
pub fn ledger(ledger: &Ledger, epoch: i64) -> String {
    let target = ledger.target.as_ref().map_or("-".to_owned(), |target| {
        let credential = target.credential.as_deref();
        let credential = credential.map_or("", |key| key.strip_prefix("AKID").unwrap_or("-nobody"));
        let unproven = if target.credential_proven { "" } else { "?" };
        format!("{}{credential}{unproven}", target.session)
    });
    let records: Vec<_> =
        ledger.records.iter().map(|(id, record)| self::record(id, record, epoch)).collect();
    let journal = ledger.journal.as_ref().map_or(String::new(), |journal| {
        let (operation, ids) = (operation(journal.operation), ids(&journal.instances));
        format!(" journal {operation} {ids} @{}", journal.start_time.0 - epoch)
    });
    format!("{target} [{}]{journal}", records.join(" "))
}

fn record(id: &InstanceId, record: &Record, epoch: i64) -> String {
    let state = match record.state {
        State::Attached => "",
        State::Detached => "-out",
        State::Unknown => "?",
    };
    let mut text = format!("{id}{state}");
    for (sign, until) in [('+', record.attach_until), ('-', record.detach_until)] {
        if let Some(until) = until {
            let _ = write!(text, "{sign}{}", until.0 - epoch);
        }
    }
    if let Some(refusals) = record.refusals {
        let _ = write!(text, "({} {}x)", operation(refusals.operation), refusals.count);
    }
    if record.assumed {
        text.push('!');
    }
    text
}
