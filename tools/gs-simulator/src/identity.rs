//! Temporary keys for a pod's or a machine's identity: STS and the metadata service. Pure.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tc3::{Key, Keys};
use crate::wire::{self, Refusal, Request};

pub(crate) const ACTION: &str = "AssumeRoleWithWebIdentity";
const VERSION: &str = "2018-08-13";
const PARAMETERS: [&str; 5] =
    ["ProviderId", "WebIdentityToken", "RoleArn", "RoleSessionName", "DurationSeconds"];
/// "7200, at most 43200" (reference, section 4).
const LIFE_DEFAULT_SECONDS: u32 = 7200;
const LIFE_MAX_SECONDS: u32 = 43_200;
/// The oldest issued keys are forgotten beyond this many: a client that asks in a loop must not
/// fill the memory.
const ISSUED_MAX: usize = 10_000;

/// Who gets temporary keys, and for how long they serve. A new value replaces all of an old one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Identity {
    /// The role of the machine, as the metadata service tells it. None: 404, as on a machine
    /// without a role.
    pub role: Option<String>,
    /// How long issued keys serve. None: as long as STS is asked for, and 7200 s from the metadata
    /// service.
    pub key_life_seconds: Option<u32>,
    /// The `WebIdentityToken`s that STS accepts; if there are none, any.
    pub web_identity_tokens: BTreeSet<String>,
    /// STS answers this code.
    pub sts_error: Option<String>,
    /// The metadata service answers this HTTP status.
    pub metadata_status: Option<u16>,
    /// STS and the metadata service answer so much later.
    pub delay_ms: u64,
}

impl Identity {
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

/// Gives out keys, and remembers which.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) identity: Identity,
    seed: u64,
    count: u64,
    issued: VecDeque<String>,
}

/// A key pair as clients get it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Issued {
    tmp_secret_id: String,
    tmp_secret_key: String,
    token: String,
    #[serde(skip)]
    expires_at: Timestamp,
}

/// What the metadata service says about a role's keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RoleKeys {
    #[serde(flatten)]
    keys: Issued,
    expired_time: i64,
    expiration: String,
    code: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StsAnswer<'a> {
    credentials: Issued,
    expired_time: i64,
    expiration: String,
    request_id: &'a str,
}

impl Issuer {
    pub(crate) fn new(identity: Identity, seed: u64) -> Self {
        Self { identity, seed, count: 0, issued: VecDeque::new() }
    }

    /// STS: the answer, as JSON.
    pub(crate) fn assume_role(
        &mut self,
        request: &Request,
        keys: &mut Keys,
        now: Timestamp,
        request_id: &str,
    ) -> Result<String, Refusal> {
        let parameters = request.parameters()?;
        request.check_action(ACTION, VERSION)?;
        request.required("X-TC-Region")?;
        if request.header("authorization") != Some("SKIP") {
            return Err(Refusal::new(
                "AuthFailure.InvalidAuthorization",
                format!("{ACTION} wants the header `Authorization: SKIP`."),
            ));
        }
        if let Some(code) = &self.identity.sts_error {
            return Err(Refusal::new(code, "The simulator was told to answer this."));
        }
        parameters.only(&PARAMETERS)?;
        for name in ["ProviderId", "RoleArn", "RoleSessionName"] {
            parameters.text(name)?;
        }
        let token = parameters.text("WebIdentityToken")?;
        let asked = match parameters.get("DurationSeconds") {
            None => LIFE_DEFAULT_SECONDS,
            Some(seconds) => seconds
                .as_u64()
                .and_then(|seconds| u32::try_from(seconds).ok())
                .filter(|seconds| (1..=LIFE_MAX_SECONDS).contains(seconds))
                .ok_or_else(|| {
                    Refusal::new(
                        "InvalidParameter.OverLimit",
                        format!("The parameter `DurationSeconds` must be 1 to {LIFE_MAX_SECONDS}."),
                    )
                })?,
        };
        let accepted = &self.identity.web_identity_tokens;
        if !accepted.is_empty() && !accepted.contains(token) {
            return Err(Refusal::new(
                "InvalidParameter.WebIdentityTokenError",
                "The parameter `WebIdentityToken` is not accepted.",
            ));
        }
        let issued = self.issue(keys, now, asked);
        let end = issued.expires_at;
        Ok(wire::envelope(StsAnswer {
            credentials: issued,
            expired_time: end.as_second(),
            expiration: format!("{end:.0}"),
            request_id,
        }))
    }

    /// The metadata service: keys of the machine's role. None: it has no such role.
    pub(crate) fn role_keys(
        &mut self,
        role: &str,
        keys: &mut Keys,
        now: Timestamp,
    ) -> Option<RoleKeys> {
        if self.identity.role.as_deref() != Some(role) {
            return None;
        }
        let issued = self.issue(keys, now, LIFE_DEFAULT_SECONDS);
        let end = issued.expires_at;
        Some(RoleKeys {
            keys: issued,
            expired_time: end.as_second(),
            expiration: format!("{end:.0}"),
            code: "Success",
        })
    }

    pub(crate) fn issued(&self, secret_id: &str) -> bool {
        // From the newest on: that is the one in use.
        self.issued.iter().rev().any(|issued| issued == secret_id)
    }

    /// How many keys were given out.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Every key that was given out is refused from now on.
    pub(crate) fn expire_all(&mut self, keys: &mut Keys, now: Timestamp) {
        for secret_id in &self.issued {
            if let Some(key) = keys.get_mut(secret_id) {
                key.expires_at = key.expires_at.min(Some(now));
            }
        }
    }

