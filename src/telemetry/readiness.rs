//! Whether the operator knows its objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Ready once every scope was listed. A scope is named as its namespace is; empty: all namespaces.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// Why each scope was not listed yet.
    missing: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// Not ready before each of the namespaces was listed; none: before all were.
    #[must_use]
    pub fn of(namespaces: &[String]) -> Self {
        let all = [String::new()];
        let scopes = if namespaces.is_empty() { &all } else { namespaces };
        let why = "the first list of StreamSessions is under way";
        let missing = scopes.iter().map(|scope| (scope.clone(), why.to_owned())).collect();
        Self { missing: Arc::new(Mutex::new(missing)) }
    }

    /// The scope was listed.
    pub fn listed(&self, scope: &str) {
        self.missing.lock().remove(scope);
    }

    /// The scope can't be listed. Once listed, a failing watch does not take the readiness away:
    /// what is known is still worked on.
    pub fn failed(&self, scope: &str, why: &str) {
        if let Some(text) = self.missing.lock().get_mut(scope) {
            why.clone_into(text);
        }
    }

    /// Why it is not ready; none if it is.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        self.missing.lock().values().next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_each_scope_was_listed_and_stays_so() {
        let readiness = Readiness::of(&["arcade".to_owned(), "hall".to_owned()]);

        readiness.listed("arcade");
        readiness.failed("hall", "forbidden");
        assert_eq!(readiness.missing().as_deref(), Some("forbidden"));

        readiness.listed("hall");
        readiness.failed("arcade", "unreachable");
        assert_eq!(readiness.missing(), None);
    }

    #[test]
    fn without_a_namespace_all_are_one_scope() {
        let readiness = Readiness::of(&[]);
        assert!(readiness.missing().is_some());

        readiness.listed("");

        assert_eq!(readiness.missing(), None);
    }
}
