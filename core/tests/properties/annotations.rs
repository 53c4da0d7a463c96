//! What a person asks for by an annotation, step by step.

use std::sync::Arc;
use streamsession_core::conditions::Reason;
use streamsession_core::ids::SessionId;
use streamsession_core::ledger::Ledger;
use streamsession_core::ledger::record::{Record, State};
use streamsession_core::reconcile::{
    Effect, LedgerState, Notice, Reconcile, ReconcileState, Request, Requeue, Response, Status,
    View,
};
use streamsession_core::time::ServiceTime;

use crate::reconciles::{at, begun, journalling, view, written};
use crate::world::settings;
use streamsession_testkit::fixtures::id;

/// A ledger of the session in which `a` is attached, and an object that wants it.
pub fn with_a() -> Box<View> {
    let target = view(Ledger::default()).desired.target(Some("AKID".into()));
    view(Ledger {
        records: [(id("a"), Record::attached())].into(),
        target: Some(target),
        ..Ledger::default()
    })
}

#[test]
fn an_instance_that_a_person_tells_of_is_written_down_before_anything_is_done_with_it() {
    let settings = settings();
    let mut object = with_a();
    object.asked.adopt = Some(Request { value: "b".into(), instances: [id("b")].into() });

    let (mut reconcile, effect) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &at(None, 0));
    assert_eq!(effect, Effect::AskTime, "until when calls for it may arrive");
    assert_eq!(reconcile.step(Response::Time(Ok(())), &at(Some(1_000), 0)), Effect::Credentials);
    assert_eq!(
        reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0)),
        Effect::Permit
    );
    let adopted = reconcile.step(Response::Permit(false), &at(Some(1_000), 0));

    let Effect::WriteStatus(adopted, _) = adopted else { panic!("a write, not {adopted:?}") };
    assert_eq!(adopted.handled.adopt.as_deref(), Some("b"));
    let LedgerState::Current(ledger) = &adopted.ledger else { panic!("a ledger") };
    assert!(ledger.records[&id("b")].assumed);
    let (mut reconcile, _) = begun(
        &settings,
        reconcile.into_state(),
        false,
        &written(&object, *adopted),
        &at(Some(1_000), 0),
    );
    reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0));
    let end = reconcile.step(Response::Permit(false), &at(Some(1_000), 0));
    assert!(matches!(end, Effect::Done(Requeue::OnPermit(_))), "it is asked for once: {end:?}");
}

#[test]
fn what_a_person_tells_of_waits_for_a_clock_and_for_the_end_of_a_move() {
    let settings = settings();
    let mut object = with_a();
    object.asked.adopt = Some(Request { value: "b".into(), instances: [id("b")].into() });
    let (mut reconcile, _) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &at(None, 0));
    let told = reconcile.step(Response::Time(Err("The service is down.".into())), &at(None, 0));
    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!((told.handled.adopt.as_deref(), &told.ledger), (None, &object.status.ledger));
    assert_eq!(told.conditions.as_ref().unwrap().message, "The service is down.");
    let end = reconcile.step(Response::Object(Some(written(&object, *told))), &at(None, 0));
    assert!(
        matches!(end, Effect::Done(Requeue::After(pause)) if pause <= settings.retry_base),
        "it is asked again: {end:?}"
    );

    object.desired.session = SessionId::parse("next").unwrap();
    let (_, journal) = journalling(&settings, ReconcileState::new(&settings), &object, 0);
    assert_eq!(journal.handled.adopt, None, "it is about the next session");
}

#[test]
fn an_instance_that_there_is_no_room_for_is_told_of() {
    let settings = settings();
    let texts: Vec<_> = (0..Ledger::RECORDS_MAX).map(|number| id(&number.to_string())).collect();
    let records = texts.iter().map(|id| (id.clone(), Record::attached())).collect();
    let target = view(Ledger::default()).desired.target(Some("AKID".into()));
    let mut object = view(Ledger { records, target: Some(target), ..Ledger::default() });
    object.desired.instances = texts.into_iter().collect();
    object.asked.adopt = Some(Request { value: "x".into(), instances: [id("x")].into() });

    let (_, effect) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &at(Some(1_000), 0));

    let Effect::WriteStatus(told, _) = effect else { panic!("a write, not {effect:?}") };
    assert_eq!(
        (told.conditions.unwrap().reason, told.handled.adopt),
        (Reason::TooManyInstances, None)
    );
}

