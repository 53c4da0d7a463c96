//! A name that is used again: keys that were read for one object are not for the next one of its
//! name.

use streamsession_operator::api::FINALIZER;

use super::*;
use crate::harness::spec;

/// A lab whose object `lobby` has held an instance, and is gone together with its Secret.
async fn lab_of_a_tenant_who_left() -> Lab {
    let lab = Lab::with_members(&["a"]).await;
    lab.delete("lobby").await;
    lab.until_gone("lobby").await;
    lab.delete_secret("tencent").await;
    assert_eq!(lab.history(), ["Attach a", "Detach a"]);
    lab
}

#[tokio::test]
async fn the_next_object_of_a_name_can_not_attach_with_the_keys_of_the_one_before() {
    let lab = lab_of_a_tenant_who_left().await;

    lab.create("lobby", &["b"], json!({})).await;

    let message = lab.until_reason("lobby", "CredentialsNotFound").await;
    let expected = format!("Secret {}/tencent does not exist", lab.namespace);
    assert!(message.starts_with(&expected), "{message}");
    assert_eq!(lab.history(), ["Attach a", "Detach a"]);
}

#[tokio::test]
async fn the_next_object_of_a_name_can_not_detach_with_the_keys_of_the_one_before() {
    let lab = lab_of_a_tenant_who_left().await;

    // As restored from a backup: without a ledger, so that it has to be detached to be deleted.
    let metadata = json!({"name": "lobby", "finalizers": [FINALIZER]});
    lab.create_with(metadata, spec(SESSION, ["a"])).await;
    lab.delete("lobby").await;

    lab.until_reason("lobby", "CredentialsNotFound").await;
    assert_eq!(lab.history(), ["Attach a", "Detach a"]);
}
