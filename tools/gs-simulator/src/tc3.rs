//! Verifies TC3-HMAC-SHA256 signatures. Pure: the time is an argument.
//!
//! It is written from the documentation and not from the operator's signer, so that each checks the
//! other.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use jiff::tz::Offset;
use sha2::{Digest, Sha256};

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const TERMINATOR: &str = "tc3_request";
/// Without these two a signature could be moved to another endpoint or another body type.
const MUST_SIGN: [&str; 2] = ["content-type", "host"];

/// The secrets that the simulator knows, by `SecretId`.
pub type Keys = BTreeMap<String, Key>;

/// The secret half of a key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The `SecretKey`.
    pub secret_key: String,
    /// The token that must come in `X-TC-Token`: only temporary keys have one.
    pub token: Option<String>,
    /// From then on it is refused. None: never.
    pub expires_at: Option<Timestamp>,
}

impl Key {
    /// A key that never expires and has no token.
    #[must_use]
    pub fn long_term(secret_key: impl Into<String>) -> Self {
        Self { secret_key: secret_key.into(), token: None, expires_at: None }
    }

    /// A key as STS gives it out: each request must carry its token.
    #[must_use]
    pub fn temporary(secret_key: impl Into<String>, token: impl Into<String>) -> Self {
        Self { secret_key: secret_key.into(), token: Some(token.into()), expires_at: None }
    }
}

/// Tests print their options when they fail, and somebody will run the simulator with real keys.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.token.is_some() {
            "Key(temporary, hidden)"
        } else {
            "Key(long-term, hidden)"
        })
    }
}

/// Why a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("The request has no Authorization header. Sign it with {ALGORITHM}.")]
    Unsigned,
    #[error("The Authorization header is not valid: {0}.")]
    Malformed(String),
    #[error("The request is signed but has no X-TC-Timestamp header.")]
    NoTimestamp,
    #[error("The SecretId {0} is not known here.")]
    UnknownKey(String),
    #[error(
        "X-TC-Timestamp is {apart_seconds} s away from the server's clock ({now}), more than the {validity_seconds} s that are allowed."
    )]
    Expired { apart_seconds: u64, validity_seconds: u64, now: Timestamp },
    #[error(
        "X-TC-Token does not belong to this SecretId: temporary keys need theirs, long-term keys must not send one."
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

/// The fields of an Authorization header.
#[derive(Debug, PartialEq, Eq)]
struct Authorization<'a> {
    secret_id: &'a str,
    date: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
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

    fn of(headers: &'a HeaderMap) -> Result<Self, AuthError> {
        Self::parse(text(headers, "authorization").ok_or(AuthError::Unsigned)?)
    }
}

/// The `SecretId` that a request names, true or not: the rate is counted before signatures are
/// judged.
pub(crate) fn claimed_secret_id(headers: &HeaderMap) -> Option<&str> {
    Authorization::of(headers).ok().map(|authorization| authorization.secret_id)
}

