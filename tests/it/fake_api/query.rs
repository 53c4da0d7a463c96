//! A request to the faked API server, parsed.

use http::{Method, Request};
use serde_json::Value;
use streamsession_operator::api::FINALIZER;
use tower::BoxError;

use super::faults::{Site, status_site};
use super::store::{Key, Store};

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Query {
    pub method: Method,
    pub target: String,
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
    parameters: Vec<(String, String)>,
    pub body: Value,
}

impl Query {
    pub async fn of(request: Request<kube::client::Body>) -> Result<Self, BoxError> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        let mut segments =
            parts.uri.path().split('/').filter(|segment| !segment.is_empty()).map(str::to_owned);
        // `api/v1` or `apis/GROUP/VERSION`
        let group = if segments.next().as_deref() == Some("api") { 1 } else { 2 };
        let mut segments = segments.skip(group).peekable();
        let namespace =
            segments.next_if(|segment| segment == "namespaces").and_then(|_| segments.next());
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            method: parts.method,
            target: parts.uri.to_string(),
            resource: segments.next().unwrap_or_default(),
            namespace,
            name: segments.next(),
            subresource: segments.next(),
            parameters: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            body,
        })
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn key(&self) -> Key {
        let name = self.name.as_deref().or_else(|| self.body["metadata"]["name"].as_str());
        Key::new(&self.resource, self.scope(), name.unwrap_or_default())
    }

    /// Its namespace; empty: all.
    pub fn scope(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub fn is_watch(&self) -> bool {
        self.parameter("watch") == Some("true")
    }

    pub fn is_write_of_session(&self) -> bool {
        self.resource == "streamsessions" && self.method != Method::GET
    }

    pub fn site(&self, store: &Store) -> Site {
        match (self.resource.as_str(), &self.method) {
            ("events", _) => Site::Event,
            ("secrets", _) => Site::GetSecret,
            (_, &Method::GET) if self.is_watch() => match self.parameter("sendInitialEvents") {
                Some("true") => Site::WatchStart,
                _ => Site::WatchResume,
            },
            (_, &Method::GET) if self.name.is_none() => Site::List,
            (_, &Method::GET) => Site::GetObject,
            (_, &Method::PUT) => status_site(store.peek(&self.key()), &self.body),
            _ => match self.body["metadata"]["finalizers"].as_array() {
                Some(finalizers) if finalizers.iter().any(|name| name == FINALIZER) => {
                    Site::FinalizerOn
                }
                _ => Site::FinalizerOff,
            },
        }
    }
}
