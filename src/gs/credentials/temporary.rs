//! Temporary keys: of a pod's identity (OIDC, TKE) and of a node's role (CVM). What is asked and
//! what the answers say; pure.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{Credentials, CredentialsError, Source};

/// How long keys are asked for; STS gives at most 43,200 s.
pub(super) const DURATION_SECONDS: u64 = 7_200;
/// A node's keys are read anew this long before they expire.
const BEFORE_EXPIRY: Duration = Duration::from_mins(5);
/// What STS may be told of the session: a name of ours.
const ROLE_SESSION_NAME: &str = "streamsession-operator";

const ROLE_ARN: &str = "TKE_ROLE_ARN";
const PROVIDER_ID: &str = "TKE_PROVIDER_ID";
const TOKEN_FILE: &str = "TKE_WEB_IDENTITY_TOKEN_FILE";
const REGION: &str = "TKE_REGION";

/// What TKE puts into a pod that has an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodIdentity {
    pub(super) region: String,
    pub(super) provider_id: String,
    pub(super) token_file: String,
    pub(super) role_arn: String,
}

impl PodIdentity {
    /// From the environment. TKE sets all of its variables, or none: some of them are a mistake.
    pub(super) fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, CredentialsError> {
        let wanted = || Source::PodIdentity { role: variable(ROLE_ARN).unwrap_or_default() };
        if [ROLE_ARN, PROVIDER_ID, TOKEN_FILE, REGION].iter().all(|name| variable(name).is_none()) {
            return Err(CredentialsError::NotFound { wanted: wanted() });
        }
        let set = |part: &'static str| {
            let problem = "is not set";
            let missing = || CredentialsError::Incomplete { wanted: wanted(), part, problem };
            variable(part).ok_or_else(missing)
        };
        Ok(Self {
            role_arn: set(ROLE_ARN)?,
            provider_id: set(PROVIDER_ID)?,
            token_file: set(TOKEN_FILE)?,
            region: set(REGION)?,
        })
    }

    /// The body of `AssumeRoleWithWebIdentity`.
    pub(super) fn body(&self, web_identity_token: &str) -> String {
        json!({
            "ProviderId": self.provider_id,
            "WebIdentityToken": web_identity_token,
            "RoleArn": self.role_arn,
            "RoleSessionName": ROLE_SESSION_NAME,
            "DurationSeconds": DURATION_SECONDS,
        })
        .to_string()
    }

    pub(super) fn source(&self) -> Source {
        Source::PodIdentity { role: self.role_arn.clone() }
    }
}

