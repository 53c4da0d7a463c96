//! Secrets, as the operator reads them: with `get` alone, once for all who want one, and kept.

use std::sync::Arc;

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use streamsession_core::object::ObjectKey;
use streamsession_operator::gs::{CredentialStore, Credentials, CredentialsError, OwnSettings};

use crate::fake_api::FakeApi;
use crate::fake_api::faults::{Fault, Injection, Site};
use crate::fake_api::store::Key;

const NAMESPACE: &str = "arcade";

/// An API server that has a Secret `tencent`, and a store that has read nothing yet.
struct Setting {
    api: Arc<FakeApi>,
    client: kube::Client,
    store: CredentialStore,
}

impl Setting {
    fn new() -> Self {
        let api = FakeApi::new();
        let client = api.client();
        api.create(&key(), &secret("AKID1"));
        Self { api, client, store: CredentialStore::new(OwnSettings::default()) }
    }

    async fn get(&self) -> Result<Credentials, CredentialsError> {
        self.get_for("lobby", "1").await
    }

    /// Those of the Secret, for the object of that name and uid.
    async fn get_for(&self, name: &str, uid: &str) -> Result<Credentials, CredentialsError> {
        let object = ObjectKey::new(NAMESPACE, name);
        self.store.get(&self.client, &object, uid, Some("tencent")).await
    }

    fn last_good(&self) -> Option<String> {
        self.last_good_for("lobby", "1")
    }

    fn last_good_for(&self, name: &str, uid: &str) -> Option<String> {
        let object = ObjectKey::new(NAMESPACE, name);
        Some(self.store.last_good(&object, uid, "tencent")?.secret_id)
    }
}

fn key() -> Key {
    Key::new("secrets", NAMESPACE, "tencent")
}

fn secret(id: &str) -> Value {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "data": {"secretId": bytes(id), "secretKey": bytes("k")},
    })
}

#[tokio::test]
async fn many_who_want_one_secret_at_once_read_it_once_and_it_is_kept() {
    let setting = Setting::new();

    let (first, second) = tokio::join!(setting.get(), setting.get());
    let third = setting.get().await;

    for credentials in [first, second, third] {
        assert_eq!(credentials.expect("credentials").secret_id, "AKID1");
    }
    assert_eq!(setting.api.requests(NAMESPACE), 1);
    let history = setting.api.history(NAMESPACE);
    assert!(history.contains("GET /api/v1/namespaces/arcade/secrets/tencent"), "{history}");
}

#[tokio::test]
async fn a_failed_read_fails_all_who_waited_for_it_and_the_next_one_reads_again() {
    let setting = Setting::new();
    let fault = Fault::Status(403);
    setting.api.inject(NAMESPACE, Injection { site: Site::GetSecret, skip: 0, times: 1, fault });

    let (first, second) = tokio::join!(setting.get(), setting.get());
    let third = setting.get().await;

    for error in [first, second] {
        assert_eq!(
            error.expect_err("no credentials").to_string(),
            "Secret arcade/tencent could not be read: an error of the test; it is tried again"
        );
    }
    assert_eq!(third.expect("credentials").secret_id, "AKID1");
    assert_eq!(setting.api.requests(NAMESPACE), 2);
}

#[tokio::test]
async fn a_refused_secret_is_read_again() {
    let setting = Setting::new();
    let refused = setting.get().await.expect("credentials");
    setting.api.patch(&key(), &secret("AKID2"));

    setting.store.invalidate(&refused);

    assert_eq!(setting.get().await.expect("credentials").secret_id, "AKID2");
}

#[tokio::test]
async fn the_last_credentials_survive_their_secret() {
    let setting = Setting::new();
    assert_eq!(setting.last_good(), None);
    let refused = setting.get().await.expect("credentials");
    setting.store.invalidate(&refused);
    setting.api.delete(&key());

    let error = setting.get().await.expect_err("no Secret");

    assert_eq!(
        error.to_string(),
        "Secret arcade/tencent does not exist; create it: \
         kubectl -n arcade create secret generic tencent \
         --from-literal=secretId=AKID... --from-literal=secretKey=..."
    );
    assert_eq!(setting.last_good(), Some("AKID1".to_owned()));
}

#[tokio::test]
async fn the_last_credentials_are_not_for_the_next_object_of_that_name() {
    let setting = Setting::new();
    setting.get_for("lobby", "1").await.expect("credentials");
    setting.api.delete(&key());

    let error = setting.get_for("lobby", "2").await.expect_err("no Secret");

    assert!(matches!(error, CredentialsError::NotFound { .. }), "{error}");
    assert_eq!(setting.last_good_for("lobby", "2"), None);
    assert_eq!(setting.api.requests(NAMESPACE), 2, "it was read for the second one");
}

#[tokio::test]
async fn many_objects_of_one_secret_share_what_was_read_after_they_asked() {
    let setting = Setting::new();
    let ask = async |name| setting.get_for(name, name).await.expect("credentials").secret_id;

    // The first one reads; the others came while that was under way, and share the next read.
    let (a, b, c, d) = tokio::join!(ask("a"), ask("b"), ask("c"), ask("d"));
    assert_eq!([a, b, c, d], ["AKID1"; 4]);
    assert_eq!(setting.api.requests(NAMESPACE), 2);

    for name in ["a", "b", "c", "d"] {
        assert_eq!(ask(name).await, "AKID1");
    }
    assert_eq!(setting.api.requests(NAMESPACE), 2);
}

#[tokio::test]
async fn keys_of_an_object_that_is_gone_are_forgotten() {
    let setting = Setting::new();
    setting.get().await.expect("credentials");

    setting.store.forget(&ObjectKey::new(NAMESPACE, "lobby"));

    assert_eq!(setting.last_good(), None);
}
