//! Every status that the operator can write obeys kstatus and Flux's checker, is true, and is read
//! back as written.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use proptest::prelude::*;
use proptest::{collection, option, sample};
use serde_json::json;
use streamsession_core::answer::{Operation, Verdict};
use streamsession_core::conditions::{
    ConditionInputs, Conditions, Counts, Mode, Problem, conditions, ledger_unreadable,
};
use streamsession_core::ids::{InstanceId, JournalId, SessionId};
use streamsession_core::ledger::desired::{DeletionPolicy, Desired, Target};
use streamsession_core::ledger::record::{Failure, FailureReason, Record, Refusals, State};
use streamsession_core::ledger::rule::Next;
use streamsession_core::ledger::{Journal, LastCall, Ledger, Rules};
use streamsession_core::ownership::claims::Ownership;
use streamsession_core::reconcile::{Handled, LedgerState, Status};
use streamsession_core::time::ServiceTime;
use streamsession_operator::api::v1alpha1::{StreamSession, StreamSessionStatus};
use streamsession_operator::api::{Defaults, FINALIZER, status, view};

use crate::harness::{SESSION, manifest};

const UID: &str = "5d2c0f6a-0000-4000-8000-000000000001";
const NOW: ServiceTime = ServiceTime(1_767_837_600);
const IDS_NAMED_MAX: usize = 5;

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).expect("an id")
}

fn desired(ids: &[&str]) -> Desired {
    Desired {
        session: SessionId::parse(SESSION).expect("an id"),
        region: None,
        default_region: None,
        resync_interval: None,
        endpoint: "gs.tencentcloudapi.com".into(),
        instances: ids.iter().map(|text| id(text)).collect(),
        deleting: false,
        deletion_policy: DeletionPolicy::Delete,
        forgets_failures: false,
        generation: 1,
    }
}

fn conditions_of(
    desired: &Desired,
    ledger: &Ledger,
    problem: Option<&Problem>,
    full: bool,
) -> Conditions {
    let rules = Rules::default();
    conditions(&ConditionInputs {
        desired,
        ledger,
        problem,
        full,
        no_room_for: &[],
        adoption_pending: false,
        left_to_others: &[],
        deletion_is_late: false,
        ownership: &Ownership::Uncontested,
        now: Some(NOW),
        rules: &rules,
    })
}

fn ledger<const N: usize>(records: [(&str, Record); N]) -> Ledger {
    Ledger {
        records: records.into_iter().map(|(text, record)| (id(text), record)).collect(),
        ..Ledger::default()
    }
}

fn failed(operation: Operation, reason: FailureReason, attempts: u32) -> Record {
    let since = ServiceTime(NOW.0 - 3600);
    Record {
        state: if operation == Operation::Attach { State::Detached } else { State::Attached },
        refusals: Some(Refusals { operation, count: attempts, since }),
        last_failure: Some(Failure {
            operation,
            reason,
            code: String::new(),
            attempts,
            time: NOW,
            generation: 1,
        }),
        ..Record::default()
    }
}

fn status_of(
    desired: &Desired,
    ledger: Ledger,
    problem: Option<&Problem>,
    full: bool,
    generation: i64,
) -> Status {
    Status {
        observed_generation: generation,
        conditions: Some(conditions_of(desired, &ledger, problem, full)),
        counts: Counts::of(desired, &ledger),
        handled: Handled::default(),
        ledger: LedgerState::Current(ledger),
    }
}

/// The object as it is stored after the status was written.
fn object(desired: &Desired, status: &StreamSessionStatus, generation: i64) -> StreamSession {
    let ids: Vec<_> = desired.instances.iter().map(InstanceId::as_str).collect();
    let mut object = manifest(
        &json!({
            "name": "lobby", "uid": UID, "generation": generation, "finalizers": [FINALIZER],
        }),
        &json!({"sessionId": SESSION, "slaveInstanceIds": ids}),
    );
    object["status"] = json!(status);
    serde_json::from_value(object).expect("a StreamSession")
}

fn read_back(desired: &Desired, status: &StreamSessionStatus, generation: i64) -> Status {
    let defaults =
        Defaults { region: None, endpoint: "gs.tencentcloudapi.com".into(), resync_interval: None };
    view(&object(desired, status, generation), &defaults).expect("readable").status
}

fn write(new: &Status) -> StreamSessionStatus {
    status(new, UID, &StreamSessionStatus::default(), Timestamp::UNIX_EPOCH)
}

