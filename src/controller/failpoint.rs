//! Failpoints: the process kills itself, as `kill -9` would, right before or right after a named
//! effect of a reconcile.
//!
//! Only debug builds have them, for the tests: `STREAMSESSION_FAILPOINT=before-call` ends the
//! process at its first call, `after-write-settle:3` once its third settle is written and the
//! response not yet fed to the reconcile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use streamsession_core::reconcile::{Effect, LedgerState, Status};

use crate::api::v1alpha1::StreamSession;

/// The environment variable that arms one.
pub const VARIABLE: &str = "STREAMSESSION_FAILPOINT";

/// The effects by name; the writes of the status apart by what they do to the journal.
pub const STEPS: [&str; 12] = [
    "read",
    "read-claimant",
    "credentials",
    "ask-time",
    "permit",
    "write-journal",
    "write-next-journal", // ends one journal, as write-settle does, and begins the next
    "write-settle", // or makes a doubt of a dead process's journal, or takes one back that was not sent
    "write-status", // no journal before or after
    "add-finalizer",
    "call",
    "remove-finalizer",
];

#[derive(Debug)]
struct Armed {
    side: &'static str,
    step: &'static str,
    hits_left: AtomicU32,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Arms the failpoint that the environment names. A name that is none is an error: a test must not
/// pass because of a typing error.
pub fn arm() -> Result<(), String> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let value = value.to_string_lossy();
    let armed = parse(&value).ok_or_else(|| {
        let steps = STEPS.join(", ");
        format!("{VARIABLE}={value:?} is no failpoint; it is before-STEP or after-STEP, or before-STEP:N for the Nth hit, and STEP is one of {steps}")
    })?;
    // A second call of the same process would find the first one's.
    ARMED.get_or_init(|| armed);
    Ok(())
}

fn parse(value: &str) -> Option<Armed> {
    let (name, hits) = value.split_once(':').unwrap_or((value, "1"));
    let (side, step) = name.split_once('-')?;
    let side = ["before", "after"].into_iter().find(|known| *known == side)?;
    let step = STEPS.into_iter().find(|known| *known == step)?;
    let hits: u32 = hits.parse().ok().filter(|hits| *hits > 0)?;
    Some(Armed { side, step, hits_left: AtomicU32::new(hits) })
}

/// `effect` is about to be performed on `copy`; answers its name for [`after`].
pub(super) fn before(effect: &Effect, copy: Option<&StreamSession>) -> &'static str {
    let step = name(effect, copy);
    hit("before", step);
    step
}

/// The effect of that name took place.
pub(super) fn after(step: &'static str) {
    hit("after", step);
}

fn hit(side: &str, step: &str) {
    if let Some(armed) = ARMED.get()
        && (armed.side, armed.step) == (side, step)
        && armed.hits_left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        let _ = kill_process(getpid(), Signal::KILL);
        // Nothing more is done, not even if the signal takes its time.
        loop {
            std::thread::park();
        }
    }
}

fn name(effect: &Effect, copy: Option<&StreamSession>) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::ReadClaimant(_) => "read-claimant",
        Effect::Credentials => "credentials",
        Effect::AskTime => "ask-time",
        Effect::Permit(_) => "permit",
        Effect::WriteStatus(status, _) => write_name(status, copy),
        Effect::AddFinalizer => "add-finalizer",
        Effect::RemoveFinalizer => "remove-finalizer",
        Effect::Call(_) => "call",
        Effect::Done(_) => "end",
    }
}

fn write_name(status: &Status, copy: Option<&StreamSession>) -> &'static str {
    let before = copy
        .and_then(|copy| copy.status.as_ref()?.pending_call.as_ref())
        .map(|call| call.id.as_str());
    let after = match &status.ledger {
        LedgerState::Current(ledger) => ledger.journal.as_ref().map(|journal| &*journal.id.0),
        LedgerState::New | LedgerState::Lost { .. } => None,
    };
    match (before, after) {
        (None, Some(_)) => "write-journal",
        (Some(before), Some(after)) if before != after => "write-next-journal",
        (Some(_), None) => "write-settle",
        (None, None) | (Some(_), Some(_)) => "write-status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<(&'static str, &'static str, u32)> {
        parse(value).map(|armed| (armed.side, armed.step, armed.hits_left.into_inner()))
    }

    #[test]
    fn a_failpoint_is_a_side_a_step_and_perhaps_a_number() {
        assert_eq!(parsed("before-call"), Some(("before", "call", 1)));
        assert_eq!(
            parsed("after-write-next-journal:12"),
            Some(("after", "write-next-journal", 12))
        );
    }

    #[test]
    fn what_names_no_step_or_no_hit_is_none() {
        for value in [
            "",
            "call",
            "before",
            "before-",
            "during-call",
            "before-calls",
            "before-call:",
            "before-call:0",
            "after-end",
            "after-call:-1",
        ] {
            assert_eq!(parsed(value), None, "{value}");
        }
    }
}
