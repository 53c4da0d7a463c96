//! Who an object is to the service.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Whose keys an object has now.
///
/// ```
/// use streamsession_core::identity::Identity;
///
/// let of = |key: u64, account: Option<&str>| Identity {
///     credential: "AKID".into(),
///     key,
///     account: account.map(Into::into),
///     user: None,
/// };
/// assert!(of(1, None).is_same(&of(1, None)));
/// assert!(of(1, Some("100")).is_same(&of(2, Some("100"))), "two keys of one account");
/// assert!(!of(1, None).is_same(&of(2, None)), "the id of a key alone proves nothing");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The id of the key, or the name of a role; no secret.
    pub credential: Arc<str>,
    /// Tells key pairs apart, in one process: who has the same number has the very key.
    pub key: u64,
    /// The account behind the key, as STS says; none if it could not be asked.
    pub account: Option<Arc<str>>,
    /// The sub-account behind the key, as STS says: the service counts its calls together.
    pub user: Option<Arc<str>>,
}

/// Whose quota a call is counted to, as far as we can tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// The sub-account.
    User(Arc<str>),
    /// The very key: its sub-account is not known.
    Key(u64),
}

impl Identity {
    /// Whose quota its calls are counted to.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.user.clone().map_or(Caller::Key(self.key), Caller::User)
    }

    /// Whether the other one has the same key, or one of the same account.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.key == other.key || (self.account.is_some() && self.account == other.account)
    }
}

/// One whose name is enough to tell it apart, since nobody else can take it: the operator's own.
impl From<&str> for Identity {
    fn from(credential: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        credential.hash(&mut hasher);
        Self { credential: credential.into(), key: hasher.finish(), account: None, user: None }
    }
}
