//! An object whose session another one drives, step by step.

use streamsession_core::answer::Operation;
use streamsession_core::conditions::Reason;
use streamsession_core::ledger::LastCall;
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::{
    Effect, LedgerState, ReconcileState, Response, StepContext, View,
};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::key;

use crate::asked::with_a;
use crate::reconciles::{at, begun};
use crate::world::settings;

fn behind(seconds: u64) -> StepContext {
    StepContext { ownership: Ownership::Contender(key("arcade/lobby")), ..at(Some(1_000), seconds) }
}

/// What is said of it.
fn said(object: &View) -> Reason {
    let settings = settings();
    let (_, effect) = begun(&settings, ReconcileState::new(&settings), false, object, &behind(0));
    let Effect::WriteStatus(told, _) = effect else { panic!("a write, not {effect:?}") };
    told.conditions.unwrap().reason
}

#[test]
fn refused_credentials_keep_an_object_from_its_turn_until_an_edit() {
    let mut object = with_a();
    let LedgerState::Current(ledger) = &mut object.status.ledger else { panic!("a ledger") };
    ledger.last_call = Some(LastCall {
        operation: Operation::Attach,
        request_id: "r".into(),
        time: ServiceTime(900),
        succeeded: 0,
        failed: 1,
        code: "AuthFailure.SecretIdNotFound".into(),
    });
    assert_eq!(said(&object), Reason::SessionConflict, "it was edited");
    object.status.observed_generation = object.generation;
    assert_eq!(said(&object), Reason::CredentialsRejected);
}

#[test]
fn the_owner_that_is_asked_is_the_one_that_drives_the_session_now() {
    let settings = settings();
    let mut object = with_a();
    object.desired.instances.clear();
    let (mut reconcile, effect) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &behind(0));
    assert_eq!(effect, Effect::ReadOwner(key("arcade/lobby")));
    let next = StepContext { ownership: Ownership::Contender(key("arcade/next")), ..behind(0) };

    // Its answer comes after it has given way to another one.
    let effect = reconcile.step(Response::Owner(Some(with_a())), &next);

    assert_eq!(effect, Effect::ReadOwner(key("arcade/next")));
}