/// What breaks the rules of kstatus, of Flux's checker or of `metav1.Condition`.
fn violation(status: &StreamSessionStatus, generation: i64) -> Option<String> {
    let of = |kind: &str| {
        status.conditions.iter().filter(|condition| condition.type_ == kind).collect::<Vec<_>>()
    };
    let ready = of("Ready");
    let [ready] = ready.as_slice() else {
        return Some(format!("{} Ready conditions", ready.len()));
    };
    let working: Vec<&Condition> = [of("Reconciling"), of("Stalled")].concat();
    if status.conditions.len() != 1 + working.len() {
        return Some("an unknown condition".into());
    }
    match (ready.status.as_str(), working.as_slice()) {
        ("True", []) => {}
        ("False", [one]) if one.status == "True" => {}
        (ready, others) => return Some(format!("Ready {ready} beside {others:?}")),
    }
    for condition in &status.conditions {
        if condition.observed_generation != Some(generation)
            || status.observed_generation != Some(generation)
        {
            return Some(format!("{condition:?} and the status speak of different generations"));
        }
        let camel_case = condition.reason.starts_with(|letter: char| letter.is_ascii_uppercase());
        if !camel_case || !condition.reason.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Some(format!("{:?} is no reason", condition.reason));
        }
        if condition.message.is_empty() || condition.message.len() > 32_768 {
            return Some(format!("a message of {} bytes", condition.message.len()));
        }
        if (&condition.reason, &condition.message) != (&ready.reason, &ready.message) {
            return Some("two conditions with different messages".into());
        }
    }
    None
}

#[test]
fn a_lost_ledger_keeps_the_status_that_was_found_and_reports_it_once() {
    let foreign = StreamSessionStatus {
        object_uid: Some("another".into()),
        attached_instance_ids: vec!["a".into()],
        observed_generation: Some(2),
        ..StreamSessionStatus::default()
    };
    for found in [foreign, StreamSessionStatus::default()] {
        let read = read_back(&desired(&["a"]), &found, 3);
        let LedgerState::Lost { why, .. } = &read.ledger else { panic!("{read:?}") };
        let reported = Status {
            observed_generation: 3,
            conditions: Some(ledger_unreadable(why, None, false)),
            ..read.clone()
        };

        let written = status(&reported, UID, &found, Timestamp::UNIX_EPOCH);

        assert_eq!(violation(&written, 3), None);
        assert_eq!(
            (&written.object_uid, &written.attached_instance_ids),
            (&found.object_uid, &found.attached_instance_ids)
        );
        assert_eq!(read_back(&desired(&["a"]), &written, 3), reported);
    }
}

#[test]
fn the_transition_time_changes_with_the_status_alone() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let wanted = desired(&["a"]);
    let working = status_of(&wanted, Ledger::default(), None, false, 1);
    let retrying = status_of(
        &wanted,
        ledger([("a", failed(Operation::Attach, FailureReason::Refused, 1))]),
        None,
        false,
        2,
    );
    let done = status_of(&wanted, ledger([("a", Record::attached())]), None, false, 2);

    let first = status(&working, UID, &StreamSessionStatus::default(), at(1));
    let second = status(&retrying, UID, &first, at(2));
    let third = status(&done, UID, &second, at(3));

    let ready = |status: &StreamSessionStatus| status.conditions[0].last_transition_time.0;
    assert_eq!([ready(&first), ready(&second), ready(&third)], [at(1), at(1), at(3)]);
}

fn any_operation() -> impl Strategy<Value = Operation> {
    sample::select(vec![Operation::Attach, Operation::Detach])
}

fn any_time() -> impl Strategy<Value = ServiceTime> {
    (-1000_i64..1000).prop_map(|seconds| NOW.plus(seconds))
}

fn any_id() -> impl Strategy<Value = InstanceId> {
    // Few, so that spec, ledger and journal overlap; one as long as an id can be.
    let longest = id(&"~".repeat(InstanceId::LENGTH_MAX));
    prop_oneof![9 => "[a-h]".prop_map(|text| id(&text)), 1 => Just(longest)]
}

fn any_code() -> impl Strategy<Value = String> {
    let codes = [
        "",
        "FailedOperation",
        "AuthFailure.SignatureFailure",
        "ResourceNotFound.SessionNotFound",
        "RequestLimitExceeded",
        "InternalError",
    ];
    sample::select(codes.map(str::to_owned).to_vec())
}

fn any_record() -> impl Strategy<Value = Record> {
    let state = sample::select(vec![State::Attached, State::Detached, State::Unknown]);
    let refusals = (any_operation(), 0_u32..9, any_time())
        .prop_map(|(operation, count, since)| Refusals { operation, count, since });
    let reasons = vec![
        FailureReason::Refused,
        FailureReason::Unclear,
        FailureReason::Unanswered,
        FailureReason::SessionGone,
    ];
    let failure =
        (any_operation(), sample::select(reasons), any_code(), 0_u32..9, any_time(), 0_i64..9)
            .prop_map(|(operation, reason, code, attempts, time, generation)| Failure {
                operation,
                reason,
                code,
                attempts,
                time,
                generation,
            });
    let until = || option::of(any_time());
    let open = (state, until(), until(), option::of(refusals), option::of(failure)).prop_map(
        |(state, attach_until, detach_until, refusals, last_failure)| Record {
            state,
            attach_until,
            detach_until,
            refusals,
            last_failure,
            // Few, so that most records are as the operator makes them.
            assumed: state == State::Unknown
                && attach_until.is_some()
                && attach_until == detach_until,
        },
    );
    prop_oneof![Just(Record::attached()), open]
}

