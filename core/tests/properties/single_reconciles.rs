//! Single reconciles, step by step: what a fleet of random histories would meet too seldom.

use std::sync::Arc;
use std::time::Duration;

use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::conditions::{Counts, Reason};
use streamsession_core::ids::{JournalId, SessionId};
use streamsession_core::ledger::desired::{DeletionPolicy, Desired};
use streamsession_core::ledger::record::{Record, State};
use streamsession_core::ledger::{Journal, Ledger};
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::{
    Asked, Effect, Handled, LedgerState, Notice, Reconcile, ReconcileState, Requeue, Response,
    Settings, Status, StepContext, View,
};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::fixtures::{self, id};

use crate::world::settings;

/// An object that wants `a` in session 132; one without records is new.
pub fn view(ledger: Ledger) -> Box<View> {
    let is_new = ledger.records.is_empty();
    let mut view = fixtures::view(ledger, &["a"]);
    view.desired.session = SessionId::parse("132").unwrap();
    view.status.observed_generation = -1;
    if is_new {
        view.status.ledger = LedgerState::New;
    }
    Box::new(view)
}

pub fn at(service: Option<i64>, elapsed: u64) -> StepContext {
    StepContext {
        service: service.map(ServiceTime),
        elapsed: Duration::from_secs(elapsed),
        nonce: u128::from(elapsed),
        ownership: Ownership::Uncontested,
        lost_ownership: false,
        may_act: true,
    }
}

pub fn written(view: &View, status: Status) -> Box<View> {
    Box::new(View { status, ..view.clone() })
}

#[test]
fn a_deadline_in_the_far_future_is_slept_for_in_hours() {
    let settings = settings();
    let far = Record { detach_until: Some(ServiceTime(253_370_764_800)), ..Record::attached() };
    let object = view(Ledger { records: [(id("a"), far)].into(), ..Ledger::default() });
    let mut reconcile =
        Reconcile::new(Arc::clone(&settings), ReconcileState::new(&settings), false);
    reconcile.step(Response::Started, &at(None, 0));

    let Effect::WriteStatus(status, _) =
        reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0))
    else {
        panic!("a write")
    };
    let end =
        reconcile.step(Response::Object(Some(written(&object, *status))), &at(Some(1_000), 0));

    assert!(
        matches!(end, Effect::Done(Requeue::After(pause)) if pause == Duration::from_hours(1)),
        "{end:?}"
    );
}

#[test]
fn an_outage_is_no_longer_told_once_somebody_else_has_the_time() {
    let settings = settings();
    let object = view(Ledger::default());
    let mut reconcile =
        Reconcile::new(Arc::clone(&settings), ReconcileState::new(&settings), false);
    reconcile.step(Response::Started, &at(None, 0));
    reconcile.step(Response::Object(Some(object.clone())), &at(None, 0));
    assert!(matches!(
        reconcile.step(Response::Credentials(Ok("AKID".into())), &at(None, 0)),
        Effect::AskTime
    ));
    let Effect::WriteStatus(down, _) =
        reconcile.step(Response::Time(Err("the service is down".into())), &at(None, 0))
    else {
        panic!("a write")
    };
    assert_eq!(down.conditions.as_ref().unwrap().message, "the service is down");

    let mut reconcile = Reconcile::new(Arc::clone(&settings), reconcile.into_state(), true);
    reconcile.step(Response::Started, &at(None, 9));
    let object = written(&object, *down);
    reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_000), 9));
    let journal = reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 9));

    let Effect::WriteStatus(status, _) = journal else { panic!("a journal, not {journal:?}") };
    assert_eq!(status.conditions.unwrap().reason, Reason::Progressing);
}

