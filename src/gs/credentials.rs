//! Who we are to the service, and where that is kept.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;

mod error;
mod own;
mod profile;
mod store;
mod temporary;

pub use error::CredentialsError;
pub use own::{OwnSettings, PermittedNamespaces};
pub use store::CredentialStore;

/// Key of the Secret, and environment variable, of each part.
const SECRET_ID: (&str, &str) = ("secretId", "TENCENTCLOUD_SECRET_ID");
const SECRET_KEY: (&str, &str) = ("secretKey", "TENCENTCLOUD_SECRET_KEY");
const TOKEN: (&str, &str) = ("token", "TENCENTCLOUD_SESSION_TOKEN");
/// Other names of the token's variable: `tccli`'s and Terraform's.
const TOKEN_ALIASES: [&str; 2] = ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"];

/// What the status can hold; the service's own are 36 characters, those of temporary keys about 90.
const SECRET_ID_LENGTH_MAX: usize = 256;

/// A key pair, and the token of a temporary one: one snapshot, read together. It can be printed;
/// the key and the token can't.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `SecretId`: names the key, and is no secret.
    pub secret_id: String,
    /// `SecretKey`.
    pub secret_key: SecretString,
    /// For temporary keys.
    pub token: Option<SecretString>,
    /// Where they were found.
    pub source: Source,
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator's own environment.
    Environment,
    /// A Secret beside the object.
    Secret {
        /// The object's own.
        namespace: String,
        /// `spec.credentialsRef.name`.
        name: String,
    },
    /// A profile file of the operator's.
    Profile {
        /// Where it is, or the places where none is.
        path: String,
    },
    /// The identity of the operator's pod, on TKE.
    PodIdentity {
        /// `TKE_ROLE_ARN`; empty if it is not set.
        role: String,
    },
    /// The role of the operator's node, on CVM.
    NodeRole {
        /// Its name; empty if it is not known.
        role: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the operator's environment"),
            Self::Secret { namespace, name } => write!(f, "Secret {namespace}/{name}"),
            Self::Profile { path } => write!(f, "the profile {path}"),
            Self::PodIdentity { role } if role.is_empty() => f.write_str("the pod's identity"),
            Self::PodIdentity { role } => write!(f, "the pod's identity {role}"),
            Self::NodeRole { role } if role.is_empty() => f.write_str("the node's role"),
            Self::NodeRole { role } => write!(f, "the node's role {role}"),
        }
    }
}

impl Credentials {
    /// Reads `TENCENTCLOUD_SECRET_ID`, `TENCENTCLOUD_SECRET_KEY` and, for temporary keys,
    /// `TENCENTCLOUD_SESSION_TOKEN`.
    pub fn from_env() -> Result<Self, CredentialsError> {
        Self::from_variables(|name| {
            std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes)
        })
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, CredentialsError> {
        // An empty variable is how many tools unset one.
        let set = |(_, name): (&'static str, &'static str)| {
            (name, variable(name).filter(|value| !value.is_empty()))
        };
        let (id, key, mut token) = (set(SECRET_ID), set(SECRET_KEY), set(TOKEN));
        for alias in TOKEN_ALIASES {
            if token.1.is_none() {
                token = set(("token", alias));
            }
        }
        if id.1.is_none() && key.1.is_none() && token.1.is_none() {
            return Err(CredentialsError::NotFound { wanted: Source::Environment });
        }
        Self::from_parts(Source::Environment, id, key, token)
    }

    /// Reads the keys `secretId`, `secretKey` and, for temporary keys, `token`.
    pub fn from_secret(secret: &Secret) -> Result<Self, CredentialsError> {
        let source = Source::Secret {
            namespace: secret.metadata.namespace.clone().unwrap_or_default(),
            name: secret.metadata.name.clone().unwrap_or_default(),
        };
        let key = |(name, _): (&'static str, &'static str)| {
            (name, secret.data.as_ref().and_then(|data| data.get(name)).map(|value| &value.0))
        };
        // An empty token is none: templates render it so.
        let (token_name, token) = key(TOKEN);
        let token = token.filter(|value| !value.trim_ascii_end().is_empty());
        Self::from_parts(source, key(SECRET_ID), key(SECRET_KEY), (token_name, token))
    }

