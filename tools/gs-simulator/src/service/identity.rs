//! Temporary keys for a pod's or a machine's identity: STS and the metadata service.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::api_error::ApiError;
use super::keys::{Key, Keys};
use super::request::{Parameters, Request};

pub(crate) const ACTION: &str = "AssumeRoleWithWebIdentity";
/// Tells whose a key is.
pub(crate) const CALLER_ACTION: &str = "GetCallerIdentity";
const VERSION: &str = "2018-08-13";
const PARAMETERS: [&str; 5] =
    ["ProviderId", "WebIdentityToken", "RoleArn", "RoleSessionName", "DurationSeconds"];
/// STS's own default and limit.
const LIFETIME_DEFAULT_SECONDS: u32 = 7200;
const LIFETIME_MAX_SECONDS: u32 = 43_200;
/// The oldest issued keys are forgotten beyond this many: a client that asks in a loop must not
/// fill the memory.
const ISSUED_MAX: usize = 10_000;

/// Who gets temporary keys, and how long they are valid. A new value replaces all of an old one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Identity {
    /// The role of the machine, as the metadata service names it. None: 404, as on a machine
    /// without a role.
    pub role: Option<String>,
    /// How long issued keys are valid. None: as long as STS is asked for, and 7200 s from the
    /// metadata service.
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

/// Issues keys, and remembers which.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) identity: Identity,
    seed: u64,
    count: u64,
    issued: VecDeque<String>,
}

/// A key pair as clients get it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    tmp_secret_id: String,
    tmp_secret_key: String,
    token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Expiry {
    expired_time: i64,
    expiration: String,
}

/// What the metadata service says about a role's keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RoleKeys {
    #[serde(flatten)]
    credentials: Credentials,
    #[serde(flatten)]
    expiry: Expiry,
    code: &'static str,
}

/// What STS answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StsAnswer<'a> {
    credentials: Credentials,
    #[serde(flatten)]
    expiry: Expiry,
    request_id: &'a str,
}

/// Whose a key is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CallerIdentity<'a> {
    account_id: &'a str,
    user_id: &'a str,
    principal_id: &'a str,
    r#type: &'static str,
    arn: String,
    request_id: &'a str,
}

impl Issuer {
    /// STS, for a request whose signature is right.
    pub(crate) fn caller<'a>(
        &self,
        request: &Request,
        account: &'a str,
        request_id: &'a str,
    ) -> Result<CallerIdentity<'a>, ApiError> {
        request.check_action(CALLER_ACTION, VERSION)?;
        request.required("X-TC-Region")?;
        request.parameters()?.only(&[])?;
        if let Some(code) = &self.identity.sts_error {
            return Err(ApiError::injected(code));
        }
        Ok(CallerIdentity {
            account_id: account,
            user_id: account,
            principal_id: account,
            r#type: "Account",
            arn: format!("qcs::cam::uin/{account}:root"),
            request_id,
        })
    }

    pub(crate) fn new(identity: Identity, seed: u64) -> Self {
        Self { identity, seed, count: 0, issued: VecDeque::new() }
    }

    /// STS.
    pub(crate) fn assume_role<'a>(
        &mut self,
        request: &Request,
        keys: &mut Keys,
        now: Timestamp,
        request_id: &'a str,
    ) -> Result<StsAnswer<'a>, ApiError> {
        let parameters = request.parameters()?;
        request.check_action(ACTION, VERSION)?;
        request.required("X-TC-Region")?;
        if request.header("authorization") != Some("SKIP") {
            return Err(ApiError::new(
                "AuthFailure.InvalidAuthorization",
                format!("{ACTION} wants the header `Authorization: SKIP`."),
            ));
        }
        if let Some(code) = &self.identity.sts_error {
            return Err(ApiError::injected(code));
        }
        parameters.only(&PARAMETERS)?;
        for name in ["ProviderId", "RoleArn", "RoleSessionName"] {
            parameters.text(name)?;
        }
        let token = parameters.text("WebIdentityToken")?;
        let asked = duration_seconds(&parameters)?;
        let accepted = &self.identity.web_identity_tokens;
        if !accepted.is_empty() && !accepted.contains(token) {
            return Err(ApiError::new(
                "InvalidParameter.WebIdentityTokenError",
                "The parameter `WebIdentityToken` is not accepted.",
            ));
        }
        let (credentials, expiry) = self.issue(keys, now, asked);
        Ok(StsAnswer { credentials, expiry, request_id })
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
        let (credentials, expiry) = self.issue(keys, now, LIFETIME_DEFAULT_SECONDS);
        Some(RoleKeys { credentials, expiry, code: "Success" })
    }

    pub(crate) fn issued(&self, secret_id: &str) -> bool {
        // From the newest on: that is the one in use.
        self.issued.iter().rev().any(|issued| issued == secret_id)
    }

    /// How many keys were issued.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Every issued key is refused from now on.
    pub(crate) fn expire_all(&mut self, keys: &mut Keys, now: Timestamp) {
        for secret_id in &self.issued {
            if let Some(key) = keys.get_mut(secret_id) {
                key.expires_at = key.expires_at.min(Some(now));
            }
        }
    }

    fn issue(&mut self, keys: &mut Keys, now: Timestamp, seconds: u32) -> (Credentials, Expiry) {
        let lifetime = self.identity.key_life_seconds.unwrap_or(seconds);
        let end = now.checked_add(Duration::from_secs(lifetime.into())).unwrap_or(now).as_second();
        // Whole seconds, as in the answer. A time beyond the calendar expires at once.
        let expires_at = Timestamp::from_second(end).unwrap_or(now);
        self.count += 1;
        let credentials = Credentials {
            tmp_secret_id: format!("AKIDsim{}", self.random("id")),
            tmp_secret_key: self.random("key"),
            token: self.random("token"),
        };
        let key = Key {
            expires_at: Some(expires_at),
            ..Key::temporary(&credentials.tmp_secret_key, &credentials.token)
        };
        keys.insert(credentials.tmp_secret_id.clone(), key);
        if self.issued.len() == ISSUED_MAX
            && let Some(oldest) = self.issued.pop_front()
        {
            keys.remove(&oldest);
        }
        self.issued.push_back(credentials.tmp_secret_id.clone());
        let expiry = Expiry { expired_time: end, expiration: format!("{expires_at:.0}") };
        (credentials, expiry)
    }

    fn random(&self, what: &str) -> String {
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(self.count.to_be_bytes())
            .chain_update(what);
        hex::encode(hash.finalize()).chars().take(32).collect()
    }
}

