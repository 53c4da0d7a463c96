//! Temporary keys, from STS and the metadata service.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{ATTACH, admin, call_with, exchange, headers, plain, split, start};
use crate::service::faults::Faults;
use crate::service::identity::Identity;
use crate::service::keys::Key;
use crate::simulator::{Options, Simulator};

const PATH: &str = "/latest/meta-data/cam/security-credentials/";

async fn get(simulator: &Simulator, path: &str) -> (String, String) {
    plain(simulator, "GET", path, "").await
}

/// An attach that is signed with what STS or the metadata service issued: its answer.
async fn attach(simulator: &Simulator, issued: &Value) -> String {
    let text = |name: &str| issued[name].as_str().unwrap();
    let key = Key::temporary(text("TmpSecretKey"), text("Token"));
    split(&call_with(simulator, ATTACH, text("TmpSecretId"), &key).await).1
}

#[tokio::test]
async fn a_roles_keys_sign_calls_until_they_expire() {
    let identity = Identity { role: Some("phones".to_owned()), ..Identity::default() };
    let simulator = Simulator::start(Options { identity, ..Options::default() }).await.unwrap();

    assert_eq!(get(&simulator, PATH).await.1, "phones");
    let keys: Value =
        serde_json::from_str(&get(&simulator, &format!("{PATH}phones")).await.1).unwrap();

    assert!(attach(&simulator, &keys).await.contains("SuccessInstanceIds"));
    assert_eq!(simulator.stats().by_key["issued"].arrivals, 1);
    admin(&simulator, "POST", "/admin/issued-keys/expire", "").await;
    assert!(attach(&simulator, &keys).await.contains("AuthFailure.TokenFailure"));
}

#[tokio::test]
async fn a_slow_service_answers_all_the_same() {
    let identity =
        Identity { role: Some("phones".to_owned()), delay_ms: 30, ..Identity::default() };
    let simulator = Simulator::start(Options { identity, ..Options::default() }).await.unwrap();
    let started = Instant::now();
    assert_eq!(get(&simulator, PATH).await.1, "phones");
    assert!(started.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn a_machine_without_a_role_gets_404_and_a_failing_service_its_status() {
    let simulator = Simulator::start(Options::default()).await.unwrap();
    assert!(get(&simulator, PATH).await.0.starts_with("HTTP/1.1 404"));

    admin(&simulator, "PUT", "/admin/identity", r#"{"role":"phones","metadataStatus":503}"#).await;

    assert!(get(&simulator, PATH).await.0.starts_with("HTTP/1.1 503"));
    assert!(get(&simulator, &format!("{PATH}phones")).await.0.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn a_pods_token_gets_keys_that_sign_calls_and_the_history_shows_both() {
    let simulator = start(Faults::default()).await;
    let headers = headers(&[
        ("host", "sts.tencentcloudapi.com"),
        ("content-type", "application/json"),
        ("authorization", "SKIP"),
        ("x-tc-action", "AssumeRoleWithWebIdentity"),
        ("x-tc-version", "2018-08-13"),
        ("x-tc-region", "ap-guangzhou"),
    ]);
    let body = r#"{"ProviderId":"p","WebIdentityToken":"jwt","RoleArn":"r","RoleSessionName":"s",
                   "DurationSeconds":900}"#;

    let (_, answer) = split(&exchange(&simulator, "POST", "/", &headers, body).await);
    let keys = serde_json::from_str::<Value>(&answer).unwrap()["Response"]["Credentials"].clone();
    attach(&simulator, &keys).await;
    let text = |name: &str| keys[name].as_str().unwrap();
    let without_token = Key::long_term(text("TmpSecretKey"));
    call_with(&simulator, ATTACH, text("TmpSecretId"), &without_token).await;

    let outcomes: Vec<String> =
        simulator.calls().iter().map(|call| call.outcome.to_string()).collect();
    assert_eq!(outcomes, ["applied", "applied", "refused:AuthFailure.TokenFailure"]);
    assert_eq!(simulator.stats().keys_issued, 1);
}