/// Judges a `POST /` with these headers and this body as the service does at `now`.
pub(crate) fn verify(
    headers: &HeaderMap,
    body: &[u8],
    keys: &Keys,
    now: Timestamp,
    validity: Duration,
) -> Result<(), AuthError> {
    let authorization = Authorization::of(headers)?;
    let timestamp = text(headers, "x-tc-timestamp").ok_or(AuthError::NoTimestamp)?;
    let signed_at = timestamp
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| {
            AuthError::Malformed(format!(
                "X-TC-Timestamp {timestamp:?} is not a time in unix seconds"
            ))
        })?;
    let key = keys
        .get(authorization.secret_id)
        .ok_or_else(|| AuthError::UnknownKey(authorization.secret_id.to_owned()))?;

    // Both sides of the clock: a request from the future is no more to be trusted than an old one.
    let apart = now.duration_since(signed_at).unsigned_abs();
    if apart > validity {
        return Err(AuthError::Expired {
            apart_seconds: apart.as_secs(),
            validity_seconds: validity.as_secs(),
            now,
        });
    }
    let date = Offset::UTC.to_datetime(signed_at).date().to_string();
    if authorization.date != date {
        return Err(AuthError::Mismatch(format!(
            "Credential says {}, but X-TC-Timestamp falls on {date} in UTC",
            authorization.date
        )));
    }

    let canonical = canonical_request(headers, body, authorization.signed_headers)?;
    // The service's name is the client's: some SDKs take it from the endpoint's first label, which
    // is `127` on loopback.
    let to_sign = string_to_sign(timestamp, &date, authorization.service, &canonical);
    // Both hashes and no secret: with them a client's author finds the first line that differs.
    let mismatch = || {
        AuthError::Mismatch(format!(
            "expected hashed canonical request {}, payload hash {}",
            hex_sha256(canonical.as_bytes()),
            hex_sha256(body)
        ))
    };
    let signature = hex::decode(authorization.signature).map_err(|_| mismatch())?;
    let mac = signing_key(&key.secret_key, &date, authorization.service)
        .and_then(|key| mac(&key, to_sign.as_bytes()));
    // `verify_slice` compares in constant time.
    mac.and_then(|mac| mac.verify_slice(&signature).ok()).ok_or_else(mismatch)?;

    if text(headers, "x-tc-token") != key.token.as_deref() {
        return Err(AuthError::Token);
    }
    match key.expires_at {
        Some(end) if end <= now => Err(AuthError::KeyExpired(end)),
        _ => Ok(()),
    }
}

fn canonical_request(
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
        // These two are signed as sent, every other value in lower case (reference, section 2).
        let value = if MUST_SIGN.contains(&name) { value.to_owned() } else { value.to_lowercase() };
        lines.push_str(name);
        lines.push(':');
        lines.push_str(&value);
        lines.push('\n');
    }
    Ok(format!("POST\n/\n\n{lines}\n{signed_headers}\n{}", hex_sha256(body)))
}

fn string_to_sign(timestamp: &str, date: &str, service: &str, canonical_request: &str) -> String {
    format!(
        "{ALGORITHM}\n{timestamp}\n{date}/{service}/{TERMINATOR}\n{}",
        hex_sha256(canonical_request.as_bytes())
    )
}

fn signing_key(secret_key: &str, date: &str, service: &str) -> Option<Vec<u8>> {
    let mut key = format!("TC3{secret_key}").into_bytes();
    for part in [date, service, TERMINATOR] {
        key = mac(&key, part.as_bytes())?.finalize().into_bytes().to_vec();
    }
    Some(key)
}

