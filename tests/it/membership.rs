//! The daily work: attach, detach, swap, delete.

use serde_json::json;

use crate::harness::Lab;

#[tokio::test]
async fn a_new_session_is_attached_with_three_writes_and_one_call() {
    let lab = Lab::start().await;

    lab.create("lobby", &["a", "b", "c"], json!({})).await;

    lab.until_ready("lobby", &["a", "b", "c"]).await;
    lab.until_writes(3).await;
    assert_eq!(lab.calls().len(), 1);
}
