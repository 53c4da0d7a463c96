//! What single reconciles wait for, tell and leave in writing.

use std::time::Duration;

use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::conditions::{Mode, Reason};
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::desired::DeletionPolicy;
use streamsession_core::ledger::record::{Failure, FailureReason, Record, Refusals};
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::retry::RETRY_MAX;
use streamsession_core::reconcile::{
    Effect, LedgerState, Notice, Reconcile, ReconcileState, Requeue, Response, StepContext, View,
};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{desired, id, ids, key, session};

use crate::driver::{Driver, at, done, lost, object, settings, unstarted, with_a};

#[test]
fn a_deadline_in_the_far_future_is_slept_for_in_hours() {
    let far = Record { detach_until: Some(ServiceTime(253_370_764_800)), ..Record::attached() };
    let mut reconcile = Driver::begin(&object(&[("a", far)]), false);

    reconcile.write();

    assert_eq!(reconcile.pause(), Duration::from_hours(1));
}

#[test]
fn an_outage_is_no_longer_told_once_somebody_else_has_the_time() {
    let mut outage = Driver::begin_without_time(&unstarted());
    outage.credentials().no_time();
    assert_eq!(outage.message(), "The service is down.");
    outage.write();

    let state = outage.reconcile.into_state();
    let mut next = Driver::resume(state, &outage.object, true, at(Some(1_000), 9));
    next.credentials();

    assert_eq!(next.status().conditions.as_ref().unwrap().reason, Reason::Progressing);
}

#[test]
fn a_write_that_is_always_denied_is_tried_ever_more_seldom() {
    let stripped = View { finalizer: false, ..with_a() };
    let mut state = ReconcileState::new(&settings());
    let (mut pauses, mut reads) = (Vec::new(), 0);

    for _ in 0..6 {
        let mut reconcile = Driver::resume(state, &stripped, false, at(Some(1_000), 0));
        reads += 1;
        while reconcile.effect == Effect::AddFinalizer {
            reconcile.respond(Response::Conflict);
            if reconcile.effect == Effect::Read {
                reconcile.read();
                reads += 1;
            }
        }
        pauses.push(reconcile.pause());
        state = reconcile.reconcile.into_state();
    }

    assert_eq!(reads, 6 * 8, "each reconcile gives up after eight");
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
}

#[test]
fn a_session_is_left_in_writing_before_the_next_one_is_entered_and_nobody_doubts_the_answer() {
    let mut moving = with_a();
    moving.desired.session = session("next");
    let mut reconcile = Driver::calling(&moving);

    reconcile.answer(done());
    assert_eq!(*reconcile.ledger(), Ledger::default(), "the old session is left");
    reconcile.write();

    assert!(reconcile.permit(false).waits_for_permit());
}

#[test]
fn a_wait_that_ends_leaves_the_old_session_in_writing_too() {
    let late = Record { detach_until: Some(ServiceTime(999)), ..Record::default() };
    let mut moving = object(&[("a", late)]);
    moving.desired.session = session("next");

    let reconcile = Driver::begin(&moving, true);

    assert_eq!(*reconcile.ledger(), Ledger::default());
}

#[test]
fn a_reconcile_knows_its_place_once_the_object_was_read() {
    let unread = Reconcile::new(settings(), ReconcileState::new(&settings()), None);
    assert_eq!((unread.place(), unread.endpoint()), (None, None));

    let Driver { object, reconcile, .. } = Driver::begin_without_time(&unstarted());

    let endpoint = desired("1", &[]).endpoint;
    assert_eq!((reconcile.place(), reconcile.endpoint()), (Some(object.place()), Some(&endpoint)));
}

#[test]
fn a_call_names_no_more_than_the_account_may_and_a_lost_permit_is_asked_for_again() {
    let mut object = unstarted();
    object.desired.instances = ids(&["a", "b", "c"]);
    let named = |limit: usize| {
        let mut driver = Driver::begin(&object, true);
        driver.reconcile.limit_batches(limit);
        driver.reconcile.lose_permit();
        driver.credentials().permit(true);
        driver.ledger().journal.as_ref().unwrap().instances.len()
    };

    assert_eq!((named(1), named(9)), (1, settings().rules.batch_size_max));
}

