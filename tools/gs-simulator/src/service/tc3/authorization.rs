//! The Authorization header.

use axum::http::HeaderMap;

use super::error::AuthError;

pub(super) const ALGORITHM: &str = "TC3-HMAC-SHA256";
/// The end of every scope.
pub(super) const TERMINATOR: &str = "tc3_request";

/// The fields of an Authorization header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorization<'a> {
    pub(super) secret_id: &'a str,
    pub(super) date: &'a str,
    pub(super) service: &'a str,
    pub(super) signed_headers: &'a str,
    pub(super) signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(value: &'a str) -> Result<Self, AuthError> {
        let malformed = |what: &str| AuthError::Malformed(what.to_owned());
        let fields = value
            .strip_prefix(ALGORITHM)
            .ok_or_else(|| malformed("it does not begin with TC3-HMAC-SHA256"))?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            match field.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => signed_headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => {
                    return Err(malformed(
                        "it has a field other than Credential, SignedHeaders and Signature",
                    ));
                }
            }
        }
        let credential = credential.ok_or_else(|| malformed("Credential is missing"))?;
        let mut scope = credential.split('/');
        let (Some(secret_id), Some(date), Some(service), Some(TERMINATOR), None) =
            (scope.next(), scope.next(), scope.next(), scope.next(), scope.next())
        else {
            return Err(malformed("Credential is not SecretId/date/service/tc3_request"));
        };
        Ok(Self {
            secret_id,
            date,
            service,
            signed_headers: signed_headers.ok_or_else(|| malformed("SignedHeaders is missing"))?,
            signature: signature.ok_or_else(|| malformed("Signature is missing"))?,
        })
    }

    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, AuthError> {
        Self::parse(text(headers, "authorization").ok_or(AuthError::Unsigned)?)
    }
}

/// None: it is absent, or no text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
