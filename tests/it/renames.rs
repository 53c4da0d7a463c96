//! A rename or a move in Git: a new object with the same session and phones, and the old one is
//! pruned while both are there. What both want stays in the session.

use serde_json::json;

use crate::contenders::{detaches, lab_with_contender, lab_with_long_timeouts, until_older};
use crate::harness::{Lab, set};

/// What only the old one wants is detached, once, and nothing else is.
async fn until_handed_over(lab: &Lab, new: &Lab) {
    lab.until_gone("first").await;
    new.until_condition_ready("second").await;
    assert_eq!(detaches(&lab.history()), ["Detach a"]);
    assert_eq!(lab.members(), set(&["shared", "b"]));
}

#[tokio::test]
async fn another_name_for_the_same_session() {
    let lab = lab_with_contender().await;

    lab.delete("first").await;

    until_handed_over(&lab, &lab).await;
    lab.until_event("first", "InstancesHandedOver").await;
}

#[tokio::test]
async fn another_namespace_for_the_same_session() {
    let mut lab = lab_with_long_timeouts().await;
    let other = lab.in_another_namespace().await;
    lab.stop_operator().await;
    lab.options.namespaces.push(other.namespace.clone());
    lab.start_operator().await;
    lab.create_ready("first", &["shared", "a"]).await;

    other.create("second", &["shared", "b"], json!({})).await;
    lab.delete("first").await;

    until_handed_over(&lab, &other).await;
}

#[tokio::test]
async fn another_name_while_no_operator_runs() {
    let mut lab = lab_with_long_timeouts().await;
    lab.create_ready("first", &["shared", "a"]).await;
    lab.stop_operator().await;

    until_older(&lab, "first").await;
    lab.create("second", &["shared", "b"], json!({})).await;
    lab.delete("first").await;
    lab.start_operator().await;

    until_handed_over(&lab, &lab).await;
}
