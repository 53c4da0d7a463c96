//! What scheduling needs of an object. The ids are read when an object is reconciled: memory grows
//! with objects, not with instances.

use std::sync::Arc;

use crate::ownership::claims::Claimant;
use crate::reconcile::View;

/// A summary of one version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Its resource version.
    pub version: Arc<str>,
    /// Nothing is to be done: a restart of a converged fleet reads nothing twice.
    pub converged: bool,
    /// What it claims; none if that can't be read: then its earlier claims stay.
    pub claimant: Option<Claimant>,
}

impl Digest {
    /// Summarises the object.
    #[must_use]
    pub fn of(view: &View) -> Self {
        Self {
            version: Arc::clone(&view.version),
            converged: view.is_converged(),
            claimant: Some(view.claimant()),
        }
    }

    /// Of an object that can't be read: it is looked at, so that the log says why.
    #[must_use]
    pub fn unreadable(version: Arc<str>) -> Self {
        Self { version, converged: false, claimant: None }
    }
}
