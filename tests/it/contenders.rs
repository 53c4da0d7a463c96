//! Several objects that name one session: one owns it, the others are contenders that report the
//! owner and wait, and no order of edits does harm.

use std::collections::BTreeSet;
use std::time::Duration;

use gs_simulator::{EXAMPLE_SECRET_ID, Faults};
use serde_json::json;
use streamsession_operator::api::v1alpha1::{StreamSession, StreamSessionStatus};

use crate::harness::{Lab, SESSION, eventually, kubectl, ready, set};

/// Waits until the object is a contender and reports this owner; answers the message.
async fn until_contender_of(lab: &Lab, name: &str, owner: (&Lab, &str)) -> String {
    let owner = format!("{}/{}", owner.0.namespace, owner.1);
    eventually(&format!("{name} is a contender of {owner}"), async || {
        let (_, reason, message) = ready(&lab.get(name).await);
        let reported = reason == "SessionConflict"
            && message.starts_with(&format!("StreamSession {owner} owns session "));
        if reported { Ok(message) } else { Err(format!("{reason}: {message}")) }
    })
    .await
}

/// Waits until an object that is created now is younger: the times are whole seconds, and of one
/// age the uid decides.
pub async fn until_older(lab: &Lab, name: &str) {
    let created = lab.get(name).await.metadata.creation_timestamp.expect("a time").0;
    eventually(&format!("{name} is older than a second"), async || {
        let now = jiff::Timestamp::now();
        if now.as_second() > created.as_second() { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
}

/// Waits until the contender has released the instance.
async fn until_released(lab: &Lab, name: &str, id: &str) {
    lab.until_status(name, &format!("{id} is released"), |status| {
        !status.unsettled_instances.iter().any(|record| record.instance_id == id)
    })
    .await;
}

/// A lab in which no call times out on a busy machine, and no doubt ends.
pub async fn lab_with_long_timeouts() -> Lab {
    let mut lab = Lab::with_validity(Duration::from_mins(5)).await;
    lab.options.gs_timeout = Duration::from_secs(30);
    lab.start_operator().await;
    lab
}

/// What was called in the session of these tests, in short.
fn history(lab: &Lab) -> Vec<String> {
    let calls = lab.calls().into_iter().filter(|call| call.session_id.as_deref() == Some(SESSION));
    let short = |call: gs_simulator::Call| {
        format!("{:?} {}", call.operation.expect("well-formed"), call.instance_ids.join(","))
    };
    calls.map(short).collect()
}

/// The next call is not answered, and arrives after two seconds.
fn late() -> Faults {
    Faults { late_arrivals: 1, late_arrival_ms: 2000, ..Faults::default() }
}

pub fn detaches(calls: &[String]) -> Vec<&String> {
    calls.iter().filter(|call| call.starts_with("Detach")).collect()
}

/// A lab whose session is owned by `first`, with `shared` and `a`. The contender `second` wants
/// `shared` and `b` in it.
pub async fn lab_with_contender() -> Lab {
    create_contender(lab_with_long_timeouts().await).await
}

async fn create_contender(lab: Lab) -> Lab {
    lab.create_ready("first", &["shared", "a"]).await;
    until_older(&lab, "first").await;
    lab.create("second", &["shared", "b"], json!({})).await;
    until_contender_of(&lab, "second", (&lab, "first")).await;
    lab
}

/// The same in two namespaces, and the contender has members: each object was driven by an operator
/// of its own, as with two selectors that overlap, and now one sees both.
async fn labs_with_members() -> (Lab, Lab) {
    create_contender_with_members(lab_with_long_timeouts().await).await
}

async fn create_contender_with_members(mut lab: Lab) -> (Lab, Lab) {
    let mut other = lab.in_another_namespace().await;
    other.start_operator().await;
    lab.create_ready("first", &["shared", "a"]).await;
    until_older(&lab, "first").await;
    other.create("second", &["shared", "b"], json!({})).await;
    other.until_attached("second", &["b", "shared"]).await;
    other.stop_operator().await;
    lab.stop_operator().await;
    lab.options.namespaces.push(other.namespace.clone());
    lab.start_operator().await;
    until_contender_of(&other, "second", (&lab, "first")).await;
    (lab, other)
}

#[tokio::test]
async fn a_contender_reports_the_owner_and_makes_no_call() {
    let lab = lab_with_contender().await;

    let message = until_contender_of(&lab, "second", (&lab, "first")).await;

    assert!(message.contains(&format!(" owns session {SESSION}. ")), "{message}");
    let note = lab.until_event("second", "SessionConflict").await;
    assert_eq!(note, message);
    let table = kubectl(&["-n", &lab.namespace, "get", "gss"], "");
    let row = table.lines().find(|line| line.starts_with("second")).expect("a row");
    let columns: Vec<_> = row.split_whitespace().collect();
    assert_eq!(columns[1..7], [SESSION, "2", "0", "0", "False", "SessionConflict"], "{table}");
    let described = kubectl(&["-n", &lab.namespace, "describe", "gss", "second"], "");
    assert!(described.contains(&format!("{}/first", lab.namespace)), "{described}");
    lab.until_marked().await;
    assert_eq!(history(&lab), ["Attach a,shared"]);
    // Three writes each to attach the owner's and the marker's; one to report the conflict.
    lab.until_writes(3 + 1 + 3).await;
    lab.until_ready("first", &["shared", "a"]).await;
}

#[tokio::test]
async fn of_two_objects_that_were_there_before_the_operator_one_owns_and_the_other_makes_no_call() {
    let mut lab = Lab::without_operator().await;
    let other = lab.in_another_namespace().await;
    lab.create("one", &["a"], json!({})).await;
    other.create("two", &["b"], json!({})).await;
    lab.options.namespaces.push(other.namespace.clone());

    lab.start_operator().await;

    let (one, two) = (lab.get("one").await, other.get("two").await);
    let rank = |object: &StreamSession| {
        (object.metadata.creation_timestamp.clone().map(|time| time.0), object.metadata.uid.clone())
    };
    let (owner, contender, id) = if rank(&one) < rank(&two) {
        ((&lab, "one"), (&other, "two"), "b")
    } else {
        ((&other, "two"), (&lab, "one"), "a")
    };
    owner.0.until_condition_ready(owner.1).await;
    until_contender_of(contender.0, contender.1, owner).await;
    assert_eq!(lab.calls().len(), 1);
    owner.0.delete(owner.1).await;
    owner.0.until_gone(owner.1).await;
    contender.0.until_condition_ready(contender.1).await;
    assert_eq!(lab.members(), set(&[id]));
}

#[tokio::test]
async fn of_many_objects_that_are_created_at_one_instant_in_two_namespaces_one_owns() {
    let mut lab = Lab::without_operator().await;
    let other = lab.in_another_namespace().await;
    lab.options.namespaces.push(other.namespace.clone());
    lab.start_operator().await;

    tokio::join!(
        lab.create("one", &["shared", "a"], json!({})),
        other.create("two", &["shared", "b"], json!({})),
        lab.create("three", &["shared", "c"], json!({})),
        other.create("four", &["shared", "d"], json!({})),
    );

    let objects =
        [(&lab, "one", "a"), (&other, "two", "b"), (&lab, "three", "c"), (&other, "four", "d")];
    let (owner, id) = eventually("one owns, three are contenders", async || {
        let mut reasons = Vec::new();
        for (lab, name, _) in objects {
            reasons.push(ready(&lab.get(name).await).1);
        }
        let contenders = reasons.iter().filter(|reason| *reason == "SessionConflict").count();
        let owner = reasons.iter().position(|reason| reason == "UpToDate");
        match owner {
            Some(owner) if contenders == 3 => Ok((objects[owner].1, objects[owner].2)),
            _ => Err(format!("{reasons:?}")),
        }
    })
    .await;
    // The others go, whatever they had tried before they saw it.
    for (lab, name, _) in objects.iter().filter(|(_, name, _)| *name != owner) {
        lab.delete(name).await;
        lab.until_gone(name).await;
    }
    assert_eq!(lab.members(), set(&["shared", id]), "{:?}", lab.history());
}

#[tokio::test]
async fn when_the_owner_moves_away_the_contender_takes_over() {
    let lab = lab_with_contender().await;

    lab.edit("first", json!({"sessionId": "elsewhere"})).await;

    lab.until_ready_at("first", "elsewhere", &["shared", "a"]).await;
    lab.until_ready("second", &["shared", "b"]).await;
}

#[tokio::test]
async fn of_what_an_owner_orphans_the_contender_takes_over_what_it_wants() {
    let lab = lab_with_contender().await;
    lab.edit("first", json!({"deletionPolicy": "Orphan"})).await;

    lab.delete("first").await;

    lab.until_condition_ready("second").await;
    assert_eq!(lab.members(), set(&["a", "b", "shared"]));
    lab.delete("second").await;
    lab.until_gone("second").await;
    assert_eq!(lab.members(), set(&["a"]), "left on purpose");
}

#[tokio::test]
async fn an_object_without_its_secret_owns_no_session_and_the_next_one_does() {
    let lab = Lab::start().await;
    lab.create("first", &["a"], json!({"credentialsRef": {"name": "late"}})).await;
    lab.until_reason("first", "CredentialsNotFound").await;
    lab.create("second", &["b"], json!({})).await;
    lab.until_ready("second", &["b"]).await;

    lab.create_secret("late", "AKIDEXAMPLE", "SECRETEXAMPLE").await;

    until_contender_of(&lab, "first", (&lab, "second")).await;
    lab.until_ready("second", &["b"]).await;
    lab.delete("second").await;
    lab.until_ready("first", &["a"]).await;
}

#[tokio::test]
async fn an_owner_whose_key_is_refused_yields_and_takes_over_with_the_right_key() {
    let lab = Lab::start().await;
    lab.create_secret("wrong", "AKIDWRONG", "WRONG").await;
    lab.create("first", &["a"], json!({"credentialsRef": {"name": "wrong"}})).await;
    lab.until_reason("first", "CredentialsRejected").await;
    lab.create("second", &["b"], json!({})).await;
    lab.until_ready("second", &["b"]).await;

    lab.change_secret("wrong", "AKIDEXAMPLE", "SECRETEXAMPLE").await;
    lab.delete("second").await;

    lab.until_ready("first", &["a"]).await;
    assert!(
        lab.calls()
            .iter()
            .filter(|call| call.secret_id.as_deref() != Some(EXAMPLE_SECRET_ID))
            .all(|call| call.succeeded.is_empty())
    );
}

#[tokio::test]
async fn an_object_that_wants_nothing_takes_no_session_from_anybody() {
    let lab = Lab::start().await;
    lab.create("stranger", &[], json!({"credentialsRef": {"name": "missing"}})).await;
    lab.until_reason("stranger", "UpToDate").await;
    lab.create("victim", &["a"], json!({})).await;
    lab.until_ready("victim", &["a"]).await;
    lab.until_reason("stranger", "UpToDate").await;

    lab.edit_ids("stranger", &["b"]).await;
    lab.until_reason("stranger", "SessionConflict").await;
    lab.edit_ids("stranger", &[]).await;
    lab.until_reason("stranger", "UpToDate").await;
    lab.until_ready("victim", &["a"]).await;
    assert_eq!(lab.history(), ["Attach a"]);
}

#[tokio::test]
async fn a_contender_without_members_is_deleted_at_once() {
    let lab = lab_with_contender().await;

    lab.delete("second").await;

    lab.until_gone("second").await;
    lab.until_ready("first", &["shared", "a"]).await;
    assert_eq!(lab.history(), ["Attach a,shared"]);
}

#[tokio::test]
async fn a_contender_that_is_deleted_detaches_its_own_and_hands_over_what_the_owner_has() {
    let (lab, other) = labs_with_members().await;
    let calls = lab.calls().len();

    other.delete("second").await;

    other.until_gone("second").await;
    lab.until_ready("first", &["shared", "a"]).await;
    assert_eq!(detaches(&lab.history()[calls..]), ["Detach b"]);
    let note = other.until_event("second", "InstancesHandedOver").await;
    assert_eq!(note, format!("Left to the StreamSession that owns session {SESSION}: shared."));
    lab.until_metric(r#"streamsession_instances_released_total{outcome="handed_over"} 1"#).await;
}

#[tokio::test]
async fn a_contender_that_is_edited_releases_its_stale_members_and_attaches_nothing() {
    let (lab, other) = labs_with_members().await;
    let calls = lab.calls().len();

    other.edit_ids("second", &["c"]).await;

    let released = |status: &StreamSessionStatus| {
        status.observed_generation == Some(2) && status.unsettled_instances.is_empty()
    };
    other.until_status("second", "its members are released", released).await;
    assert_eq!(detaches(&lab.history()[calls..]), ["Detach b"], "shared is the owner's");
    assert!(!lab.history().iter().any(|call| call.ends_with(" c")), "c waits");
    lab.delete("first").await;
    other.until_attached("second", &["c"]).await;
    lab.until_gone("first").await;
    assert_eq!(lab.members(), set(&["c"]));
}

#[tokio::test]
async fn what_the_owner_wants_is_handed_over_once_it_has_it() {
    let (lab, other) = labs_with_members().await;
    lab.simulator.set_faults(Faults { fail_instances: set(&["b"]), ..Faults::default() });
    lab.edit_ids("first", &["shared", "a", "b"]).await;
    lab.until_reason("first", "ProgressingWithRetry").await;

    other.edit_ids("second", &["shared"]).await;
    other.until_status("second", "waits", |status| status.observed_generation == Some(2)).await;
    lab.simulator.set_faults(Faults::default());

    lab.until_ready("first", &["shared", "a", "b"]).await;
    until_released(&other, "second", "b").await;
    let note = other.until_event("second", "InstancesHandedOver").await;
    assert!(note.ends_with(": b."), "{note}");
}

#[tokio::test]
async fn a_restart_changes_no_owner_and_writes_nothing() {
    let (mut lab, other) = labs_with_members().await;
    lab.create("third", &["c"], json!({})).await;
    until_contender_of(&lab, "third", (&lab, "first")).await;
    let seen = |lab: &Lab| {
        [
            lab.writes_of("first").len(),
            other.writes_of("second").len(),
            lab.writes_of("third").len(),
            history(lab).len(),
        ]
    };
    // A write is logged when its request has ended, which may be a moment after its client has the
    // answer.
    lab.until_marked().await;
    lab.until_written("marker", 3).await;
    let before = seen(&lab);

    for number in 1..=2 {
        lab.stop_operator().await;
        lab.start_operator().await;
        let marker = format!("marker-{number}");
        lab.create_apart(&marker, &["marked"]).await;
        lab.until_attached(&marker, &["marked"]).await;
        lab.until_written(&marker, 3).await;
    }

    assert_eq!(seen(&lab), before);
    until_contender_of(&other, "second", (&lab, "first")).await;
}

#[tokio::test]
async fn of_three_objects_each_takes_over_in_its_turn() {
    let lab = lab_with_contender().await;
    until_older(&lab, "second").await;
    lab.create("third", &["shared", "c"], json!({})).await;
    until_contender_of(&lab, "third", (&lab, "first")).await;

    lab.delete("first").await;
    lab.until_condition_ready("second").await;
    until_contender_of(&lab, "third", (&lab, "second")).await;
    lab.delete("second").await;

    lab.until_ready("third", &["shared", "c"]).await;
    lab.until_gone("second").await;
}

#[tokio::test]
async fn an_object_that_moves_to_an_owned_session_leaves_its_old_one_and_waits() {
    let lab = Lab::start().await;
    lab.create("second", &["shared", "b"], json!({"sessionId": "elsewhere"})).await;
    lab.until_ready_at("second", "elsewhere", &["shared", "b"]).await;
    until_older(&lab, "second").await;
    lab.create_ready("first", &["shared", "a"]).await;

    lab.edit("second", json!({"sessionId": SESSION})).await;

    until_contender_of(&lab, "second", (&lab, "first")).await;
    lab.until_status("second", "nothing is attached", |status| {
        status.attached_instance_ids.is_empty() && status.unsettled_instances.is_empty()
    })
    .await;
    assert_eq!(lab.simulator.members("elsewhere"), BTreeSet::new());
    lab.until_ready("first", &["shared", "a"]).await;
    lab.delete("second").await;
    lab.until_gone("second").await;
    assert_eq!(lab.members(), set(&["shared", "a"]));
}

/// The owner is deleted, and its detach arrives late: the next owner must not be Ready before.
#[tokio::test]
async fn a_late_detach_of_a_deleted_owner_makes_no_other_object_falsely_ready() {
    let lab = create_contender(Lab::start().await).await;
    lab.simulator.set_faults(late());

    lab.delete("first").await;

    lab.until_gone("first").await;
    lab.until_ready("second", &["shared", "b"]).await;
}

/// The detach of a contender arrives late, while the owner comes to want the instance.
#[tokio::test]
async fn a_late_detach_of_a_contender_makes_the_owner_not_falsely_ready() {
    let (lab, other) = create_contender_with_members(Lab::start().await).await;
    let calls = lab.calls().len();
    lab.simulator.set_faults(late());
    other.edit_ids("second", &["shared"]).await;
    lab.until_calls(calls + 1).await;

    lab.edit_ids("first", &["shared", "a", "b"]).await;

    until_released(&other, "second", "b").await;
    lab.until_ready("first", &["shared", "a", "b"]).await;
}
