//! One schedule for each quota, and the one place where a task waits for them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::{Instant as TokioInstant, sleep_until};

use super::fair::{Key, Priority};
use super::permits::{self, Permits};

/// What the service counts separately (reference, section 3): an account, and where its calls
/// enter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Whose quota it is, as far as we can tell: the `SecretId`.
    pub account: String,
    /// Which access region, as far as we can tell: the endpoint.
    pub endpoint: String,
}

/// The permits of all quotas. Cheap to clone.
pub struct Limiter<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    per_second: NonZeroU32,
    burst: NonZeroU32,
    started: Instant,
    state: Mutex<State<K>>,
    /// Something happened that may bring the next grant forward.
    changed: Notify,
}

struct State<K> {
    buckets: BTreeMap<Arc<Bucket>, Permits<K>>,
    /// Where each waiting key waits.
    waiting: HashMap<K, Arc<Bucket>>,
}

/// The right to make one call. It goes back unspent when it is dropped, unless
/// [`spent_until`](Self::spent_until) was called.
#[must_use = "a permit that is dropped goes back unspent"]
pub struct Permit<K: Key> {
    shared: Arc<Shared<K>>,
    bucket: Arc<Bucket>,
    inner: Option<permits::Permit>,
    comes_back_at: Option<Instant>,
}

impl<K: Key> Limiter<K> {
    /// A quota of `per_second` calls for each bucket, of a process that began at `started`; each
    /// permit at its distance from the one before.
    #[must_use]
    pub fn new(per_second: NonZeroU32, started: Instant) -> Self {
        Self::with_burst(per_second, NonZeroU32::MIN, started)
    }

    /// Likewise, with so many permits at once after a pause.
    #[must_use]
    pub fn with_burst(per_second: NonZeroU32, burst: NonZeroU32, started: Instant) -> Self {
        let state = Mutex::new(State { buckets: BTreeMap::new(), waiting: HashMap::new() });
        Self {
            shared: Arc::new(Shared { per_second, burst, started, state, changed: Notify::new() }),
        }
    }

    /// A permit at once, if one is there and nobody waits for it.
    #[must_use = "a permit that is dropped goes back unspent"]
    pub fn try_take(&self, bucket: &Bucket) -> Option<Permit<K>> {
        let now = now();
        let mut state = self.shared.lock();
        let bucket = state.known(bucket, &self.shared, now);
        let inner = state.buckets.get_mut(&bucket)?.try_take(now)?;
        Some(self.permit(bucket, inner))
    }