fn any_ledger() -> impl Strategy<Value = Ledger> {
    let target = (option::of("[a-z-]{1,12}"), option::of("[A-Za-z0-9]{0,20}"), any::<bool>())
        .prop_map(|(region, credential, credential_proven)| Target {
            session: SessionId::parse(SESSION).expect("an id"),
            region,
            endpoint: "gs.tencentcloudapi.com".into(),
            account: credential.clone(),
            credential,
            credential_proven,
        });
    let journal = (
        "[0-9a-f]{32}",
        any_operation(),
        collection::btree_set(any_id(), 1..5),
        any_time(),
        any::<bool>(),
    )
        .prop_map(|(id, operation, instances, start_time, resync)| Journal {
            id: JournalId(id.into()),
            operation,
            instances: instances.into_iter().collect(),
            start_time,
            resync,
        });
    let call =
        (any_operation(), "[0-9a-f-]{0,36}", any_time(), 0_usize..100, 0_usize..100, any_code())
            .prop_map(|(operation, request_id, time, succeeded, failed, code)| LastCall {
                operation,
                request_id,
                time,
                succeeded,
                failed,
                result: Verdict::of_code(&code, &[]).result(),
                code,
            });
    let records = collection::btree_map(any_id(), any_record(), 0..9);
    (option::of(target.clone()), target, records, option::of(journal), option::of(call)).prop_map(
        |(target, bound, records, journal, last_call)| Ledger {
            // Records are about some session.
            target: if records.is_empty() && journal.is_none() { target } else { Some(bound) },
            records,
            journal,
            last_call,
        },
    )
}

fn any_desired() -> impl Strategy<Value = Desired> {
    (collection::btree_set(any_id(), 0..9), any::<bool>(), any::<bool>()).prop_map(
        |(instances, deleting, orphan)| Desired {
            instances,
            deleting,
            deletion_policy: if orphan { DeletionPolicy::Orphan } else { DeletionPolicy::Delete },
            ..desired(&[])
        },
    )
}

fn any_problem() -> impl Strategy<Value = Option<Problem>> {
    let text = || "[A-Za-z ]{1,30}\\.";
    option::weighted(
        0.3,
        prop_oneof![text().prop_map(Problem::Credentials), text().prop_map(Problem::Unreachable)],
    )
}

/// The ids that a message names.
fn named(message: &str) -> usize {
    let words: BTreeSet<&str> = message
        .split([' ', ',', '.', ':'])
        .filter(|word| word.len() == 1 || word.starts_with('~'))
        .collect();
    words.into_iter().filter(|word| ("a".."i").contains(word) || word.starts_with('~')).count()
}

proptest! {
    #[test]
    fn whatever_the_ledger_the_conditions_obey_the_rules(
        wanted in any_desired(), ledger in any_ledger(), problem in any_problem(), full: bool,
        generation in 1_i64..1000,
    ) {
        let status = status_of(&wanted, ledger, problem.as_ref(), full, generation);

        prop_assert_eq!(violation(&write(&status), generation), None);
    }

    #[test]
    fn whatever_the_ledger_ready_is_true_only_if_all_is_as_wanted(
        wanted in any_desired(), ledger in any_ledger(), problem in any_problem(),
    ) {
        let conditions = conditions_of(&wanted, &ledger, problem.as_ref(), false);

        let is_attached = |id| {
            ledger.records.get(id).is_some_and(|record| record.state == State::Attached)
        };
        let is_done = |(id, record): (&InstanceId, &Record)| {
            record.next(wanted.at(None).want(id), Some(NOW)) == Next::Done
        };
        let as_wanted = !wanted.deleting
            && wanted.instances.iter().all(is_attached)
            && ledger.records.iter().all(is_done)
            && !ledger.has_open_change();
        prop_assert_eq!(conditions.mode == Mode::Ready, as_wanted, "{:?}", conditions);
    }

    #[test]
    fn whatever_is_written_is_read_back(
        wanted in any_desired(), ledger in any_ledger(), problem in any_problem(), full: bool,
        generation in 1_i64..1000,
    ) {
        // A deletion is in the metadata, and no part of the status.
        let status = status_of(&wanted, ledger, problem.as_ref(), full, generation);

        prop_assert_eq!(read_back(&wanted, &write(&status), generation), status);
    }

    #[test]
    fn a_message_names_few_ids_and_does_not_change_with_every_try(
        wanted in any_desired(), mut ledger in any_ledger(),
    ) {
        let before = conditions_of(&wanted, &ledger, None, false);
        if let Some(call) = &mut ledger.last_call {
            call.request_id = "another".into();
            call.time = call.time.plus(60);
        }
        let records = ledger.records.values_mut();
        for failure in records.filter_map(|record| record.last_failure.as_mut()) {
            failure.time = failure.time.plus(60);
        }

        let after = conditions_of(&wanted, &ledger, None, false);

        prop_assert!(named(&before.message) <= 2 * IDS_NAMED_MAX, "{}", before.message);
        prop_assert_eq!(before, after);
    }
}
