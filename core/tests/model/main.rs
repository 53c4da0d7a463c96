//! An exhaustive search over the real code: every order of edits, faults, ticks and effects within
//! small budgets, in every kind of service.
//!
//! `MODEL=deep` enlarges the budgets: hours instead of a minute or two. `--nocapture` shows what
//! was visited.
//!
//! ```text
//!   setting       which service, policies, faults      search        every state, the nearest first
//!   world         a state, and what may happen in it   fingerprint   which states are the same
//!   actions       what comes of it                     check         the promises
//!   drive         `Reconcile::step`                    convergence   without faults it comes to rest
//!   service       the service in bits                  describe      counterexamples to read
//!   leave_outs    each rule is needed                  omission      how one is left out
//! ```

#![allow(missing_docs, unreachable_pub, reason = "a test crate")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::struct_excessive_bools,
    reason = "a test fails by panicking"
)]

mod actions;
mod check;
mod convergence;
mod describe;
mod drive;
mod fingerprint;
mod leave_outs;
mod omission;
mod search;
mod service;
mod setting;
mod world;

use std::sync::Mutex;

use Kind::{
    BadAnswer, Crash, Delete, Edit, FailedWrite, NextJournal, Orphan, Recreate, Refusal, Resync,
    RotateKey, SecondOperator, SessionEnds, StaleRead, StripFinalizer, Sts, Touch, WipeStatus,
};
use search::search;
use service::Service;
use setting::{Budgets, Kind, Setting};
use streamsession_testkit::fixtures::id;

/// One more of everything.
fn more() -> u8 {
    u8::from(std::env::var("MODEL").is_ok_and(|model| model == "deep"))
}

fn setting(name: &str, faults: u8, each: &[(Kind, u8)]) -> Setting {
    let each: Vec<_> = each.iter().map(|(kind, count)| (*kind, count + more())).collect();
    Setting::new(name, Budgets::new(if faults == 0 { 0 } else { faults + more() }, &each))
}

fn two_ids(setting: Setting) -> Setting {
    Setting { ids: ["a", "b"].map(id).into(), ..setting }
}

fn two_operators(setting: Setting) -> Setting {
    Setting { operators: 2, ..setting }
}

fn forgets(setting: Setting) -> Setting {
    Setting { forgets: true, ..setting }
}

fn removes_absent(setting: Setting) -> Setting {
    Setting { service: Service { add_present_ok: None, remove_absent_ok: Some(true) }, ..setting }
}

/// Searches all of them, as many at once as there are processors.
fn no_promise_is_broken(settings: Vec<Setting>) {
    let open = Mutex::new(settings.into_iter());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let next = || open.lock().unwrap().next();
    let work = || {
        while let Some(setting) = next() {
            let seen = search(&setting);
            println!("{seen}");
            assert!(seen.broken.is_none(), "{}\n{}", seen.name, seen.counterexample());
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in running {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

#[test]
fn every_promise_is_kept_in_every_state() {
    const CALLS: [(Kind, u8); 4] = [(Crash, 2), (BadAnswer, 2), (Refusal, 1), (FailedWrite, 1)];
    let calls =
        |name, faults, edits: &[(Kind, u8)]| setting(name, faults, &[edits, &CALLS].concat());
    let any = &[(Touch, 1), (StripFinalizer, 1), (WipeStatus, 1), (SessionEnds, 1)];
    let any = [&CALLS[..], any].concat();
    let rare = [(Orphan, 1), (Recreate, 1), (NextJournal, 1), (StaleRead, 1)];
    no_promise_is_broken(vec![
        setting("any two faults", 2, &[&any[..], &[(Edit, 2), (Delete, 1)]].concat()),
        two_operators(setting(
            "two operators, a new object of the name",
            0,
            &[(SecondOperator, 1), (Delete, 1), (Recreate, 1)],
        )),
        calls("any three faults of calls", 3, &[(Edit, 1), (Delete, 1)]),
        two_operators(setting(
            "two operators, a lost answer",
            1,
            &[(SecondOperator, 1), (BadAnswer, 1)],
        )),
        two_operators(setting("two operators, an edit", 0, &[(SecondOperator, 1), (Edit, 1)])),
        two_operators(Setting {
            lags: true,
            ..setting(
                "two operators whose clocks differ, an edit",
                0,
                &[(SecondOperator, 1), (Edit, 1)],
            )
        }),
        setting("any fault", 1, &[&any[..], &[(Edit, 2), (Delete, 1)], &rare].concat()),
        calls("a resync, two faults of calls", 2, &[(Resync, 1), (Edit, 1), (Delete, 1)]),
        calls(
            "two keys of one account, a fault of calls",
            1,
            &[(RotateKey, 1), (Sts, 1), (SessionEnds, 1), (Edit, 1), (Delete, 1)],
        ),
        setting(
            "two resyncs, any fault",
            1,
            &[&any[..], &[(Resync, 2), (Edit, 1), (Delete, 1)]].concat(),
        ),
        two_operators(setting("two operators, a resync", 0, &[(SecondOperator, 1), (Resync, 1)])),
        forgets(calls("Forget", 2, &[(Edit, 1), (Delete, 1)])),
        forgets(Setting {
            stuck: true,
            ..setting(
                "Forget, and one that can't be removed",
                2,
                &[
                    (Edit, 1),
                    (Delete, 1),
                    (Refusal, 2),
                    (Crash, 1),
                    (BadAnswer, 1),
                    (FailedWrite, 1),
                ],
            )
        }),
        forgets(two_ids(calls("Forget, two instances", 1, &[(Edit, 1), (Delete, 1)]))),
        removes_absent(two_ids(calls(
            "two instances, any fault",
            1,
            &[(Edit, 1), (Delete, 1), (NextJournal, 1)],
        ))),
        removes_absent(two_ids(calls("two instances, a resync", 1, &[(Resync, 1), (Edit, 1)]))),
        removes_absent(two_ids(setting(
            "two instances, two faults of calls",
            2,
            &[(Edit, 1), (BadAnswer, 2), (Refusal, 1)],
        ))),
    ]);
}

#[test]
fn every_promise_is_kept_with_two_instances_in_every_service() {
    no_promise_is_broken(vec![two_ids(setting(
        "two instances",
        1,
        &[(Edit, 1), (Delete, 1), (BadAnswer, 1), (Refusal, 1)],
    ))]);
}

#[test]
fn every_promise_is_kept_when_a_ledger_is_lost_between_two_clocks() {
    let setting = setting(
        "two operators whose clocks differ, a lost ledger",
        2,
        &[(SecondOperator, 1), (Delete, 1), (BadAnswer, 1), (WipeStatus, 1)],
    );
    let service = Service { add_present_ok: Some(true), remove_absent_ok: Some(true) };
    no_promise_is_broken(vec![two_operators(Setting { lags: true, service, ..setting })]);
}
