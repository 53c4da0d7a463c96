//! What scheduling needs of an object. The ids are read when an object is reconciled: memory grows
//! with objects, not with instances.

use std::sync::Arc;
use std::time::Duration;

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
    /// So often its confirmed members are attached again, if at all.
    pub resync_interval: Option<Duration>,
}

impl Digest {
    /// Summarises the object.
    #[must_use]
    pub fn of(view: &View) -> Self {
        Self {
            version: Arc::clone(&view.version),
            converged: view.is_converged(),
            claimant: Some(view.claimant()),
            resync_interval: view.desired.resync_interval.filter(|_| !view.desired.wants_nothing()),
        }
    }

    /// Of an object that can't be read: it is looked at, so that the log says why.
    #[must_use]
    pub fn unreadable(version: Arc<str>) -> Self {
        Self { version, converged: false, claimant: None, resync_interval: None }
    }
}
