//! The headers of a request of API 3.0, in words what no request can carry.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::sign::Signable;

const X_TC_ACTION: HeaderName = HeaderName::from_static("x-tc-action");
const X_TC_VERSION: HeaderName = HeaderName::from_static("x-tc-version");
const X_TC_TIMESTAMP: HeaderName = HeaderName::from_static("x-tc-timestamp");
const X_TC_REGION: HeaderName = HeaderName::from_static("x-tc-region");
pub(super) const X_TC_TOKEN: HeaderName = HeaderName::from_static("x-tc-token");
const X_TC_LANGUAGE: HeaderName = HeaderName::from_static("x-tc-language");
const X_TC_REQUEST_CLIENT: HeaderName = HeaderName::from_static("x-tc-requestclient");

/// Who we are to the service's support. The official SDKs send theirs.
const REQUEST_CLIENT: &str = concat!("streamsession-operator/", env!("CARGO_PKG_VERSION"));

/// An action of one of the services.
#[derive(Clone, Copy)]
pub(super) struct Action<'a> {
    pub(super) endpoint: &'a Endpoint,
    /// As it is signed, whatever the endpoint is called.
    pub(super) service: &'static str,
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) content_type: &'static str,
}

impl<'a> Action<'a> {
    /// Those of a request that is not signed.
    pub(super) fn unsigned(self) -> Result<HeaderMap, String> {
        Ok(HeaderMap::from_iter([
            (HOST, value("the endpoint", self.endpoint.host_header())?),
            (CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            (X_TC_ACTION, HeaderValue::from_static(self.name)),
            (X_TC_VERSION, HeaderValue::from_static(self.version)),
            (X_TC_LANGUAGE, HeaderValue::from_static("en-US")),
            (X_TC_REQUEST_CLIENT, HeaderValue::from_static(REQUEST_CLIENT)),
        ]))
    }

    /// Those of a request with this body, signed with `timestamp` (Unix seconds).
    pub(super) fn signed(
        self,
        body: &'a [u8],
        timestamp: i64,
        region: Option<&str>,
        credentials: &Credentials,
    ) -> Result<HeaderMap, String> {
        let authorization = self
            .signable(body, timestamp)
            .authorization(&credentials.secret_id, credentials.secret_key.expose_secret())
            .map_err(|error| error.to_string())?;
        let mut headers = self.unsigned()?;
        headers.insert(AUTHORIZATION, secret_value("the SecretId", &authorization)?);
        headers.insert(X_TC_TIMESTAMP, HeaderValue::from(timestamp));
        if let Some(region) = region {
            headers.insert(X_TC_REGION, value("the region", region)?);
        }
        // Long-term keys must not come with one.
        if let Some(token) = &credentials.token {
            headers.insert(X_TC_TOKEN, secret_value("the token", token.expose_secret())?);
        }
        Ok(headers)
    }

    /// What the signature covers.
    pub(super) fn signable(self, body: &'a [u8], timestamp: i64) -> Signable<'a> {
        Signable {
            host: self.endpoint.host_header(),
            service: self.service,
            content_type: self.content_type,
            extra_headers: &[],
            body,
            timestamp,
        }
    }
}

fn value(what: &str, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text)
        .map_err(|_| format!("{what} holds a character that no HTTP header can carry"))
}

/// A value that the HTTP library's own logs leave out.
fn secret_value(what: &str, text: &str) -> Result<HeaderValue, String> {
    let mut value = value(what, text)?;
    value.set_sensitive(true);
    Ok(value)
}
