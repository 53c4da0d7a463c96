//! The admin routes: [`Simulator`](crate::Simulator)'s methods as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::de::DeserializeOwned;

use crate::calls::{Call, Stats};
use crate::faults::Faults;
use crate::host::Host;
use crate::identity::Identity;
use crate::mischief::Mischief;
use crate::service::Service;
use crate::world::World;

type Shared = State<Arc<Host>>;
type BadBody = (StatusCode, String);

pub(crate) fn routes() -> Router<Arc<Host>> {
    Router::new()
        .route("/admin/sessions", get(sessions))
        .route("/admin/sessions/{id}", put(set_members).delete(end_session))
        .route("/admin/calls", get(calls))
        .route("/admin/stats", get(stats))
        .route("/admin/world", get(world).put(set_world))
        .route("/admin/identity", get(identity).put(set_identity))
        .route("/admin/issued-keys/expire", post(expire_issued_keys))
        .route("/admin/faults", get(faults).put(set_faults).delete(clear_faults))
        .route("/admin/reset", post(reset))
}

async fn sessions(State(host): Shared) -> Json<BTreeMap<String, BTreeSet<String>>> {
    Json(host.with(|service| service.sessions.all().clone()))
}

async fn set_members(
    State(host): Shared,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, BadBody> {
    let members = from_json(&body)?;
    host.with(|service| service.sessions.set(&id, members));
    Ok(StatusCode::NO_CONTENT)
}

async fn end_session(State(host): Shared, Path(id): Path<String>) -> StatusCode {
    host.with(|service| service.sessions.end(&id));
    StatusCode::NO_CONTENT
}

async fn calls(State(host): Shared) -> Json<Vec<Call>> {
    Json(host.with(|service| service.calls().cloned().collect()))
}

async fn stats(State(host): Shared) -> Json<Stats> {
    Json(host.with(|service| service.stats()))
}

async fn world(State(host): Shared) -> Json<World> {
    Json(host.with(|service| service.world.clone()))
}

async fn set_world(State(host): Shared, body: Bytes) -> Result<Json<World>, BadBody> {
    let world: World = from_json(&body)?;
    host.with(|service| service.world = world.clone());
    Ok(Json(world))
}

async fn identity(State(host): Shared) -> Json<Identity> {
    Json(host.with(|service| service.issuer.identity.clone()))
}

async fn set_identity(State(host): Shared, body: Bytes) -> Result<Json<Identity>, BadBody> {
    let identity: Identity = from_json(&body)?;
    host.with(|service| service.issuer.identity = identity.clone());
    Ok(Json(identity))
}

async fn expire_issued_keys(State(host): Shared) -> StatusCode {
    host.with_now(Service::expire_issued_keys);
    StatusCode::NO_CONTENT
}

async fn faults(State(host): Shared) -> Json<Faults> {
    Json(host.with(|service| service.mischief.faults().clone()))
}

async fn set_faults(State(host): Shared, body: Bytes) -> Result<Json<Faults>, BadBody> {
    let faults: Faults = from_json(&body)?;
    host.with(|service| service.mischief = Mischief::new(faults.clone()));
    Ok(Json(faults))
}

async fn clear_faults(State(host): Shared) -> StatusCode {
    host.with(|service| service.mischief = Mischief::new(Faults::default()));
    StatusCode::NO_CONTENT
}

async fn reset(State(host): Shared) -> StatusCode {
    host.with(Service::reset);
    StatusCode::NO_CONTENT
}

/// Whatever its Content-Type: `curl -d` says that JSON is a form, and axum's `Json` would insist.
fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadBody> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("The body can't be used: {error}.\n")))
}
