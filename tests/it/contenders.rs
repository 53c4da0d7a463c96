//! Several objects that name one session: one drives it, the others say so and wait, and none of
//! them does harm (design 3.8).

use std::collections::BTreeSet;
use std::time::Duration;

use gs_simulator::{EXAMPLE_SECRET_ID, Faults};
use serde_json::json;

use crate::harness::{Lab, SESSION, eventually, kubectl, ready};

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// Waits until the object says that `owner` drives the session; answers the message.
async fn until_behind(lab: &Lab, name: &str, owner: &str) -> String {
    eventually(&format!("{name} is behind {owner}"), async || {
        let (_, reason, message) = ready(&lab.get(name).await);
        let said = reason == "SessionConflict"
            && message.contains(&format!("by the StreamSession {owner}: "));
        if said { Ok(message) } else { Err(format!("{reason}: {message}")) }
    })
    .await
}

/// Waits until an object that is created now is younger: the times are whole seconds, and of one
/// age the uid decides.
async fn until_older(lab: &Lab, name: &str) {
    let created = lab.get(name).await.metadata.creation_timestamp.expect("a time").0;
    eventually(&format!("{name} is older than a second"), async || {
        let now = jiff::Timestamp::now();
        if now.as_second() > created.as_second() { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
}

/// Waits until the object is Ready, whoever else is in the session.
async fn until_driving(lab: &Lab, name: &str) {
    eventually(&format!("{name} is Ready"), async || {
        let (ready, reason, message) = ready(&lab.get(name).await);
        if ready { Ok(()) } else { Err(format!("{reason}: {message}")) }
    })
    .await;
}

/// A lab in which nothing is late on a busy machine, and no doubt ends.
async fn patient_lab() -> Lab {
    let signature_validity = Duration::from_mins(5);
    let mut lab =
        Lab::with(gs_simulator::Options { signature_validity, ..gs_simulator::Options::default() })
            .await;
    lab.options.gs_timeout = Duration::from_secs(30);
    lab.start_operator().await;
    lab
}

/// What was called in the session of these tests, in short.
fn history(lab: &Lab) -> Vec<String> {
    let calls = lab.calls().into_iter().filter(|call| call.session_id.as_deref() == Some(SESSION));
    calls
        .map(|call| {
            format!("{:?} {}", call.operation.expect("well-formed"), call.instance_ids.join(","))
        })
        .collect()
}

fn detaches(calls: &[String]) -> Vec<&String> {
    calls.iter().filter(|call| call.starts_with("Detach")).collect()
}

/// A lab whose session is driven by `first`, with `shared` and `a`; `second` would like `shared`
/// and `b` in it.
async fn lab_with_two() -> Lab {
    two_in(patient_lab().await).await
}

async fn two_in(lab: Lab) -> Lab {
    lab.create("first", &["shared", "a"], json!({})).await;
    lab.until_ready("first", &["shared", "a"]).await;
    until_older(&lab, "first").await;
    lab.create("second", &["shared", "b"], json!({})).await;
    until_behind(&lab, "second", &format!("{}/first", lab.namespace)).await;
    lab
}

/// Two objects that were driven by an operator each, as with two selectors that overlap; and then
/// by one that sees both. `second` waits.
async fn labs_that_were_two() -> (Lab, Lab) {
    two_labs_of(patient_lab().await).await
}

async fn two_labs_of(mut lab: Lab) -> (Lab, Lab) {
    let mut other = lab.neighbour().await;
    other.start_operator().await;
    lab.create("first", &["shared", "a"], json!({})).await;
    lab.until_ready("first", &["shared", "a"]).await;
    until_older(&lab, "first").await;
    other.create("second", &["shared", "b"], json!({})).await;
    other
        .until_status("second", "is attached", |status| {
            status.attached_instance_ids == ["b", "shared"]
        })
        .await;
    other.stop_operator().await;
    lab.stop_operator().await;
    lab.options.namespaces.push(other.namespace.clone());
    lab.start_operator().await;
    until_behind(&other, "second", &format!("{}/first", lab.namespace)).await;
    (lab, other)
}

#[tokio::test]
async fn the_later_of_two_says_who_drives_the_session_and_calls_nobody() {
    let lab = lab_with_two().await;

    let message = until_behind(&lab, "second", &format!("{}/first", lab.namespace)).await;

    assert!(
        message.starts_with(&format!(
            "Session {SESSION} is driven by the StreamSession {}/first",
            lab.namespace
        )),
        "{message}"
    );
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
    // Two objects and the marker: three writes each to attach, one to say that it waits.
    lab.until_writes(3 + 1 + 3).await;
    lab.until_ready("first", &["shared", "a"]).await;
}

#[tokio::test]
async fn of_two_that_were_there_before_the_operator_one_drives_and_the_other_never_calls() {
    let mut lab = Lab::without_operator().await;
    let other = lab.neighbour().await;
    lab.create("one", &["a"], json!({})).await;
    other.create("two", &["b"], json!({})).await;
    lab.options.namespaces.push(other.namespace.clone());

    lab.start_operator().await;

    let (one, two) = (lab.get("one").await, other.get("two").await);
    let rank = |object: &streamsession_operator::api::v1alpha1::StreamSession| {
        (object.metadata.creation_timestamp.clone().map(|time| time.0), object.metadata.uid.clone())
    };
    let (winner, first, loser, second) = if rank(&one) < rank(&two) {
        (&lab, "one", &other, "two")
    } else {
        (&other, "two", &lab, "one")
    };
    until_driving(winner, first).await;
    until_behind(loser, second, &format!("{}/{first}", winner.namespace)).await;
    assert_eq!(lab.calls().len(), 1);
    winner.delete(first).await;
    winner.until_gone(first).await;
    until_driving(loser, second).await;
    assert_eq!(lab.members(), set(if second == "one" { &["a"] } else { &["b"] }));
}

#[tokio::test]
async fn of_many_that_are_created_at_one_instant_in_two_namespaces_one_drives() {
    let mut lab = Lab::without_operator().await;
    let other = lab.neighbour().await;
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
    let standing = async || {
        let mut standing = Vec::new();
        for (lab, name, id) in objects {
            let (ready, reason, _) = ready(&lab.get(name).await);
            standing.push((ready, reason, lab, name, id));
        }
        standing
    };
    let driver = eventually("one drives", async || {
        let standing = standing().await;
        let waiting = standing.iter().filter(|(_, reason, ..)| reason == "SessionConflict").count();
        let driver = standing.iter().find(|(ready, ..)| *ready);
        driver.filter(|_| waiting == 3).map(|driver| (driver.3, driver.4)).ok_or_else(|| {
            format!(
                "{:?}",
                standing.iter().map(|(ready, reason, ..)| (ready, reason)).collect::<Vec<_>>()
            )
        })
    })
    .await;
    // The others go, whatever they had tried before they saw it.
    for (lab, name, _) in objects.iter().filter(|(_, name, _)| *name != driver.0) {
        lab.delete(name).await;
        lab.until_gone(name).await;
    }
    assert_eq!(lab.members(), set(&["shared", driver.1]), "{:?}", lab.history());
}

#[tokio::test]
async fn when_the_owner_is_deleted_the_other_takes_over_without_a_hand() {
    let lab = lab_with_two().await;

    lab.delete("first").await;

    lab.until_gone("first").await;
    lab.until_ready("second", &["shared", "b"]).await;
    assert_eq!(lab.history(), ["Attach a,shared", "Detach a,shared", "Attach b,shared"]);
}

#[tokio::test]
async fn when_the_owner_moves_away_the_other_takes_over() {
    let lab = lab_with_two().await;

    lab.edit("first", json!({"sessionId": "elsewhere"})).await;

    lab.until_ready_at("first", "elsewhere", &["shared", "a"]).await;
    lab.until_ready("second", &["shared", "b"]).await;
}

#[tokio::test]
async fn what_an_owner_with_orphan_leaves_behind_is_nobodys_but_what_the_other_wants() {
    let lab = lab_with_two().await;
    lab.edit("first", json!({"deletionPolicy": "Orphan"})).await;

    lab.delete("first").await;

    until_driving(&lab, "second").await;
    assert_eq!(lab.members(), set(&["a", "b", "shared"]));
    lab.delete("second").await;
    lab.until_gone("second").await;
    assert_eq!(lab.members(), set(&["a"]), "left on purpose");
}

#[tokio::test]
async fn one_without_a_secret_never_drives_and_the_next_one_does_until_it_goes() {
    let lab = Lab::start().await;
    lab.create("first", &["a"], json!({"credentialsRef": {"name": "late"}})).await;
    lab.until_reason("first", "CredentialsNotFound").await;
    lab.create("second", &["b"], json!({})).await;
    lab.until_ready("second", &["b"]).await;

    lab.create_secret("late", "AKIDEXAMPLE", "SECRETEXAMPLE").await;

    until_behind(&lab, "first", &format!("{}/second", lab.namespace)).await;
    lab.until_ready("second", &["b"]).await;
    lab.delete("second").await;
    lab.until_ready("first", &["a"]).await;
}

#[tokio::test]
async fn one_whose_key_is_refused_gives_way_and_takes_over_with_the_right_key() {
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
async fn the_other_goes_at_once_if_it_holds_nothing() {
    let lab = lab_with_two().await;

    lab.delete("second").await;

    lab.until_gone("second").await;
    lab.until_ready("first", &["shared", "a"]).await;
    assert_eq!(lab.history(), ["Attach a,shared"]);
}

#[tokio::test]
async fn the_other_takes_its_own_out_when_it_goes_and_leaves_what_the_owner_remembers() {
    let (lab, other) = labs_that_were_two().await;
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
async fn the_other_may_be_edited_while_it_waits() {
    let (lab, other) = labs_that_were_two().await;
    let calls = lab.calls().len();

    other.edit_ids("second", &["c"]).await;

    let held = |status: &streamsession_operator::api::v1alpha1::StreamSessionStatus| {
        !status.unsettled_instances.is_empty()
    };
    other
        .until_status("second", "lets go", |status| {
            status.observed_generation == Some(2) && !held(status)
        })
        .await;
    assert_eq!(detaches(&lab.history()[calls..]), ["Detach b"], "shared is the owner's");
    assert!(!lab.history().iter().any(|call| call.ends_with(" c")), "c waits");
    lab.delete("first").await;
    other.until_status("second", "drives", |status| status.attached_instance_ids == ["c"]).await;
    lab.until_gone("first").await;
    assert_eq!(lab.members(), set(&["c"]));
}

#[tokio::test]
async fn what_the_owner_only_wants_is_let_go_of_once_it_has_it() {
    let (lab, other) = labs_that_were_two().await;
    lab.simulator.set_faults(Faults { fail_instances: set(&["b"]), ..Faults::default() });
    lab.edit_ids("first", &["shared", "a", "b"]).await;
    lab.until_reason("first", "ProgressingWithRetry").await;

    other.edit_ids("second", &["shared"]).await;
    other.until_status("second", "waits", |status| status.observed_generation == Some(2)).await;
    lab.simulator.set_faults(Faults::default());

    lab.until_ready("first", &["shared", "a", "b"]).await;
    other
        .until_status("second", "lets b go", |status| {
            !status.unsettled_instances.iter().any(|record| record.instance_id == "b")
        })
        .await;
    let note = other.until_event("second", "InstancesHandedOver").await;
    assert!(note.ends_with(": b."), "{note}");
}

#[tokio::test]
async fn a_restart_while_they_wait_flips_nothing_and_writes_nothing() {
    let (mut lab, other) = labs_that_were_two().await;
    lab.create("third", &["c"], json!({})).await;
    until_behind(&lab, "third", &format!("{}/first", lab.namespace)).await;
    let seen = |lab: &Lab| {
        [
            lab.writes_of("first").len(),
            other.writes_of("second").len(),
            lab.writes_of("third").len(),
            history(lab).len(),
        ]
    };
    // A write is told when its request has ended, which may be a moment after its client has the
    // answer.
    lab.until_marked().await;
    lab.until_written("marker", 3).await;
    let before = seen(&lab);

    for number in 1..=2 {
        lab.stop_operator().await;
        lab.start_operator().await;
        let marker = format!("marker-{number}");
        lab.create(&marker, &["marked"], json!({"sessionId": marker})).await;
        lab.until_status(&marker, "is attached", |status| {
            status.attached_instance_ids == ["marked"]
        })
        .await;
        lab.until_written(&marker, 3).await;
    }

    assert_eq!(seen(&lab), before);
    until_behind(&other, "second", &format!("{}/first", lab.namespace)).await;
}

#[tokio::test]
async fn of_three_each_comes_to_its_turn() {
    let lab = lab_with_two().await;
    until_older(&lab, "second").await;
    lab.create("third", &["shared", "c"], json!({})).await;
    until_behind(&lab, "third", &format!("{}/first", lab.namespace)).await;

    lab.delete("first").await;
    until_driving(&lab, "second").await;
    until_behind(&lab, "third", &format!("{}/second", lab.namespace)).await;
    lab.delete("second").await;

    lab.until_ready("third", &["shared", "c"]).await;
    lab.until_gone("second").await;
}

#[tokio::test]
async fn an_object_that_moves_onto_a_driven_session_empties_its_old_one_and_waits() {
    let lab = Lab::start().await;
    lab.create("second", &["shared", "b"], json!({"sessionId": "elsewhere"})).await;
    lab.until_ready_at("second", "elsewhere", &["shared", "b"]).await;
    until_older(&lab, "second").await;
    lab.create("first", &["shared", "a"], json!({})).await;
    lab.until_ready("first", &["shared", "a"]).await;

    lab.edit("second", json!({"sessionId": SESSION})).await;

    until_behind(&lab, "second", &format!("{}/first", lab.namespace)).await;
    lab.until_status("second", "holds nothing", |status| {
        status.attached_instance_ids.is_empty() && status.unsettled_instances.is_empty()
    })
    .await;
    assert_eq!(lab.simulator.members("elsewhere"), BTreeSet::new());
    lab.until_ready("first", &["shared", "a"]).await;
    lab.delete("second").await;
    lab.until_gone("second").await;
    assert_eq!(lab.members(), set(&["shared", "a"]));
}

/// The owner goes, and its detach arrives late: whoever comes next must not say Ready before it
/// has.
#[tokio::test]
async fn a_late_detach_of_the_owner_that_went_makes_nobody_falsely_ready() {
    let lab = two_in(Lab::start().await).await;
    lab.simulator.set_faults(Faults {
        late_arrivals: 1,
        late_arrival_ms: 2000,
        ..Faults::default()
    });

    lab.delete("first").await;

    lab.until_gone("first").await;
    lab.until_ready("second", &["shared", "b"]).await;
}

/// The one that waits takes out what it held, late, while the owner comes to want it.
#[tokio::test]
async fn a_late_detach_of_one_that_waits_makes_the_owner_not_falsely_ready() {
    let (lab, other) = two_labs_of(Lab::start().await).await;
    let calls = lab.calls().len();
    lab.simulator.set_faults(Faults {
        late_arrivals: 1,
        late_arrival_ms: 2000,
        ..Faults::default()
    });
    other.edit_ids("second", &["shared"]).await;
    lab.until_calls(calls + 1).await;

    lab.edit_ids("first", &["shared", "a", "b"]).await;

    other
        .until_status("second", "lets b go", |status| {
            !status.unsettled_instances.iter().any(|record| record.instance_id == "b")
        })
        .await;
    lab.until_ready("first", &["shared", "a", "b"]).await;
}
