//! Two operators on the same objects, an operator whose fence is closed, and a ledger at its bound.

use std::time::Duration;

use gs_simulator::{EXAMPLE_SECRET_ID, Faults, Operation, Refusing};
use kube::api::PostParams;
use serde_json::{Value, json};
use streamsession_operator::api::v1alpha1::StreamSession;

use crate::harness::{Lab, SESSION, eventually, slow};

fn of_another(object: &StreamSession) -> bool {
    object.status.as_ref().is_some_and(|status| status.pending_call.is_some())
}

#[tokio::test]
async fn an_operator_whose_fence_is_closed_calls_and_writes_nothing_and_its_call_is_taken_over() {
    let mut lab = Lab::without_operator().await;
    // How long a journal of someone else is left alone hangs on this.
    lab.options.kube_timeout = Duration::from_secs(2);
    lab.start_operator().await;
    lab.simulator.set_faults(slow());
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_calls(1).await;

    lab.fence().close();
    lab.simulator.set_faults(Faults::default());
    lab.create("other", &["c"], json!({"sessionId": "other"})).await;
    lab.edit_ids("lobby", &["b", "c"]).await;

    // Rounds that wanted to act and had to rest: that of the call, and that of the new object.
    let url = format!("http://{}/metrics", lab.admin());
    eventually("rounds that may not act", async || {
        let text = reqwest::get(&url).await.expect("an answer").text().await.expect("a text");
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
    assert!(of_another(&lab.get("lobby").await) && !of_another(&lab.get("other").await));

    let _other = lab.another_operator().await;
    lab.until_ready_at("other", "other", &["c"]).await;
    lab.until_ready("lobby", &["b", "c"]).await;
}

#[tokio::test]
async fn two_operators_on_the_same_objects_leak_nothing_and_come_to_rest() {
    let mut lab = Lab::without_operator().await;
    lab.options.gs_timeout = Duration::from_secs(1);
    lab.options.kube_timeout = Duration::from_secs(1);
    lab.start_operator().await;
    let _other = lab.another_operator().await;
    let names: Vec<_> = (0..6).map(|number| format!("wall-{number}")).collect();
    for name in &names {
        lab.create(name, &["a", "b"], json!({"sessionId": name})).await;
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
async fn two_operators_agree_on_who_drives_a_session() {
    let lab = Lab::start().await;
    let _other = lab.another_operator().await;
    lab.create("first", &["a"], json!({})).await;
    lab.until_ready("first", &["a"]).await;
    lab.create("second", &["b"], json!({})).await;
    lab.until_reason("second", "SessionConflict").await;

    lab.delete("first").await;

    lab.until_gone("first").await;
    lab.until_ready("second", &["b"]).await;
}

/// An id as long as one can be.
fn long(prefix: &str, number: usize) -> String {
    format!("{:-<128}", format!("{prefix}-{number:04}-"))
}

fn longs(prefix: &str) -> Vec<String> {
    (0..1000).map(|number| long(prefix, number)).collect()
}

/// A megabyte takes its time on a busy machine.
async fn lab_with_long_signatures() -> Lab {
    let signature_validity = Duration::from_mins(1);
    let mut lab =
        Lab::with(gs_simulator::Options { signature_validity, ..gs_simulator::Options::default() })
            .await;
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
async fn create_with(lab: &Lab, ids: &[String], mut status: Value) {
    let object = json!({
        "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession",
        "metadata": {"name": "lobby", "finalizers": ["gs.tencentcloud.dev/detach"]},
        "spec": {"sessionId": SESSION, "slaveInstanceIds": ids, "credentialsRef": {"name": "tencent"}},
    });
    let created: StreamSession = serde_json::from_value(object).expect("a StreamSession");
    let created = lab.sessions.create(&PostParams::default(), &created).await.expect("created");
    status["observedGeneration"] = json!(1);
    status["objectUID"] = json!(created.metadata.uid);
    lab.edit_status("lobby", status).await;
}

#[tokio::test]
async fn a_full_ledger_attaches_nobody_new_says_so_and_goes_on_once_there_is_room() {
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
    let target = json!({"sessionId": SESSION, "endpoint": lab.simulator.url(), "credential": "AKIDEXAMPLE", "credentialProven": true});
    let held = ids("old", 2000);
    lab.simulator.set_members(SESSION, held.clone());
    let keeping = Refusing { pattern: "*".into(), tries: None, operation: Operation::Detach };
    lab.simulator.set_faults(Faults { refusing: vec![keeping], ..Faults::default() });
    let records: Vec<Value> = held.iter().map(stuck).collect();
    create_with(
        &lab,
        &ids("new", 1000),
        json!({"attachedInstances": 2000, "target": target, "unsettledInstances": records}),
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
        lab.members().len() == 2000 && !lab.members().contains("new-0"),
        "{:?}",
        lab.history().len()
    );
    lab.simulator.set_faults(Faults::default());
    // At once, instead of after the pause of the refusals.
    lab.edit_ids("lobby", &["new-0", "new-1"]).await;
    eventually("the two alone", async || {
        if lab.members().len() == 2 {
            Ok(())
        } else {
            Err(format!("{} members", lab.members().len()))
        }
    })
    .await;
    lab.until_ready("lobby", &["new-0", "new-1"]).await;
}

#[tokio::test]
async fn the_largest_status_that_there_can_be_is_written() {
    let mut lab = lab_with_long_signatures().await;
    let time = "2026-01-08T02:40:00Z";
    let code = "X".repeat(64);
    let failure = json!({"operation": "Attach", "reason": "Unanswered", "code": code, "attempts": 2_000_000_000, "time": time});
    let record = |id: String| {
        json!({
            "instanceId": id, "state": "Detached", "attachMayArriveUntil": time, "detachMayArriveUntil": time, "assumed": true,
            "refusals": {"operation": "Attach", "count": 2_000_000_000, "sinceTime": time}, "lastFailure": failure,
        })
    };
    let status = json!({
        "attachedInstances": 0,
        "target": {"sessionId": SESSION, "endpoint": lab.simulator.url(), "credential": "A".repeat(256), "credentialProven": false},
        "unsettledInstances": longs("one").into_iter().chain(longs("two")).map(record).collect::<Vec<_>>(),
        "lastHandledForgetInstances": "f".repeat(256), "lastHandledAdopt": "a".repeat(256),
    });
    create_with(&lab, &longs("two"), status).await;
    // Nothing succeeds, and every call costs each of its records one more failure.
    lab.simulator.set_faults(Faults {
        chances: serde_json::from_value(json!({"errors": {code: 1.0}})).expect("chances"),
        ..Faults::default()
    });

    lab.start_operator().await;

    until_arrivals(&lab, 3).await;
    lab.until_status("lobby", "answers are written", |status| {
        status.last_call.is_some() && status.unsettled_instances.len() == 2000
    })
    .await;
    let metrics = reqwest::get(format!("http://{}/metrics", lab.admin()))
        .await
        .expect("an answer")
        .text()
        .await
        .expect("a text");
    assert!(
        !metrics.contains(r#"streamsession_object_writes_total{outcome="failed"}"#),
        "{metrics}"
    );
}