#[test]
fn an_answer_that_could_not_be_written_is_owed() {
    let settings = settings();
    let object = view(Ledger::default());
    let mut reconcile = Reconcile::new(Arc::clone(&settings), ReconcileState::new(&settings), true);
    reconcile.step(Response::Started, &at(None, 0));
    reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0));
    let Effect::WriteStatus(journal, _) =
        reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0))
    else {
        panic!("a journal")
    };
    let object = written(&object, *journal);
    assert!(matches!(
        reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0)),
        Effect::Call(_)
    ));
    let done = Verdict::Processed { succeeded: [id("a")].into(), refused: [].into() };
    let answer = Answer {
        verdict: done,
        code: String::new(),
        message: String::new(),
        request_id: "r".into(),
    };
    assert!(matches!(
        reconcile.step(Response::Answer(answer), &at(Some(1_001), 1)),
        Effect::WriteStatus(_, _)
    ));

    reconcile.step(Response::Failed, &at(Some(1_001), 1));
    let state = reconcile.into_state();
    assert!(state.owes_settle());

    let mut reconcile = Reconcile::new(Arc::clone(&settings), state, false);
    reconcile.step(Response::Started, &at(None, 2));
    let Effect::WriteStatus(status, _) =
        reconcile.step(Response::Object(Some(object)), &at(Some(1_002), 2))
    else {
        panic!("the settle")
    };
    let LedgerState::Current(ledger) = status.ledger else { panic!("a ledger") };
    assert_eq!(
        ledger.records[&id("a")].state,
        State::Attached,
        "the answer is settled, not doubted"
    );
}

#[test]
fn a_write_that_is_always_denied_is_tried_ever_more_seldom() {
    let settings = settings();
    let object =
        view(Ledger { records: [(id("a"), Record::attached())].into(), ..Ledger::default() });
    let stripped = Box::new(View { finalizer: false, ..*object });
    let mut state = ReconcileState::new(&settings);
    let (mut pauses, mut reads) = (Vec::new(), 0);

    for _ in 0..6 {
        let mut reconcile = Reconcile::new(Arc::clone(&settings), state, false);
        let mut effect = reconcile.step(Response::Started, &at(None, 0));
        let pause = loop {
            effect = match effect {
                Effect::Read => {
                    reads += 1;
                    reconcile.step(Response::Object(Some(stripped.clone())), &at(Some(1_000), 0))
                }
                Effect::AddFinalizer => reconcile.step(Response::Conflict, &at(Some(1_000), 0)),
                Effect::Done(Requeue::After(pause)) => break pause,
                other => panic!("{other:?}"),
            };
        };
        pauses.push(pause);
        state = reconcile.into_state();
    }

    assert_eq!(reads, 6 * 8, "each reconcile gives up after eight");
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
}

fn done() -> Answer {
    let verdict = Verdict::Processed { succeeded: [id("a")].into(), refused: [].into() };
    Answer { verdict, code: String::new(), message: String::new(), request_id: "r".into() }
}

/// A reconcile that has a permit, and the status with the journal that it writes.
pub fn journalling(
    settings: &Arc<Settings>,
    state: ReconcileState,
    object: &View,
    seconds: u64,
) -> (Reconcile, Box<Status>) {
    let context = at(Some(1_000), seconds);
    let (mut reconcile, _) = begun(settings, state, true, object, &context);
    let journal = reconcile.step(Response::Credentials(Ok("AKID".into())), &context);
    let Effect::WriteStatus(journal, _) = journal else { panic!("a journal, not {journal:?}") };
    (reconcile, journal)
}

/// A reconcile whose call is on its way, and the copy with its journal.
fn calling(settings: &Arc<Settings>, object: &View) -> (Reconcile, Box<View>) {
    let (mut reconcile, journal) = journalling(settings, ReconcileState::new(settings), object, 0);
    let object = written(object, *journal);
    assert!(matches!(
        reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0)),
        Effect::Call(_)
    ));
    (reconcile, object)
}

#[test]
fn a_session_is_left_in_writing_before_the_next_one_is_entered_and_nobody_doubts_the_answer() {
    let settings = settings();
    let attached = Ledger { records: [(id("a"), Record::attached())].into(), ..Ledger::default() };
    let target = Ledger::default().target_for(&view(Ledger::default()).desired, "AKID");
    let mut object = view(Ledger { target: Some(target), ..attached });
    object.desired.session = SessionId::parse("next").unwrap();
    let (mut reconcile, object) = calling(&settings, &object);

    let settle = reconcile.step(Response::Answer(done()), &at(Some(1_001), 1));
    let Effect::WriteStatus(settle, _) = settle else { panic!("the settle, not {settle:?}") };
    let object = written(&object, *settle);
    assert_eq!(
        object.status.ledger,
        LedgerState::Current(Ledger::default()),
        "the old session is left"
    );

    assert_eq!(reconcile.step(Response::Object(Some(object)), &at(Some(1_001), 1)), Effect::Permit);
    let end = reconcile.step(Response::Permit(false), &at(Some(1_001), 1));
    assert!(matches!(end, Effect::Done(Requeue::OnPermit(_))), "{end:?}");
}

