//! What every round needs, shared.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use streamsession_protocol::claims::Claims;
use streamsession_protocol::step::Settings;
use tracing::warn;

use super::events::Events;
use super::key::{ObjectKey, Scope};
use crate::api::ledger::Defaults;
use crate::gs;
use crate::queue::Limiter;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// What every round needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Its address, for messages.
    pub api_server: String,
    /// The service.
    pub gs: gs::Client,
    /// Who pays.
    pub credentials: gs::CredentialStore,
    /// The permits.
    pub limiter: Limiter<ObjectKey>,
    /// The protocol's numbers.
    pub settings: Settings,
    /// Ids in a call, at most, where the service called one too large; by account.
    pub batch_sizes: Mutex<HashMap<String, usize>>,
    /// What a silent spec means.
    pub defaults: Defaults,
    /// Plain HTTP is taken for any host.
    pub allow_insecure_endpoint: bool,
    /// Namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// Rounds at a time, besides those that hold a permit.
    pub concurrency: usize,
    /// For each request to the API server.
    pub kube_deadline: Duration,
    /// For each call of the service.
    pub call_deadline: Duration,
    /// Who drives which session.
    pub claims: Mutex<Claims<ObjectKey>>,
    /// Whether this process may still act.
    pub fence: Fence,
    /// Events, best effort.
    pub events: Events,
    /// The counters.
    pub metrics: Metrics,
    /// Whether all is listed.
    pub readiness: Readiness,
    /// When the process began.
    pub started: Instant,
}

impl Context {
    /// Ids in a call of the account, at most.
    #[must_use]
    pub fn batch_size_max(&self, account: &str) -> usize {
        let learned =
            self.batch_sizes.lock().unwrap_or_else(PoisonError::into_inner).get(account).copied();
        learned.unwrap_or(usize::MAX)
    }

    /// The service called a call of `ids` ids too large: the account's next ones have half of that.
    /// Of one id there is nothing to halve.
    pub fn too_large(&self, account: &str, ids: usize) {
        let half = ids / 2;
        let mut sizes = self.batch_sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if half > 0 && sizes.get(account).is_none_or(|size| *size > half) {
            warn!(
                ids,
                batch_size = half,
                "the service takes no calls of this size; --batch-size may be set to what it takes"
            );
            sizes.insert(account.to_owned(), half);
        }
    }

    /// Who drives which session.
    pub fn claims(&self) -> MutexGuard<'_, Claims<ObjectKey>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to watch.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        let named: BTreeSet<_> = self.namespaces.iter().collect();
        if named.is_empty() {
            vec![Scope::All]
        } else {
            named.into_iter().map(|name| Scope::Namespace(name.as_str().into())).collect()
        }
    }
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
