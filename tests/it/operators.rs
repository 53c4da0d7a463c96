//! Two operators on the same objects, an operator whose fence is closed, and a ledger at its limit.

use std::time::Duration;

use gs_simulator::{EXAMPLE_SECRET_ID, Faults};
use serde_json::{Value, json};
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::Ledger;
use streamsession_operator::api::FINALIZER;
use streamsession_operator::api::v1alpha1::StreamSession;

use crate::harness::{Lab, SESSION, eventually, refuse_detach, slow, spec};

fn has_journal(object: &StreamSession) -> bool {
    object.status.as_ref().is_some_and(|status| status.pending_call.is_some())
}

#[tokio::test]
async fn an_operator_whose_fence_is_closed_calls_and_writes_nothing_and_its_call_is_taken_over() {
    let mut lab = Lab::without_operator().await;
    // How long another operator waits for the writer of a journal depends on this.
    lab.options.kube_timeout = Duration::from_secs(2);
    lab.start_operator().await;
    lab.simulator.set_faults(slow());
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_calls(1).await;

    lab.fence().close();
    lab.simulator.set_faults(Faults::default());
    lab.create_apart("other", &["c"]).await;
    lab.edit_ids("lobby", &["b", "c"]).await;

    // Reconciles that would act and may not: that of the call, and that of the new object.
    eventually("reconciles that may not act", async || {
        let text = lab.metrics().await;
        let later = text.lines().find_map(|line| {
            line.strip_prefix(r#"streamsession_reconciles_total{outcome="later"} "#)?
                .parse::<u32>()
                .ok()
        });
        if later >= Some(4) { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(lab.calls().len(), 1);
    // First status with the journal, and the finalizer.
    lab.until_writes(2).await;
    assert!(has_journal(&lab.get("lobby").await) && !has_journal(&lab.get("other").await));

    let _other = lab.another_operator().await;
    lab.until_ready_at("other", "other", &["c"]).await;
    lab.until_ready("lobby", &["b", "c"]).await;
}

#[tokio::test]
async fn two_operators_on_the_same_objects_leak_nothing_and_converge() {
    let mut lab = Lab::without_operator().await;
    lab.options.gs_timeout = Duration::from_secs(1);
    lab.options.kube_timeout = Duration::from_secs(1);
    lab.start_operator().await;
    let _other = lab.another_operator().await;
    let names: Vec<_> = (0..6).map(|number| format!("wall-{number}")).collect();
    for name in &names {
        lab.create_apart(name, &["a", "b"]).await;
    }
    lab.simulator.set_faults(Faults {
        drop_answers: 2,
        late_arrivals: 2,
        late_arrival_ms: 700,
        ..Faults::default()
    });
    for name in &names {
        lab.edit_ids(name, &["b", "c"]).await;
    }

    for name in &names {
        lab.until_ready_at(name, name, &["b", "c"]).await;
    }
    for name in &names {
        lab.delete(name).await;
    }
    for name in &names {
        lab.until_gone(name).await;
        assert!(lab.simulator.members(name).is_empty(), "{name}: {:?}", lab.history());
    }
}

#[tokio::test]
async fn two_operators_agree_on_the_owner_of_a_session() {
    let lab = Lab::start().await;
    let _other = lab.another_operator().await;
    lab.create_ready("first", &["a"]).await;
    lab.create("second", &["b"], json!({})).await;
    lab.until_reason("second", "SessionConflict").await;

    lab.delete("first").await;

    lab.until_gone("first").await;
    lab.until_ready("second", &["b"]).await;
}

/// So many ids, each as long as one can be.
fn long_ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:0width$}", width = InstanceId::LENGTH_MAX)).collect()
}

/// A megabyte takes its time on a busy machine.
async fn lab_with_long_signatures() -> Lab {
    let mut lab = Lab::with_validity(Duration::from_mins(1)).await;
    lab.options.kube_timeout = Duration::from_secs(30);
    lab
}

/// Waits for so many calls. Looking at them, or at the object, would cost the operator's time.
async fn until_arrivals(lab: &Lab, count: u64) {
    eventually(&format!("{count} arrivals"), async || {
        let arrivals =
            lab.simulator.stats().by_key.get(EXAMPLE_SECRET_ID).map_or(0, |key| key.arrivals);
        if arrivals >= count { Ok(()) } else { Err(format!("{arrivals}")) }
    })
    .await;
}

/// An object with this status, as if it had come to it by itself.
async fn create_with_status(lab: &Lab, ids: &[String], mut status: Value) {
    let metadata = json!({"name": "lobby", "finalizers": [FINALIZER]});
    let created = lab.create_with(metadata, spec(SESSION, ids)).await;
    status["observedGeneration"] = json!(1);
    status["objectUID"] = json!(created.metadata.uid);
    lab.edit_status("lobby", status).await;
}

#[tokio::test]
async fn a_full_ledger_attaches_nothing_new_says_so_and_continues_once_there_is_room() {
    let mut lab = lab_with_long_signatures().await;
    lab.options.batch_size = 1000.try_into().expect("not 0");
    let ids = |prefix: &str, count: usize| {
        (0..count).map(|number| format!("{prefix}-{number}")).collect::<Vec<_>>()
    };
    let stuck = |id: &String| {
        let refusals =
            json!({"operation": "Detach", "count": 5, "sinceTime": "2026-01-08T02:40:00Z"});
        json!({"instanceId": id, "state": "Attached", "refusals": refusals})
    };
    let target = json!({
        "sessionId": SESSION, "endpoint": lab.simulator.url(),
        "credential": "AKIDEXAMPLE", "credentialProven": true,
    });
    let members = ids("old", Ledger::RECORDS_MAX);
    lab.simulator.set_members(SESSION, members.clone());
    lab.simulator.set_faults(refuse_detach("*"));
    let records: Vec<Value> = members.iter().map(stuck).collect();
    create_with_status(
        &lab,
        &ids("new", 1000),
        json!({
            "attachedInstances": members.len(), "target": target, "unsettledInstances": records,
        }),
    )
    .await;

    lab.start_operator().await;

    until_arrivals(&lab, 2).await;
    let message = lab.until_reason("lobby", "TooManyInstances").await;
    assert!(
        message.contains("2000") && message.contains("gs.tencentcloud.dev/forget-instances"),
        "{message}"
    );
    assert!(
        lab.members().len() == Ledger::RECORDS_MAX && !lab.members().contains("new-0"),
        "{} calls",
        lab.history().len()
    );
    lab.simulator.set_faults(Faults::default());
    // At once, instead of after the pause of the refusals.
    lab.edit_ids("lobby", &["new-0", "new-1"]).await;
    eventually("the two alone", async || {
        let members = lab.members().len();
        if members == 2 { Ok(()) } else { Err(format!("{members} members")) }
    })
    .await;
    lab.until_ready("lobby", &["new-0", "new-1"]).await;
}

#[tokio::test]
async fn the_largest_status_that_there_can_be_is_written() {
    let mut lab = lab_with_long_signatures().await;
    let ids = long_ids(Ledger::RECORDS_MAX);
    let time = "2026-01-08T02:40:00Z";
    let code = "X".repeat(Ledger::CODE_LENGTH_MAX);
    let record = |id: &String| {
        json!({
            "instanceId": id, "state": "Detached",
            "attachMayArriveUntil": time, "detachMayArriveUntil": time, "assumed": true,
            "refusals": {"operation": "Attach", "count": 2_000_000_000, "sinceTime": time},
            "lastFailure": {
                "operation": "Attach", "reason": "Unanswered", "code": code,
                "attempts": 2_000_000_000, "time": time, "generation": 9_007_199_254_740_991_i64,
            },
        })
    };
    let status = json!({
        "attachedInstances": 0,
        "target": {
            "sessionId": SESSION, "endpoint": lab.simulator.url(),
            "credential": "A".repeat(256), "credentialProven": false,
        },
        "unsettledInstances": ids.iter().map(record).collect::<Vec<_>>(),
        "lastHandledForgetInstances": "f".repeat(256), "lastHandledAdopt": "a".repeat(256),
    });
    create_with_status(&lab, &ids[..1000], status).await;
    // Nothing succeeds, and every call costs each of its records one more failure.
    lab.simulator.set_faults(Faults {
        chances: serde_json::from_value(json!({"errors": {code: 1.0}})).expect("chances"),
        ..Faults::default()
    });

    lab.start_operator().await;

    until_arrivals(&lab, 3).await;
    lab.until_status("lobby", "answers are written", |status| {
        status.last_call.is_some() && status.unsettled_instances.len() == Ledger::RECORDS_MAX
    })
    .await;
    let metrics = lab.metrics().await;
    assert!(
        !metrics.contains(r#"streamsession_object_writes_total{outcome="failed"}"#),
        "{metrics}"
    );
}