#[test]
fn a_call_whose_journal_somebody_removed_is_remembered_until_its_doubt_is_written() {
    let settings = settings();
    for found in [
        LedgerState::Lost { why: "gone".into(), remains: Ledger::default() },
        LedgerState::Current(Ledger::default()),
    ] {
        let (mut reconcile, mut object) = calling(&settings, &view(Ledger::default()));
        object.generation = 2;
        object.desired.instances = [id("b")].into();
        object.status.ledger = found;
        reconcile.step(Response::Answer(done()), &at(Some(1_001), 1));

        // The settle conflicts, and what is written instead does too.
        let mut effect = reconcile.step(Response::Conflict, &at(Some(1_001), 1));
        for _ in 0..2 {
            assert_eq!(effect, Effect::Read);
            effect = reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_001), 1));
            if effect == Effect::Credentials {
                effect =
                    reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_001), 1));
            }
            assert_eq!(effect, Effect::Permit);
            effect = reconcile.step(Response::Permit(false), &at(Some(1_001), 1));
            let Effect::WriteStatus(status, _) = effect else { panic!("a write, not {effect:?}") };
            let LedgerState::Current(ledger) = status.ledger else { panic!("a ledger") };
            assert_eq!(ledger.records[&id("a")].state, State::Unknown);
            assert_eq!(ledger.target.unwrap().session.as_str(), "132");
            effect = reconcile.step(Response::Conflict, &at(Some(1_001), 1));
        }
    }
}

#[test]
fn a_wait_that_ends_leaves_the_old_session_in_writing_too() {
    let settings = settings();
    let late = Record { detach_until: Some(ServiceTime(999)), ..Record::default() };
    let target = Ledger::default().target_for(&view(Ledger::default()).desired, "AKID");
    let mut object = view(Ledger {
        records: [(id("a"), late)].into(),
        target: Some(target),
        ..Ledger::default()
    });
    object.desired.session = SessionId::parse("next").unwrap();
    let mut reconcile = Reconcile::new(Arc::clone(&settings), ReconcileState::new(&settings), true);
    reconcile.step(Response::Started, &at(Some(1_000), 0));

    let left = reconcile.step(Response::Object(Some(object)), &at(Some(1_000), 0));

    let Effect::WriteStatus(left, _) = left else { panic!("a write, not {left:?}") };
    assert_eq!(left.ledger, LedgerState::Current(Ledger::default()));
}

/// A reconcile that begins with this copy of the object, and what it does first.
pub fn begun(
    settings: &Arc<Settings>,
    state: ReconcileState,
    permit: bool,
    object: &View,
    context: &StepContext,
) -> (Reconcile, Effect) {
    let mut reconcile = Reconcile::new(Arc::clone(settings), state, permit);
    assert_eq!(reconcile.step(Response::Started, context), Effect::Read);
    let effect = reconcile.step(Response::Object(Some(Box::new(object.clone()))), context);
    (reconcile, effect)
}

#[test]
fn a_round_knows_its_place_once_the_object_was_read() {
    let settings = settings();
    let unread = Reconcile::new(Arc::clone(&settings), ReconcileState::new(&settings), false);
    assert_eq!((unread.place(), unread.endpoint()), (None, None));

    let object = view(Ledger::default());
    let (reconcile, _) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &at(None, 0));

    assert_eq!(
        (reconcile.place(), reconcile.endpoint()),
        (Some(object.place()), Some(&"gs.tencentcloudapi.com".into()))
    );
}

#[test]
fn a_call_names_no_more_than_the_account_may_and_a_lost_permit_is_asked_for_again() {
    let settings = settings();
    let mut object = view(Ledger::default());
    object.desired.instances = [id("a"), id("b"), id("c")].into();
    let named = |limit: usize| {
        let (mut reconcile, _) =
            begun(&settings, ReconcileState::new(&settings), true, &object, &at(Some(1_000), 0));
        reconcile.limit_batches(limit);
        reconcile.lose_permit();
        assert_eq!(
            reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0)),
            Effect::Permit
        );
        let journal = reconcile.step(Response::Permit(true), &at(Some(1_000), 0));
        let Effect::WriteStatus(status, _) = journal else { panic!("a journal, not {journal:?}") };
        let LedgerState::Current(ledger) = status.ledger else { panic!("a ledger") };
        ledger.journal.unwrap().instances.len()
    };
    assert_eq!((named(1), named(9)), (1, settings.rules.batch_size_max));
}

