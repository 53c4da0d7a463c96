//! An object whose session another one drives, step by step.

use streamsession_protocol::answer::Operation;
use streamsession_protocol::claims::Standing;
use streamsession_protocol::conditions::Reason;
use streamsession_protocol::ledger::LastCall;
use streamsession_protocol::step::{Effect, Found, Memory, Moment, Response, View};
use streamsession_protocol::time::ServiceTime;

use crate::asked::with_a;
use crate::rounds::{at, begun};
use crate::world::settings;

fn behind(seconds: u64) -> Moment {
    Moment { standing: Standing::Behind("arcade/lobby".into()), ..at(Some(1_000), seconds) }
}

/// What is said of it.
fn said(object: &View) -> Reason {
    let settings = settings();
    let (_, effect) = begun(&settings, Memory::new(&settings), false, object, &behind(0));
    let Effect::WriteStatus(told, _) = effect else { panic!("a write, not {effect:?}") };
    told.conditions.unwrap().reason
}

#[test]
fn refused_credentials_keep_an_object_from_its_turn_until_an_edit() {
    let mut object = with_a();
    let Found::Ours(ledger) = &mut object.status.found else { panic!("a ledger") };
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
    let (mut round, effect) = begun(&settings, Memory::new(&settings), false, &object, &behind(0));
    assert_eq!(effect, Effect::ReadOwner("arcade/lobby".into()));
    let next = Moment { standing: Standing::Behind("arcade/next".into()), ..behind(0) };

    // Its answer comes after it has given way to another one.
    let effect = round.step(Response::Owner(Some(with_a())), &next);

    assert_eq!(effect, Effect::ReadOwner("arcade/next".into()));
}
