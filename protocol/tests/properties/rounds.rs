//! Single rounds, step by step: what a fleet of random histories would meet too seldom.

use std::time::Duration;

use streamsession_protocol::answer::{Answer, Operation, Verdict};
use streamsession_protocol::claims::Standing;
use streamsession_protocol::conditions::{Counts, Reason};
use streamsession_protocol::desired::{DeletionPolicy, Desired};
use streamsession_protocol::ids::{JournalId, SessionId};
use streamsession_protocol::ledger::{Journal, Ledger};
use streamsession_protocol::record::{Record, State};
use streamsession_protocol::step::{
    Asked, Effect, End, Found, Handled, Memory, Moment, Notice, Response, Round, Settings, Status,
    View,
};
use streamsession_protocol::time::ServiceTime;

use crate::world::{id, settings};

pub fn view(ledger: Ledger) -> Box<View> {
    let desired = Desired {
        session: SessionId::parse("132").unwrap(),
        region: None,
        default_region: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        instances: [id("a")].into(),
        deleting: false,
        deletion_policy: DeletionPolicy::Delete,
        forgets_failures: false,
    };
    let found = if ledger.records.is_empty() { Found::New } else { Found::Ours(ledger) };
    let status = Status {
        observed_generation: -1,
        conditions: None,
        counts: Counts::default(),
        handled: Handled::default(),
        found,
    };
    Box::new(View {
        uid: "1".into(),
        generation: 1,
        finalizer: true,
        desired,
        asked: Asked::default(),
        status,
    })
}

pub fn at(service: Option<i64>, elapsed: u64) -> Moment {
    Moment {
        service: service.map(ServiceTime),
        elapsed: Duration::from_secs(elapsed),
        nonce: u128::from(elapsed),
        standing: Standing::Alone,
        displaced: false,
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
    let mut round = Round::new(&settings, Memory::new(&settings), false);
    round.step(Response::Started, &at(None, 0));

    let Effect::WriteStatus(status, _) =
        round.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0))
    else {
        panic!("a write")
    };
    let end = round.step(Response::Object(Some(written(&object, *status))), &at(Some(1_000), 0));

    assert!(
        matches!(end, Effect::End(End::After(pause)) if pause == Duration::from_hours(1)),
        "{end:?}"
    );
}

#[test]
fn an_outage_is_no_longer_told_once_somebody_else_has_the_time() {
    let settings = settings();
    let object = view(Ledger::default());
    let mut round = Round::new(&settings, Memory::new(&settings), false);
    round.step(Response::Started, &at(None, 0));
    round.step(Response::Object(Some(object.clone())), &at(None, 0));
    assert!(matches!(
        round.step(Response::Credentials(Ok("AKID".into())), &at(None, 0)),
        Effect::AskTime
    ));
    let Effect::WriteStatus(down, _) =
        round.step(Response::Time(Err("the service is down".into())), &at(None, 0))
    else {
        panic!("a write")
    };
    assert_eq!(down.conditions.as_ref().unwrap().message, "the service is down");

    let mut round = Round::new(&settings, round.into_memory(), true);
    round.step(Response::Started, &at(None, 9));
    let object = written(&object, *down);
    round.step(Response::Object(Some(object.clone())), &at(Some(1_000), 9));
    let journal = round.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 9));

    let Effect::WriteStatus(status, _) = journal else { panic!("a journal, not {journal:?}") };
    assert_eq!(status.conditions.unwrap().reason, Reason::Progressing);
}

#[test]
fn an_answer_that_could_not_be_written_is_owed() {
    let settings = settings();
    let object = view(Ledger::default());
    let mut round = Round::new(&settings, Memory::new(&settings), true);
    round.step(Response::Started, &at(None, 0));
    round.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0));
    let Effect::WriteStatus(journal, _) =
        round.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0))
    else {
        panic!("a journal")
    };
    let object = written(&object, *journal);
    assert!(matches!(
        round.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0)),
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
        round.step(Response::Answer(answer), &at(Some(1_001), 1)),
        Effect::WriteStatus(_, _)
    ));

    round.step(Response::Failed, &at(Some(1_001), 1));
    let memory = round.into_memory();
    assert!(memory.owes_settle());

    let mut round = Round::new(&settings, memory, false);
    round.step(Response::Started, &at(None, 2));
    let Effect::WriteStatus(status, _) =
        round.step(Response::Object(Some(object)), &at(Some(1_002), 2))
    else {
        panic!("the settle")
    };
    let Found::Ours(ledger) = status.found else { panic!("a ledger") };
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
    let mut memory = Memory::new(&settings);
    let (mut pauses, mut reads) = (Vec::new(), 0);

    for _ in 0..6 {
        let mut round = Round::new(&settings, memory, false);
        let mut effect = round.step(Response::Started, &at(None, 0));
        let pause = loop {
            effect = match effect {
                Effect::Read => {
                    reads += 1;
                    round.step(Response::Object(Some(stripped.clone())), &at(Some(1_000), 0))
                }
                Effect::AddFinalizer => round.step(Response::Conflict, &at(Some(1_000), 0)),
                Effect::End(End::After(pause)) => break pause,
                other => panic!("{other:?}"),
            };
        };
        pauses.push(pause);
        memory = round.into_memory();
    }

    assert_eq!(reads, 6 * 8, "each round gives up after eight");
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
}

