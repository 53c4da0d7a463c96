//! Secrets, read when needed and remembered for a while.
//!
//! With `get` alone: to watch Secrets an operator needs the right to read all of them (design,
//! section 4).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;

use super::{Credentials, CredentialsError, Own, Source};

/// A rotated Secret takes effect within this time, and at once when the old one is refused.
const FRESH: Duration = Duration::from_mins(1);
/// For one read of a Secret, so that a hanging API server holds no reconcile.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Secrets remembered. Far more than anyone has; the one that was read longest ago goes first.
const SECRETS_MAX: usize = 4_096;

/// The Secrets that objects refer to, and the operator's own environment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CredentialStore {
    secrets: Arc<Mutex<HashMap<Key, Remembered>>>,
    /// Of many objects that want one Secret at once, one reads it.
    reading: Arc<Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>>,
    own: Own,
    /// Namespaces whose objects may spend the operator's own credentials; none: all.
    own_for: Option<Arc<BTreeSet<String>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug)]
struct Remembered {
    credentials: Credentials,
    read_at: Instant,
    /// The service refused them: they are read again.
    refused: bool,
}

impl CredentialStore {
    /// A store whose objects without a Secret spend `own`, if they are in one of the namespaces;
    /// without any: all may.
    #[must_use]
    pub fn new(own: Own, own_for: Option<BTreeSet<String>>) -> Self {
        Self { own, own_for: own_for.map(Arc::new), ..Self::default() }
    }

    /// Forgets the operator's own temporary keys of that id, because the service refused them.
    pub async fn invalidate_own(&self, refused: &str) {
        self.own.invalidate(refused).await;
    }

    /// Credentials of the Secret, or of the environment for an object that names none.
    pub async fn get(
        &self,
        client: &kube::Client,
        namespace: &str,
        secret_name: Option<&str>,
    ) -> Result<Credentials, CredentialsError> {
        let Some(name) = secret_name else {
            return match &self.own_for {
                Some(namespaces) if !namespaces.contains(namespace) => {
                    Err(CredentialsError::NotForNamespace { namespace: namespace.into() })
                }
                _ => self.own.get().await,
            };
        };
        let key = Key { namespace: namespace.into(), name: name.into() };
        if let Some(fresh) = self.fresh(&key, Instant::now()) {
            return Ok(fresh);
        }
        let turn = self.turn(&key);
        let _turn = turn.lock().await;
        if let Some(fresh) = self.fresh(&key, Instant::now()) {
            return Ok(fresh);
        }
        // Dated before the read: what is rotated meanwhile must not count as seen.
        let read_at = Instant::now();
        let credentials = read(client, &key).await?;
        self.remember(
            key,
            Remembered { credentials: credentials.clone(), read_at, refused: false },
        );
        Ok(credentials)
    }

    /// Forgets that the Secret was read lately, because the service refused what it holds.
    pub fn invalidate(&self, namespace: &str, name: &str) {
        if let Some(remembered) =
            self.lock().get_mut(&Key { namespace: namespace.into(), name: name.into() })
        {
            remembered.refused = true;
        }
    }

    /// What the Secret held when it was last read: a deletion goes on with it when the Secret went
    /// first (design 3.8).
    #[must_use]
    pub fn last_good(&self, namespace: &str, name: &str) -> Option<Credentials> {
        let key = Key { namespace: namespace.into(), name: name.into() };
        self.lock().get(&key).map(|remembered| remembered.credentials.clone())
    }

    /// Whose turn it is to read the Secret; forgotten once nobody waits.
    fn turn(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = reading.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        reading.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        reading.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }

    fn fresh(&self, key: &Key, now: Instant) -> Option<Credentials> {
        let secrets = self.lock();
        let remembered = secrets.get(key)?;
        let fresh =
            !remembered.refused && now.saturating_duration_since(remembered.read_at) < FRESH;
        fresh.then(|| remembered.credentials.clone())
    }

