//! How the operator ends, by SIGTERM or killed, and starts again: nothing leaks, and nothing is
//! done twice. Some with the real process.

use std::time::Duration;

use gs_simulator::{Faults, Operation, Outcome};
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Lab, eventually, set, slow};
use crate::process::start_process;

#[tokio::test]
async fn a_call_that_arrives_after_its_operator_was_killed_leaks_nothing() {
    // Long enough for a call that arrives after the next operator's first one.
    let mut lab = Lab::with_validity(Duration::from_secs(8)).await;
    lab.simulator.set_faults(Faults {
        late_arrivals: 1,
        late_arrival_ms: 4000,
        ..Faults::default()
    });
    // No second attach before the kill: the next operator would wait for its writer for longer than
    // the late one needs.
    lab.options.retry_base = Duration::from_secs(30);
    lab.start_operator().await;
    lab.create("lobby", &["a"], json!({})).await;
    lab.until_status("lobby", "a is in doubt", |status| !status.unsettled_instances.is_empty())
        .await;
    lab.kill_operator().await;

    lab.edit_ids("lobby", &[]).await;
    lab.start_operator().await;

    lab.until_ready("lobby", &[]).await;
    let calls = lab.calls();
    let late =
        calls.iter().position(|call| call.outcome == Outcome::LateApplied).expect("a late arrival");
    assert!(
        calls[..late].iter().any(|call| call.operation == Some(Operation::Detach)),
        "{:?}",
        lab.history()
    );
}

#[tokio::test]
async fn a_deletion_whose_operator_was_killed_ends_with_nothing_attached() {
    let mut lab = Lab::with_members(&["a", "b"]).await;
    lab.simulator.set_faults(slow());
    lab.delete("lobby").await;
    lab.until_calls(2).await;
    lab.kill_operator().await;
    lab.simulator.set_faults(Faults::default());

    lab.start_operator().await;

    lab.until_gone("lobby").await;
    assert!(lab.members().is_empty());
}

#[tokio::test]
async fn a_process_that_was_killed_before_the_answer_leaks_nothing_when_the_spec_changes() {
    let lab = Lab::without_operator().await;
    lab.simulator.set_faults(slow());
    let mut process = start_process(&lab);
    lab.create("lobby", &["a", "b"], json!({})).await;
    lab.until_calls(1).await;
    process.kill().await.expect("SIGKILL");
    assert!(lab.get("lobby").await.status.unwrap().pending_call.is_some());
    assert_eq!(lab.members(), set(&["a", "b"]));
    lab.simulator.set_faults(Faults::default());

    lab.edit_ids("lobby", &["b", "c"]).await;
    let _process = start_process(&lab);

    lab.until_ready("lobby", &["b", "c"]).await;
}

#[tokio::test]
async fn a_process_that_gets_sigterm_settles_its_call_first() {
    let lab = Lab::without_operator().await;
    lab.simulator.set_faults(slow());
    let mut process = start_process(&lab);
    lab.create("lobby", &["a"], json!({})).await;
    lab.until_calls(1).await;
    assert!(lab.get("lobby").await.status.unwrap().pending_call.is_some());

    let pid = process.id().expect("a process").to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill").success());

    let ended = timeout(DEADLINE, process.wait()).await.expect("in time").expect("a status");
    assert_eq!(ended.code(), Some(0));
    let status = lab.get("lobby").await.status.unwrap();
    assert_eq!((status.pending_call, status.attached_instance_ids), (None, vec!["a".to_owned()]));
    assert_eq!(lab.history(), ["Attach a"]);
}

#[tokio::test]
async fn a_converged_fleet_is_restarted_without_a_call_or_a_write() {
    let mut lab = Lab::start().await;
    let names: Vec<_> = (0..30).map(|number| format!("wall-{number}")).collect();
    for name in &names {
        lab.create_apart(name, &["a", "b", "c", "d", "e"]).await;
    }
    for name in &names {
        lab.until_attached(name, &["a", "b", "c", "d", "e"]).await;
    }
    lab.until_writes(30 * 3).await;
    lab.stop_operator().await;

    lab.start_operator().await;
    lab.until_marked().await;

    lab.until_writes(30 * 3 + 3).await;
    assert_eq!(lab.calls().len(), 30 + 1);
}

#[tokio::test]
async fn the_admin_server_answers_livez_readyz_and_metrics() {
    let lab = Lab::with_members(&["a"]).await;

    let (livez, readyz) = (lab.admin_get("/livez").await, lab.admin_get("/readyz").await);

    assert_eq!((livez, readyz), ((200, "ok\n".to_owned()), (200, "ok\n".to_owned())));
    // The status is there a moment before the reconcile that wrote it is counted.
    eventually("the counters", async || {
        let (code, metrics) = lab.admin_get("/metrics").await;
        let expected = [
            r#"streamsession_gs_calls_total{operation="attach",outcome="processed"} 1"#,
            r#"streamsession_gs_instances_total{operation="attach",outcome="succeeded"} 1"#,
            r#"streamsession_object_writes_total{outcome="written"} 3"#,
            r#"streamsession_reconciles_total{outcome="at_rest"} 1"#,
            "streamsession_objects 1",
        ];
        let complete = expected.iter().all(|line| metrics.lines().any(|found| found == *line));
        if code == 200 && complete { Ok(()) } else { Err(metrics) }
    })
    .await;
}
