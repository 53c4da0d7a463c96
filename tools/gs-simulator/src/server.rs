//! The server around the service: connections, the API's route, and answers that never come.

mod admin;
mod metadata;
pub(crate) mod shared_service;
mod throttled_body;
pub(crate) mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::service::Reply;
use crate::service::request::{self, BODY_BYTES_MAX};
use shared_service::SharedService;
use throttled_body::ThrottledBody;

/// The service closes idle keep-alive connections after about 30 s: clients must cope with it here
/// too.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Accepting fails when the process has too many files open. They get closed; until then, retrying
/// at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const HELP: &str = "\
This is gs-simulator. It has POST / (the API) and, for you:
  GET /admin/sessions, PUT|DELETE /admin/sessions/{id}, GET /admin/calls, GET /admin/stats,
  GET|PUT /admin/unspecified-behaviour, GET|PUT|DELETE /admin/faults, GET|PUT /admin/identity,
  POST /admin/issued-keys/expire, POST /admin/reset.
";

/// Serves until the task is aborted; its connections end with it.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Arc<SharedService>,
    tls: Option<TlsAcceptor>,
) {
    let router = routes(Arc::clone(&service));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let service = Arc::clone(&service);
                    connections.spawn(accept(stream, tls.clone(), router.clone(), service));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Marks a response that must not be sent.
#[derive(Clone, Copy, Debug)]
struct NoAnswer;

/// Given to hyper instead of a response, it closes the connection and writes nothing: this is why
/// `axum::serve` is not used here.
#[derive(Debug, thiserror::Error)]
#[error("the simulator closes the connection")]
struct CloseConnection;

async fn accept(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    service: Arc<SharedService>,
) {
    // Without it, small answers wait for the client's acknowledgement. A socket that refuses the
    // option still works.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return serve_connection(stream, router, service).await };
    // A client that does not trust the certificate says so itself.
    if let Ok(Ok(stream)) = timeout(IDLE_MAX, tls.accept(stream)).await {
        serve_connection(stream, router, service).await;
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    service: Arc<SharedService>,
) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request: Request<Incoming>| {
        let response = router.call(request);
        let service = Arc::clone(&service);
        async move {
            let mut response = response.await.unwrap_or_else(|never: Infallible| match never {});
            if response.extensions().get::<NoAnswer>().is_some() {
                return Err(CloseConnection);
            }
            // Here and not by hyper, whose Date is the machine's: every answer bears the service's.
            response.headers_mut().insert(DATE, service.date());
            Ok(response)
        }
    });
    // An error is a client that went away, or a CloseConnection.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

fn routes(service: Arc<SharedService>) -> Router {
    Router::new()
        .route("/", post(api))
        .merge(admin::routes())
        .merge(metadata::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, HELP) })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, HELP) })
        .with_state(service)
}

async fn api(
    State(service): State<Arc<SharedService>>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    // A body that broke off reads like one that is too long; nobody is left to see the difference.
    let request = request::Request { headers, body: to_bytes(body, BODY_BYTES_MAX).await.ok() };
    match service.with_arrival(|service, at| service.receive(&request, at)) {
        Reply::Answer(answer) => {
            sleep(answer.delay).await;
            let body = match answer.body_throttle {
                Some(throttle) => Body::new(ThrottledBody::new(answer.body.into(), throttle)),
                None => answer.body.into(),
            };
            let status =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(CONTENT_TYPE, answer.content_type)], body).into_response()
        }
        Reply::Close => no_answer(),
        Reply::DeliverLate { request_id, delay } => {
            // Weak: a simulator that was dropped meanwhile is not kept alive for it.
            let service = Arc::downgrade(&service);
            tokio::spawn(async move {
                sleep(delay).await;
                if let Some(service) = service.upgrade() {
                    service.with_arrival(|service, at| {
                        service.receive_late(&request, request_id, at);
                    });
                }
            });
            no_answer()
        }
    }
}

fn no_answer() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(NoAnswer);
    response
}
