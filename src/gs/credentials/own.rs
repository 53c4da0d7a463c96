//! The operator's own credentials: environment, profile file, pod identity, node role, in this
//! order (the SDKs put the pod's identity last, so that a node's role shadows it).

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::AUTHORIZATION;
use tokio::sync::Mutex;

use super::super::exchange::{Http, read_body, reason};
use super::temporary::{PodIdentity, Temporary, of_metadata, of_sts};
use super::{Credentials, CredentialsError, Source, profile};

/// STS may take a moment; the metadata service is on the node, and where there is none nothing
/// should wait for it (reference, section 4).
const STS_DEADLINE: Duration = Duration::from_secs(5);
const METADATA_DEADLINE: Duration = Duration::from_secs(2);
/// How long a failure of the remote sources is remembered: a fleet without credentials must not ask
/// for each object.
const FAILURE_KEPT: Duration = Duration::from_secs(10);
const METADATA_PATH: &str = "latest/meta-data/cam/security-credentials";

/// Where the remote sources are.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Security Token Service, as a URL.
    pub sts: String,
    /// The metadata service of a CVM node, as a URL.
    pub metadata: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            sts: "https://sts.tencentcloudapi.com".to_owned(),
            metadata: "http://metadata.tencentyun.com".to_owned(),
        }
    }
}

type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The operator's own credentials. Cheap to clone; of many who ask at once, one asks the remote
/// source.
#[derive(Clone)]
pub struct Own {
    endpoints: Endpoints,
    variable: Arc<Variables>,
    remote: Arc<Mutex<Option<Remembered>>>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

struct Remembered {
    result: Result<Credentials, Vec<CredentialsError>>,
    until: Instant,
}

impl Default for Own {
    fn default() -> Self {
        Self::new(Endpoints::default())
    }
}

impl Own {
    /// Those that the process's environment leads to.
    #[must_use]
    pub fn new(endpoints: Endpoints) -> Self {
        Self::with(
            endpoints,
            Arc::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
        )
    }

    fn with(endpoints: Endpoints, variable: Arc<Variables>) -> Self {
        Self { endpoints, variable, remote: Arc::default() }
    }

    /// The credentials of the first source that has any; otherwise which were tried, and why each
    /// did not serve.
    pub async fn get(&self) -> Result<Credentials, CredentialsError> {
        let mut tried = Vec::new();
        match Credentials::from_variables(|name| (self.variable)(name).map(String::into_bytes)) {
            Ok(credentials) => return Ok(credentials),
            Err(error) => tried.push(error),
        }
        match profile::read(&profile::paths(&*self.variable)) {
            Ok(credentials) => return Ok(credentials),
            Err(error) => tried.push(error),
        }
        match self.remote().await {
            Ok(credentials) => Ok(credentials),
            Err(remote) => {
                tried.extend(remote);
                Err(CredentialsError::NoneServes { tried })
            }
        }
    }

    /// Forgets the temporary keys of the id that the service refused, if they are still the present
    /// ones.
    pub async fn invalidate(&self, refused: &str) {
        let mut remembered = self.remote.lock().await;
        if remembered
            .as_ref()
            .is_some_and(|known| known.result.as_ref().is_ok_and(|keys| keys.secret_id == refused))
        {
            *remembered = None;
        }
    }

    async fn remote(&self) -> Result<Credentials, Vec<CredentialsError>> {
        let mut remembered = self.remote.lock().await;
        if let Some(known) = &*remembered
            && Instant::now() < known.until
        {
            return known.result.clone();
        }
        let (result, good_for) = match self.ask().await {
            Ok(Temporary { credentials, good_for }) => (Ok(credentials), good_for),
            Err(errors) => (Err(errors), FAILURE_KEPT),
        };
        *remembered = Some(Remembered { result: result.clone(), until: Instant::now() + good_for });
        result
    }

    async fn ask(&self) -> Result<Temporary, Vec<CredentialsError>> {
        let mut tried = Vec::new();
        match PodIdentity::from_variables(&*self.variable) {
            Ok(identity) => match self.assume_role(&identity).await {
                Ok(temporary) => return Ok(temporary),
                Err(error) => tried.push(error),
            },
            Err(variable) => {
                let wanted = Source::PodIdentity { role: String::new() };
                tried.push(CredentialsError::Incomplete {
                    wanted,
                    part: variable,
                    problem: "is not set",
                });
            }
        }
        match self.node_role().await {
            Ok(temporary) => Ok(temporary),
            Err(error) => {
                tried.push(error);
                Err(tried)
            }
        }
    }

