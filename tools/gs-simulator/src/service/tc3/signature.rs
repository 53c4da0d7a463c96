//! What is signed, and with which key.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::authorization::{ALGORITHM, TERMINATOR, text};
use super::error::AuthError;

/// Without these two a signature could be moved to another endpoint or another body type.
const MUST_SIGN: [&str; 2] = ["content-type", "host"];

pub(super) fn canonical_request(
    headers: &HeaderMap,
    body: &[u8],
    signed_headers: &str,
) -> Result<String, AuthError> {
    let names: Vec<&str> = signed_headers.split(';').collect();
    if let Some(missing) = MUST_SIGN.iter().find(|name| !names.contains(name)) {
        return Err(AuthError::Malformed(format!("SignedHeaders must contain {missing}")));
    }
    let mut lines = String::new();
    for name in names {
        let value = text(headers, name)
            .ok_or_else(|| {
                AuthError::Malformed(format!(
                    "SignedHeaders names {name}, which the request does not have"
                ))
            })?
            .trim();
        // These two are signed as sent, every other value in lower case.
        let value = if MUST_SIGN.contains(&name) { value.to_owned() } else { value.to_lowercase() };
        lines.push_str(name);
        lines.push(':');
        lines.push_str(&value);
        lines.push('\n');
    }
    Ok(format!("POST\n/\n\n{lines}\n{signed_headers}\n{}", hex_sha256(body)))
}

pub(super) fn string_to_sign(
    timestamp: &str,
    date: &str,
    service: &str,
    canonical_request: &str,
) -> String {
    format!(
        "{ALGORITHM}\n{timestamp}\n{date}/{service}/{TERMINATOR}\n{}",
        hex_sha256(canonical_request.as_bytes())
    )
}

pub(super) fn signing_key(secret_key: &str, date: &str, service: &str) -> Option<Vec<u8>> {
    let mut key = format!("TC3{secret_key}").into_bytes();
    for part in [date, service, TERMINATOR] {
        key = mac(&key, part.as_bytes())?.finalize().into_bytes().to_vec();
    }
    Some(key)
}

/// None would be a key of an impossible length; HMAC takes every length.
pub(super) fn mac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac)
}

pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
