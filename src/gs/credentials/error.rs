//! Why there are no credentials.

use std::fmt;

use super::{SECRET_ID, SECRET_KEY, Source};

/// Why there are no credentials. The text is for the user who reads it in `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// There is no such Secret. Of the operator's own sources: it is not set up.
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
    /// None of the operator's own sources is set up.
    NoneSetUp {
        /// Each source, in order, as [`Self::NotFound`].
        sources: Vec<CredentialsError>,
    },
    /// One of the operator's own sources is set up and fails: no other one is used instead.
    OwnFailed {
        /// Which, and why.
        error: Box<CredentialsError>,
    },
}

impl CredentialsError {
    /// Whether nobody said that there are none: they could not be asked for.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// One of a few words, for logs and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoneSetUp { .. } => "credentials_not_found",
            Self::NotForNamespace { .. } => "credentials_not_allowed",
            Self::Incomplete { .. } => "credentials_incomplete",
            Self::Unreachable { .. } => "credentials_unreachable",
            Self::OwnFailed { error } => error.category(),
        }
    }
}

/// What to do about one of the operator's own sources that fails.
fn remedy(error: &CredentialsError) -> &'static str {
    let (CredentialsError::Incomplete { wanted, .. }
    | CredentialsError::Unreachable { wanted, .. }) = error
    else {
        return "give the operator a key";
    };
    match wanted {
        Source::Environment => {
            "set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, \
             with the token of temporary keys, or unset all three"
        }
        Source::Profile { .. } => {
            "mend this file, or remove it and unset TENCENTCLOUD_CREDENTIALS_FILE"
        }
        Source::PodIdentity { .. } => {
            "check the annotations of the operator's ServiceAccount, its role and the way to STS"
        }
        Source::NodeRole { .. } => {
            "give the node a role, or start the operator without --node-role-credentials"
        }
        Source::Secret { .. } => "write the Secret anew",
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
            Self::NotFound { wanted: Source::PodIdentity { .. } } => {
                f.write_str("the pod has no identity (TKE_ROLE_ARN is not set)")
            }
            Self::NotFound { wanted: wanted @ Source::NodeRole { .. } } => {
                write!(f, "{wanted} is not used without --node-role-credentials")
            }
            Self::NotForNamespace { namespace } => write!(
                f,
                "namespace {namespace} may not use the operator's own credentials: \
                 name a Secret in spec.credentialsRef, \
                 or add the namespace to --default-credentials-namespaces"
            ),
            Self::NoneSetUp { sources } => {
                f.write_str(
                    "no credentials: the object has no spec.credentialsRef, \
                     and the operator has none of its own",
                )?;
                for (number, error) in sources.iter().enumerate() {
                    write!(f, "{} {error}", if number == 0 { ":" } else { ";" })?;
                }
                f.write_str("; name a Secret in spec.credentialsRef, or give the operator a key")
            }
            Self::OwnFailed { error } => write!(
                f,
                "the operator's own credentials can't be used: {error}; \
                 no other source is used instead; \
                 {}, or name a Secret in spec.credentialsRef",
                remedy(error)
            ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_the_operators_own_that_fails_is_named_with_what_to_do() {
        let node = || Source::NodeRole { role: String::new() };
        let profile = || Source::Profile { path: "/keys".into() };
        let pod = || Source::PodIdentity { role: "r".into() };
        let unreachable = |wanted| CredentialsError::Unreachable { wanted, reason: "why".into() };
        for (error, says, remedy) in [
            (
                CredentialsError::Incomplete {
                    wanted: Source::Environment,
                    part: "PART",
                    problem: "is missing",
                },
                "PART in the operator's environment is missing; ",
                "unset all three",
            ),
            (unreachable(profile()), "the profile /keys could not be read: why; ", "mend this"),
            (unreachable(pod()), "the pod's identity r could not be read: why; ", "way to STS"),
            (unreachable(node()), "the node's role could not", "without --node-role-credentials"),
        ] {
            let category = error.category();
            let failed = CredentialsError::OwnFailed { error: Box::new(error) };

            let message = failed.to_string();
            assert_eq!(failed.category(), category);
            let start = format!("the operator's own credentials can't be used: {says}");
            assert!(message.starts_with(&start), "{message}");
            assert!(message.contains("no other source is used instead; "), "{message}");
            let end = "or name a Secret in spec.credentialsRef";
            assert!(message.contains(remedy) && message.ends_with(end), "{message}");
        }
    }
}