#[test]
fn missing_credentials_are_told_as_long_as_they_are_missing() {
    let mut reconcile = Driver::begin(&unstarted(), false);
    reconcile.respond(Response::Credentials(Err("There is no Secret.".into())));
    let conditions = reconcile.status().conditions.as_ref().unwrap();
    assert_eq!(conditions.reason, Reason::CredentialsNotFound);

    reconcile.write();

    assert!(reconcile.pause() > Duration::ZERO);
}

#[test]
fn a_ledger_that_is_made_anew_is_told_of() {
    let mut reconcile = Driver::begin(&lost(), false);

    reconcile.credentials().permit(false);

    assert_eq!(reconcile.status().conditions.as_ref().unwrap().reason, Reason::LedgerLost);
    let Effect::WriteStatus(_, notices) = reconcile.effect else { unreachable!() };
    assert_eq!(notices, [Notice::Rebuilt("Gone".into())]);
}

#[test]
fn what_was_only_assumed_goes_with_a_warning_when_a_name_that_never_worked_finds_no_session() {
    let notices = |answer| {
        let assumed = Record::assumed(ServiceTime(900));
        let mut reconcile = Driver::calling(&object(&[("a", assumed)]));
        reconcile.answer(answer);
        let Effect::WriteStatus(_, notices) = reconcile.effect else { panic!("the settle") };
        notices
    };
    let gone = Answer {
        verdict: Verdict::SessionGone,
        code: "ResourceNotFound.SessionNotFound".into(),
        ..done()
    };

    assert_eq!(notices(done()), []);
    assert_eq!(notices(gone), [Notice::Unproven(vec![id("a")])]);
}

#[test]
fn the_work_stops_when_what_is_stored_breaks_a_promise_and_the_call_is_not_forgotten() {
    let mut reconcile = Driver::calling(&unstarted());
    reconcile.answer(done());
    let mut stored = reconcile.status().clone();
    stored.ledger = LedgerState::Current(Ledger::default()); // a webhook does that
    reconcile.object.status = stored;

    reconcile.read();
    assert_eq!(reconcile.status().conditions.as_ref().unwrap().reason, Reason::InvariantViolated);
    reconcile.write();

    assert!(reconcile.pause() > Duration::ZERO);
    assert_eq!(reconcile.reconcile.state().open_instances(), [&id("a")]);
}

#[test]
fn a_ledger_of_another_service_makes_no_effect_but_its_condition_until_it_is_orphaned() {
    let mut object = with_a();
    if let LedgerState::Current(ledger) = &mut object.status.ledger {
        ledger.target.as_mut().unwrap().endpoint = "http://10.0.0.1".into();
    }
    object.desired.instances = ids(&["b"]);
    for deleting in [false, true] {
        object.desired.deleting = deleting;
        let mut reconcile = Driver::begin(&object, true);
        let conditions = reconcile.status().conditions.clone().unwrap();
        assert_eq!(conditions.reason, Reason::TargetMismatch);
        reconcile.write();
        assert!(matches!(reconcile.effect, Effect::Done(_)), "{:?}", reconcile.effect);
    }
    object.desired.deletion_policy = DeletionPolicy::Orphan;
    assert_eq!(Driver::begin(&object, true).effect, Effect::RemoveFinalizer);
}

/// What the reconcile says of a field that is not stored, and that it says it once.
fn stops_for(mut reconcile: Driver, field: &str) -> Driver {
    let conditions = reconcile.status().conditions.clone().unwrap();
    assert_eq!(conditions.reason, Reason::InvariantViolated);
    assert!(conditions.message.contains(field), "{}", conditions.message);
    reconcile.write();
    assert_eq!(reconcile.pause(), RETRY_MAX);
    reconcile
}

