//! What every reconcile needs, shared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::Client;
use streamsession_core::object::Scope;

use super::events::Events;
use super::shared_scheduler::SharedScheduler;
use crate::api::Defaults;
use crate::gs;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// What every reconcile needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Its address, for messages.
    pub api_server: String,
    /// The service.
    pub gs: gs::Client,
    /// The credentials.
    pub credentials: gs::CredentialStore,
    /// Whose they are.
    pub identities: gs::Identities,
    /// Which object is reconciled when.
    pub scheduler: SharedScheduler,
    /// What a silent spec means.
    pub defaults: Defaults,
    /// Where all calls go, whatever a status says.
    pub endpoint: gs::Endpoint,
    /// Namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// For each request to the API server.
    pub kube_deadline: Duration,
    /// For each call of the service.
    pub call_deadline: Duration,
    /// Whether this process may still act.
    pub fence: Fence,
    /// Events, best effort.
    pub events: Events,
    /// The counters.
    pub metrics: Metrics,
    /// Whether all is listed.
    pub readiness: Readiness,
}

/// What to watch, if these namespaces are named; none: all.
#[must_use]
pub fn scopes(namespaces: &[String]) -> Vec<Scope> {
    let named: BTreeSet<_> = namespaces.iter().collect();
    if named.is_empty() {
        return vec![Scope::All];
    }
    named.into_iter().map(|name| Scope::Namespace(name.as_str().into())).collect()
}

/// Whether this process may still act: asked before each call and each write. It saves calls; no
/// promise rests on it.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    /// Another process acts now: this one does nothing more.
    pub fn close(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it may act.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }
}