    fn issue(&mut self, keys: &mut Keys, now: Timestamp, asked_seconds: u32) -> Issued {
        let life =
            Duration::from_secs(self.identity.key_life_seconds.unwrap_or(asked_seconds).into());
        // Whole seconds, as the answer says it. At the end of time, keys are born expired.
        let end = now.checked_add(life).unwrap_or(now).as_second();
        let expires_at = Timestamp::from_second(end).unwrap_or(now);
        self.count += 1;
        let issued = Issued {
            tmp_secret_id: format!("AKIDsim{}", self.random("id")),
            tmp_secret_key: self.random("key"),
            token: self.random("token"),
            expires_at,
        };
        let key = Key {
            expires_at: Some(expires_at),
            ..Key::temporary(&issued.tmp_secret_key, &issued.token)
        };
        keys.insert(issued.tmp_secret_id.clone(), key);
        if self.issued.len() == ISSUED_MAX
            && let Some(oldest) = self.issued.pop_front()
        {
            keys.remove(&oldest);
        }
        self.issued.push_back(issued.tmp_secret_id.clone());
        issued
    }

    fn random(&self, what: &str) -> String {
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(self.count.to_be_bytes())
            .chain_update(what);
        hex::encode(hash.finalize()).chars().take(32).collect()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_736_312_400).unwrap()
    }

    fn request(body: &Value) -> Request {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", "SKIP"),
            ("x-tc-action", ACTION),
            ("x-tc-version", VERSION),
            ("x-tc-region", "ap-guangzhou"),
        ];
        let headers: HeaderMap = headers
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Request { headers, body: Some(body.to_string().into()) }
    }

    fn asking() -> Value {
        json!({"ProviderId": "OIDC", "WebIdentityToken": "jwt", "RoleArn": "qcs::cam::uin/1:roleName/r", "RoleSessionName": "s"})
    }

    fn code(identity: Identity, request: &Request) -> String {
        match Issuer::new(identity, 1).assume_role(request, &mut Keys::new(), now(), "r") {
            Ok(_) => "issued".to_owned(),
            Err(refusal) => refusal.code,
        }
    }

    #[test]
    fn sts_issues_a_key_with_a_token_and_an_end() {
        let (mut issuer, mut keys) = (Issuer::new(Identity::default(), 1), Keys::new());

        let answer = issuer.assume_role(&request(&asking()), &mut keys, now(), "r").unwrap();

        let response = serde_json::from_str::<Value>(&answer).unwrap()["Response"].clone();
        assert_eq!(
            (&response["ExpiredTime"], &response["RequestId"]),
            (&json!(1_736_319_600), &json!("r"))
        );
        assert_eq!(response["Expiration"], "2025-01-08T07:00:00Z");
        let credentials = &response["Credentials"];
        let key = &keys[credentials["TmpSecretId"].as_str().unwrap()];
        assert_eq!(
            (&json!(key.secret_key), &json!(key.token)),
            (&credentials["TmpSecretKey"], &credentials["Token"])
        );
        assert_eq!(key.expires_at.unwrap().as_second(), 1_736_319_600);
    }

    #[test]
    fn each_mistake_has_its_code() {
        for (name, value, expected) in [
            ("ProviderId", Value::Null, "MissingParameter"),
            ("WebIdentityToken", json!(""), "InvalidParameterValue"),
            ("RoleArn", json!(1), "InvalidParameter"),
            ("DurationSeconds", json!(43_201), "InvalidParameter.OverLimit"),
            ("DurationSeconds", json!(43_200), "issued"),
            ("Policy", json!(""), "UnknownParameter"),
        ] {
            let mut body = asking();
            body[name] = value;
            assert_eq!(code(Identity::default(), &request(&body)), expected, "{body}");
        }
        let mut signed = request(&asking());
        signed.headers.insert("authorization", "TC3-HMAC-SHA256".parse().unwrap());
        assert_eq!(code(Identity::default(), &signed), "AuthFailure.InvalidAuthorization");
    }

    #[test]
    fn only_accepted_tokens_get_keys_and_sts_can_be_broken() {
        let accepting = |token: &str| Identity {
            web_identity_tokens: BTreeSet::from([token.to_owned()]),
            ..Identity::default()
        };
        assert_eq!(code(accepting("jwt"), &request(&asking())), "issued");
        assert_eq!(
            code(accepting("other"), &request(&asking())),
            "InvalidParameter.WebIdentityTokenError"
        );
        let broken =
            Identity { sts_error: Some("InternalError".to_owned()), ..Identity::default() };
        assert_eq!(code(broken, &request(&asking())), "InternalError");
    }

    #[test]
    fn the_metadata_service_knows_its_machines_role_alone() {
        let identity = Identity {
            role: Some("phones".to_owned()),
            key_life_seconds: Some(60),
            ..Identity::default()
        };
        let (mut issuer, mut keys) = (Issuer::new(identity, 1), Keys::new());

        assert!(issuer.role_keys("other", &mut keys, now()).is_none());
        let told =
            serde_json::to_value(issuer.role_keys("phones", &mut keys, now()).unwrap()).unwrap();

        assert_eq!(
            (&told["Code"], &told["ExpiredTime"]),
            (&json!("Success"), &json!(1_736_312_460))
        );
        let secret_id = told["TmpSecretId"].as_str().unwrap();
        assert!(issuer.issued(secret_id));

        issuer.expire_all(&mut keys, now());
        assert_eq!(keys[secret_id].expires_at, Some(now()));
    }

    #[test]
    fn the_oldest_keys_are_forgotten_beyond_the_limit() {
        let (mut issuer, mut keys) = (Issuer::new(Identity::default(), 1), Keys::new());
        for _ in 0..=ISSUED_MAX {
            issuer.issue(&mut keys, now(), 1);
        }
        assert_eq!((keys.len(), issuer.count()), (ISSUED_MAX, 10_001));
    }
}
