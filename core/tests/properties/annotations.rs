//! What a user asks for by an annotation.

use streamsession_core::conditions::Reason;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::{Record, State};
use streamsession_core::reconcile::{Effect, LedgerState, Notice, Request, Response, View};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{attached_at, id, ids, numbered_ids, session};

use crate::driver::{Driver, at, object, settings, unstarted, with_a};

fn request(text: &str) -> Request {
    Request { value: text.into(), instances: ids(&[text]) }
}

fn adopt_b(mut object: View) -> View {
    object.asked.adopt = Some(request("b"));
    object
}

/// An object whose ledger is full, and which wants all of it or only `a`.
fn full(wants_all: bool) -> View {
    let all = numbered_ids(0..Ledger::RECORDS_MAX);
    let mut object = adopt_b(unstarted());
    object.status.ledger = LedgerState::Current(attached_at("1", &all));
    if wants_all {
        object.desired.instances = all;
    }
    object
}

#[test]
fn an_adopted_instance_is_written_down_before_anything_is_done_with_it() {
    let mut reconcile = Driver::begin_without_time(&adopt_b(with_a()));
    assert_eq!(reconcile.effect, Effect::AskTime, "until when calls for it may arrive");
    reconcile.context = at(Some(1_000), 0);
    reconcile.respond(Response::Time(Ok(()))).credentials().permit(false);

    assert_eq!(reconcile.status().handled.adopt.as_deref(), Some("b"));
    assert!(reconcile.ledger().records[&id("b")].assumed);
    reconcile.write();

    assert!(reconcile.permit(false).waits_for_permit(), "it is asked for once");
}

#[test]
fn an_adoption_waits_for_a_clock_and_for_the_end_of_a_move() {
    let mut reconcile = Driver::begin_without_time(&adopt_b(with_a()));
    reconcile.no_time();
    assert_eq!(reconcile.status().handled.adopt, None);
    assert_eq!(reconcile.status().ledger, reconcile.object.status.ledger);
    assert_eq!(reconcile.message(), "The service is down.");
    reconcile.write();
    assert!(reconcile.pause() <= settings().retry_base, "it is asked again");

    let mut moving = adopt_b(with_a());
    moving.desired.session = session("next");
    let moving = Driver::journalling(&moving);
    assert_eq!(moving.status().handled.adopt, None, "it is about the next session");
}

#[test]
fn an_instance_that_there_is_no_room_for_is_told_of() {
    let reconcile = Driver::begin(&full(true), false);

    let status = reconcile.status();
    assert_eq!(status.conditions.as_ref().unwrap().reason, Reason::TooManyInstances);
    assert_eq!(status.handled.adopt, None);
}

#[test]
fn a_full_ledger_that_is_to_adopt_more_waits_for_a_permit_like_others() {
    let mut reconcile = Driver::begin(&full(false), false);

    assert!(reconcile.credentials().permit(false).waits_for_permit());
}

#[test]
fn a_deleted_object_does_not_go_before_it_has_looked_after_what_it_was_to_adopt() {
    let mut object = adopt_b(unstarted());
    object.desired.deleting = true;
    let mut reconcile = Driver::begin_without_time(&object);
    reconcile.no_time();
    assert_eq!(reconcile.message(), "The service is down.");
    reconcile.write();
    assert!(reconcile.pause() <= settings().retry_base, "it is tried again");

    let Driver { object, reconcile, .. } = reconcile;
    let next = Driver::resume(reconcile.into_state(), &object, false, at(Some(1_000), 9));

    assert_eq!(next.effect, Effect::Credentials, "it is to be detached");
}

#[test]
fn an_instance_is_forgotten_as_soon_as_no_attach_of_it_can_arrive() {
    let handled = |attach_until| {
        let attach_until = Some(ServiceTime(attach_until));
        let unknown = Record { state: State::Unknown, attach_until, ..Record::default() };
        let mut object = object(&[("b", unknown)]);
        object.desired.instances.clear();
        object.asked.forget = Some(request("b"));
        let mut reconcile = Driver::begin(&object, true);
        if reconcile.effect == Effect::Credentials {
            reconcile.credentials();
        }
        let forgotten = reconcile.status().handled.forget.clone();
        let Effect::WriteStatus(_, notices) = reconcile.effect else { unreachable!() };
        (forgotten, notices)
    };

    assert_eq!(handled(1_000), (Some("b".into()), vec![Notice::Forgotten(vec![id("b")])]));
    assert_eq!(handled(1_001), (None, vec![]));
}

#[test]
fn what_never_fits_keeps_no_deleted_object() {
    let mut object = unstarted();
    let instances = numbered_ids(0..Ledger::RECORDS_MAX + 1);
    object.asked.adopt = Some(Request { value: "many".into(), instances });
    object.desired.deleting = true;

    assert_eq!(Driver::begin(&object, false).effect, Effect::RemoveFinalizer);
}