    /// Lets `key` wait in the bucket; [`granted`](Self::granted) will name it. One that waits there
    /// already moves up if it comes with a higher priority, and keeps its place if not; one that
    /// waits in another bucket leaves that.
    pub fn enqueue(&self, bucket: &Bucket, key: K, priority: Priority) {
        let mut state = self.shared.lock();
        if state.waiting.get(&key).is_some_and(|elsewhere| **elsewhere != *bucket) {
            state.cancel(&key);
        }
        let bucket = state.known(bucket, &self.shared, now());
        if let Some(permits) = state.buckets.get_mut(&bucket) {
            permits.enqueue(key.clone(), priority);
            state.waiting.insert(key, bucket);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Gives the place of `key` back; false if it had none.
    pub fn cancel(&self, key: &K) -> bool {
        self.shared.lock().cancel(key)
    }

    /// How many keys wait, in all buckets.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    /// The next key whose turn it is, with its permit. Waits for ever if nobody waits.
    ///
    /// Cancel-safe: whoever drops it before it answers takes nobody's turn. One task at a time
    /// should wait here: a change wakes one.
    pub async fn granted(&self) -> (K, Permit<K>) {
        loop {
            // A change between the look and the wait is not lost: Notify keeps one wake-up.
            match self.grant_or_next() {
                Ok(granted) => return granted,
                Err(None) => self.shared.changed.notified().await,
                Err(Some(next)) => {
                    tokio::select! {
                        () = sleep_until(TokioInstant::from_std(next)) => {}
                        () = self.shared.changed.notified() => {}
                    }
                }
            }
        }
    }

    /// A grant, or when to look again.
    fn grant_or_next(&self) -> Result<(K, Permit<K>), Option<Instant>> {
        let now = now();
        let mut state = self.shared.lock();
        let due = state
            .buckets
            .iter()
            .filter_map(|(bucket, permits)| Some((permits.next(now)?, bucket)))
            .min();
        let Some((next, bucket)) = due else { return Err(None) };
        if next > now {
            return Err(Some(next));
        }
        let bucket = Arc::clone(bucket);
        // `next` said that a permit is there; if it were not, a look at `next` again would be the
        // right thing to do.
        let (key, inner) = state
            .buckets
            .get_mut(&bucket)
            .and_then(|permits| permits.grant(now))
            .ok_or(Some(next))?;
        state.waiting.remove(&key);
        Ok((key, self.permit(bucket, inner)))
    }

    fn permit(&self, bucket: Arc<Bucket>, inner: permits::Permit) -> Permit<K> {
        Permit { shared: Arc::clone(&self.shared), bucket, inner: Some(inner), comes_back_at: None }
    }
}

impl<K> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Key> State<K> {
    /// Makes sure that the bucket has a schedule. A new one pushes out those that are idle, so that
    /// there are no more than are in use: the accounts of temporary keys come and go.
    fn known(&mut self, bucket: &Bucket, shared: &Shared<K>, now: Instant) -> Arc<Bucket> {
        if let Some((known, _)) = self.buckets.get_key_value(bucket) {
            return Arc::clone(known);
        }
        self.buckets.retain(|_, permits| !permits.is_idle(now));
        let bucket = Arc::new(bucket.clone());
        // Nothing was called in a bucket that is not known, but in the last second of the process
        // before this.
        self.buckets.insert(
            Arc::clone(&bucket),
            Permits::new(shared.per_second, shared.started).with_burst(shared.burst),
        );
        bucket
    }

    fn cancel(&mut self, key: &K) -> bool {
        let bucket = self.waiting.remove(key);
        bucket
            .and_then(|bucket| self.buckets.get_mut(&bucket))
            .is_some_and(|permits| permits.cancel(key))
    }
}

impl<K: Key> Permit<K> {
    /// The quota that it is of.
    #[must_use]
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Says that the call is being made, and when the permit comes back once this is dropped; the
    /// last word counts.
    ///
    /// Say it *before* the call, with a [`WINDOW`](super::WINDOW) after its deadline, so that a
    /// call that is broken off costs what it may have cost; and again after the answer, with a
    /// window after that.
    pub fn spent_until(&mut self, comes_back_at: Instant) {
        self.comes_back_at = Some(comes_back_at);
    }

    /// Says that the service refused the call for its rate: others draw on the same quota. Ours is
    /// halved, to no less than one a second, and recovers by one each second. Answers what it is
    /// from now on; `None` if other calls of the same burst had said so already.
    ///
    /// The call arrived all the same: this does not replace [`spent_until`](Self::spent_until).
    pub fn throttled(&mut self) -> Option<NonZeroU32> {
        let mut state = self.shared.lock();
        state.buckets.get_mut(&self.bucket)?.throttled(self.inner.as_ref()?, now())
    }
}

impl<K: Key> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let (Some(inner), Some(permits)) =
            (self.inner.take(), state.buckets.get_mut(&self.bucket))
        {
            match self.comes_back_at {
                Some(at) => permits.spent(inner, at),
                None => permits.unspent(inner),
            }
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl<K> Clone for Limiter<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Key> fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("per_second", &self.shared.per_second)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl<K: Key> fmt::Debug for Permit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("bucket", &self.bucket)
            .field("comes_back_at", &self.comes_back_at)
            .finish_non_exhaustive()
    }
}

/// Tokio's clock, which tests may stop.
fn now() -> Instant {
    TokioInstant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::Priority::{Attach, Detach, Retry};
    use super::*;
    use std::time::Duration;

    const MINUTE: Duration = Duration::from_mins(1);

    fn bucket(account: &str) -> Bucket {
        Bucket { account: account.into(), endpoint: "gs.tencentcloudapi.com".into() }
    }

    /// A limiter whose process began long ago.
    fn limiter(per_second: u32) -> Limiter<&'static str> {
        Limiter::new(NonZeroU32::new(per_second).unwrap(), now().checked_sub(MINUTE).unwrap())
    }

