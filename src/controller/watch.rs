//! The one watch: StreamSessions, summarised on arrival.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use kube::client::Body;
use kube::core::{DeserializeGuard, Status};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use streamsession_core::ids::InstanceId;
use streamsession_core::object::{ObjectKey, Scope};
use streamsession_core::scheduler::{Digest, Event};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::service_fn;
use tracing::{error, info, warn};

use super::context::{Context, scopes};
use super::reconcile::orphans;
use crate::api;
use crate::api::v1alpha1::{DeletionPolicy, StreamSession};
use crate::gs::error_chain;

/// Objects in a page where the API server has no streaming lists: the price of a page is memory.
pub(super) const PAGE: u32 = 50;
/// A page may take so many times as long as an object: some megabytes, if each object has its
/// thousand instances.
pub(super) const PAGE_DEADLINES: u32 = 6;

/// Starts a watch for each scope. They end only when nobody listens any more.
#[must_use = "dropping the watches ends them"]
pub fn spawn(context: &Arc<Context>, seen: &Sender<Event>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    for scope in scopes(&context.namespaces) {
        watches.spawn(watch(Arc::clone(context), scope, seen.clone()));
    }
    watches
}

type Object = DeserializeGuard<StreamSession>;

async fn watch(context: Arc<Context>, scope: Scope, seen: Sender<Event>) {
    let client = bounded(context.client.clone(), context.kube_deadline);
    let api: Api<Object> = match &scope {
        Scope::All => Api::all(client),
        Scope::Namespace(namespace) => Api::namespaced(client, namespace),
    };
    let mut config = watcher::Config::default().streaming_lists();
    let mut pauses = watcher::DefaultBackoff::default();
    loop {
        match follow(&context, &scope, api.clone(), config.clone(), &seen).await {
            WatchEnd::NobodyListens => return,
            // kube's own watcher asks again for ever where streaming lists are switched off: the
            // fall-back is ours.
            WatchEnd::StreamingIsForbidden => {
                info!("the API server has no streaming lists; falling back to pages of {PAGE}");
                config = watcher::Config::default().page_size(PAGE);
            }
            WatchEnd::Lost => {
                if let Some(pause) = pauses.next() {
                    sleep(pause).await;
                }
            }
        }
    }
}

/// A client whose requests are answered within a deadline or fail: kube's own watcher would wait
/// without end, and see nothing meanwhile.
fn bounded(client: Client, deadline: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(service_fn(move |request| answer(client.clone(), request, deadline)), namespace)
}

/// The answer's head within the deadline; and the body too, but that of a watch, which goes on.
async fn answer(
    client: Client,
    request: Request<Body>,
    deadline: Duration,
) -> kube::Result<Response<Body>> {
    let is_watch = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|parameter| parameter == "watch=true"));
    let late = |_| kube::Error::Service("no answer in time".into());
    let response = timeout(deadline, client.send(request)).await.map_err(late)??;
    if is_watch {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let body = timeout(deadline * PAGE_DEADLINES, body.collect_bytes()).await.map_err(late)??;
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Why a watch is followed no longer.
enum WatchEnd {
    NobodyListens,
    /// It has to be tried without.
    StreamingIsForbidden,
    /// Changes may have been missed: everything has to be listed anew.
    Lost,
}

/// Follows the watch, over everything that it can be resumed after.
async fn follow(
    context: &Context,
    scope: &Scope,
    api: Api<Object>,
    config: watcher::Config,
    seen: &Sender<Event>,
) -> WatchEnd {
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(problem) => {
                context.metrics.watch_errors.inc();
                if streaming_is_forbidden(&problem) {
                    return WatchEnd::StreamingIsForbidden;
                }
                if is_lost(&problem) {
                    info!(error = %problem, "the watch can't be resumed; listing anew");
                    return WatchEnd::Lost;
                }
                report(context, scope, &problem);
                continue;
            }
        };
        let seeing = match event {
            watcher::Event::Init => Some(Event::ListBegan(scope.clone())),
            watcher::Event::InitDone => Some(Event::ListEnded(scope.clone())),
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                digest(context, object)
            }
            watcher::Event::Delete(object) => {
                report_left_behind(context, &object);
                key(&object).map(Event::Gone)
            }
        };
        if let Some(seeing) = seeing
            && seen.send(seeing).await.is_err()
        {
            return WatchEnd::NobodyListens;
        }
    }
    WatchEnd::NobodyListens
}