    /// Who these are, as `status.target.credential` names it: the role for temporary keys of one,
    /// since their own ids come and go.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.source {
            Source::PodIdentity { role } | Source::NodeRole { role } => role,
            Source::Environment | Source::Secret { .. } | Source::Profile { .. } => &self.secret_id,
        }
    }

    fn temporary(
        source: Source,
        id: &str,
        key: &str,
        token: &str,
    ) -> Result<Self, CredentialsError> {
        Self::from_parts(
            source,
            ("TmpSecretId", Some(id)),
            ("TmpSecretKey", Some(key)),
            ("Token", Some(token)),
        )
    }

    fn from_parts<V: AsRef<[u8]>>(
        source: Source,
        id: (&'static str, Option<V>),
        key: (&'static str, Option<V>),
        token: (&'static str, Option<V>),
    ) -> Result<Self, CredentialsError> {
        let required = |(part, value): (&'static str, Option<V>)| match value {
            Some(value) => parse(&source, part, value.as_ref()),
            None => Err(CredentialsError::Incomplete {
                wanted: source.clone(),
                part,
                problem: "is missing",
            }),
        };
        let token = match token {
            (part, Some(value)) => Some(parse(&source, part, value.as_ref())?.into()),
            (_, None) => None,
        };
        let (id_part, _) = id;
        let secret_id = required(id)?;
        if secret_id.len() > SECRET_ID_LENGTH_MAX {
            let problem =
                "is longer than the id of a key is; it may hold the token or the key instead";
            return Err(CredentialsError::Incomplete {
                wanted: source.clone(),
                part: id_part,
                problem,
            });
        }
        Ok(Self { secret_id, secret_key: required(key)?.into(), token, source })
    }
}

/// A part as the service takes it: without the line feed that editors and `echo` leave at the end.
fn parse(source: &Source, part: &'static str, value: &[u8]) -> Result<String, CredentialsError> {
    let incomplete =
        |problem| CredentialsError::Incomplete { wanted: source.clone(), part, problem };
    let value = value.trim_ascii_end();
    if value.is_empty() {
        return Err(incomplete("is empty"));
    }
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(incomplete("holds a space, a line feed or another character that no key has"));
    }
    Ok(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use secrecy::ExposeSecret;

    use super::*;

    pub(super) fn secret(data: &[(&str, &str)]) -> Secret {
        let data: BTreeMap<_, _> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect();
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.namespace = Some("arcade".into());
        secret.metadata.name = Some("tencent".into());
        secret
    }

    fn refusal(data: &[(&str, &str)]) -> String {
        Credentials::from_secret(&secret(data)).unwrap_err().to_string()
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Credentials::from_variables(|name| {
            variables.get(name).map(|value| value.as_bytes().to_vec())
        })
    }

    #[test]
    fn a_secret_is_read_without_the_line_feed_at_its_end() {
        let read = Credentials::from_secret(&secret(&[
            ("secretId", "AKID1\n"),
            ("secretKey", "key\r\n"),
            ("token", "tok\n"),
        ]))
        .unwrap();

        assert_eq!(read.secret_id, "AKID1");
        assert_eq!(read.secret_key.expose_secret(), "key");
        assert_eq!(read.token.unwrap().expose_secret(), "tok");
        assert_eq!(read.source.to_string(), "Secret arcade/tencent");
    }

    #[test]
    fn a_token_is_optional_and_an_empty_one_is_none() {
        for data in [
            &[("secretId", "i"), ("secretKey", "k")][..],
            &[("secretId", "i"), ("secretKey", "k"), ("token", "\n")],
        ] {
            assert!(Credentials::from_secret(&secret(data)).unwrap().token.is_none());
        }
    }

    #[test]
    fn key_and_token_are_never_printed() {
        let read = Credentials::from_secret(&secret(&[
            ("secretId", "AKID1"),
            ("secretKey", "hunter2"),
            ("token", "swordfish"),
        ]))
        .unwrap();

        for printed in [format!("{read:?}"), format!("{read:#?}")] {
            assert!(printed.contains("AKID1"));
            assert!(!printed.contains("hunter2") && !printed.contains("swordfish"), "{printed}");
        }
    }

    #[test]
    fn an_incomplete_secret_says_which_key_and_how_to_write_it() {
        assert_eq!(
            refusal(&[("secretId", "AKID1")]),
            "key secretKey in Secret arcade/tencent is missing; write it anew: \
             kubectl -n arcade create secret generic tencent \
             --from-literal=secretId=AKID... --from-literal=secretKey=... \
             --dry-run=client -o yaml | kubectl apply -f -"
        );
        assert!(
            refusal(&[("secretKey", "k")])
                .starts_with("key secretId in Secret arcade/tencent is missing;")
        );
        assert!(
            refusal(&[("secretId", " \n"), ("secretKey", "k")])
                .starts_with("key secretId in Secret arcade/tencent is empty;")
        );
    }

    #[test]
    fn a_part_that_can_not_be_one_is_refused_without_showing_it() {
        for bad in ["hunter 2", "hunter\n2", "häslein", "hunter2\u{0}"] {
            let message = refusal(&[("secretId", "AKID1"), ("secretKey", bad)]);

            assert!(
                message.starts_with("key secretKey in Secret arcade/tencent holds a space,"),
                "{message}"
            );
            assert!(!message.contains(bad));
        }
    }

    #[test]
    fn the_environment_is_read_as_one_snapshot() {
        let read = environment(&[
            ("TENCENTCLOUD_SECRET_ID", "AKID1"),
            ("TENCENTCLOUD_SECRET_KEY", "key"),
            ("TENCENTCLOUD_SESSION_TOKEN", "token"),
        ])
        .unwrap();

        assert_eq!((read.secret_id.as_str(), read.source), ("AKID1", Source::Environment));
        assert_eq!(
            (read.secret_key.expose_secret(), read.token.unwrap().expose_secret()),
            ("key", "token")
        );
    }

    #[test]
    fn an_environment_without_credentials_names_its_variables() {
        for variables in
            [&[][..], &[("TENCENTCLOUD_SECRET_ID", ""), ("TENCENTCLOUD_SECRET_KEY", "")]]
        {
            let error = environment(variables).unwrap_err();

            assert_eq!(error, CredentialsError::NotFound { wanted: Source::Environment });
            assert!(error.to_string().contains("TENCENTCLOUD_SECRET_ID"));
        }
    }

    #[test]
    fn a_token_without_its_key_is_half_an_environment() {
        for name in ["TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_TOKEN"] {
            let error = environment(&[(name, "token")]).unwrap_err();

            assert_eq!(error.category(), "credentials_incomplete");
            assert!(error.to_string().starts_with("TENCENTCLOUD_SECRET_ID in"), "{error}");
        }
    }

    #[test]
    fn half_an_environment_is_incomplete() {
        let error = environment(&[("TENCENTCLOUD_SECRET_ID", "AKID1")]).unwrap_err();

        assert!(
            error
                .to_string()
                .starts_with("TENCENTCLOUD_SECRET_KEY in the operator's environment is missing"),
            "{error}"
        );
        assert_eq!(error.category(), "credentials_incomplete");
    }
}
