//! Verifies TC3-HMAC-SHA256 signatures.
//!
//! It is written from the documentation and not from the operator's signer, so that each checks the
//! other.

mod authorization;
mod error;
#[cfg(test)]
mod fuzz;
mod signature;

use std::time::Duration;

use axum::http::HeaderMap;
use hmac::Mac;
use jiff::Timestamp;
use jiff::tz::Offset;

use super::keys::Keys;
use authorization::{Authorization, text};
use signature::{canonical_request, hex_sha256, mac, signing_key, string_to_sign};

pub(crate) use error::AuthError;

/// The `SecretId` that a request names, verified or not: the rate is counted before signatures are
/// verified.
pub(crate) fn claimed_secret_id(headers: &HeaderMap) -> Option<&str> {
    Authorization::of(headers).ok().map(|authorization| authorization.secret_id)
}

/// Verifies a `POST /` with these headers and this body as the service does at `now`.
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
        "TC3-HMAC-SHA256 Credential={secret_id}/{date}/gs/tc3_request, \
         SignedHeaders=content-type;host, Signature={}",
        hex::encode(signature)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::keys::Key;

    const FIVE_MINUTES: Duration = Duration::from_mins(5);
    const STARS: &str = "********************************";
    const CVM: Published = Published {
        service: "cvm",
        content_type: "application/json; charset=utf-8",
        action: "DescribeInstances",
        body: concat!(
            r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "#,
            r#""Name": "instance-name"}]}"#,
        ),
        secret_id: "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
        secret_key: "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
        signed_at: 1_551_113_065,
        signed_headers: "content-type;host",
        signature: "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
    };
    const SWITCH: Published = Published {
        service: "gs",
        content_type: "application/json",
        action: "SwitchCloudPhoneMultipleStreamSessionSlaves",
        body: concat!(
            r#"{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["#,
            r#""RK8S37P1402445261_69f8d3e2-8867-462c-a8cf-7c1d1a527782","#,
            r#""RK8S37P1402445261_95de5774-0f9f-4cc2-aa67-58d41378d209"]}"#,
        ),
        secret_id: "AKIDEXAMPLE",
        secret_key: "SECRETEXAMPLE",
        signed_at: 1_736_312_400,
        signed_headers: "content-type;host",
        signature: "21f55035d98f0a733f8d4e9bd1f5b822f5f2bec968c5c70774bc370d93e8c36f",
    };

    /// A request, as it is verified.
    struct Vector {
        headers: HeaderMap,
        body: String,
        keys: Keys,
        signed_at: Timestamp,
    }

    /// A request with its published signature.
    struct Published {
        service: &'static str,
        content_type: &'static str,
        action: &'static str,
        body: &'static str,
        secret_id: &'static str,
        secret_key: &'static str,
        signed_at: i64,
        signed_headers: &'static str,
        signature: &'static str,
    }

    impl Published {
        fn vector(&self) -> Vector {
            let signed_at = Timestamp::from_second(self.signed_at).unwrap();
            let date = Offset::UTC.to_datetime(signed_at).date();
            let mut headers = HeaderMap::new();
            headers.insert("content-type", self.content_type.parse().unwrap());
            headers
                .insert("host", format!("{}.tencentcloudapi.com", self.service).parse().unwrap());
            headers.insert("x-tc-action", self.action.parse().unwrap());
            headers.insert("x-tc-timestamp", self.signed_at.into());
            let Self { service, secret_id, signed_headers, signature, .. } = self;
            let authorization = format!(
                "TC3-HMAC-SHA256 Credential={secret_id}/{date}/{service}/tc3_request, \
                 SignedHeaders={signed_headers}, Signature={signature}"
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

    #[test]
    fn the_published_vectors_are_accepted_at_their_time() {
        let vectors = [
            Published {
                secret_id: "AKID********************************",
                secret_key: STARS,
                signed_headers: "content-type;host;x-tc-action",
                signature: "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
                ..CVM
            },
            Published {
                secret_id: "AKIDz8krbsJ5yKBZQpn74WFkmLPx3*******",
                secret_key: "Gu5t9xGARNpq86cd98joQYCN3*******",
                signature: "2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c",
                ..CVM
            },
            CVM,
            SWITCH,
            Published {
                signed_headers: "content-type;host;x-tc-action",
                signature: "66b1139bb98f64de6a5934e2181e5ff39f8572485447c54d50869efea06f0a34",
                ..SWITCH
            },
        ];

        for vector in vectors.map(|published| published.vector()) {
            assert_eq!(vector.verify_after(0), Ok(()), "{:?}", vector.headers);
        }
    }

    #[test]
    fn the_intermediate_values_are_the_published_ones() {
        let key = signing_key(STARS, "2019-02-25", "cvm").unwrap();
        let vector = SWITCH.vector();

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
        let mut vector = SWITCH.vector();
        vector.body = vector.body.replace("\"Type\":2", "\"Type\":1");
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn another_host_or_content_type_is_refused() {
        for (name, value) in [
            ("host", "gs.tencentcloudapi.com:443"),
            ("content-type", "application/json; charset=utf-8"),
        ] {
            let mut vector = SWITCH.vector();
            vector.headers.insert(name, value.parse().unwrap());
            assert_eq!(vector.code(), "AuthFailure.SignatureFailure", "{name}");
        }
    }

    #[test]
    fn another_secret_key_is_refused() {
        let mut vector = SWITCH.vector();
        vector.keys.insert("AKIDEXAMPLE".to_owned(), Key::long_term("SECRETEXAMPLf"));
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn an_unknown_secret_id_is_not_found() {
        let mut vector = SWITCH.vector();
        vector.keys.clear();
        assert_eq!(vector.code(), "AuthFailure.SecretIdNotFound");
    }

    #[test]
    fn a_signature_is_valid_for_exactly_its_validity_on_both_sides() {
        let vector = SWITCH.vector();
        assert_eq!(vector.verify_after(300), Ok(()));
        assert_eq!(vector.verify_after(-300), Ok(()));
        assert_eq!(vector.verify_after(301).unwrap_err().code(), "AuthFailure.SignatureExpire");
        assert_eq!(vector.verify_after(-301).unwrap_err().code(), "AuthFailure.SignatureExpire");
    }

    #[test]
    fn a_new_timestamp_does_not_renew_an_old_signature() {
        let mut vector = SWITCH.vector();
        vector.headers.insert("x-tc-timestamp", 1_736_312_401.into());
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn a_scope_of_another_day_is_refused() {
        let mut vector = SWITCH.vector();
        vector.replace_in_authorization("/2025-01-08/", "/2025-01-09/");
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn the_service_of_the_scope_is_the_clients_own_but_it_is_signed() {
        let mut vector = SWITCH.vector();
        vector.replace_in_authorization("/gs/", "/127/");
        assert_eq!(vector.code(), "AuthFailure.SignatureFailure");
    }

    #[test]
    fn an_authorization_that_does_not_cover_the_host_is_invalid() {
        let mut vector = SWITCH.vector();
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
            let mut vector = SWITCH.vector();
            vector.headers.insert("authorization", broken.parse().unwrap());
            assert_eq!(vector.code(), "AuthFailure.InvalidAuthorization", "{broken:?}");
        }
        let mut vector = SWITCH.vector();
        vector.headers.remove("authorization");
        assert_eq!(vector.verify_after(0), Err(AuthError::Unsigned));
    }

    #[test]
    fn a_token_goes_with_temporary_keys_only() {
        let mut vector = SWITCH.vector();
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
