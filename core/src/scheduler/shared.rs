//! What the runs under way share with each other and with the scheduler.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::ownership::claims::Claims;
use crate::scheduler::buckets::Buckets;
use crate::scheduler::freed::Freed;
use crate::scheduler::resync::Resyncs;

/// What all runs share.
#[derive(Debug)]
pub struct Shared {
    /// Who owns which session.
    pub claims: Claims,
    /// The permits, and who waits for one.
    pub buckets: Buckets,
    /// Who waits for a phone that another object holds.
    pub freed: Freed,
    /// When whose members are attached again.
    pub resyncs: Resyncs,
    /// Ids in a call, at most, where the service called one too large; by credential.
    batch_sizes: BTreeMap<Arc<str>, usize>,
    /// The process stops: what is under way may settle, and no call is made any more.
    pub stopping: bool,
}

/// The way of a run to what all runs share: for the moment, under a lock if there is one.
pub trait Access {
    /// Does `work` on what all runs share.
    fn with<R>(&mut self, work: impl FnOnce(&mut Shared) -> R) -> R;
}

impl Shared {
    /// Nobody claims anything, and every permit is spent.
    #[must_use]
    pub fn new(calls_per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            claims: Claims::default(),
            buckets: Buckets::new(calls_per_second, burst),
            freed: Freed::default(),
            resyncs: Resyncs::default(),
            batch_sizes: BTreeMap::new(),
            stopping: false,
        }
    }

    /// Ids in a call of the credential, at most.
    #[must_use]
    pub fn batch_size_max(&self, credential: &str) -> usize {
        self.batch_sizes.get(credential).copied().unwrap_or(usize::MAX)
    }

    /// The service called a call of `ids` ids too large: the credential's next ones have half of
    /// that. Of one id there is nothing to halve. Answers how many they have if that is news.
    pub fn too_large(&mut self, credential: &Arc<str>, ids: usize) -> Option<usize> {
        let half = ids / 2;
        let is_news = half > 0 && half < self.batch_size_max(credential);
        is_news.then(|| {
            self.batch_sizes.insert(Arc::clone(credential), half);
            half
        })
    }
}
