//! TC3-HMAC-SHA256, the signature of Tencent Cloud's API 3.0. Pure.

#![deny(clippy::disallowed_methods)]

use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const SCOPE_END: &str = "tc3_request";

/// What a signature covers: a `POST /` without a query, the only shape that this API has.
#[derive(Clone, Copy, Debug)]
pub struct Signable<'a> {
    /// The `Host` header exactly as it is sent, with its port when there is one.
    pub host: &'a str,
    /// The product in the scope: `gs`, whatever the endpoint is called.
    pub service: &'a str,
    /// The `Content-Type` header exactly as it is sent.
    pub content_type: &'a str,
    /// Signed headers beside `content-type` and `host`, which the SDKs leave empty: both forms are
    /// accepted.
    pub extra_headers: &'a [(&'a str, &'a str)],
    /// The body exactly as it is sent.
    pub body: &'a [u8],
    /// `X-TC-Timestamp`, in Unix seconds.
    pub timestamp: i64,
}

/// A time of signing that no calendar holds, so that the scope has no date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the time of signing, {0} s after 1970, is outside of the calendar: \
     look at the service's clock and the journal's startTime"
)]
pub struct NoSuchDate(pub i64);

impl Signable<'_> {
    /// The request as the service rebuilds it from what it received.
    #[must_use]
    pub fn canonical_request(&self) -> String {
        let headers: Vec<_> =
            self.headers().into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!(
            "POST\n/\n\n{}\n\n{}\n{}",
            headers.join("\n"),
            self.signed_headers(),
            hash(self.body)
        )
    }

    /// What the derived key signs.
    pub fn string_to_sign(&self) -> Result<String, NoSuchDate> {
        Ok(format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            self.timestamp,
            self.scope(&self.date()?),
            hash(self.canonical_request().as_bytes())
        ))
    }

    /// The `Authorization` header.
    pub fn authorization(&self, secret_id: &str, secret_key: &str) -> Result<String, NoSuchDate> {
        let date = self.date()?;
        let key = signing_key(secret_key, &date, self.service);
        let signature = hex::encode(hmac(&*key, self.string_to_sign()?.as_bytes()));
        let (scope, signed_headers) = (self.scope(&date), self.signed_headers());
        Ok(format!(
            "{ALGORITHM} Credential={secret_id}/{scope}, SignedHeaders={signed_headers}, \
             Signature={signature}"
        ))
    }

    /// Sorted by name; names and values in lower case, as the documentation's newest example has
    /// it.
    fn headers(&self) -> Vec<(String, String)> {
        let mut headers: Vec<_> = [("content-type", self.content_type), ("host", self.host)]
            .iter()
            .chain(self.extra_headers)
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_lowercase()))
            .collect();
        headers.sort();
        headers
    }

    fn signed_headers(&self) -> String {
        self.headers().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(";")
    }

    fn scope(&self, date: &str) -> String {
        format!("{date}/{}/{SCOPE_END}", self.service)
    }

    /// The date of the timestamp itself, in UTC: any other clock disagrees with it around midnight.
    fn date(&self) -> Result<String, NoSuchDate> {
        let time =
            jiff::Timestamp::from_second(self.timestamp).map_err(|_| NoSuchDate(self.timestamp))?;
        Ok(time.strftime("%Y-%m-%d").to_string())
    }
}

