//! Why a signature is refused.

use jiff::Timestamp;

use crate::service::api_error::ApiError;

/// Why a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("The request has no Authorization header. Sign it with TC3-HMAC-SHA256.")]
    Unsigned,
    #[error("The Authorization header is not valid: {0}.")]
    Malformed(String),
    #[error("The request is signed but has no X-TC-Timestamp header.")]
    NoTimestamp,
    #[error("The SecretId {0} is not known here.")]
    UnknownKey(String),
    #[error(
        "X-TC-Timestamp is {apart_seconds} s away from the server's clock ({now}), \
         more than the {validity_seconds} s that are allowed."
    )]
    Expired { apart_seconds: u64, validity_seconds: u64, now: Timestamp },
    #[error(
        "X-TC-Token does not belong to this SecretId: \
         temporary keys need theirs, long-term keys must not send one."
    )]
    Token,
    #[error("These temporary keys expired at {0}.")]
    KeyExpired(Timestamp),
    #[error("The signature does not match this request: {0}.")]
    Mismatch(String),
}

impl AuthError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unsigned | Self::Malformed(_) => "AuthFailure.InvalidAuthorization",
            Self::NoTimestamp => "MissingParameter",
            Self::UnknownKey(_) => "AuthFailure.SecretIdNotFound",
            Self::Expired { .. } => "AuthFailure.SignatureExpire",
            Self::Token | Self::KeyExpired(_) => "AuthFailure.TokenFailure",
            Self::Mismatch(_) => "AuthFailure.SignatureFailure",
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
