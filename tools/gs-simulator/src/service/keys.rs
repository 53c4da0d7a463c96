//! The key pairs that sign calls.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

/// The secrets that the simulator knows, by `SecretId`.
pub type Keys = BTreeMap<String, Key>;

/// The secret half of a key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The `SecretKey`.
    pub secret_key: String,
    /// The token that must come in `X-TC-Token`: only temporary keys have one.
    pub token: Option<String>,
    /// From then on it is refused. None: never.
    pub expires_at: Option<Timestamp>,
    /// The account that it is of, as STS says.
    pub account: String,
}

/// The account of a key that names none.
pub(crate) const ACCOUNT: &str = "100000000001";

impl Key {
    /// A key that never expires and has no token.
    #[must_use]
    pub fn long_term(secret_key: impl Into<String>) -> Self {
        Self {
            secret_key: secret_key.into(),
            token: None,
            expires_at: None,
            account: ACCOUNT.to_owned(),
        }
    }

    /// The same key, of that account.
    #[must_use]
    pub fn of_account(self, account: impl Into<String>) -> Self {
        Self { account: account.into(), ..self }
    }

    /// A key as STS issues it: each request must carry its token.
    #[must_use]
    pub fn temporary(secret_key: impl Into<String>, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..Self::long_term(secret_key) }
    }
}

/// Tests print their options when they fail, and somebody will run the simulator with real keys.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.token.is_some() { "temporary" } else { "long-term" };
        write!(f, "Key({kind}, hidden)")
    }
}