fn signing_key(secret_key: &str, date: &str, service: &str) -> Zeroizing<[u8; 32]> {
    let seed = Zeroizing::new([b"TC3", secret_key.as_bytes()].concat());
    let of_date = Zeroizing::new(hmac(&seed, date.as_bytes()));
    let of_service = Zeroizing::new(hmac(&*of_date, service.as_bytes()));
    Zeroizing::new(hmac(&*of_service, SCOPE_END.as_bytes()))
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length, so that the error can't happen; if it did, the service would
    // refuse the signature.
    Hmac::<Sha256>::new_from_slice(key)
        .map_or([0; 32], |mac| mac.chain_update(text).finalize().into_bytes().into())
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CVM_BODY: &[u8] = concat!(
        r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "#,
        r#""Name": "instance-name"}]}"#
    )
    .as_bytes();
    const GS_BODY: &[u8] = concat!(
        r#"{"SessionId":"1326515201117065216","Type":2,"SlaveInstanceIds":["#,
        r#""RK8S37P1402445261_69f8d3e2-8867-462c-a8cf-7c1d1a527782","#,
        r#""RK8S37P1402445261_95de5774-0f9f-4cc2-aa67-58d41378d209"]}"#
    )
    .as_bytes();

    fn cvm() -> Signable<'static> {
        Signable {
            host: "cvm.tencentcloudapi.com",
            service: "cvm",
            content_type: "application/json; charset=utf-8",
            extra_headers: &[],
            body: CVM_BODY,
            timestamp: 1_551_113_065,
        }
    }

    fn gs() -> Signable<'static> {
        Signable {
            host: "gs.tencentcloudapi.com",
            service: "gs",
            content_type: "application/json",
            extra_headers: &[],
            body: GS_BODY,
            timestamp: 1_736_312_400,
        }
    }

    fn asterisks(prefix: &str, count: usize) -> String {
        format!("{prefix}{}", "*".repeat(count))
    }

    fn canonical_hash(signable: &Signable<'_>) -> String {
        hash(signable.canonical_request().as_bytes())
    }

    #[test]
    fn the_published_body_has_its_published_length_and_hash() {
        assert_eq!(CVM_BODY.len(), 86);
        assert_eq!(
            hash(CVM_BODY),
            "35e9c5b0e3ae67532d3c9f17ead6c90222632e5b1ff7f6e89887f1398934f064"
        );
    }

    #[test]
    fn vector_a_of_the_documentation_with_the_action_signed() {
        let signable = Signable { extra_headers: &[("X-TC-Action", "DescribeInstances")], ..cvm() };

        let header = signable.authorization(&asterisks("AKID", 32), &asterisks("", 32)).unwrap();

        assert_eq!(
            canonical_hash(&signable),
            "7019a55be8395899b900fb5564e4200d984910f34794a27cb3fb7d10ff6a1e84"
        );
        assert_eq!(
            header,
            "TC3-HMAC-SHA256 \
             Credential=AKID********************************/2019-02-25/cvm/tc3_request, \
             SignedHeaders=content-type;host;x-tc-action, \
             Signature=10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"
        );
    }

    #[test]
    fn the_signing_key_of_vector_a() {
        let key = signing_key(&asterisks("", 32), "2019-02-25", "cvm");

        assert_eq!(
            hex::encode(*key),
            "b596b923aad85185e2d1f6659d2a062e0a86731226e021e61bfe06f7ed05f5af"
        );
    }

    #[test]
    fn vector_b_with_the_two_headers_that_the_sdks_sign() {
        let secret_id = asterisks("AKIDz8krbsJ5yKBZQpn74WFkmLPx3", 7);
        let secret_key = asterisks("Gu5t9xGARNpq86cd98joQYCN3", 7);

        let header = cvm().authorization(&secret_id, &secret_key).unwrap();

        assert_eq!(
            canonical_hash(&cvm()),
            "5ffe6a04c0664d6b969fab9a13bdab201d63ee709638e2749d62a09ca18d7031"
        );
        assert!(header.ends_with(
            "SignedHeaders=content-type;host, \
                 Signature=2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c"
        ));
    }

    #[test]
    fn vector_c_with_example_keys() {
        let header = cvm()
            .authorization(
                "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
                "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
            )
            .unwrap();

        assert!(header.ends_with(
            "Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
        ));
    }

    #[test]
    fn the_vector_of_this_action_equals_the_official_python_sdk() {
        let header = gs().authorization("AKIDEXAMPLE", "SECRETEXAMPLE").unwrap();

        assert_eq!(GS_BODY.len(), 179);
        assert_eq!(
            hash(GS_BODY),
            "4dfe6dd0c9c2624f0b28b2c14e6881b2aa393e40f3c0087b84e8b63db867b21c"
        );
        assert_eq!(
            canonical_hash(&gs()),
            "21f5915c77f8806ca9495fca11a013d230bb0cc702b017bc1e096a617cbf3283"
        );
        assert!(header.ends_with(
            "Signature=21f55035d98f0a733f8d4e9bd1f5b822f5f2bec968c5c70774bc370d93e8c36f"
        ));
    }

    #[test]
    fn the_vector_of_this_action_with_the_action_signed() {
        let signable = Signable {
            extra_headers: &[("x-tc-action", "SwitchCloudPhoneMultipleStreamSessionSlaves")],
            ..gs()
        };

        let header = signable.authorization("AKIDEXAMPLE", "SECRETEXAMPLE").unwrap();

        assert_eq!(
            canonical_hash(&signable),
            "4c0280f06faa1c75f45e4bfa8fa2f0a2cce63ad459eac23143fee718516a6b78"
        );
        assert!(header.ends_with(
            "Signature=66b1139bb98f64de6a5934e2181e5ff39f8572485447c54d50869efea06f0a34"
        ));
    }

    #[test]
    fn the_date_is_that_of_the_timestamp_in_utc() {
        let last_second = Signable { timestamp: 1_736_380_799, ..gs() };
        let midnight = Signable { timestamp: 1_736_380_800, ..gs() };

        assert!(last_second.string_to_sign().unwrap().contains("\n2025-01-08/gs/tc3_request\n"));
        assert!(midnight.string_to_sign().unwrap().contains("\n2025-01-09/gs/tc3_request\n"));
    }

    #[test]
    fn a_time_outside_of_the_calendar_is_an_error_and_no_panic() {
        let signable = Signable { timestamp: i64::MAX, ..gs() };

        assert_eq!(
            signable.authorization("AKIDEXAMPLE", "SECRETEXAMPLE"),
            Err(NoSuchDate(i64::MAX))
        );
    }
}