#[test]
fn missing_credentials_are_told_as_long_as_they_are_missing() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut reconcile, effect) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &at(Some(1_000), 0));
    assert_eq!(effect, Effect::Credentials);
    let told = reconcile
        .step(Response::Credentials(Err("There is no Secret.".into())), &at(Some(1_000), 0));
    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!(told.conditions.as_ref().unwrap().reason, Reason::CredentialsNotFound);

    let end = reconcile.step(Response::Object(Some(written(&object, *told))), &at(Some(1_000), 0));

    assert!(matches!(end, Effect::Done(Requeue::After(_))), "{end:?}");
}

#[test]
fn a_call_is_remembered_until_the_ledger_tells_of_it_whatever_else_is_written() {
    let settings = settings();
    let (mut reconcile, mut object) = calling(&settings, &view(Ledger::default()));
    reconcile.step(Response::Answer(done()), &at(Some(1_001), 1));
    assert_eq!(reconcile.step(Response::Conflict, &at(None, 1)), Effect::Read);
    object.generation = 2;
    object.status.ledger = LedgerState::Lost { why: "Gone".into(), remains: Ledger::default() };
    assert_eq!(
        reconcile.step(Response::Object(Some(object.clone())), &at(None, 1)),
        Effect::AskTime
    );
    let told = reconcile.step(Response::Time(Err("The service is down.".into())), &at(None, 1));
    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!(told.observed_generation, 2);
    assert_eq!(
        told.conditions.as_ref().unwrap().message,
        "Gone. The record is made anew once the service has told its time. The service is down."
    );

    let end = reconcile.step(Response::Object(Some(written(&object, *told))), &at(None, 1));

    assert!(matches!(end, Effect::Done(Requeue::After(_))), "{end:?}");
    assert_eq!(reconcile.into_state().open_instances(), [&id("a")]);
}

#[test]
fn a_journal_whose_write_was_not_answered_is_known_when_it_turns_up() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut reconcile, journal) =
        journalling(&settings, ReconcileState::new(&settings), &object, 0);
    reconcile.step(Response::Failed, &at(Some(1_000), 0));

    // It is not there yet.
    let (reconcile, _) =
        begun(&settings, reconcile.into_state(), false, &object, &at(Some(1_001), 1));
    let state = reconcile.into_state();
    for permit in [false, true] {
        let (_, effect) = begun(
            &settings,
            state.clone(),
            permit,
            &written(&object, *journal.clone()),
            &at(Some(1_002), 2),
        );
        assert_eq!(
            effect,
            Effect::Credentials,
            "it is taken back at once, and the call is to be made anew"
        );
    }
}

#[test]
fn a_journal_of_someone_else_is_left_alone_for_as_long_as_its_writer_may_be_at_work() {
    let settings = settings();
    let seen = |state, journal: &str, seconds| {
        let target = view(Ledger::default()).desired.target(None);
        let journal = Journal {
            id: JournalId(journal.into()),
            operation: Operation::Attach,
            instances: vec![id("a")],
            start_time: ServiceTime(1_000),
        };
        let mut object =
            view(Ledger { records: [(id("a"), Record::default())].into(), ..Ledger::default() });
        object.status.ledger = LedgerState::Current(Ledger {
            target: Some(target),
            journal: Some(journal),
            ..Ledger::default()
        });
        let (reconcile, effect) =
            begun(&settings, state, false, &object, &at(Some(1_000), seconds));
        (reconcile.into_state(), effect)
    };
    let after = |seconds| Effect::Done(Requeue::After(Duration::from_secs(seconds)));
    let (state, effect) = seen(ReconcileState::new(&settings), "theirs", 0);
    assert_eq!(effect, after(8));
    let (state, effect) = seen(state, "theirs", 7);
    assert_eq!(effect, after(1));
    let (state, effect) = seen(state, "their next", 8);
    assert_eq!(effect, after(8), "that is another one");
    let (_, effect) = seen(state, "their next", 16);
    assert_eq!(effect, Effect::Credentials, "it is in doubt now, and is called again");
}