fn key(object: &Object) -> Option<ObjectKey> {
    Some(ObjectKey { namespace: object.namespace()?.into(), name: object.name_any().into() })
}

/// An object that went while its ledger still named instances: somebody took its finalizer off.
/// What `Orphan` leaves is told by whoever let it go.
fn report_left_behind(context: &Context, object: &Object) {
    let (Some(key), Ok(object)) = (key(object), &object.0) else { return };
    if object.spec.deletion_policy == DeletionPolicy::Orphan {
        return;
    }
    let left = orphans(object, &context.defaults);
    if !left.is_empty() {
        let ids: Vec<_> = left.iter().map(InstanceId::as_str).collect();
        let target = object.status.as_ref().and_then(|status| status.target.as_ref());
        let session = target.map(|target| target.session_id.as_str());
        warn!(
            object = %key,
            session,
            ?ids,
            "the object is gone without its finalizer, and its ledger still named these instances: \
             look in the console whether they are in the session"
        );
    }
}

fn digest(context: &Context, object: Object) -> Option<Event> {
    let key = key(&object)?;
    match object.0 {
        Ok(object) => {
            let digest = api::view(&object, &context.defaults).map_or_else(
                |_| Digest::unreadable(object.resource_version().unwrap_or_default().into()),
                |view| Digest::of(&view),
            );
            Some(Event::Seen(key, digest))
        }
        Err(invalid) => {
            error!(object = %key, error = %invalid.error, "this StreamSession can't be decoded and is left alone. Compare the CRD with the operator's version");
            None
        }
    }
}

/// What the API server said, if it is that which failed.
fn refusal(problem: &watcher::Error) -> Option<&Status> {
    use watcher::Error::{InitialListFailed, WatchError, WatchStartFailed};
    match problem {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchError(status) => Some(status),
        _ => None,
    }
}

/// A server without streaming lists calls the request for one invalid.
fn streaming_is_forbidden(problem: &watcher::Error) -> bool {
    refusal(problem).is_some_and(Status::is_invalid)
}

/// kube's own watcher would go on: ask for a version that is gone again and again, or skip the
/// change that it could not read.
fn is_lost(problem: &watcher::Error) -> bool {
    match problem {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        watcher::Error::WatchFailed(kube::Error::SerdeError(_)) => true,
        _ => false,
    }
}

fn report(context: &Context, scope: &Scope, problem: &watcher::Error) {
    let what = match refusal(problem).map(|status| status.code) {
        Some(404) => {
            "the API server does not know StreamSessions: install the CustomResourceDefinition (`streamsession-operator crd | kubectl apply --server-side -f -`)".to_owned()
        }
        Some(403) => format!("the operator may not list and watch StreamSessions ({problem}): see deploy/base/rbac.yaml"),
        Some(401) => format!("the API server does not accept the operator's credentials ({problem})"),
        Some(429) => "the API server is not ready for StreamSessions yet".to_owned(),
        // A dropped watch is an everyday thing, and resumed.
        _ if matches!(problem, watcher::Error::WatchFailed(_) | watcher::Error::WatchError(_)) => {
            info!(error = %problem, "the watch was interrupted and is resumed");
            return;
        }
        _ => format!("the API server at {} can't be reached ({})", context.api_server, error_chain(problem)),
    };
    context.readiness.failed(scope.name(), &what);
    warn!("{what}; trying again");
}
