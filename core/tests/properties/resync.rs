//! A resync, step by step: what is attached is attached again, and only a success or that the
//! session is gone says anything.

use streamsession_core::answer::{Answer, Operation};
use streamsession_core::conditions::{Conditions, Mode, Reason};
use streamsession_core::ledger::plan::Priority;
use streamsession_core::ledger::record::{Record, State};
use streamsession_core::reconcile::{Effect, ReconcileState, Requeue, Response, Resync, View};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{answer, error, id, ids, processed, status, with_status};

use crate::driver::{Driver, at, done, ledger, object, settings, with_a};

/// An object at rest.
fn at_rest(object: &View) -> View {
    let message = "The slave instance is attached.".to_owned();
    let mut status = status(ledger(&object.status).clone());
    let conditions = Conditions { mode: Mode::Ready, reason: Reason::UpToDate, message };
    status.conditions = Some(conditions);
    status.counts.desired = object.desired.instances.len();
    status.counts.attached = status.counts.desired;
    status.counts.recorded = status.counts.desired;
    with_status(object, status)
}

/// A reconcile of it in which a resync is due, with a permit of that priority.
fn begin(object: &View, permit: Option<Priority>) -> Driver {
    let mut context = at(Some(1_000), 0);
    context.resync = Resync::Due(None);
    Driver::resume_with(ReconcileState::new(&settings()), object, permit, context)
}

/// Likewise, and its call is on its way.
fn calling(object: &View) -> Driver {
    let mut driver = begin(object, Some(Priority::Resync));
    driver.credentials().write();
    let Effect::Call(call) = &driver.effect else { panic!("a call, not {:?}", driver.effect) };
    assert!(call.journal().resync && call.journal().operation == Operation::Attach);
    driver
}

#[test]
fn an_object_at_rest_is_attached_again_and_stays_ready() {
    let mut driver = begin(&at_rest(&with_a()), Some(Priority::Resync));
    driver.credentials();
    assert_eq!(driver.status().conditions, driver.object.status.conditions);
    assert!(driver.ledger().journal.as_ref().unwrap().resync);
    driver.write().answer(done());
    let settled = driver.ledger().clone();
    assert_eq!(settled.records.get(&id("a")), Some(&Record::attached()));
    assert_eq!(settled.last_call.unwrap().succeeded, 1);
    assert!(settled.target.unwrap().credential_proven);

    driver.context.resync = Resync::Due(Some(id("a")));
    driver.write();
    assert_eq!(driver.effect, Effect::Done(Requeue::OnChange));
    assert!(driver.reconcile.resync_is_over());
}

#[test]
fn whatever_else_it_is_answered_changes_nothing() {
    let before = at_rest(&with_a());
    for answer in [
        answer(processed(&[], &["a"])),
        answer(processed(&[], &[])),
        error("FailedOperation"),
        error("InvalidParameterValue"),
        error("UnauthorizedOperation"),
        error("InvalidAction"),
        error("RequestLimitExceeded"),
        error("RequestSizeLimitExceeded"),
    ] {
        let mut driver = calling(&before);
        driver.answer(answer.clone());
        driver.context.resync = Resync::Due(Some(id("a")));
        assert_eq!(driver.status(), &before.status, "{answer:?}");
        driver.write();
        assert_eq!(driver.effect, Effect::Done(Requeue::OnChange), "{answer:?}: nobody pauses");
    }
}

#[test]
fn one_that_nobody_answered_may_arrive_and_leaves_ready_alone() {
    let mut driver = calling(&at_rest(&with_a()));
    driver.answer(Answer::unanswered("Timeout", ""));
    let record = driver.ledger().records.get(&id("a")).unwrap().clone();
    let until = Some(ServiceTime(1_012));
    assert_eq!(record, Record { attach_until: until, ..Record::attached() });
    assert_eq!(driver.status().conditions, driver.object.status.conditions);
    driver.context.resync = Resync::NotDue;
    driver.write();
    assert_eq!(driver.pause().as_secs(), 11, "then the deadline goes");
}

