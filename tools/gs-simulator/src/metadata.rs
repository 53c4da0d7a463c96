//! The machine's metadata service, as far as credentials go (reference, section 4).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::sleep;

use crate::host::Host;
use crate::identity::Identity;

pub(crate) fn routes() -> Router<Arc<Host>> {
    Router::new()
        .route("/latest/meta-data/cam/security-credentials/", get(role))
        .route("/latest/meta-data/cam/security-credentials/{role}", get(keys))
}

async fn role(State(host): State<Arc<Host>>) -> Result<String, StatusCode> {
    let identity = host.with(|service| service.issuer.identity.clone());
    sleep(identity.delay()).await;
    up(&identity)?;
    identity.role.ok_or(StatusCode::NOT_FOUND)
}

async fn keys(
    State(host): State<Arc<Host>>,
    Path(role): Path<String>,
) -> Result<Response, StatusCode> {
    sleep(host.with(|service| service.issuer.identity.delay())).await;
    let keys = host.with_now(|service, now| {
        up(&service.issuer.identity)?;
        service.role_keys(&role, now).ok_or(StatusCode::NOT_FOUND)
    })?;
    let json = serde_json::to_string(&keys).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    // The real one says text, too.
    Ok(([(CONTENT_TYPE, "text/plain")], json).into_response())
}

fn up(identity: &Identity) -> Result<(), StatusCode> {
    let status = identity
        .metadata_status
        .map(|status| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    status.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::Value;

    use crate::client::{self, ATTACH, admin, split};
    use crate::{Identity, Options, Simulator};

    const PATH: &str = "/latest/meta-data/cam/security-credentials/";

    async fn get(simulator: &Simulator, path: &str) -> (String, String) {
        split(
            &client::exchange(
                simulator,
                "GET",
                path,
                &[("host", "localhost")].map(client::header).into_iter().collect(),
                "",
            )
            .await,
        )
    }

    #[tokio::test]
    async fn a_roles_keys_sign_calls_until_they_expire() {
        let identity = Identity { role: Some("phones".to_owned()), ..Identity::default() };
        let simulator = Simulator::start(Options { identity, ..Options::default() }).await.unwrap();

        assert_eq!(get(&simulator, PATH).await.1, "phones");
        let keys: Value =
            serde_json::from_str(&get(&simulator, &format!("{PATH}phones")).await.1).unwrap();
        let call = async || {
            let text = |name: &str| keys[name].as_str().unwrap();
            let answer = client::call_with(
                &simulator,
                ATTACH,
                text("TmpSecretId"),
                text("TmpSecretKey"),
                Some(text("Token")),
            )
            .await;
            split(&answer).1
        };

        assert!(call().await.contains("SuccessInstanceIds"));
        assert_eq!(simulator.stats().by_key["issued"].arrivals, 1);
        admin(&simulator, "POST", "/admin/issued-keys/expire", "").await;
        assert!(call().await.contains("AuthFailure.TokenFailure"));
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
    async fn a_machine_without_a_role_is_told_so_and_a_broken_service_is_broken() {
        let simulator = Simulator::start(Options::default()).await.unwrap();
        assert!(get(&simulator, PATH).await.0.starts_with("HTTP/1.1 404"));

        admin(&simulator, "PUT", "/admin/identity", r#"{"role":"phones","metadataStatus":503}"#)
            .await;

        assert!(get(&simulator, PATH).await.0.starts_with("HTTP/1.1 503"));
        assert!(get(&simulator, &format!("{PATH}phones")).await.0.starts_with("HTTP/1.1 503"));
    }
}
