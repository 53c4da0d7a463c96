//! Secrets, read when needed and remembered for a while.
//!
//! With `get` alone: to watch Secrets, an operator needs the right to read all of them.
//!
//! A read serves the objects that were there when it began, and no later one: a name that is used
//! again may be another tenant's, who must not have the keys of the one before. So an object that
//! asks for the first time reads for itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;
use streamsession_core::object::ObjectKey;

use super::super::single_flight::SingleFlight;
use super::own::{Own, OwnSettings};
use super::{Credentials, CredentialsError, Source};

/// A rotated Secret takes effect within this time, and at once when the old one is refused.
const FRESH: Duration = Duration::from_mins(1);
/// For one read of a Secret, so that a hanging API server holds no reconcile.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Secrets remembered. Far more than anyone has; the one that was read longest ago goes first.
const SECRETS_MAX: usize = 4_096;
/// Objects remembered, some 250 bytes each. One that is left out reads again.
const OBJECTS_MAX: usize = 65_536;

/// The Secrets that objects refer to, and the operator's own credentials.
#[derive(Debug)]
pub struct CredentialStore {
    own: Own,
    secrets: Arc<Secrets>,
    /// Of many objects that want one Secret at once, one reads it.
    reading: SingleFlight<Key, Reading>,
}

/// The Secrets that were read, and the objects that they are for.
#[derive(Debug, Default)]
struct Secrets(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    read: HashMap<Key, Remembered>,
    users: HashMap<ObjectKey, User>,
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

/// An object that refers to a Secret of its namespace.
#[derive(Clone, Debug)]
struct User {
    uid: String,
    secret: String,
    /// When it asked for this Secret first: a read that began before is not for it.
    since: Instant,
}

/// One read of a Secret, and when it began.
#[derive(Clone, Debug)]
struct Reading {
    read_at: Instant,
    result: Result<Credentials, CredentialsError>,
}

impl CredentialStore {
    /// A store whose objects without a Secret use the operator's own credentials, if they may.
    #[must_use]
    pub fn new(own: OwnSettings) -> Self {
        Self { own: Own::new(own), secrets: Arc::default(), reading: SingleFlight::default() }
    }

    /// For the object of that name and uid: credentials of the Secret, or the operator's own if it
    /// names none.
    pub async fn get(
        &self,
        client: &kube::Client,
        object: &ObjectKey,
        uid: &str,
        secret_name: Option<&str>,
    ) -> Result<Credentials, CredentialsError> {
        let Some(name) = secret_name else {
            return self.own.get(&object.namespace).await;
        };
        let key = Key { namespace: object.namespace.to_string(), name: name.into() };
        let now = Instant::now();
        let since = self.secrets.since(object, uid, name, now);
        if let Some(fresh) = self.secrets.fresh(&key, since, now) {
            return Ok(fresh);
        }
        let mut reading = self.read(client, &key).await;
        if reading.read_at < since {
            // It was under way for others when this object asked.
            reading = self.read(client, &key).await;
        }
        reading.result
    }

    async fn read(&self, client: &kube::Client, key: &Key) -> Reading {
        let (client, secrets) = (client.clone(), Arc::clone(&self.secrets));
        self.reading.join(key.clone(), || secrets.read(client, key.clone())).await
    }

    /// Forgets these credentials, because the service refused them: the Secret that they are of, or
    /// the operator's temporary keys.
    pub fn invalidate(&self, refused: &Credentials) {
        match &refused.source {
            Source::Secret { namespace, name } => self.secrets.invalidate(namespace, name),
            _ => self.own.invalidate(&refused.secret_id),
        }
    }

    /// What the Secret held when it was last read for the object of that name and uid: its deletion
    /// goes on with it when the Secret went first.
    #[must_use]
    pub fn last_good(
        &self,
        object: &ObjectKey,
        uid: &str,
        secret_name: &str,
    ) -> Option<Credentials> {
        self.secrets.last_good(object, uid, secret_name)
    }

    /// The object is gone. The keys that were read for nobody but it are wiped from memory.
    pub fn forget(&self, object: &ObjectKey) {
        self.secrets.forget(object);
    }
}

impl Secrets {
    async fn read(self: Arc<Self>, client: kube::Client, key: Key) -> Reading {
        // Dated before the read: what is rotated meanwhile must not count as seen.
        let read_at = Instant::now();
        let result = read(&client, &key).await;
        if let Ok(credentials) = &result {
            let new = Remembered { credentials: credentials.clone(), read_at, refused: false };
            self.remember(key, new);
        }
        Reading { read_at, result }
    }

    /// Since when this very object refers to this Secret, as far as we know: `now` if it asks for
    /// the first time.
    fn since(&self, object: &ObjectKey, uid: &str, secret: &str, now: Instant) -> Instant {
        let users = &mut self.0.lock().users;
        if let Some(user) = users.get(object)
            && user.uid == uid
            && user.secret == secret
        {
            return user.since;
        }
        if users.len() >= OBJECTS_MAX && !users.contains_key(object) {
            let oldest =
                users.iter().min_by_key(|(_, user)| user.since).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| users.remove(&oldest));
        }
        users.insert(object.clone(), User { uid: uid.into(), secret: secret.into(), since: now });
        now
    }

    fn invalidate(&self, namespace: &str, name: &str) {
        let key = Key { namespace: namespace.into(), name: name.into() };
        if let Some(remembered) = self.0.lock().read.get_mut(&key) {
            remembered.refused = true;
        }
    }

    fn last_good(&self, object: &ObjectKey, uid: &str, secret: &str) -> Option<Credentials> {
        let memory = self.0.lock();
        let user = memory.users.get(object)?;
        let key = Key { namespace: object.namespace.to_string(), name: secret.into() };
        let remembered = memory.read.get(&key)?;
        let is_its = user.uid == uid && user.secret == secret && user.since <= remembered.read_at;
        is_its.then(|| remembered.credentials.clone())
    }

    fn fresh(&self, key: &Key, since: Instant, now: Instant) -> Option<Credentials> {
        let memory = self.0.lock();
        let remembered = memory.read.get(key)?;
        let fresh = since <= remembered.read_at
            && !remembered.refused
            && now.saturating_duration_since(remembered.read_at) < FRESH;
        fresh.then(|| remembered.credentials.clone())
    }

    fn remember(&self, key: Key, new: Remembered) {
        let secrets = &mut self.0.lock().read;
        if secrets.len() >= SECRETS_MAX && !secrets.contains_key(&key) {
            let oldest = secrets
                .iter()
                .min_by_key(|(_, remembered)| remembered.read_at)
                .map(|(key, _)| key.clone());
            oldest.and_then(|oldest| secrets.remove(&oldest));
        }
        secrets.insert(key, new);
    }

    fn forget(&self, object: &ObjectKey) {
        let memory = &mut *self.0.lock();
        let Some(User { secret, .. }) = memory.users.remove(object) else { return };
        let is_used = memory
            .users
            .iter()
            .any(|(other, user)| other.namespace == object.namespace && user.secret == secret);
        if !is_used {
            memory.read.remove(&Key { namespace: object.namespace.to_string(), name: secret });
        }
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

    fn object(name: &str) -> ObjectKey {
        ObjectKey::new("arcade", name)
    }

    /// The Secret `tencent` was read for `lobby` with the uid `1`; and when.
    fn read_for_lobby() -> (Secrets, Instant) {
        let (secrets, now) = (Secrets::default(), Instant::now());
        secrets.since(&object("lobby"), "1", "tencent", now);
        secrets.remember(key("tencent"), remembered("AKID1", now));
        (secrets, now)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_secret_is_fresh_for_a_minute() {
        let (secrets, now) = read_for_lobby();

        assert!(secrets.fresh(&key("tencent"), now, now + Duration::from_secs(59)).is_some());
        assert!(secrets.fresh(&key("tencent"), now, now + FRESH).is_none());
        assert!(secrets.last_good(&object("lobby"), "1", "tencent").is_some());
    }

    #[test]
    fn what_was_read_before_an_object_asked_first_is_not_for_it() {
        let (secrets, now) = read_for_lobby();
        let later = now + SECOND;

        let since = secrets.since(&object("other"), "2", "tencent", later);

        assert!(secrets.fresh(&key("tencent"), since, later).is_none());
        assert!(secrets.last_good(&object("other"), "2", "tencent").is_none());
        secrets.remember(key("tencent"), remembered("AKID1", later));
        assert!(secrets.fresh(&key("tencent"), since, later).is_some());
        assert!(secrets.last_good(&object("other"), "2", "tencent").is_some());
    }

    #[test]
    fn the_last_keys_are_those_of_a_uid_and_not_of_a_name() {
        let (secrets, now) = read_for_lobby();
        let (lobby, later) = (object("lobby"), now + SECOND);
        assert!(secrets.last_good(&lobby, "2", "tencent").is_none(), "who never asked");

        let since = secrets.since(&lobby, "2", "tencent", later);

        assert_eq!(since, later);
        assert!(secrets.last_good(&lobby, "2", "tencent").is_none(), "who asked, and read nothing");
        assert!(secrets.last_good(&lobby, "1", "tencent").is_none(), "who is gone");
    }

    #[test]
    fn another_secret_is_another_beginning() {
        let (secrets, now) = read_for_lobby();
        let lobby = object("lobby");
        assert_eq!(secrets.since(&lobby, "1", "tencent", now + SECOND), now);

        assert_eq!(secrets.since(&lobby, "1", "another", now + SECOND), now + SECOND);

        assert!(secrets.last_good(&lobby, "1", "another").is_none());
        assert!(secrets.last_good(&lobby, "1", "tencent").is_none());
    }

    #[test]
    fn keys_go_with_the_last_object_that_they_were_read_for() {
        let (secrets, now) = read_for_lobby();
        secrets.since(&object("other"), "2", "tencent", now);

        secrets.forget(&object("lobby"));
        assert!(secrets.last_good(&object("lobby"), "1", "tencent").is_none());
        assert!(secrets.last_good(&object("other"), "2", "tencent").is_some());
        secrets.forget(&object("other"));

        let memory = secrets.0.lock();
        assert!(memory.read.is_empty() && memory.users.is_empty(), "{memory:?}");
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

        let memory = secrets.0.lock();
        assert_eq!(memory.read.len(), SECRETS_MAX);
        assert!(!memory.read.contains_key(&key("0")) && !memory.read.contains_key(&key("1")));
        assert!(memory.read.contains_key(&key("2")));
    }

    #[test]
    fn no_more_objects_are_remembered_than_the_limit() {
        let (secrets, start) = (Secrets::default(), Instant::now());
        for number in 0..=u32::try_from(OBJECTS_MAX).unwrap() {
            let now = start + Duration::from_millis(1) * number;
            secrets.since(&object(&number.to_string()), "uid", "tencent", now);
        }

        let memory = secrets.0.lock();
        assert_eq!(memory.users.len(), OBJECTS_MAX);
        assert!(!memory.users.contains_key(&object("0")));
        assert!(memory.users.contains_key(&object("1")));
    }
}