#[test]
fn one_that_was_cut_off_may_arrive_too() {
    let mut driver = calling(&at_rest(&with_a()));
    let object = driver.object.clone();
    let mut next =
        Driver::resume_with(driver.reconcile.into_state(), &object, None, at(Some(1_001), 1));
    let record = next.ledger().records.get(&id("a")).unwrap().clone();
    assert_eq!((record.state, record.attach_until), (State::Attached, Some(ServiceTime(1_012))));
    next.write();
    driver = next;
    assert_eq!(driver.pause().as_secs(), 11);
}

#[test]
fn that_the_session_is_gone_is_told() {
    let gone = error("ResourceNotFound.SessionNotFound");
    let mut driver = calling(&at_rest(&with_a()));
    driver.answer(gone.clone());
    let conditions = driver.status().conditions.clone().unwrap();
    assert_eq!((conditions.mode, conditions.reason), (Mode::Stalled, Reason::SessionNotFound));

    let mut of_another_key = at_rest(&with_a());
    let mut held = ledger(&of_another_key.status).clone();
    held.target.as_mut().unwrap().credential = Some("OTHER".into());
    held.target.as_mut().unwrap().credential_proven = true;
    of_another_key = at_rest(&with_status(&of_another_key, status(held)));
    let mut driver = calling(&of_another_key);
    driver.answer(gone);
    assert_eq!(driver.status(), &of_another_key.status, "it is not believed");
}

#[test]
fn it_waits_for_a_permit_of_its_own() {
    for granted in [Priority::Detach, Priority::Attach, Priority::Retry] {
        let mut driver = begin(&at_rest(&with_a()), Some(granted));
        driver.credentials();
        assert_eq!(driver.effect, Effect::Done(Requeue::OnResyncPermit(None)));
        assert!(!driver.reconcile.resync_is_over());
    }
    let mut driver = begin(&at_rest(&with_a()), None);
    driver.credentials();
    assert_eq!(driver.effect, Effect::Permit(Priority::Resync));
    driver.respond(Response::Permit(None));
    assert_eq!(driver.effect, Effect::Done(Requeue::OnResyncPermit(None)));
}

#[test]
fn what_is_due_comes_first_and_may_take_its_permit() {
    let mut object = object(&[("a", Record::attached())]);
    object.desired.instances = ids(&["a", "b"]);
    let mut driver = begin(&object, Some(Priority::Resync));
    driver.credentials();
    let journal = driver.ledger().journal.clone().unwrap();
    assert_eq!((journal.resync, journal.instances), (false, vec![id("b")]));
}

#[test]
fn an_edit_takes_one_back_that_was_not_sent() {
    let mut driver = begin(&at_rest(&with_a()), Some(Priority::Resync));
    driver.credentials();
    let mut edited = with_status(&driver.object, driver.status().clone());
    edited.desired.instances = ids(&[]);
    edited.desired.generation = 2;
    driver.object = edited;
    driver.read();
    driver.credentials();
    let journal = driver.ledger().journal.clone().unwrap();
    assert_eq!((journal.resync, journal.operation), (false, Operation::Detach));
}

#[test]
fn without_credentials_or_a_clock_it_is_put_off_and_ready_stays() {
    let before = at_rest(&with_a());
    let mut driver = begin(&before, None);
    driver.respond(Response::Credentials(Err("There is no Secret.".into())));
    assert!(driver.pause().as_secs() <= 60);
    assert!(!driver.reconcile.resync_is_over());

    let mut driver = begin(&before, None);
    driver.context.service = None;
    driver.credentials().no_time();
    assert!(driver.pause().as_secs() <= 60);
}