#[test]
fn a_field_that_is_not_stored_is_named_and_written_again_after_a_while() {
    let mut reconcile = Driver::calling(&unstarted());
    reconcile.answer(done());
    let mut stored = reconcile.status().clone();
    stored.counts.attached = 0; // a schema of another version does that
    reconcile.object.status = stored;
    reconcile.read();
    let stopped = stops_for(reconcile, "a count of the status");

    let (object, state) = (stopped.object, stopped.reconcile.into_state());
    let mut again = Driver::resume(state, &object, false, at(Some(1_400), 400));
    assert_eq!(again.status().conditions.as_ref().unwrap().mode, Mode::Ready);
    again.write();
    assert_eq!(again.effect, Effect::Done(Requeue::OnChange), "it is stored now");
}

#[test]
fn a_finalizer_that_is_taken_off_at_each_write_is_not_put_on_for_ever() {
    let mut object = with_a();
    object.finalizer = false;
    let mut reconcile = Driver::begin(&object, false);
    assert_eq!(reconcile.effect, Effect::AddFinalizer);
    reconcile.read();
    stops_for(reconcile, "metadata.finalizers");
}

#[test]
fn conditions_that_are_dropped_are_not_written_for_ever() {
    let mut reconcile = Driver::begin(&with_a(), false);
    for _ in 0..2 {
        assert!(reconcile.status().conditions.is_some());
        reconcile.read(); // without them
    }
    assert_eq!(reconcile.pause(), RETRY_MAX);
}

#[test]
fn a_reconcile_ends_however_often_the_object_is_changed_meanwhile() {
    let mut reconcile = Driver::begin(&with_a(), false);
    let mut writes = 0;
    while !matches!(reconcile.effect, Effect::Done(_)) {
        writes += 1;
        assert!(writes < 100, "it never ends");
        reconcile.object.desired.generation += 1;
        reconcile.write();
    }
    assert_eq!(writes, 64);
    assert!(reconcile.pause() > Duration::ZERO);
}

#[test]
fn a_deletion_that_waits_for_long_says_so_when_it_is_late_and_looks_again_by_then() {
    let mut object = lost();
    object.desired.deleting = true;
    let mut reconcile = Driver::begin_without_time(&object);
    reconcile.no_time();
    assert!(!reconcile.message().contains("Orphan"));
    reconcile.write();
    let (object, state) = (reconcile.object, reconcile.reconcile.into_state());
    let mut late = Driver::resume(state, &object, false, at(None, 12));
    late.no_time();
    assert!(late.message().ends_with("set spec.deletionPolicy to Orphan."), "{}", late.message());
    late.write();
    let mut other = Driver::begin_without_time(&late.object);
    other.no_time();
    assert!(matches!(other.effect, Effect::Done(_)), "it takes nothing back: {:?}", other.effect);
}

#[test]
fn a_retry_beside_a_full_ledger_is_no_news() {
    let operation = Operation::Detach;
    let refusals = Some(Refusals { operation, count: 5, since: ServiceTime(0) });
    let stuck = Record { refusals, ..Record::attached() };
    let names: Vec<_> = (0..Ledger::RECORDS_MAX).map(|number| format!("old-{number}")).collect();
    let records: Vec<_> = names.iter().map(|name| (name.as_str(), stuck.clone())).collect();
    let reconcile = Driver::journalling(&object(&records));
    let conditions = reconcile.status().conditions.as_ref().unwrap();
    assert_eq!(conditions.reason, Reason::TooManyInstances, "a is to come in, too");
}