fn done() -> Answer {
    let verdict = Verdict::Processed { succeeded: [id("a")].into(), refused: [].into() };
    Answer { verdict, code: String::new(), message: String::new(), request_id: "r".into() }
}

/// A round that has a permit, and the status with the journal that it writes.
pub fn journalling<'a>(
    settings: &'a Settings,
    memory: Memory,
    object: &View,
    seconds: u64,
) -> (Round<'a>, Box<Status>) {
    let moment = at(Some(1_000), seconds);
    let (mut round, _) = begun(settings, memory, true, object, &moment);
    let journal = round.step(Response::Credentials(Ok("AKID".into())), &moment);
    let Effect::WriteStatus(journal, _) = journal else { panic!("a journal, not {journal:?}") };
    (round, journal)
}

/// A round whose call is on its way, and the copy with its journal.
fn calling<'a>(settings: &'a Settings, object: &View) -> (Round<'a>, Box<View>) {
    let (mut round, journal) = journalling(settings, Memory::new(settings), object, 0);
    let object = written(object, *journal);
    assert!(matches!(
        round.step(Response::Object(Some(object.clone())), &at(Some(1_000), 0)),
        Effect::Call(_)
    ));
    (round, object)
}

#[test]
fn a_session_is_left_in_writing_before_the_next_one_is_entered_and_nobody_doubts_the_answer() {
    let settings = settings();
    let attached = Ledger { records: [(id("a"), Record::attached())].into(), ..Ledger::default() };
    let target = Ledger::default().target_for(&view(Ledger::default()).desired, "AKID");
    let mut object = view(Ledger { target: Some(target), ..attached });
    object.desired.session = SessionId::parse("next").unwrap();
    let (mut round, object) = calling(&settings, &object);

    let settle = round.step(Response::Answer(done()), &at(Some(1_001), 1));
    let Effect::WriteStatus(settle, _) = settle else { panic!("the settle, not {settle:?}") };
    let object = written(&object, *settle);
    assert_eq!(object.status.found, Found::Ours(Ledger::default()), "the old session is left");

    assert_eq!(round.step(Response::Object(Some(object)), &at(Some(1_001), 1)), Effect::Permit);
    let end = round.step(Response::Permit(false), &at(Some(1_001), 1));
    assert!(matches!(end, Effect::End(End::AwaitPermit(_))), "{end:?}");
}

#[test]
fn a_call_whose_journal_somebody_removed_is_remembered_until_its_doubt_is_written() {
    let settings = settings();
    for found in [
        Found::Lost { why: "gone".into(), remains: Ledger::default() },
        Found::Ours(Ledger::default()),
    ] {
        let (mut round, mut object) = calling(&settings, &view(Ledger::default()));
        object.generation = 2;
        object.desired.instances = [id("b")].into();
        object.status.found = found;
        round.step(Response::Answer(done()), &at(Some(1_001), 1));

        // The settle conflicts, and what is written instead does too.
        let mut effect = round.step(Response::Conflict, &at(Some(1_001), 1));
        for _ in 0..2 {
            assert_eq!(effect, Effect::Read);
            effect = round.step(Response::Object(Some(object.clone())), &at(Some(1_001), 1));
            if effect == Effect::Credentials {
                effect = round.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_001), 1));
            }
            assert_eq!(effect, Effect::Permit);
            effect = round.step(Response::Permit(false), &at(Some(1_001), 1));
            let Effect::WriteStatus(status, _) = effect else { panic!("a write, not {effect:?}") };
            let Found::Ours(ledger) = status.found else { panic!("a ledger") };
            assert_eq!(ledger.records[&id("a")].state, State::Unknown);
            assert_eq!(ledger.target.unwrap().session.as_str(), "132");
            effect = round.step(Response::Conflict, &at(Some(1_001), 1));
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
    let mut round = Round::new(&settings, Memory::new(&settings), true);
    round.step(Response::Started, &at(Some(1_000), 0));

    let left = round.step(Response::Object(Some(object)), &at(Some(1_000), 0));

    let Effect::WriteStatus(left, _) = left else { panic!("a write, not {left:?}") };
    assert_eq!(left.found, Found::Ours(Ledger::default()));
}

