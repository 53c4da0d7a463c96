//! The daily work: attach, detach, swap, and what each of them costs.

use gs_simulator::Faults;
use serde_json::json;

use crate::harness::{Lab, ready};

#[tokio::test]
async fn a_new_session_is_attached_with_three_writes_and_one_call() {
    let lab = Lab::start().await;

    lab.create("lobby", &["a", "b", "c"], json!({})).await;

    lab.until_ready("lobby", &["a", "b", "c"]).await;
    lab.until_writes(3).await;
    assert_eq!(lab.history(), ["Attach a,b,c"]);
}

#[tokio::test]
async fn a_change_of_one_batch_costs_two_writes_and_one_call() {
    let lab = Lab::with_members(&["a"]).await;
    lab.until_writes(3).await;

    lab.edit_ids("lobby", &["a", "b", "c"]).await;

    lab.until_ready("lobby", &["a", "b", "c"]).await;
    lab.until_writes(5).await;
    assert_eq!(lab.history(), ["Attach a", "Attach b,c"]);
}

#[tokio::test]
async fn an_edit_that_needs_no_call_costs_one_write() {
    let lab = Lab::with_members(&["a"]).await;
    lab.until_writes(3).await;

    lab.edit("lobby", json!({"deletionPolicy": "Orphan"})).await;

    lab.until_ready("lobby", &["a"]).await;
    lab.until_writes(4).await;
    assert_eq!(lab.history(), ["Attach a"]);
}

#[tokio::test]
async fn an_update_that_changes_no_spec_costs_nothing() {
    let lab = Lab::with_members(&["a"]).await;
    lab.until_writes(3).await;

    lab.edit_metadata("lobby", json!({"labels": {"touched": "yes"}})).await;
    lab.until_marked().await;

    lab.until_writes(3 + 3).await;
    assert_eq!(lab.history(), ["Attach a", "Attach marked"]);
}

#[tokio::test]
async fn a_swap_removes_before_it_adds() {
    let lab = Lab::with_members(&["a", "b"]).await;

    lab.edit_ids("lobby", &["b", "c"]).await;

    lab.until_ready("lobby", &["b", "c"]).await;
    assert_eq!(lab.history(), ["Attach a,b", "Detach a", "Attach c"]);
}

#[tokio::test]
async fn an_empty_list_is_ready_with_one_write_and_no_call() {
    let lab = Lab::start().await;

    lab.create("lobby", &[], json!({})).await;

    let object = lab.until_ready("lobby", &[]).await;
    lab.until_writes(1).await;
    assert!(lab.calls().is_empty());
    assert_eq!(object.metadata.finalizers, None, "nothing to detach, nothing to wait for");
}

#[tokio::test]
async fn two_hundred_and_fifty_instances_are_three_calls_and_four_status_writes() {
    let lab = Lab::start().await;
    let ids: Vec<_> = (0..250).map(|number| format!("phone-{number:03}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    // Answers slower than the distance between two permits: the next permit is at hand when a batch
    // settles.
    lab.simulator.set_faults(Faults { delay_ms: 200, ..Faults::default() });

    lab.create("lobby", &ids, json!({})).await;

    lab.until_ready("lobby", &ids).await;
    let sizes: Vec<_> = lab.calls().iter().map(|call| call.instance_ids.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    lab.until_writes(4 + 1).await;
    assert_eq!(lab.writes().iter().filter(|write| *write == "update/status").count(), 4);
}

#[tokio::test]
async fn a_fleet_is_attached_with_one_call_each_and_never_more_than_twenty_in_a_second() {
    let lab = Lab::start().await;
    let names: Vec<_> = (0..30).map(|number| format!("wall-{number}")).collect();

    for name in &names {
        lab.create_apart(name, &["a", "b"]).await;
    }

    for name in &names {
        lab.until_attached(name, &["a", "b"]).await;
    }
    assert_eq!(lab.calls().len(), names.len());
    let stats = lab.simulator.stats();
    assert!(stats.max_arrivals_in_one_second <= 20 && stats.throttled == 0, "{stats:?}");
}

#[tokio::test]
async fn an_empty_list_detaches_all() {
    let lab = Lab::with_members(&["a", "b"]).await;

    lab.edit_ids("lobby", &[]).await;

    let object = lab.until_ready("lobby", &[]).await;
    assert_eq!(lab.history(), ["Attach a,b", "Detach a,b"]);
    assert_eq!(ready(&object).2, "No slave instance is wanted, and none is attached.");
}
