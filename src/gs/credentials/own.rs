//! The operator's own credentials: environment, profile file, pod identity, node role, in this
//! order (the SDKs put the pod's identity last, so that a node's role shadows it).
//!
//! The first that is set up decides, also if it fails: what would come next is another account,
//! which nobody chose. A source that is not set up is [`CredentialsError::NotFound`].

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::AUTHORIZATION;

use super::super::exchange::{Http, read_body, reason};
use super::super::single_flight::SingleFlight;
use super::temporary::{PodIdentity, Temporary, of_metadata, of_sts};
use super::{Credentials, CredentialsError, Source, profile};

/// STS may take a moment.
const STS_DEADLINE: Duration = Duration::from_secs(5);
/// The metadata service is on the node. Where there is none, nothing should wait for it.
const METADATA_DEADLINE: Duration = Duration::from_secs(2);
/// How long a failure of the remote sources is remembered: a fleet without credentials must not ask
/// for each object.
const FAILURE_KEPT: Duration = Duration::from_secs(10);
const METADATA_PATH: &str = "latest/meta-data/cam/security-credentials";

/// Whose the operator's own credentials may be, and where they are looked for.
#[derive(Clone, Debug, Default)]
pub struct OwnSettings {
    /// The namespaces whose objects may use them.
    pub namespaces: PermittedNamespaces,
    /// Whether the role of the operator's node is one of the sources.
    pub node_role: bool,
    /// Security Token Service, as a URL.
    pub sts: String,
    /// The metadata service of a CVM node, as a URL.
    pub metadata: String,
    /// A PEM file of CA certificates that STS may have besides the platform's: of a proxy that
    /// looks into TLS.
    pub ca_file: Option<PathBuf>,
}

/// The namespaces whose objects may use the operator's own credentials. Default: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermittedNamespaces {
    /// These.
    Named(BTreeSet<String>),
    /// Each.
    All,
}

impl Default for PermittedNamespaces {
    fn default() -> Self {
        Self::Named(BTreeSet::new())
    }
}

impl PermittedNamespaces {
    fn have(&self, namespace: &str) -> bool {
        match self {
            Self::Named(names) => names.contains(namespace),
            Self::All => true,
        }
    }
}

/// The operator's own credentials. Of many who want those of a remote source at once, one asks it.
#[derive(Debug)]
pub(super) struct Own {
    namespaces: PermittedNamespaces,
    remote: Arc<Remote>,
    asking: SingleFlight<(), Result<Credentials, CredentialsError>>,
}

/// The sources that give temporary keys, and what they gave last.
#[derive(Debug)]
struct Remote {
    settings: OwnSettings,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    result: Result<Credentials, CredentialsError>,
    until: Instant,
}

/// A source that gives temporary keys.
enum RemoteSource {
    PodIdentity(PodIdentity),
    NodeRole,
}

/// A variable of the operator's environment. An empty one is how many tools unset one.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn pod_identity() -> Result<PodIdentity, CredentialsError> {
    // What is no UTF-8 is of no use, but it is set.
    PodIdentity::from_variables(|name| Some(variable(name)?.to_string_lossy().into_owned()))
}

fn profile() -> Result<Credentials, CredentialsError> {
    profile::read(&profile::Place::from_variables(variable))
}

fn failed(error: CredentialsError) -> CredentialsError {
    CredentialsError::OwnFailed { error: Box::new(error) }
}

impl Own {
    /// Those that the process's environment leads to.
    pub(super) fn new(settings: OwnSettings) -> Self {
        let namespaces = settings.namespaces.clone();
        let remote = Arc::new(Remote { settings, kept: Mutex::default() });
        Self { namespaces, remote, asking: SingleFlight::default() }
    }

    /// For an object of that namespace: the credentials of the first source that is set up.
    pub(super) async fn get(&self, namespace: &str) -> Result<Credentials, CredentialsError> {
        if !self.namespaces.have(namespace) {
            return Err(CredentialsError::NotForNamespace { namespace: namespace.into() });
        }
        let mut not_set_up = Vec::new();
        let local: [fn() -> Result<Credentials, CredentialsError>; 2] =
            [Credentials::from_env, profile];
        for source in local {
            match source() {
                Err(error @ CredentialsError::NotFound { .. }) => not_set_up.push(error),
                decided => return decided.map_err(failed),
            }
        }
        match pod_identity() {
            Err(error @ CredentialsError::NotFound { .. }) => not_set_up.push(error),
            Err(error) => return Err(failed(error)),
            Ok(identity) => return self.ask(RemoteSource::PodIdentity(identity)).await,
        }
        if self.remote.settings.node_role {
            return self.ask(RemoteSource::NodeRole).await;
        }
        let wanted = Source::NodeRole { role: String::new() };
        not_set_up.push(CredentialsError::NotFound { wanted });
        Err(CredentialsError::NoneSetUp { sources: not_set_up })
    }

    async fn ask(&self, source: RemoteSource) -> Result<Credentials, CredentialsError> {
        let remote = Arc::clone(&self.remote);
        self.asking.join((), || remote.get(source)).await.map_err(failed)
    }

    /// Forgets the temporary keys of the id that the service refused, if they are still the present
    /// ones.
    pub(super) fn invalidate(&self, refused: &str) {
        self.remote.kept.lock().take_if(|kept| {
            kept.result.as_ref().is_ok_and(|credentials| credentials.secret_id == refused)
        });
    }
}

impl Remote {
    async fn get(self: Arc<Self>, source: RemoteSource) -> Result<Credentials, CredentialsError> {
        if let Some(kept) = &*self.kept.lock()
            && Instant::now() < kept.until
        {
            return kept.result.clone();
        }
        let asked = match source {
            RemoteSource::PodIdentity(identity) => self.assume_role(&identity).await,
            RemoteSource::NodeRole => self.node_role().await,
        };
        let (result, good_for) = match asked {
            Ok(Temporary { credentials, good_for }) => (Ok(credentials), good_for),
            Err(error) => (Err(error), FAILURE_KEPT),
        };
        let until = Instant::now() + good_for;
        *self.kept.lock() = Some(Kept { result: result.clone(), until });
        result
    }

    async fn assume_role(&self, identity: &PodIdentity) -> Result<Temporary, CredentialsError> {
        let source = identity.source();
        let unreachable =
            |reason: String| CredentialsError::Unreachable { wanted: identity.source(), reason };
        // Read anew each time: the kubelet rotates it.
        let token = std::fs::read_to_string(&identity.token_file).map_err(|error| {
            unreachable(format!("its token file {} can't be read: {error}", identity.token_file))
        })?;
        let http = Http::new(STS_DEADLINE, self.settings.ca_file.as_deref())
            .map_err(|error| unreachable(error.to_string()))?;
        let request = http
            .client(&self.settings.sts)
            .post(&self.settings.sts)
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
            .map_err(|reason| unreachable(format!("{}: {reason}", self.settings.sts)))?;
        of_sts(&body, &source)
    }

    async fn node_role(&self) -> Result<Temporary, CredentialsError> {
        let source = |role: &str| Source::NodeRole { role: role.to_owned() };
        let unreachable =
            |reason: String| CredentialsError::Unreachable { wanted: source(""), reason };
        let http =
            Http::new(METADATA_DEADLINE, None).map_err(|error| unreachable(error.to_string()))?;
        let url = format!("{}/{METADATA_PATH}/", self.settings.metadata);
        let get = |url: &str| http.client(url).get(url).timeout(METADATA_DEADLINE);
        let failed = |reason: String| unreachable(format!("{}: {reason}", self.settings.metadata));
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
