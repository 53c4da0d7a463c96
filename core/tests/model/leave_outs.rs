//! Each rule is needed: without it the search finds what it prevents. The code stays as it is; what
//! lies between it and the world leaves the rule out.

use crate::omission::Omission;
use crate::search::search;
use crate::service::Service;
use crate::setting::{Budgets, Kind, Setting};
use crate::world::Promise;

/// Without that rule this promise is broken.
fn breaks(setting: Setting, omission: Omission, promise: Promise) {
    let seen = search(&Setting { omission: Some(omission), ..setting });

    println!("{omission:?}: found in {} states\n{}", seen.states, seen.counterexample());
    let (broken, how) = &seen.broken.expect("a counterexample").0;
    assert_eq!(*broken, promise, "{how}");
}

fn setting(faults: u8, each: &[(Kind, u8)]) -> Setting {
    Setting::new("leave-out", Budgets::new(faults, each))
}

fn service(add_present_ok: bool, remove_absent_ok: bool) -> Service {
    Service { add_present_ok: Some(add_present_ok), remove_absent_ok: Some(remove_absent_ok) }
}

#[test]
fn without_the_journal_a_crash_leaks() {
    breaks(setting(1, &[(Kind::Crash, 1)]), Omission::NoJournal, Promise::I1NothingLeaks);
}

#[test]
fn without_the_precondition_a_second_operator_overwrites_what_it_has_not_seen() {
    let two = Setting {
        operators: 2,
        service: service(false, true),
        ..setting(0, &[(Kind::SecondOperator, 1)])
    };
    breaks(two, Omission::NoPrecondition, Promise::I1NothingLeaks);
}

#[test]
fn without_the_uid_a_paused_operator_writes_a_foreign_ledger_into_the_next_object() {
    let two = Setting {
        operators: 2,
        ..setting(0, &[(Kind::Delete, 1), (Kind::Recreate, 1), (Kind::SecondOperator, 1)])
    };
    breaks(two, Omission::NoUid, Promise::NoFalseLoss);
}

#[test]
fn without_the_uid_a_paused_operator_takes_the_finalizer_off_the_next_object() {
    let two = Setting {
        operators: 2,
        ..setting(0, &[(Kind::Delete, 1), (Kind::Recreate, 1), (Kind::SecondOperator, 1)])
    };
    breaks(two, Omission::NoUidOfFinalizer, Promise::I3DeletionIsHonest);
}

#[test]
fn without_the_deadlines_a_late_attach_leaks() {
    breaks(
        setting(1, &[(Kind::Edit, 1), (Kind::BadAnswer, 1)]),
        Omission::NoDeadlines,
        Promise::I1NothingLeaks,
    );
}

#[test]
fn trusted_before_the_opposite_is_over_a_late_attach_leaks() {
    breaks(
        setting(1, &[(Kind::Edit, 1), (Kind::BadAnswer, 1)]),
        Omission::EarlyTrust,
        Promise::I1NothingLeaks,
    );
}

#[test]
fn judged_at_the_settle_an_attach_that_arrived_meanwhile_leaks() {
    breaks(
        setting(1, &[(Kind::Edit, 1), (Kind::BadAnswer, 1)]),
        Omission::JudgedAtSettle,
        Promise::I1NothingLeaks,
    );
}

#[test]
fn counted_early_a_refusal_releases_what_is_in() {
    let setting = setting(1, &[(Kind::Edit, 1), (Kind::BadAnswer, 1)]);
    breaks(
        Setting { forgets: true, service: service(true, false), ..setting },
        Omission::CountsEarly,
        Promise::NoHastyRelease,
    );
}

#[test]
fn counted_on_after_finding_out_it_is_never_attached() {
    let setting = setting(3, &[(Kind::Refusal, 3)]);
    breaks(
        Setting { service: service(true, false), ..setting },
        Omission::KeepsCount,
        Promise::I2ItConverges,
    );
}

#[test]
fn without_finding_out_a_lost_attach_is_refused_for_ever() {
    let setting = setting(1, &[(Kind::BadAnswer, 1)]);
    breaks(
        Setting { service: service(false, true), ..setting },
        Omission::NeverFindsOut,
        Promise::I2ItConverges,
    );
}

#[test]
fn with_a_hasty_finalizer_a_late_detach_hits_the_next_object() {
    breaks(
        setting(1, &[(Kind::Delete, 1), (Kind::BadAnswer, 1)]),
        Omission::HastyFinalizer,
        Promise::I3DeletionIsHonest,
    );
}

#[test]
fn signed_when_it_is_sent_a_request_outlives_its_doubt() {
    breaks(
        setting(1, &[(Kind::Edit, 1), (Kind::BadAnswer, 1)]),
        Omission::SignsNow,
        Promise::I1NothingLeaks,
    );
}

#[test]
fn an_unclear_answer_that_is_taken_for_a_refusal_leaks() {
    breaks(
        setting(1, &[(Kind::BadAnswer, 1)]),
        Omission::UnclearIsRefused,
        Promise::I1NothingLeaks,
    );
}

#[test]
fn a_resync_that_leaves_no_deadline_arrives_after_the_object_is_gone() {
    breaks(
        setting(1, &[(Kind::Resync, 1), (Kind::Edit, 1), (Kind::BadAnswer, 1)]),
        Omission::ResyncWithoutDeadline,
        Promise::I1NothingLeaks,
    );
}

#[test]
fn with_the_finalizer_first_a_new_object_looks_like_a_lost_one() {
    breaks(setting(1, &[(Kind::Crash, 1)]), Omission::FinalizerFirst, Promise::NoFalseLoss);
}
