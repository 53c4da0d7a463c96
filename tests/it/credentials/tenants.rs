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

/// Each of two tenants has a key of its own, and both keys are of one sub-account.
#[tokio::test]
async fn two_keys_of_one_sub_account_draw_on_one_quota() {
    let keys = gs_simulator::Keys::from([
        ("AKIDEXAMPLE".into(), Key::long_term("SECRETEXAMPLE")),
        ("AKIDOTHER".into(), Key::long_term("OTHER")),
    ]);
    let options = gs_simulator::Options { keys, ..gs_simulator::Options::default() };
    let mut lab = Lab::with(options).await;
    lab.options.gs_qps = std::num::NonZeroU32::MIN;
    lab.create_secret("other", "AKIDOTHER", "OTHER").await;
    for name in ["a", "b"] {
        lab.create_apart(name, &["x"]).await;
        let other = json!({"sessionId": format!("{name}-2"), "credentialsRef": {"name": "other"}});
        lab.create(&format!("{name}-2"), &["x"], other).await;
    }

    lab.start_operator().await;

    lab.until_calls(4).await;
    let calls = lab.calls();
    let keys: std::collections::BTreeSet<_> = calls.iter().map(|call| &call.secret_id).collect();
    assert_eq!(keys.len(), 2);
    let times: Vec<_> = calls.iter().map(|call| call.arrival_ms).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] > 1_000.0), "{times:?}");
}
