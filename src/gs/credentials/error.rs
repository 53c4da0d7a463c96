//! Why there are no credentials.

use std::fmt;

use super::{SECRET_ID, SECRET_KEY, Source};

/// Why there are no credentials. The text is for the user who reads it in `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// There is no such Secret, or no variable is set, or the node's role may not be used.
    NotFound {
        /// Where they were looked for.
        wanted: Source,
    },
    /// A part is missing or can't be one.
    Incomplete {
        /// Where they were looked for.
        wanted: Source,
        /// The Secret's key, or the variable's name.
        part: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The Secret could not be read: forbidden, the API server does not answer, …
    Unreachable {
        /// Where they were looked for.
        wanted: Source,
        /// What the API server or the way to it said.
        reason: String,
    },
    /// The operator's own are not for objects of this namespace, unless a flag names it.
    NotForNamespace {
        /// The object's.
        namespace: String,
    },
    /// None of the operator's own sources has any.
    NoneServes {
        /// Each source, in order, with its reason.
        tried: Vec<CredentialsError>,
    },
}

impl CredentialsError {
    /// One of a few words, for logs and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoneServes { .. } => "credentials_not_found",
            Self::NotForNamespace { .. } => "credentials_not_allowed",
            Self::Incomplete { .. } => "credentials_incomplete",
            Self::Unreachable { .. } => "credentials_unreachable",
        }
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let create = "--from-literal=secretId=AKID... --from-literal=secretKey=...";
        match self {
            Self::NotFound { wanted: Source::Environment } => {
                write!(
                    f,
                    "{} and {} are not set in the operator's environment",
                    SECRET_ID.1, SECRET_KEY.1
                )
            }
            Self::NotFound { wanted: Source::Secret { namespace, name } } => {
                write!(
                    f,
                    "Secret {namespace}/{name} does not exist; create it: \
                     kubectl -n {namespace} create secret generic {name} {create}"
                )
            }
            Self::NotFound { wanted: Source::Profile { path } } => {
                write!(f, "there is no profile ({path})")
            }
            Self::NotFound { wanted: wanted @ Source::NodeRole { .. } } => {
                write!(f, "{wanted} is not used without --node-role-credentials")
            }
            Self::NotFound { wanted } => write!(f, "{wanted} has none"),
            Self::NotForNamespace { namespace } => write!(
                f,
                "namespace {namespace} may not use the operator's own credentials: \
                 name a Secret in spec.credentialsRef, \
                 or add the namespace to --default-credentials-namespaces"
            ),
            Self::NoneServes { tried } => {
                f.write_str(
                    "no credentials: the object has no spec.credentialsRef, \
                     and the operator has none of its own",
                )?;
                for (number, error) in tried.iter().enumerate() {
                    write!(f, "{} {error}", if number == 0 { ":" } else { ";" })?;
                }
                f.write_str("; name a Secret in spec.credentialsRef, or give the operator a key")
            }
            Self::Incomplete { wanted: Source::Secret { namespace, name }, part, problem } => {
                write!(
                    f,
                    "key {part} in Secret {namespace}/{name} {problem}; write it anew: \
                     kubectl -n {namespace} create secret generic {name} {create} \
                     --dry-run=client -o yaml | kubectl apply -f -"
                )
            }
            Self::Incomplete { wanted, part, problem } => write!(f, "{part} in {wanted} {problem}"),
            Self::Unreachable { wanted, reason } => {
                write!(f, "{wanted} could not be read: {reason}; it is tried again")
            }
        }
    }
}

impl std::error::Error for CredentialsError {}
