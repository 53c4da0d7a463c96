//! The machine's metadata service, as far as it issues credentials.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::sleep;

use super::shared_service::SharedService;
use crate::service::identity::Identity;

pub(crate) fn routes() -> Router<Arc<SharedService>> {
    Router::new()
        .route("/latest/meta-data/cam/security-credentials/", get(role))
        .route("/latest/meta-data/cam/security-credentials/{role}", get(keys))
}

async fn role(State(service): State<Arc<SharedService>>) -> Result<String, StatusCode> {
    let identity = service.with(|service| service.issuer.identity.clone());
    sleep(identity.delay()).await;
    check_available(&identity)?;
    identity.role.ok_or(StatusCode::NOT_FOUND)
}

async fn keys(
    State(service): State<Arc<SharedService>>,
    Path(role): Path<String>,
) -> Result<Response, StatusCode> {
    sleep(service.with(|service| service.issuer.identity.delay())).await;
    let keys = service.with_now(|service, now| {
        check_available(&service.issuer.identity)?;
        service.role_keys(&role, now).ok_or(StatusCode::NOT_FOUND)
    })?;
    let json = serde_json::to_string(&keys).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    // The real one says text, too.
    Ok(([(CONTENT_TYPE, "text/plain")], json).into_response())
}

fn check_available(identity: &Identity) -> Result<(), StatusCode> {
    let Some(status) = identity.metadata_status else { return Ok(()) };
    Err(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}
