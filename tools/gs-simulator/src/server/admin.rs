//! The admin routes: what [`Service`] holds, as JSON.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post, put};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shared_service::SharedService;
use crate::service::Service;
use crate::service::calls::Call;
use crate::service::faults::Faults;

type Shared = State<Arc<SharedService>>;
type Route = MethodRouter<Arc<SharedService>>;
type BadBody = (StatusCode, String);

pub(crate) fn routes() -> Router<Arc<SharedService>> {
    Router::new()
        .route("/admin/sessions", show(|service| service.sessions.all().clone()))
        .route("/admin/sessions/{id}", put(set_members).delete(end_session))
        .route("/admin/calls", show(|service| service.calls().cloned().collect::<Vec<Call>>()))
        .route("/admin/stats", show(Service::stats))
        .route(
            "/admin/unspecified-behaviour",
            show(|service| service.unspecified_behaviour.clone())
                .merge(replace(|service, behaviour| service.unspecified_behaviour = behaviour)),
        )
        .route(
            "/admin/identity",
            show(|service| service.issuer.identity.clone())
                .merge(replace(|service, identity| service.issuer.identity = identity)),
        )
        .route("/admin/issued-keys/expire", post(expire_issued_keys))
        .route(
            "/admin/faults",
            show(|service| service.faults().clone())
                .merge(replace(Service::set_faults))
                .delete(clear_faults),
        )
        .route("/admin/reset", post(reset))
}

fn show<T: Serialize + 'static>(read: fn(&Service) -> T) -> Route {
    get(move |State(service): Shared| async move { Json(service.with(|service| read(service))) })
}

/// Answers the new value: with what the body left out.
fn replace<T>(write: fn(&mut Service, T)) -> Route
where
    T: Clone + Serialize + DeserializeOwned + 'static,
{
    put(move |State(service): Shared, body: Bytes| async move {
        let value: T = from_json(&body)?;
        service.with(|service| write(service, value.clone()));
        Ok::<_, BadBody>(Json(value))
    })
}

async fn set_members(
    State(service): Shared,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, BadBody> {
    let members = from_json(&body)?;
    service.with(|service| service.sessions.set(&id, members));
    Ok(StatusCode::NO_CONTENT)
}

async fn end_session(State(service): Shared, Path(id): Path<String>) -> StatusCode {
    service.with(|service| service.sessions.end(&id));
    StatusCode::NO_CONTENT
}

async fn expire_issued_keys(State(service): Shared) -> StatusCode {
    service.with_now(Service::expire_issued_keys);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(service): Shared) -> StatusCode {
    service.with(|service| service.set_faults(Faults::default()));
    StatusCode::NO_CONTENT
}

async fn reset(State(service): Shared) -> StatusCode {
    service.with(Service::reset);
    StatusCode::NO_CONTENT
}

/// Whatever its Content-Type: `curl -d` says that JSON is a form, and axum's `Json` would insist.
fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadBody> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("The body can't be used: {error}.\n")))
}