#[test]
fn a_ledger_that_is_made_anew_is_told_of() {
    let settings = settings();
    let mut object = view(Ledger::default());
    object.status.ledger = LedgerState::Lost { why: "Gone".into(), remains: Ledger::default() };
    let (mut reconcile, effect) =
        begun(&settings, ReconcileState::new(&settings), false, &object, &at(Some(1_000), 0));
    assert_eq!(effect, Effect::Credentials);
    assert_eq!(
        reconcile.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0)),
        Effect::Permit
    );

    let effect = reconcile.step(Response::Permit(false), &at(Some(1_000), 0));

    let Effect::WriteStatus(status, notices) = effect else { panic!("a write, not {effect:?}") };
    assert_eq!(notices, [Notice::Rebuilt("Gone".into())]);
    assert_eq!(status.conditions.unwrap().reason, Reason::LedgerLost);
}

#[test]
fn what_was_only_assumed_goes_with_a_warning_when_a_name_that_never_worked_finds_no_session() {
    let settings = settings();
    let told = |answer| {
        let target = view(Ledger::default()).desired.target(None);
        let assumed = Record::assumed(ServiceTime(900));
        let object = view(Ledger {
            records: [(id("a"), assumed)].into(),
            target: Some(target),
            ..Ledger::default()
        });
        let (mut reconcile, _) = calling(&settings, &object);
        let settle = reconcile.step(Response::Answer(answer), &at(Some(1_001), 1));
        let Effect::WriteStatus(_, notices) = settle else { panic!("the settle, not {settle:?}") };
        notices
    };
    assert_eq!(told(done()), []);
    let gone = Answer {
        verdict: Verdict::SessionGone,
        code: "ResourceNotFound.SessionNotFound".into(),
        ..done()
    };
    assert_eq!(told(gone), [Notice::Unproven(vec![id("a")])]);
}

#[test]
fn a_call_that_may_not_be_made_any_more_was_not_sent() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut reconcile, journal) =
        journalling(&settings, ReconcileState::new(&settings), &object, 0);
    let fenced = StepContext { may_act: false, ..at(Some(1_000), 0) };

    let end = reconcile.step(Response::Object(Some(written(&object, *journal))), &fenced);

    assert!(matches!(end, Effect::Done(Requeue::After(_))), "{end:?}");
    assert!(reconcile.into_state().open_instances().is_empty());
}

#[test]
fn of_journals_whose_writes_were_not_answered_the_last_ones_are_known() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut state, mut journals) = (ReconcileState::new(&settings), Vec::new());
    for seconds in 0..3 {
        let (mut reconcile, journal) = journalling(&settings, state, &object, seconds);
        journals.push(*journal);
        reconcile.step(Response::Failed, &at(Some(1_000), seconds));
        state = reconcile.into_state();
    }

    let found = |journal: &Status| {
        begun(
            &settings,
            state.clone(),
            false,
            &written(&object, journal.clone()),
            &at(Some(1_000), 3),
        )
        .1
    };
    assert_eq!(
        [found(&journals[1]), found(&journals[2])],
        [Effect::Credentials, Effect::Credentials],
        "they are taken back at once"
    );
    assert!(
        matches!(found(&journals[0]), Effect::Done(Requeue::After(_))),
        "it can't be stored any more; whoever wrote this is somebody else"
    );
}

#[test]
fn a_call_whose_account_was_not_stored_is_remembered_while_the_work_is_stopped() {
    let settings = settings();
    let (mut reconcile, object) = calling(&settings, &view(Ledger::default()));
    let settle = reconcile.step(Response::Answer(done()), &at(Some(1_001), 1));
    let Effect::WriteStatus(mut settle, _) = settle else { panic!("the settle, not {settle:?}") };
    settle.ledger = LedgerState::Current(Ledger::default()); // a webhook does that

    let object = written(&object, *settle);
    let told = reconcile.step(Response::Object(Some(object.clone())), &at(Some(1_001), 1));

    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!(told.conditions.as_ref().unwrap().reason, Reason::InvariantViolated);
    let end = reconcile.step(Response::Object(Some(written(&object, *told))), &at(Some(1_001), 1));
    assert!(matches!(end, Effect::Done(Requeue::After(_))), "{end:?}");
    assert_eq!(reconcile.into_state().open_instances(), [&id("a")]);
}
