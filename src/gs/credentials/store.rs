//! Secrets, read when needed and remembered for a while.
//!
//! With `get` alone: to watch Secrets, an operator needs the right to read all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;

use super::super::single_flight::SingleFlight;
use super::own::{Own, OwnSettings};
use super::{Credentials, CredentialsError, Source};

/// A rotated Secret takes effect within this time, and at once when the old one is refused.
const FRESH: Duration = Duration::from_mins(1);
/// For one read of a Secret, so that a hanging API server holds no reconcile.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Secrets remembered. Far more than anyone has; the one that was read longest ago goes first.
const SECRETS_MAX: usize = 4_096;

/// The Secrets that objects refer to, and the operator's own credentials.
#[derive(Debug)]
pub struct CredentialStore {
    own: Own,
    secrets: Arc<Secrets>,
    /// Of many objects that want one Secret at once, one reads it.
    reading: SingleFlight<Key, Result<Credentials, CredentialsError>>,
}

/// The Secrets that were read.
#[derive(Debug, Default)]
struct Secrets(Mutex<HashMap<Key, Remembered>>);

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
    /// A store whose objects without a Secret use the operator's own credentials, if they may.
    #[must_use]
    pub fn new(own: OwnSettings) -> Self {
        Self { own: Own::new(own), secrets: Arc::default(), reading: SingleFlight::default() }
    }

    /// Credentials of the Secret, or the operator's own for an object that names none.
    pub async fn get(
        &self,
        client: &kube::Client,
        namespace: &str,
        secret_name: Option<&str>,
    ) -> Result<Credentials, CredentialsError> {
        let Some(name) = secret_name else {
            return self.own.get(namespace).await;
        };
        let key = Key { namespace: namespace.into(), name: name.into() };
        let (client, secrets) = (client.clone(), Arc::clone(&self.secrets));
        self.reading.join(key.clone(), || secrets.get(client, key)).await
    }

    /// Forgets these credentials, because the service refused them: the Secret that they are of, or
    /// the operator's temporary keys.
    pub fn invalidate(&self, refused: &Credentials) {
        match &refused.source {
            Source::Secret { namespace, name } => self.secrets.invalidate(namespace, name),
            _ => self.own.invalidate(&refused.secret_id),
        }
    }

    /// What the Secret held when it was last read: a deletion goes on with it when the Secret went
    /// first.
    #[must_use]
    pub fn last_good(&self, namespace: &str, name: &str) -> Option<Credentials> {
        self.secrets.last_good(&Key { namespace: namespace.into(), name: name.into() })
    }
}

impl Secrets {
    async fn get(
        self: Arc<Self>,
        client: kube::Client,
        key: Key,
    ) -> Result<Credentials, CredentialsError> {
        // Dated before the read: what is rotated meanwhile must not count as seen.
        let read_at = Instant::now();
        if let Some(fresh) = self.fresh(&key, read_at) {
            return Ok(fresh);
        }
        let credentials = read(&client, &key).await?;
        let new = Remembered { credentials: credentials.clone(), read_at, refused: false };
        self.remember(key, new);
        Ok(credentials)
    }

    fn invalidate(&self, namespace: &str, name: &str) {
        let key = Key { namespace: namespace.into(), name: name.into() };
        if let Some(remembered) = self.0.lock().get_mut(&key) {
            remembered.refused = true;
        }
    }

    fn last_good(&self, key: &Key) -> Option<Credentials> {
        self.0.lock().get(key).map(|remembered| remembered.credentials.clone())
    }

    fn fresh(&self, key: &Key, now: Instant) -> Option<Credentials> {
        let secrets = self.0.lock();
        let remembered = secrets.get(key)?;
        let fresh =
            !remembered.refused && now.saturating_duration_since(remembered.read_at) < FRESH;
        fresh.then(|| remembered.credentials.clone())
    }

    fn remember(&self, key: Key, new: Remembered) {
        let mut secrets = self.0.lock();
        if secrets.len() >= SECRETS_MAX && !secrets.contains_key(&key) {
            let oldest = secrets
                .iter()
                .min_by_key(|(_, remembered)| remembered.read_at)
                .map(|(key, _)| key.clone());
            oldest.and_then(|oldest| secrets.remove(&oldest));
        }
        secrets.insert(key, new);
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
    use super::*;

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

    #[test]
    fn a_secret_is_fresh_for_a_minute() {
        let (secrets, now) = (Secrets::default(), Instant::now());
        secrets.remember(key("tencent"), remembered("AKID1", now));

        assert!(secrets.fresh(&key("tencent"), now + Duration::from_secs(59)).is_some());
        assert!(secrets.fresh(&key("tencent"), now + FRESH).is_none());
        assert!(secrets.last_good(&key("tencent")).is_some());
    }

    #[test]
    fn no_more_secrets_are_remembered_than_the_limit() {
        let (secrets, start) = (Secrets::default(), Instant::now());
        for number in 0..u32::try_from(SECRETS_MAX).unwrap() + 2 {
            secrets.remember(
                key(&number.to_string()),
                remembered("AKID1", start + Duration::from_millis(1) * number),
            );
        }

        assert_eq!(secrets.0.lock().len(), SECRETS_MAX);
        assert!(secrets.last_good(&key("0")).is_none() && secrets.last_good(&key("1")).is_none());
        assert!(secrets.last_good(&key("2")).is_some());
    }
}
