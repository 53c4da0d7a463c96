//! Names of the Kubernetes side: of an object, and of what a watch covers.
//!
//! ```
//! use streamsession_core::object::{ObjectKey, Scope};
//!
//! let key = ObjectKey::new("arcade", "lobby");
//! assert_eq!(key.to_string(), "arcade/lobby");
//! assert!(Scope::All.contains(&key) && !Scope::Namespace("stage".into()).contains(&key));
//! ```

use std::fmt;
use std::sync::Arc;

/// The name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The object `name` of `namespace`.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What one watch covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All namespaces.
    All,
    /// One.
    Namespace(Arc<str>),
}

impl Scope {
    /// The namespace; empty: all.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::All => "",
            Self::Namespace(namespace) => namespace,
        }
    }

    /// Whether the object is in it.
    #[must_use]
    pub fn contains(&self, key: &ObjectKey) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => *namespace == key.namespace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_the_name_of_its_namespace() {
        assert_eq!(Scope::Namespace("arcade".into()).name(), "arcade");
        assert_eq!(Scope::All.name(), "");
    }
}