/// A round that begins with this copy of the object, and what it does first.
pub fn begun<'a>(
    settings: &'a Settings,
    memory: Memory,
    permit: bool,
    object: &View,
    moment: &Moment,
) -> (Round<'a>, Effect) {
    let mut round = Round::new(settings, memory, permit);
    assert_eq!(round.step(Response::Started, moment), Effect::Read);
    let effect = round.step(Response::Object(Some(Box::new(object.clone()))), moment);
    (round, effect)
}

#[test]
fn a_round_knows_its_place_once_the_object_was_read() {
    let settings = settings();
    let unread = Round::new(&settings, Memory::new(&settings), false);
    assert_eq!((unread.place(), unread.endpoint()), (None, None));

    let object = view(Ledger::default());
    let (round, _) = begun(&settings, Memory::new(&settings), false, &object, &at(None, 0));

    assert_eq!(
        (round.place(), round.endpoint()),
        (Some(object.place()), Some("gs.tencentcloudapi.com"))
    );
}

#[test]
fn a_call_names_no_more_than_the_account_may_and_a_lost_permit_is_asked_for_again() {
    let settings = settings();
    let mut object = view(Ledger::default());
    object.desired.instances = [id("a"), id("b"), id("c")].into();
    let named = |limit: usize| {
        let (mut round, _) =
            begun(&settings, Memory::new(&settings), true, &object, &at(Some(1_000), 0));
        round.limit_batches(limit);
        round.lose_permit();
        assert_eq!(
            round.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0)),
            Effect::Permit
        );
        let journal = round.step(Response::Permit(true), &at(Some(1_000), 0));
        let Effect::WriteStatus(status, _) = journal else { panic!("a journal, not {journal:?}") };
        let Found::Ours(ledger) = status.found else { panic!("a ledger") };
        ledger.journal.unwrap().instances.len()
    };
    assert_eq!((named(1), named(9)), (1, settings.rules.batch_size_max));
}

#[test]
fn missing_credentials_are_told_as_long_as_they_are_missing() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut round, effect) =
        begun(&settings, Memory::new(&settings), false, &object, &at(Some(1_000), 0));
    assert_eq!(effect, Effect::Credentials);
    let told =
        round.step(Response::Credentials(Err("There is no Secret.".into())), &at(Some(1_000), 0));
    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!(told.conditions.as_ref().unwrap().reason, Reason::CredentialsNotFound);

    let end = round.step(Response::Object(Some(written(&object, *told))), &at(Some(1_000), 0));

    assert!(matches!(end, Effect::End(End::After(_))), "{end:?}");
}

#[test]
fn a_call_is_remembered_until_the_ledger_tells_of_it_whatever_else_is_written() {
    let settings = settings();
    let (mut round, mut object) = calling(&settings, &view(Ledger::default()));
    round.step(Response::Answer(done()), &at(Some(1_001), 1));
    assert_eq!(round.step(Response::Conflict, &at(None, 1)), Effect::Read);
    object.generation = 2;
    object.status.found = Found::Lost { why: "Gone".into(), remains: Ledger::default() };
    assert_eq!(round.step(Response::Object(Some(object.clone())), &at(None, 1)), Effect::AskTime);
    let told = round.step(Response::Time(Err("The service is down.".into())), &at(None, 1));
    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!(told.observed_generation, 2);
    assert_eq!(
        told.conditions.as_ref().unwrap().message,
        "Gone. The record is made anew once the service has told its time. The service is down."
    );

    let end = round.step(Response::Object(Some(written(&object, *told))), &at(None, 1));

    assert!(matches!(end, Effect::End(End::After(_))), "{end:?}");
    assert_eq!(round.into_memory().open_instances(), [&id("a")]);
}

