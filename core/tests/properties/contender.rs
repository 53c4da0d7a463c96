//! An object whose session another one owns.

use streamsession_core::conditions::{Conditions, Mode, Reason};
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::{
    Effect, LedgerState, ReconcileState, Requeue, Response, StepContext, View,
};
use streamsession_testkit::fixtures::{key, last_call};

use crate::driver::{Driver, at, object, settings, with_a};

/// The object of that name owns the session.
fn contender(owner: &str) -> StepContext {
    let (ownership, others) = (Ownership::Contender(key(owner)), vec![key(owner)]);
    StepContext { ownership, others, ..at(Some(1_000), 0) }
}

fn begin(object: &View) -> Driver {
    Driver::resume(ReconcileState::new(&settings()), object, false, contender("lobby"))
}

#[test]
fn refused_credentials_keep_an_object_from_its_turn_until_an_edit() {
    let mut object = with_a();
    let LedgerState::Current(ledger) = &mut object.status.ledger else { panic!("a ledger") };
    ledger.last_call = Some(last_call("AuthFailure.SecretIdNotFound"));
    let reason = |object: &View| begin(object).status().conditions.as_ref().unwrap().reason;

    assert_eq!(reason(&object), Reason::SessionConflict, "it was edited");
    object.status.observed_generation = object.desired.generation;
    assert_eq!(reason(&object), Reason::CredentialsRejected);
}

#[test]
fn the_owner_that_is_asked_is_the_one_that_drives_the_session_now() {
    let mut object = with_a();
    object.desired.instances.clear();
    let mut reconcile = begin(&object);
    assert_eq!(reconcile.effect, Effect::ReadClaimant(key("lobby")));

    // Its answer comes after it has given way to another one.
    reconcile.context = contender("next");
    reconcile.respond(Response::Claimant(key("lobby"), Some(Box::new(with_a()))));

    assert_eq!(reconcile.effect, Effect::ReadClaimant(key("next")));
}

#[test]
fn however_many_claim_the_session_it_gives_way() {
    let mut object = with_a();
    object.desired.instances.clear();
    let others: Vec<_> = (0..100).map(|number| key(&format!("o{number}"))).collect();
    let context = StepContext { others, ..contender("o0") };
    let state = ReconcileState::new(&settings());
    let mut reconcile = Driver::resume(state, &object, false, context);
    while let Effect::ReadClaimant(other) = &reconcile.effect {
        let response = Response::Claimant(other.clone(), None);
        reconcile.respond(response);
    }
    assert_eq!(reconcile.status().conditions.as_ref().unwrap().reason, Reason::SessionConflict);
}

#[test]
fn one_without_credentials_looks_for_them_again_if_it_has_anything_to_do() {
    let look = |object: &View| {
        let mut object = object.clone();
        object.status.conditions = Some(Conditions {
            mode: Mode::Stalled,
            reason: Reason::CredentialsNotFound,
            message: String::new(),
        });
        let mut driver = begin(&object);
        driver.respond(Response::Credentials(Err("There is no Secret.".into())));
        driver.write();
        driver
    };
    let mut wants_nothing = object(&[]);
    wants_nothing.desired.instances.clear();
    assert!(!look(&object(&[])).pause().is_zero(), "it wants a");
    assert!(!look(&with_a()).pause().is_zero());
    assert_eq!(look(&wants_nothing).effect, Effect::Done(Requeue::OnChange));
}
