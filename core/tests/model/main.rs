//! An exhaustive search over the real code: every order of edits, faults, ticks and effects within
//! small budgets, in every kind of service.
//!
//! `MODEL=deep` enlarges the budgets: hours instead of a minute or two. `--nocapture` shows what
//! was visited.
//!
//! ```text
//!   setting       which service, policies, faults; which rule is left out
//!   world         a state of everything, and what may happen in it     act      what comes of it: `Reconcile::step`, and the world around it
//!   service       who is in the session                                check    the promises
//!   calm          without faults it converges                          search   every state, the nearest first
//!   fingerprint   which situations are the same                        tell     counterexamples for people
//!   leave_outs    each rule is needed                                  bend     how one is left out
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

mod act;
mod bend;
mod calm;
mod check;
mod fingerprint;
mod leave_outs;
mod search;
mod service;
mod setting;
mod tell;
mod world;

use std::sync::Mutex;

use Kind::{
    Crash, Delete, Edit, Gone, Intrude, Loss, Orphan, Recreate, Refusal, Ride, Stale, Strip, Touch,
    Wipe, Write,
};
use search::search;
use service::Service;
use setting::{Budgets, Kind, Setting};
use streamsession_core::ids::InstanceId;

/// One more of everything.
fn more() -> u8 {
    u8::from(std::env::var("MODEL").is_ok_and(|model| model == "deep"))
}

fn setting(name: &str, faults: u8, each: &[(Kind, u8)]) -> Setting {
    let each: Vec<_> = each.iter().map(|(kind, count)| (*kind, count + more())).collect();
    Setting::new(name, Budgets::new(if faults == 0 { 0 } else { faults + more() }, &each))
}

fn two_ids(setting: Setting) -> Setting {
    Setting { ids: ["a", "b"].map(|id| InstanceId::parse(id).unwrap()).into(), ..setting }
}

fn two_operators(setting: Setting) -> Setting {
    Setting { operators: 2, ..setting }
}

fn forgets(setting: Setting) -> Setting {
    Setting { forgets: true, ..setting }
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
            assert!(seen.broken.is_none(), "{}\n{}", seen.name, seen.told());
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
    const CALLS: [(Kind, u8); 4] = [(Crash, 2), (Loss, 2), (Refusal, 1), (Write, 1)];
    let calls =
        |name, faults, people: &[(Kind, u8)]| setting(name, faults, &[people, &CALLS].concat());
    let any = [&CALLS[..], &[(Touch, 1), (Strip, 1), (Wipe, 1), (Gone, 1)]].concat();
    no_promise_is_broken(vec![
        setting("any two faults", 2, &[&any[..], &[(Edit, 2), (Delete, 1)]].concat()),
        two_operators(setting(
            "two operators, a new object of the name",
            0,
            &[(Intrude, 1), (Delete, 1), (Recreate, 1)],
        )),
        calls("any three faults of calls", 3, &[(Edit, 1), (Delete, 1)]),
        two_operators(setting("two operators, a lost answer", 1, &[(Intrude, 1), (Loss, 1)])),
        two_operators(setting("two operators, an edit", 0, &[(Intrude, 1), (Edit, 1)])),
        two_operators(Setting {
            lags: true,
            ..setting("two operators whose clocks differ, an edit", 0, &[(Intrude, 1), (Edit, 1)])
        }),
        setting(
            "any fault",
            1,
            &[
                &any[..],
                &[(Edit, 2), (Delete, 1), (Orphan, 1), (Recreate, 1), (Ride, 1), (Stale, 1)],
            ]
            .concat(),
        ),
        forgets(calls("Forget", 2, &[(Edit, 1), (Delete, 1)])),
        forgets(Setting {
            stuck: true,
            ..setting(
                "Forget, and one that can't be removed",
                2,
                &[(Edit, 1), (Delete, 1), (Refusal, 2), (Crash, 1), (Loss, 1), (Write, 1)],
            )
        }),
        forgets(two_ids(calls("Forget, two instances", 1, &[(Edit, 1), (Delete, 1)]))),
        removes_absent(two_ids(calls(
            "two instances, any fault",
            1,
            &[(Edit, 1), (Delete, 1), (Ride, 1)],
        ))),
        removes_absent(two_ids(setting(
            "two instances, two faults of calls",
            2,
            &[(Edit, 1), (Loss, 2), (Refusal, 1)],
        ))),
    ]);
}

fn removes_absent(setting: Setting) -> Setting {
    Setting { service: Service { add_present_ok: None, remove_absent_ok: Some(true) }, ..setting }
}

#[test]
fn every_promise_is_kept_with_two_instances_in_every_service() {
    no_promise_is_broken(vec![two_ids(setting(
        "two instances",
        1,
        &[(Edit, 1), (Delete, 1), (Loss, 1), (Refusal, 1)],
    ))]);
}

#[test]
fn every_promise_is_kept_when_a_ledger_is_lost_between_two_clocks() {
    let setting = setting(
        "two operators whose clocks differ, a lost ledger",
        2,
        &[(Intrude, 1), (Delete, 1), (Loss, 1), (Wipe, 1)],
    );
    let service = Service { add_present_ok: Some(true), remove_absent_ok: Some(true) };
    no_promise_is_broken(vec![two_operators(Setting { lags: true, service, ..setting })]);
}