#[test]
fn nobody_is_attached_again_behind_another_owner_or_on_the_way_out() {
    use streamsession_core::ownership::claims::Ownership;
    use streamsession_testkit::fixtures::key;
    let mut object = at_rest(&with_a());
    let mut context = at(Some(1_000), 0);
    context.resync = Resync::Due(None);
    context.ownership = Ownership::Contender(key("other"));
    let state = ReconcileState::new(&settings());
    let driver = Driver::resume_with(state, &object, None, context);
    assert!(driver.ledger().journal.is_none(), "it gives way in writing");

    object.desired.deleting = true;
    let driver = begin(&object, Some(Priority::Resync));
    assert_eq!(driver.effect, Effect::Credentials, "for the detach");
}

#[test]
fn what_there_is_to_say_is_said_while_it_waits_for_its_permit() {
    let mut object = at_rest(&with_a());
    object.desired.generation = 2;
    let mut driver = begin(&object, None);
    driver.credentials().permit(false);
    assert_eq!(driver.status().observed_generation, 2);
    driver.write().permit(false);
    assert_eq!(driver.effect, Effect::Done(Requeue::OnResyncPermit(None)));

    // A doubt ends in 50 seconds; b waits for its own failure.
    let late = Record { attach_until: Some(ServiceTime(1_050)), ..Record::attached() };
    let mut object =
        with_status(&object, status(ledger(&self::object(&[("a", late)]).status).clone()));
    object = at_rest(&object);
    let mut driver = begin(&object, None);
    driver.credentials().permit(false);
    driver.write().permit(false);
    let fifty = std::time::Duration::from_secs(50);
    assert_eq!(driver.effect, Effect::Done(Requeue::OnResyncPermit(Some(fifty))));
}

#[test]
fn a_session_that_is_gone_for_another_key_pauses_nobody() {
    let mut object = at_rest(&with_a());
    let mut held = ledger(&object.status).clone();
    let target = held.target.as_mut().unwrap();
    (target.credential, target.credential_proven) = (Some("OTHER".into()), true);
    object = at_rest(&with_status(&object, status(held)));
    let mut driver = calling(&object);
    driver.answer(error("ResourceNotFound.SessionNotFound"));
    driver.context.resync = Resync::NotDue;
    driver.write();
    assert_eq!(driver.effect, Effect::Done(Requeue::OnChange));
}

#[test]
fn an_owner_that_can_not_read_the_others_puts_it_off() {
    use streamsession_core::ownership::claims::Ownership;
    use streamsession_testkit::fixtures::key;
    let object = at_rest(&with_a());
    let mut context = at(Some(1_000), 0);
    context.resync = Resync::Due(None);
    context.ownership = Ownership::Owner(key("other"));
    context.others = vec![key("other")];
    let state = ReconcileState::new(&settings());
    let begin =
        || Driver::resume_with(state.clone(), &object, Some(Priority::Resync), context.clone());
    let mut driver = begin();
    assert_eq!(driver.effect, Effect::ReadClaimant(key("other")));
    driver.respond(Response::Claimant(key("other"), None));
    if matches!(driver.effect, Effect::WriteStatus(..)) {
        driver.write();
        driver.respond(Response::Claimant(key("other"), None));
    }
    assert!(driver.pause().as_secs() <= 1 && !driver.pause().is_zero());
    assert!(!driver.reconcile.resync_is_over());

    // A detach of the other one may still hit the phone: nothing follows from a resync.
    let mut other = object.clone();
    let detaching = Record { detach_until: Some(ServiceTime(1_100)), ..Record::default() };
    let target = ledger(&object.status).target.clone();
    let held = streamsession_core::ledger::Ledger {
        target,
        records: [(id("a"), detaching)].into(),
        ..Default::default()
    };
    other.status = status(held);
    other.desired.instances = ids(&[]);
    let mut driver = begin();
    driver.respond(Response::Claimant(key("other"), Some(Box::new(other.clone()))));
    assert!(driver.reconcile.resync_is_over(), "{:?}", driver.effect);
}