/// None would be a key of an impossible length; HMAC takes every length.
fn mac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac)
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Signs a call, for the tests of this crate.
#[cfg(test)]
pub(crate) fn sign(
    headers: &HeaderMap,
    body: &[u8],
    secret_id: &str,
    secret_key: &str,
    signed_at: Timestamp,
) -> String {
    let (date, timestamp) =
        (Offset::UTC.to_datetime(signed_at).date().to_string(), signed_at.as_second().to_string());
    let canonical = canonical_request(headers, body, "content-type;host").unwrap();
    let key = signing_key(secret_key, &date, "gs").unwrap();
    let signature = mac(&key, string_to_sign(&timestamp, &date, "gs", &canonical).as_bytes())
        .unwrap()
        .finalize()
        .into_bytes();
    format!(
        "{ALGORITHM} Credential={secret_id}/{date}/gs/{TERMINATOR}, SignedHeaders=content-type;host, Signature={}",
        hex::encode(signature)
    )
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: Duration = Duration::from_mins(5);
    const STARS: &str = "********************************";
    const CVM_BODY: &str =
        r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
    const SWITCH_BODY: &str = r#"{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["RK8S37P1402445261_69f8d3e2-8867-462c-a8cf-7c1d1a527782","RK8S37P1402445261_95de5774-0f9f-4cc2-aa67-58d41378d209"]}"#;

    /// A published request, with its published signature.
    struct Vector {
        headers: HeaderMap,
        body: String,
        keys: Keys,
        signed_at: Timestamp,
    }

    struct Published<'a> {
        service: &'a str,
        content_type: &'a str,
        action: &'a str,
        body: &'a str,
        secret_id: &'a str,
        secret_key: &'a str,
        signed_at: i64,
        signed_headers: &'a str,
        signature: &'a str,
    }

    impl Published<'_> {
        fn vector(&self) -> Vector {
            let signed_at = Timestamp::from_second(self.signed_at).unwrap();
            let date = Offset::UTC.to_datetime(signed_at).date();
            let mut headers = HeaderMap::new();
            headers.insert("content-type", self.content_type.parse().unwrap());
            headers
                .insert("host", format!("{}.tencentcloudapi.com", self.service).parse().unwrap());
            headers.insert("x-tc-action", self.action.parse().unwrap());
            headers.insert("x-tc-timestamp", self.signed_at.into());
            let authorization = format!(
                "TC3-HMAC-SHA256 Credential={}/{date}/{}/tc3_request, SignedHeaders={}, Signature={}",
                self.secret_id, self.service, self.signed_headers, self.signature
            );
            headers.insert("authorization", authorization.parse().unwrap());
            let keys = Keys::from([(self.secret_id.to_owned(), Key::long_term(self.secret_key))]);
            Vector { headers, body: self.body.to_owned(), keys, signed_at }
        }
    }

    impl Vector {
        fn verify_after(&self, seconds: i64) -> Result<(), AuthError> {
            let now = Timestamp::from_second(self.signed_at.as_second() + seconds).unwrap();
            verify(&self.headers, self.body.as_bytes(), &self.keys, now, FIVE_MINUTES)
        }

        fn code(&self) -> &'static str {
            self.verify_after(0).map_or_else(|error| error.code(), |()| "accepted")
        }

        fn replace_in_authorization(&mut self, from: &str, to: &str) {
            let old = text(&self.headers, "authorization").unwrap();
            assert!(old.contains(from), "{old}");
            let new = old.replace(from, to).parse().unwrap();
            self.headers.insert("authorization", new);
        }
    }

    fn cvm<'a>(
        secret_id: &'a str,
        secret_key: &'a str,
        signed_headers: &'a str,
        signature: &'a str,
    ) -> Published<'a> {
        Published {
            service: "cvm",
            content_type: "application/json; charset=utf-8",
            action: "DescribeInstances",
            body: CVM_BODY,
            secret_id,
            secret_key,
            signed_at: 1_551_113_065,
            signed_headers,
            signature,
        }
    }

    fn switch(signed_headers: &'static str, signature: &'static str) -> Vector {
        Published {
            service: "gs",
            content_type: "application/json",
            action: "SwitchCloudPhoneMultipleStreamSessionSlaves",
            body: SWITCH_BODY,
            secret_id: "AKIDEXAMPLE",
            secret_key: "SECRETEXAMPLE",
            signed_at: 1_736_312_400,
            signed_headers,
            signature,
        }
        .vector()
    }

    fn this_action() -> Vector {
        switch(
            "content-type;host",
            "21f55035d98f0a733f8d4e9bd1f5b822f5f2bec968c5c70774bc370d93e8c36f",
        )
    }

    #[test]
    fn the_published_vectors_are_accepted_at_their_time() {
        let a = format!("AKID{STARS}");
        let vectors = [
            cvm(
                &a,
                STARS,
                "content-type;host;x-tc-action",
                "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
            )
            .vector(),
            cvm(
                "AKIDz8krbsJ5yKBZQpn74WFkmLPx3*******",
                "Gu5t9xGARNpq86cd98joQYCN3*******",
                "content-type;host",
                "2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c",
            )
            .vector(),
            cvm(
                "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
                "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
                "content-type;host",
                "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
            )
            .vector(),
            this_action(),
            switch(
                "content-type;host;x-tc-action",
                "66b1139bb98f64de6a5934e2181e5ff39f8572485447c54d50869efea06f0a34",
            ),
        ];

        for vector in vectors {
            assert_eq!(vector.verify_after(0), Ok(()), "{:?}", vector.headers);
        }
    }

    #[test]
    fn the_intermediate_values_are_the_published_ones() {
        let key = signing_key(STARS, "2019-02-25", "cvm").unwrap();
        let vector = this_action();

        let canonical =
            canonical_request(&vector.headers, vector.body.as_bytes(), "content-type;host")
                .unwrap();

        assert_eq!(
            hex::encode(key),
            "b596b923aad85185e2d1f6659d2a062e0a86731226e021e61bfe06f7ed05f5af"
        );
        assert_eq!(
            hex_sha256(canonical.as_bytes()),
            "21f5915c77f8806ca9495fca11a013d230bb0cc702b017bc1e096a617cbf3283"
        );
    }

    #[test]
    fn a_changed_byte_in_the_body_is_refused() {
        let mut vector = this_action();
        vector.body = vector.body.replace("\"Type\":2", "\"Type\":1");
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn another_host_or_content_type_is_refused() {
        for (name, value) in [
            ("host", "gs.tencentcloudapi.com:443"),
            ("content-type", "application/json; charset=utf-8"),
        ] {
            let mut vector = this_action();
            vector.headers.insert(name, value.parse().unwrap());
            assert_eq!(vector.code(), "AuthFailure.SignatureFailure", "{name}");
        }
    }

    #[test]
    fn another_secret_key_is_refused() {
        let mut vector = this_action();
        vector.keys.insert("AKIDEXAMPLE".to_owned(), Key::long_term("SECRETEXAMPLf"));
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn a_secret_id_that_nobody_gave_out_is_not_found() {
        let mut vector = this_action();
        vector.keys.clear();
        assert_eq!(vector.code(), "AuthFailure.SecretIdNotFound");
    }

    #[test]
    fn a_signature_is_valid_for_exactly_its_validity_on_both_sides() {
        let vector = this_action();
        assert_eq!(vector.verify_after(300), Ok(()));
        assert_eq!(vector.verify_after(-300), Ok(()));
        assert_eq!(vector.verify_after(301).unwrap_err().code(), "AuthFailure.SignatureExpire");
        assert_eq!(vector.verify_after(-301).unwrap_err().code(), "AuthFailure.SignatureExpire");
    }

    #[test]
    fn a_new_timestamp_does_not_renew_an_old_signature() {
        let mut vector = this_action();
        vector.headers.insert("x-tc-timestamp", 1_736_312_401.into());
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn a_scope_of_another_day_is_refused() {
        let mut vector = this_action();
        vector.replace_in_authorization("/2025-01-08/", "/2025-01-09/");
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn the_service_of_the_scope_is_the_clients_own_but_it_is_signed() {
        let mut vector = this_action();
        vector.replace_in_authorization("/gs/", "/127/");
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn an_authorization_that_does_not_cover_the_host_is_invalid() {
        let mut vector = this_action();
        vector.replace_in_authorization("content-type;host", "content-type");
        assert_eq!(vector.code(), "AuthFailure.InvalidAuthorization");
    }

    #[test]
    fn a_broken_or_missing_authorization_is_invalid() {
        for broken in [
            "",
            "SKIP",
            "TC3-HMAC-SHA256",
            "TC3-HMAC-SHA256 Credential=A/B/C, SignedHeaders=host, Signature=00",
        ] {
            let mut vector = this_action();
            vector.headers.insert("authorization", broken.parse().unwrap());
            assert_eq!(vector.code(), "AuthFailure.InvalidAuthorization", "{broken:?}");
        }
        let mut vector = this_action();
        vector.headers.remove("authorization");
        assert_eq!(vector.verify_after(0), Err(AuthError::Unsigned));
    }

    #[test]
    fn a_token_goes_with_temporary_keys_only() {
        let mut vector = this_action();
        vector.headers.insert("x-tc-token", "t-1".parse().unwrap());
        assert_eq!(vector.code(), "AuthFailure.TokenFailure");

        vector.keys.insert("AKIDEXAMPLE".to_owned(), Key::temporary("SECRETEXAMPLE", "t-1"));
        assert_eq!(vector.code(), "accepted");

        let key =
            Key { expires_at: Some(vector.signed_at), ..Key::temporary("SECRETEXAMPLE", "t-1") };
        vector.keys.insert("AKIDEXAMPLE".to_owned(), key);
        assert_eq!(vector.verify_after(-1), Ok(()));
        assert_eq!(vector.code(), "AuthFailure.TokenFailure");

        vector.headers.remove("x-tc-token");
        assert_eq!(vector.code(), "AuthFailure.TokenFailure");
    }
}