    async fn assume_role(&self, identity: &PodIdentity) -> Result<Temporary, CredentialsError> {
        let source = identity.source();
        let unreachable =
            |reason: String| CredentialsError::Unreachable { wanted: identity.source(), reason };
        // Read anew each time: the kubelet rotates it.
        let token = std::fs::read_to_string(&identity.token_file).map_err(|error| {
            unreachable(format!("its token file {} can't be read: {error}", identity.token_file))
        })?;
        let http = Http::new(STS_DEADLINE, None).map_err(|error| unreachable(error.to_string()))?;
        let request = http
            .client(&self.endpoints.sts)
            .post(&self.endpoints.sts)
            .timeout(STS_DEADLINE)
            .header(AUTHORIZATION, "SKIP")
            .header("Content-Type", "application/json")
            .header("X-TC-Action", "AssumeRoleWithWebIdentity")
            .header("X-TC-Version", "2018-08-13")
            .header("X-TC-Region", &identity.region)
            .header("X-TC-Timestamp", jiff::Timestamp::now().as_second())
            .body(identity.body(token.trim()));
        let body = body(request)
            .await
            .map_err(|reason| unreachable(format!("{}: {reason}", self.endpoints.sts)))?;
        of_sts(&body, &source)
    }

    async fn node_role(&self) -> Result<Temporary, CredentialsError> {
        let source = |role: &str| Source::NodeRole { role: role.to_owned() };
        let unreachable =
            |reason: String| CredentialsError::Unreachable { wanted: source(""), reason };
        let http =
            Http::new(METADATA_DEADLINE, None).map_err(|error| unreachable(error.to_string()))?;
        let url = format!("{}/{METADATA_PATH}/", self.endpoints.metadata);
        let get = |url: &str| http.client(url).get(url).timeout(METADATA_DEADLINE);
        let failed = |reason: String| unreachable(format!("{}: {reason}", self.endpoints.metadata));
        let role = body(get(&url)).await.map_err(failed)?;
        let role = String::from_utf8_lossy(&role).trim().to_owned();
        if role.is_empty()
            || !role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        {
            return Err(unreachable("the node has no role".to_owned()));
        }
        let keys = body(get(&format!("{url}{role}")))
            .await
            .map_err(|reason| unreachable(format!("role {role}: {reason}")))?;
        of_metadata(&keys, &source(&role), jiff::Timestamp::now().as_second())
    }
}

/// The body of a successful answer; otherwise why there is none.
async fn body(request: reqwest::RequestBuilder) -> Result<Vec<u8>, String> {
    let mut response = request.send().await.map_err(|error| reason(&error))?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("HTTP {}", status.as_u16()));
    }
    read_body(&mut response).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::super::test_server::{Reply, TestServer, http};
    use super::*;

    fn own(server: &TestServer, variables: &[(&str, &str)]) -> Own {
        let url = format!("http://{}", server.address);
        let variables: HashMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        // No profile of the machine that the test runs on.
        let variable = move |name: &str| match (variables.get(name), name) {
            (None, "TENCENTCLOUD_CREDENTIALS_FILE") => Some("/nonexistent/credentials".to_owned()),
            (value, _) => value.cloned(),
        };
        Own::with(Endpoints { sts: url.clone(), metadata: url }, Arc::new(variable))
    }

    fn metadata() -> TestServer {
        TestServer::start(|_, request| {
            let body = if request
                .starts_with("GET /latest/meta-data/cam/security-credentials/gs-role ")
            {
                r#"{"TmpSecretId":"AKIDnode","TmpSecretKey":"k","Token":"t","ExpiredTime":99999999999,"Code":"Success"}"#
            } else {
                "gs-role"
            };
            Reply::Answer(http("200 OK", &[], body))
        })
    }

    #[tokio::test]
    async fn the_environment_comes_first_and_asks_nobody() {
        let server = metadata();
        let own = own(
            &server,
            &[
                ("TENCENTCLOUD_SECRET_ID", "AKID"),
                ("TENCENTCLOUD_SECRET_KEY", "k"),
                ("TENCENTCLOUD_TOKEN", "t"),
            ],
        );

        let credentials = own.get().await.unwrap();

        assert_eq!(
            (credentials.account(), credentials.token.is_some(), server.requests().len()),
            ("AKID", true, 0)
        );
    }

    #[tokio::test]
    async fn a_nodes_role_is_asked_once_for_many() {
        let server = metadata();
        let own = own(&server, &[]);

        let (first, second) = tokio::join!(own.get(), own.get());

        assert_eq!((first.unwrap().account(), second.unwrap().account()), ("gs-role", "gs-role"));
        assert_eq!(server.requests().len(), 2, "the role and its keys, once");
        own.invalidate("AKIDother").await;
        own.get().await.unwrap();
        assert_eq!(server.requests().len(), 2, "a late refusal of older keys forgets nothing");
        own.invalidate("AKIDnode").await;
        own.get().await.unwrap();
        assert_eq!(server.requests().len(), 4, "refused keys are read again");
    }

    #[tokio::test]
    async fn without_any_source_each_is_named_with_its_reason() {
        let server = TestServer::start(|_, _| Reply::Answer(http("404 Not Found", &[], "")));

        let error = own(&server, &[]).get().await.unwrap_err().to_string();

        for part in [
            "TENCENTCLOUD_SECRET_ID",
            "/nonexistent/credentials",
            "TKE_ROLE_ARN",
            "HTTP 404",
            "spec.credentialsRef",
        ] {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
}