#[test]
fn a_detach_that_may_still_arrive_where_phones_were_left_is_not_forgotten() {
    let late = Record { detach_until: Some(ServiceTime(1_500)), ..Record::attached() };
    let mut object = object(&[("a", late), ("b", Record::attached())]);
    object.desired.session = session("next");
    object.desired.deletion_policy = DeletionPolicy::Orphan;
    let mut reconcile = Driver::begin(&object, false);

    let Effect::WriteStatus(_, notices) = &reconcile.effect else { panic!("it leaves them") };
    assert_eq!(*notices, [Notice::Orphaned(vec![id("a"), id("b")])]);
    let ledger = reconcile.ledger().clone();
    assert_eq!(ledger.target.unwrap().session, session("1"), "it comes back, perhaps");
    let kept = Record { detach_until: Some(ServiceTime(1_500)), ..Record::default() };
    assert_eq!(ledger.records, [(id("a"), kept)].into());
    reconcile.write();
    assert!(reconcile.pause() > Duration::from_secs(400), "and nothing is called until then");
}

#[test]
fn an_answer_is_written_though_another_claimant_is_not_known_yet() {
    let mut driver = Driver::calling(&unstarted());
    driver.context.ownership = Ownership::Unresolved(key("other"));
    driver.respond(Response::Answer(done()));
    assert_eq!(driver.ledger().records.get(&id("a")), Some(&Record::attached()));
}

#[test]
fn a_deletion_that_has_waited_for_long_is_not_looked_at_without_a_pause() {
    let failure = Failure {
        operation: Operation::Detach,
        reason: FailureReason::Refused,
        code: String::new(),
        attempts: 3,
        time: ServiceTime(1_000),
        generation: 2,
    };
    let mut deleted =
        object(&[("a", Record { last_failure: Some(failure), ..Record::attached() })]);
    (deleted.desired.deleting, deleted.desired.generation) = (true, 2);
    let mut driver = Driver::begin(&deleted, false);
    driver.write();
    assert!(driver.pause() > Duration::ZERO);

    let state = driver.reconcile.into_state();
    let mut driver = Driver::resume(state, &driver.object, false, at(Some(1_001), 1_000));
    driver.write();
    assert!(driver.pause() > Duration::ZERO);
}

#[test]
fn an_owner_reads_the_others_again_between_the_journal_and_the_call() {
    let owner = StepContext {
        ownership: Ownership::Owner(key("other")),
        others: vec![key("other")],
        ..at(Some(1_000), 0)
    };
    let mut other = unstarted();
    other.desired.instances.clear();
    let answer = || Response::Claimant(key("other"), Some(Box::new(other.clone())));
    let mut driver = Driver::resume(ReconcileState::new(&settings()), &unstarted(), true, owner);
    for _ in 0..2 {
        assert_eq!(driver.effect, Effect::ReadClaimant(key("other")));
        driver.respond(answer());
        if driver.effect == Effect::Credentials {
            driver.credentials().write();
        }
    }
    assert!(matches!(driver.effect, Effect::Call(_)), "{:?}", driver.effect);
}

#[test]
fn one_that_may_not_act_takes_no_finalizer_off() {
    let mut deleted = object(&[]);
    deleted.desired.deleting = true;
    let mut fenced = at(Some(1_000), 0);
    let state = || ReconcileState::new(&settings());
    let free = Driver::resume(state(), &deleted, false, fenced.clone());
    assert_eq!(free.effect, Effect::RemoveFinalizer);
    fenced.may_act = false;
    assert!(Driver::resume(state(), &deleted, false, fenced).pause() > Duration::ZERO);
}

#[test]
fn whose_keys_it_has_is_found_out_during_a_pause_too_unless_there_were_none() {
    let contested = |elapsed| StepContext { must_identify: true, ..at(None, elapsed) };
    let mut driver = Driver::begin_without_time(&unstarted());
    driver.credentials().no_time();
    let state = driver.reconcile.into_state();
    let mut driver = Driver::resume(state, &unstarted(), false, contested(0));
    assert_eq!(driver.effect, Effect::Credentials);
    driver.respond(Response::Credentials(Err("There is no Secret.".into())));
    let state = driver.reconcile.into_state();
    let paused = Driver::resume(state.clone(), &unstarted(), false, contested(0));
    assert_ne!(paused.effect, Effect::Credentials);
    let later = Driver::resume(state, &unstarted(), false, contested(120));
    assert_eq!(later.effect, Effect::Credentials);
}