/// Keys, and for how long they are good.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) credentials: Credentials,
    pub(super) good_for: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    response: StsResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StsResponse {
    credentials: Option<StsCredentials>,
    error: Option<StsError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StsCredentials {
    token: String,
    tmp_secret_id: String,
    tmp_secret_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StsError {
    code: String,
    message: String,
}

/// The keys in an answer of STS. They are renewed at 90 % of their life, by our own clock: it is
/// started when they arrive.
pub(super) fn of_sts(body: &[u8], source: &Source) -> Result<Temporary, CredentialsError> {
    let unreachable =
        |reason: String| CredentialsError::Unreachable { wanted: source.clone(), reason };
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|_| unreachable("STS gave an answer that can't be read".to_owned()))?;
    if let Some(error) = envelope.response.error {
        return Err(unreachable(format!("STS answered {}: {}", error.code, error.message)));
    }
    let Some(keys) = envelope.response.credentials else {
        return Err(unreachable("STS answered without keys".to_owned()));
    };
    let credentials = Credentials::temporary(
        source.clone(),
        &keys.tmp_secret_id,
        &keys.tmp_secret_key,
        &keys.token,
    )?;
    Ok(Temporary { credentials, good_for: Duration::from_secs(DURATION_SECONDS / 10 * 9) })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataKeys {
    #[serde(default)]
    code: String,
    #[serde(default)]
    tmp_secret_id: String,
    #[serde(default)]
    tmp_secret_key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    expired_time: i64,
}

/// The keys in an answer of the metadata service; `now`: Unix seconds of this node's clock, as the
/// metadata service is on the node.
pub(super) fn of_metadata(
    body: &[u8],
    source: &Source,
    now: i64,
) -> Result<Temporary, CredentialsError> {
    let unreachable =
        |reason: String| CredentialsError::Unreachable { wanted: source.clone(), reason };
    let keys: MetadataKeys = serde_json::from_slice(body).map_err(|_| {
        unreachable("the metadata service gave an answer that can't be read".to_owned())
    })?;
    if keys.code != "Success" {
        return Err(unreachable(format!("the metadata service answered Code {:?}", keys.code)));
    }
    let credentials = Credentials::temporary(
        source.clone(),
        &keys.tmp_secret_id,
        &keys.tmp_secret_key,
        &keys.token,
    )?;
    let left = Duration::from_secs(keys.expired_time.saturating_sub(now).try_into().unwrap_or(0));
    Ok(Temporary { credentials, good_for: left.saturating_sub(BEFORE_EXPIRY) })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn source() -> Source {
        Source::PodIdentity { role: "qcs::cam::uin/1:roleName/gs".into() }
    }

    #[test]
    fn the_keys_of_sts_are_named_after_the_role_and_renewed_before_they_expire() {
        let body =
            br#"{"Response":{"Credentials":{"Token":"t","TmpSecretId":"AKIDtmp","TmpSecretKey":"k"},
            "ExpiredTime":1,"RequestId":"r"}}"#;

        let temporary = of_sts(body, &source()).unwrap();

        assert_eq!(temporary.credentials.name(), "qcs::cam::uin/1:roleName/gs");
        assert_eq!(temporary.credentials.token.unwrap().expose_secret(), "t");
        assert_eq!(temporary.good_for, Duration::from_mins(108));
    }

    #[test]
    fn a_refusal_of_sts_is_told_with_its_code() {
        let body = br#"{"Response":{"Error":{"Code":"AuthFailure.OIDC","Message":"expired"},
            "RequestId":"r"}}"#;
        let error = of_sts(body, &source()).unwrap_err().to_string();
        assert!(error.contains("AuthFailure.OIDC") && error.contains("roleName/gs"), "{error}");
    }

    #[test]
    fn a_nodes_keys_are_renewed_five_minutes_before_they_expire() {
        let body = br#"{"TmpSecretId":"AKIDtmp","TmpSecretKey":"k","Token":"t",
            "ExpiredTime":1600,"Code":"Success"}"#;
        assert_eq!(of_metadata(body, &source(), 1_000).unwrap().good_for, Duration::from_mins(5));
        assert!(of_metadata(br#"{"Code":"Failed"}"#, &source(), 0).is_err());
        assert!(of_metadata(b"<html>", &source(), 0).is_err());
    }

    fn pod_identity(set: &[&str]) -> Result<PodIdentity, CredentialsError> {
        PodIdentity::from_variables(|name| set.contains(&name).then(|| format!("of {name}")))
    }

    #[test]
    fn a_pod_without_any_of_the_variables_has_no_identity() {
        let error = pod_identity(&[]).unwrap_err();

        assert_eq!(
            error,
            CredentialsError::NotFound { wanted: Source::PodIdentity { role: String::new() } }
        );
        assert_eq!(error.to_string(), "the pod has no identity (TKE_ROLE_ARN is not set)");
    }

    #[test]
    fn a_missing_variable_of_the_pods_identity_is_named() {
        let all = [ROLE_ARN, PROVIDER_ID, TOKEN_FILE, REGION];
        assert!(pod_identity(&all).is_ok());

        for missing in all {
            let others: Vec<_> = all.into_iter().filter(|name| *name != missing).collect();
            let error = pod_identity(&others).unwrap_err();

            assert!(
                matches!(error, CredentialsError::Incomplete { part, .. } if part == missing),
                "{error}"
            );
        }
    }
}