#[test]
fn a_full_ledger_that_is_to_adopt_more_waits_for_a_permit_like_others() {
    let settings = settings();
    let records = (0..Ledger::RECORDS_MAX)
        .map(|number| (id(&format!("{number}")), Record::attached()))
        .collect();
    let target = Ledger::default().target_for(&view(Ledger::default()).desired, "AKID");
    let mut object = view(Ledger { records, target: Some(target), ..Ledger::default() });
    object.asked.adopt = Some(Request { value: "x".into(), instances: [id("x")].into() });
    let mut reconcile =
        Reconcile::new(Arc::clone(&settings), ReconcileState::new(&settings), false);
    reconcile.step(Response::Started, &at(Some(1_000), 0));
    reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0));
    assert_eq!(
        reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0)),
        Effect::Permit
    );

    let end = reconcile.step(Response::Permit(false), &at(Some(1_000), 0));

    assert!(matches!(end, Effect::Done(Requeue::OnPermit(_))), "{end:?}");
}

/// What a reconcile writes first, with a permit or without.
fn first_write(object: &View, permit: bool) -> (Box<Status>, Vec<Notice>) {
    let settings = settings();
    let (mut reconcile, mut effect) =
        begun(&settings, ReconcileState::new(&settings), false, object, &at(Some(1_000), 0));
    loop {
        let response = match effect {
            Effect::Credentials => Response::Credentials(Ok("AKID".into())),
            Effect::Permit => Response::Permit(permit),
            Effect::WriteStatus(status, notices) => return (status, notices),
            other => panic!("a write, not {other:?}"),
        };
        effect = reconcile.step(response, &at(Some(1_000), 0));
    }
}

#[test]
fn a_deleted_object_does_not_go_before_it_has_looked_after_what_a_person_told_of() {
    let settings = settings();
    let mut object = view(Ledger::default());
    object.desired.deleting = true;
    object.asked.adopt = Some(Request { value: "b".into(), instances: [id("b")].into() });
    let (mut reconcile, effect) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &at(None, 0));
    assert_eq!(effect, Effect::AskTime);
    let told = reconcile.step(Response::Time(Err("The service is down.".into())), &at(None, 0));
    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!(told.conditions.as_ref().unwrap().message, "The service is down.");

    let end = reconcile.step(Response::Object(Some(written(&object, *told.clone()))), &at(None, 0));
    assert!(
        matches!(end, Effect::Done(Requeue::After(pause)) if pause <= settings.retry_base),
        "it is tried again: {end:?}"
    );

    let (_, effect) = begun(
        &settings,
        reconcile.into_state(),
        false,
        &written(&object, *told),
        &at(Some(1_000), 9),
    );
    assert_eq!(effect, Effect::Credentials, "it is to be detached");
}

#[test]
fn an_instance_is_let_go_of_as_soon_as_no_attach_of_it_can_arrive() {
    let told = |attach_until| {
        let mut object = with_a();
        let LedgerState::Current(ledger) = &mut object.status.ledger else { panic!("a ledger") };
        let attach_until = Some(ServiceTime(attach_until));
        ledger.records =
            [(id("b"), Record { state: State::Unknown, attach_until, ..Record::default() })].into();
        object.desired.instances.clear();
        object.asked.forget = Some(Request { value: "b".into(), instances: [id("b")].into() });
        let (told, notices) = first_write(&object, true);
        (told.handled.forget, notices)
    };
    assert_eq!(told(1_000), (Some("b".into()), vec![Notice::Forgotten(vec![id("b")])]));
    assert_eq!(told(1_001), (None, vec![]));
}