#[test]
fn a_journal_whose_write_was_not_answered_is_known_when_it_turns_up() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut round, journal) = journalling(&settings, Memory::new(&settings), &object, 0);
    round.step(Response::Failed, &at(Some(1_000), 0));

    // It is not there yet.
    let (round, _) = begun(&settings, round.into_memory(), false, &object, &at(Some(1_001), 1));
    let memory = round.into_memory();
    for permit in [false, true] {
        let (_, effect) = begun(
            &settings,
            memory.clone(),
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
    let seen = |memory, journal: &str, seconds| {
        let target = view(Ledger::default()).desired.target(None);
        let journal = Journal {
            id: JournalId(journal.into()),
            operation: Operation::Attach,
            instances: vec![id("a")],
            start_time: ServiceTime(1_000),
        };
        let mut object =
            view(Ledger { records: [(id("a"), Record::default())].into(), ..Ledger::default() });
        object.status.found = Found::Ours(Ledger {
            target: Some(target),
            journal: Some(journal),
            ..Ledger::default()
        });
        let (round, effect) = begun(&settings, memory, false, &object, &at(Some(1_000), seconds));
        (round.into_memory(), effect)
    };
    let after = |seconds| Effect::End(End::After(Duration::from_secs(seconds)));
    let (memory, effect) = seen(Memory::new(&settings), "theirs", 0);
    assert_eq!(effect, after(8));
    let (memory, effect) = seen(memory, "theirs", 7);
    assert_eq!(effect, after(1));
    let (memory, effect) = seen(memory, "their next", 8);
    assert_eq!(effect, after(8), "that is another one");
    let (_, effect) = seen(memory, "their next", 16);
    assert_eq!(effect, Effect::Credentials, "it is in doubt now, and is called again");
}

#[test]
fn a_ledger_that_is_made_anew_is_told_of() {
    let settings = settings();
    let mut object = view(Ledger::default());
    object.status.found = Found::Lost { why: "Gone".into(), remains: Ledger::default() };
    let (mut round, effect) =
        begun(&settings, Memory::new(&settings), false, &object, &at(Some(1_000), 0));
    assert_eq!(effect, Effect::Credentials);
    assert_eq!(
        round.step(Response::Credentials(Ok("AKID".into())), &at(Some(1_000), 0)),
        Effect::Permit
    );

    let effect = round.step(Response::Permit(false), &at(Some(1_000), 0));

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
        let (mut round, _) = calling(&settings, &object);
        let settle = round.step(Response::Answer(answer), &at(Some(1_001), 1));
        let Effect::WriteStatus(_, notices) = settle else { panic!("the settle, not {settle:?}") };
        notices
    };
    assert_eq!(told(done()), []);
    let gone = Answer {
        verdict: Verdict::SessionGone,
        code: "ResourceNotFound.SessionNotFound".into(),
        ..done()
    };
    assert_eq!(told(gone), [Notice::Doubtful(vec![id("a")])]);
}

#[test]
fn a_call_that_may_not_be_made_any_more_was_not_sent() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut round, journal) = journalling(&settings, Memory::new(&settings), &object, 0);
    let fenced = Moment { may_act: false, ..at(Some(1_000), 0) };

    let end = round.step(Response::Object(Some(written(&object, *journal))), &fenced);

    assert!(matches!(end, Effect::End(End::After(_))), "{end:?}");
    assert!(round.into_memory().open_instances().is_empty());
}

#[test]
fn of_journals_whose_writes_were_not_answered_the_last_ones_are_known() {
    let settings = settings();
    let object = view(Ledger::default());
    let (mut memory, mut journals) = (Memory::new(&settings), Vec::new());
    for seconds in 0..3 {
        let (mut round, journal) = journalling(&settings, memory, &object, seconds);
        journals.push(*journal);
        round.step(Response::Failed, &at(Some(1_000), seconds));
        memory = round.into_memory();
    }

    let found = |journal: &Status| {
        begun(
            &settings,
            memory.clone(),
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
        matches!(found(&journals[0]), Effect::End(End::After(_))),
        "it can't be stored any more; whoever wrote this is somebody else"
    );
}

#[test]
fn a_call_whose_account_was_not_stored_is_remembered_while_the_work_is_stopped() {
    let settings = settings();
    let (mut round, object) = calling(&settings, &view(Ledger::default()));
    let settle = round.step(Response::Answer(done()), &at(Some(1_001), 1));
    let Effect::WriteStatus(mut settle, _) = settle else { panic!("the settle, not {settle:?}") };
    settle.found = Found::Ours(Ledger::default()); // a webhook does that

    let object = written(&object, *settle);
    let told = round.step(Response::Object(Some(object.clone())), &at(Some(1_001), 1));

    let Effect::WriteStatus(told, _) = told else { panic!("a write, not {told:?}") };
    assert_eq!(told.conditions.as_ref().unwrap().reason, Reason::InvariantViolated);
    let end = round.step(Response::Object(Some(written(&object, *told))), &at(Some(1_001), 1));
    assert!(matches!(end, Effect::End(End::After(_))), "{end:?}");
    assert_eq!(round.into_memory().open_instances(), [&id("a")]);
}