fn duration_seconds(parameters: &Parameters) -> Result<u32, ApiError> {
    let Some(seconds) = parameters.get("DurationSeconds") else {
        return Ok(LIFETIME_DEFAULT_SECONDS);
    };
    seconds
        .as_u64()
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| (1..=LIFETIME_MAX_SECONDS).contains(seconds))
        .ok_or_else(|| {
            let message =
                format!("The parameter `DurationSeconds` must be 1 to {LIFETIME_MAX_SECONDS}.");
            ApiError::new("InvalidParameter.OverLimit", message)
        })
}

#[cfg(test)]
mod tests {
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
        Request::new(&headers, &body.to_string())
    }

    fn parameters() -> Value {
        json!({
            "ProviderId": "OIDC", "WebIdentityToken": "jwt",
            "RoleArn": "qcs::cam::uin/1:roleName/r", "RoleSessionName": "s",
        })
    }

    fn code(identity: Identity, request: &Request) -> String {
        match Issuer::new(identity, 1).assume_role(request, &mut Keys::new(), now(), "r") {
            Ok(_) => "issued".to_owned(),
            Err(error) => error.code,
        }
    }

    #[test]
    fn sts_issues_a_key_with_a_token_and_an_end() {
        let (mut issuer, mut keys) = (Issuer::new(Identity::default(), 1), Keys::new());

        let answer = issuer.assume_role(&request(&parameters()), &mut keys, now(), "r").unwrap();

        let response = serde_json::to_value(answer).unwrap();
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
            let mut body = parameters();
            body[name] = value;
            assert_eq!(code(Identity::default(), &request(&body)), expected, "{body}");
        }
        let mut signed = request(&parameters());
        signed.headers.insert("authorization", "TC3-HMAC-SHA256".parse().unwrap());
        assert_eq!(code(Identity::default(), &signed), "AuthFailure.InvalidAuthorization");
    }

    #[test]
    fn only_accepted_tokens_get_keys_and_sts_can_be_made_to_fail() {
        let accepting = |token: &str| Identity {
            web_identity_tokens: BTreeSet::from([token.to_owned()]),
            ..Identity::default()
        };
        assert_eq!(code(accepting("jwt"), &request(&parameters())), "issued");
        assert_eq!(
            code(accepting("other"), &request(&parameters())),
            "InvalidParameter.WebIdentityTokenError"
        );
        let failing =
            Identity { sts_error: Some("InternalError".to_owned()), ..Identity::default() };
        assert_eq!(code(failing, &request(&parameters())), "InternalError");
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
        let answer =
            serde_json::to_value(issuer.role_keys("phones", &mut keys, now()).unwrap()).unwrap();

        assert_eq!(
            (&answer["Code"], &answer["ExpiredTime"]),
            (&json!("Success"), &json!(1_736_312_460))
        );
        let secret_id = answer["TmpSecretId"].as_str().unwrap();
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