    /// What is granted at once, without waiting for any timer.
    fn granted_now(limiter: &Limiter<&'static str>) -> Option<&'static str> {
        limiter.grant_or_next().ok().map(|(key, mut permit)| {
            permit.spent_until(now() + MINUTE);
            key
        })
    }

    #[tokio::test]
    async fn a_waiting_task_hears_of_a_key_that_comes_later() {
        let limiter = limiter(1);
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.granted().await.0 }
        });
        tokio::task::yield_now().await;

        limiter.enqueue(&bucket("a"), "late", Attach);

        assert_eq!(waiting.await.unwrap(), "late");
    }

    #[tokio::test]
    async fn a_permit_that_is_dropped_goes_to_the_next_at_once() {
        let limiter = limiter(1);
        let permit = limiter.try_take(&bucket("a")).unwrap();
        limiter.enqueue(&bucket("a"), "next", Attach);
        assert!(granted_now(&limiter).is_none());

        drop(permit);

        assert_eq!(limiter.granted().await.0, "next");
    }

    #[tokio::test]
    async fn a_spent_permit_does_not_come_back_before_its_time() {
        let limiter = limiter(1);
        let mut permit = limiter.try_take(&bucket("a")).unwrap();
        permit.spent_until(now() + MINUTE);
        permit.spent_until(now() + Duration::from_millis(20));
        limiter.enqueue(&bucket("a"), "next", Attach);
        let dropped = now();
        drop(permit);

        // One a second: the distance to the grant before it counts as well.
        assert!(limiter.try_take(&bucket("a")).is_none());
        assert_eq!(limiter.granted().await.0, "next");
        assert!(now() - dropped >= Duration::from_millis(900));
    }

    #[tokio::test]
    async fn each_account_has_its_own_quota() {
        let limiter = limiter(1);

        let _held = limiter.try_take(&bucket("a")).unwrap();

        assert!(limiter.try_take(&bucket("a")).is_none());
        assert!(limiter.try_take(&bucket("b")).is_some());
    }

    #[tokio::test]
    async fn a_new_process_grants_nothing_at_first_in_any_bucket() {
        let limiter = Limiter::<&str>::new(NonZeroU32::new(20).unwrap(), now());

        assert!(limiter.try_take(&bucket("a")).is_none());
        assert!(limiter.try_take(&bucket("b")).is_none());
    }

    #[tokio::test]
    async fn a_cancelled_key_is_not_granted_and_one_that_moves_waits_once() {
        let limiter = limiter(1_000);
        limiter.enqueue(&bucket("a"), "cancelled", Attach);
        limiter.enqueue(&bucket("a"), "moved", Attach);
        limiter.enqueue(&bucket("b"), "moved", Attach);

        assert!(limiter.cancel(&"cancelled"));
        assert!(!limiter.cancel(&"cancelled"));

        assert_eq!(limiter.waiting(), 1);
        let (key, permit) = limiter.granted().await;
        assert_eq!((key, permit.bucket.account.as_str()), ("moved", "b"));
        assert_eq!(limiter.waiting(), 0);
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_takes_nobodys_turn() {
        let limiter = limiter(1);
        let held = limiter.try_take(&bucket("a")).unwrap();
        limiter.enqueue(&bucket("a"), "patient", Attach);

        tokio::select! {
            biased;
            _ = limiter.granted() => panic!("the only permit is held"),
            () = tokio::task::yield_now() => {}
        }
        drop(held);

        assert_eq!(limiter.granted().await.0, "patient");
    }

    #[tokio::test]
    async fn idle_buckets_are_forgotten_and_held_ones_are_not() {
        let limiter = limiter(1);
        let _held = limiter.try_take(&bucket("held"));
        for account in ["a", "b", "c", "d"] {
            drop(limiter.try_take(&bucket(account)));
        }

        let known: Vec<_> =
            limiter.shared.lock().buckets.keys().map(|bucket| bucket.account.clone()).collect();

        assert_eq!(known, ["d", "held"]);
    }

    #[tokio::test]
    async fn a_key_moves_up_in_its_bucket() {
        let limiter = limiter(1_000);
        limiter.enqueue(&bucket("a"), "first", Attach);
        limiter.enqueue(&bucket("a"), "deleted", Retry);

        limiter.enqueue(&bucket("a"), "deleted", Detach);

        assert_eq!(limiter.waiting(), 2);
        assert_eq!(limiter.granted().await.0, "deleted");
    }

    #[tokio::test]
    async fn a_refused_call_halves_the_quota_of_its_bucket_alone_and_once() {
        let limiter = limiter(2);
        let mut permit = limiter.try_take(&bucket("a")).unwrap();
        let mut other = limiter.try_take(&bucket("b")).unwrap();

        assert_eq!(permit.throttled(), NonZeroU32::new(1));
        assert_eq!(permit.throttled(), None);
        assert_eq!(other.throttled(), NonZeroU32::new(1));
    }
}