    fn remember(&self, key: Key, new: Remembered) {
        let mut secrets = self.lock();
        // Of two reads at once the later one counts.
        if secrets.get(&key).is_some_and(|known| known.read_at > new.read_at) {
            return;
        }
        if secrets.len() >= SECRETS_MAX && !secrets.contains_key(&key) {
            let oldest = secrets
                .iter()
                .min_by_key(|(_, remembered)| remembered.read_at)
                .map(|(key, _)| key.clone());
            oldest.and_then(|oldest| secrets.remove(&oldest));
        }
        secrets.insert(key, new);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Remembered>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(
    client: &kube::Client,
    Key { namespace, name }: &Key,
) -> Result<Credentials, CredentialsError> {
    let wanted = || Source::Secret { namespace: namespace.clone(), name: name.clone() };
    let unreachable = |reason| CredentialsError::Unreachable { wanted: wanted(), reason };
    let api = kube::Api::<Secret>::namespaced(client.clone(), namespace);
    match tokio::time::timeout(READ_DEADLINE, api.get(name)).await {
        Ok(Ok(secret)) => Credentials::from_secret(&secret),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Err(CredentialsError::NotFound { wanted: wanted() })
        }
        Ok(Err(kube::Error::Api(status))) => Err(unreachable(status.message)),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => {
            Err(unreachable(format!("the API server gave no answer within {READ_DEADLINE:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::test_server::{Reply, TestServer, http};
    use super::*;

    const GONE: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"secrets \"tencent\" not found","code":404}"#;
    const FORBIDDEN: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"secrets \"tencent\" is forbidden","code":403}"#;

    fn kube_client(server: &TestServer) -> kube::Client {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        kube::Client::try_from(kube::Config::new(
            format!("http://{}", server.address).parse().unwrap(),
        ))
        .unwrap()
    }

    fn json(status: &str, body: &str) -> Reply {
        Reply::Answer(http(status, &["Content-Type: application/json"], body))
    }

    /// A Secret `arcade/tencent` whose `secretId` is this one.
    fn secret(secret_id: &str) -> Reply {
        let mut secret =
            super::super::tests::secret(&[("secretId", secret_id), ("secretKey", "k")]);
        secret.metadata.resource_version = Some("1".into());
        json("200 OK", &serde_json::to_string(&secret).unwrap())
    }

    fn remembered(secret_id: &str, read_at: Instant) -> Remembered {
        let secret = super::super::tests::secret(&[("secretId", secret_id), ("secretKey", "k")]);
        Remembered {
            credentials: Credentials::from_secret(&secret).unwrap(),
            read_at,
            refused: false,
        }
    }

    fn key(name: &str) -> Key {
        Key { namespace: "arcade".into(), name: name.into() }
    }

    #[tokio::test]
    async fn many_who_want_one_secret_at_once_read_it_once() {
        let server = TestServer::start(|_, _| secret("AKID1"));
        let client = kube_client(&server);
        let store = CredentialStore::default();

        let (first, second) = tokio::join!(
            store.get(&client, "arcade", Some("tencent")),
            store.get(&client, "arcade", Some("tencent"))
        );

        assert!(first.is_ok() && second.is_ok());
        assert_eq!(server.requests().len(), 1);
        assert!(store.reading.lock().unwrap().values().all(|turn| turn.strong_count() == 0));
    }

    #[tokio::test]
    async fn a_secret_is_read_with_get_alone_and_kept() {
        let server = TestServer::start(|_, _| secret("AKID1"));
        let (client, store) = (kube_client(&server), CredentialStore::default());

        for _ in 0..3 {
            assert_eq!(
                store.get(&client, "arcade", Some("tencent")).await.unwrap().secret_id,
                "AKID1"
            );
        }

        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        assert!(
            requests[0].starts_with("GET /api/v1/namespaces/arcade/secrets/tencent "),
            "{}",
            requests[0]
        );
    }

    #[tokio::test]
    async fn a_refused_secret_is_read_again() {
        let server = TestServer::start(|number, _| secret(if number == 0 { "OLD" } else { "NEW" }));
        let (client, store) = (kube_client(&server), CredentialStore::default());
        store.get(&client, "arcade", Some("tencent")).await.unwrap();

        store.invalidate("arcade", "tencent");

        assert_eq!(store.get(&client, "arcade", Some("tencent")).await.unwrap().secret_id, "NEW");
    }

    #[tokio::test]
    async fn the_last_credentials_survive_their_secret() {
        let server = TestServer::start(|number, _| {
            if number == 0 { secret("AKID1") } else { json("404 Not Found", GONE) }
        });
        let (client, store) = (kube_client(&server), CredentialStore::default());
        assert!(store.last_good("arcade", "tencent").is_none());
        store.get(&client, "arcade", Some("tencent")).await.unwrap();
        store.invalidate("arcade", "tencent");

        let error = store.get(&client, "arcade", Some("tencent")).await.unwrap_err();

        assert_eq!(
            error.to_string(),
            "Secret arcade/tencent does not exist; create it: kubectl -n arcade create secret generic tencent \
             --from-literal=secretId=AKID... --from-literal=secretKey=..."
        );
        assert_eq!(store.last_good("arcade", "tencent").unwrap().secret_id, "AKID1");
    }

    #[tokio::test]
    async fn a_secret_that_may_not_be_read_says_what_the_api_server_said() {
        let server = TestServer::start(|_, _| json("403 Forbidden", FORBIDDEN));

        let error = CredentialStore::default()
            .get(&kube_client(&server), "arcade", Some("tencent"))
            .await
            .unwrap_err();

        assert_eq!(
            error.to_string(),
            "Secret arcade/tencent could not be read: secrets \"tencent\" is forbidden; it is tried again"
        );
    }

    #[test]
    fn a_secret_is_fresh_for_a_minute() {
        let (store, now) = (CredentialStore::default(), Instant::now());
        store.remember(key("tencent"), remembered("AKID1", now));

        assert!(store.fresh(&key("tencent"), now + Duration::from_secs(59)).is_some());
        assert!(store.fresh(&key("tencent"), now + FRESH).is_none());
        assert!(store.last_good("arcade", "tencent").is_some());
    }

    #[test]
    fn a_read_that_began_earlier_does_not_replace_a_later_one() {
        let (store, now) = (CredentialStore::default(), Instant::now());
        store.remember(key("tencent"), remembered("NEW", now + FRESH));

        store.remember(key("tencent"), remembered("OLD", now));

        assert_eq!(store.last_good("arcade", "tencent").unwrap().secret_id, "NEW");
    }

    #[test]
    fn no_more_secrets_are_remembered_than_the_limit() {
        let (store, start) = (CredentialStore::default(), Instant::now());
        for number in 0..u32::try_from(SECRETS_MAX).unwrap() + 2 {
            store.remember(
                key(&number.to_string()),
                remembered("AKID1", start + Duration::from_millis(1) * number),
            );
        }

        assert_eq!(store.lock().len(), SECRETS_MAX);
        assert!(
            store.last_good("arcade", "0").is_none() && store.last_good("arcade", "1").is_none()
        );
        assert!(store.last_good("arcade", "2").is_some());
    }
}
