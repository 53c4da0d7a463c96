//! One schedule of permits for each quota that the service counts.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Caller;
use crate::ledger::plan::Priority;
use crate::object::ObjectKey;
use crate::scheduler::permits::{self, Permits};

/// What the service counts separately: a sub-account, and where its calls enter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Whose quota it is.
    pub caller: Caller,
    /// Which access region, as far as we can tell: the endpoint.
    pub endpoint: Arc<str>,
}

/// The permits of all quotas, and who waits for one. Objects wait as keys: nobody holds a worker or
/// an object while waiting.
#[derive(Debug)]
pub struct Buckets {
    per_second: NonZeroU32,
    burst: NonZeroU32,
    permits: BTreeMap<Arc<Bucket>, Permits>,
    /// Where each waiting key waits.
    waiting: HashMap<ObjectKey, Arc<Bucket>>,
    /// Buckets of keys whose sub-account became known later, and where they went on.
    merged: BTreeMap<Arc<Bucket>, Arc<Bucket>>,
    /// A permit came back since this was asked last.
    returned: bool,
}

/// The right to make one call. Give it back with [`Buckets::spent`] or [`Buckets::unspent`].
#[derive(Debug)]
#[must_use = "a permit that is not given back is lost to the quota"]
pub struct Permit {
    bucket: Arc<Bucket>,
    inner: permits::Permit,
}

impl Permit {
    /// For a call of which priority it was granted.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.inner.priority()
    }

    /// The quota that it is of.
    #[must_use]
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }
}

impl Buckets {
    /// A quota of `per_second` calls for each bucket, `burst` of them at once after a pause. Every
    /// permit counts as spent when the process begins.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            per_second,
            burst,
            permits: BTreeMap::new(),
            waiting: HashMap::new(),
            merged: BTreeMap::new(),
            returned: false,
        }
    }

    /// A permit for a call of that priority at once, if one is there and nobody waits for it.
    pub fn try_take(
        &mut self,
        bucket: &Bucket,
        priority: Priority,
        now: Duration,
    ) -> Option<Permit> {
        let bucket = self.known(bucket, now);
        let inner = self.permits.get_mut(&bucket)?.try_take(priority, now)?;
        Some(Permit { bucket, inner })
    }

    /// Lets `key` wait in the bucket; [`grant`](Self::grant) will name it. One that waits there
    /// already moves up if it comes with a higher priority, and keeps its place if not; one that
    /// waits in another bucket leaves that.
    pub fn enqueue(&mut self, bucket: &Bucket, key: ObjectKey, priority: Priority, now: Duration) {
        let bucket = self.known(bucket, now);
        if self.waiting.get(&key).is_some_and(|elsewhere| *elsewhere != bucket) {
            self.cancel(&key);
        }
        if let Some(permits) = self.permits.get_mut(&bucket) {
            permits.enqueue(key.clone(), priority);
            self.waiting.insert(key, bucket);
        }
    }

    /// Gives the place of `key` back; false if it had none.
    pub fn cancel(&mut self, key: &ObjectKey) -> bool {
        let bucket = self.waiting.remove(key);
        let permits = bucket.and_then(|bucket| self.permits.get_mut(&bucket));
        permits.is_some_and(|permits| permits.cancel(key))
    }

    /// Whether the key waits, in any bucket.
    #[must_use]
    pub fn is_waiting(&self, key: &ObjectKey) -> bool {
        self.waiting.contains_key(key)
    }

    /// How many keys wait, in all buckets.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next key whose turn it is, with its permit.
    pub fn grant(&mut self, now: Duration) -> Option<(ObjectKey, Permit)> {
        let (_, bucket) = self.next_grant(now)?;
        let bucket = Arc::clone(bucket);
        let (key, inner) = self.permits.get_mut(&bucket)?.grant(now)?;
        self.waiting.remove(&key);
        Some((key, Permit { bucket, inner }))
    }

    /// When [`grant`](Self::grant) can answer next; none if nobody waits, or before a permit is
    /// given back.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        self.next_grant(now).map(|(at, _)| at)
    }

    fn next_grant(&self, now: Duration) -> Option<(Duration, &Arc<Bucket>)> {
        let next = |(bucket, permits)| Some((Permits::next(permits, now)?, bucket));
        self.permits.iter().filter_map(next).min()
    }

    /// The sub-account behind a key is known now: what is under way and who waits in the key's bucket
    /// go on in that of the sub-account, so that one quota is never two.
    pub fn merge(&mut self, key: &Bucket, user: &Bucket, now: Duration) {
        let Some((key, old)) = self.permits.remove_entry(key) else { return };
        let user = self.known(user, now);
        for bucket in self.waiting.values_mut().filter(|bucket| **bucket == key) {
            *bucket = Arc::clone(&user);
        }
        if let Some(permits) = self.permits.get_mut(&user) {
            permits.absorb(old, now);
        }
        self.merged.insert(key, user);
        self.returned = true;
    }

    /// The bucket in which that one went on.
    #[must_use]
    pub fn resolved<'a>(&'a self, bucket: &'a Bucket) -> &'a Bucket {
        self.merged.get(bucket).map_or(bucket, |user| user)
    }

    /// The permits of that bucket, wherever it went on.
    fn permits_of(&mut self, bucket: &Arc<Bucket>) -> Option<&mut Permits> {
        self.permits.get_mut(self.merged.get(bucket).unwrap_or(bucket))
    }

    /// Gives back a permit whose call was made; it is there again at `back_at`.
    pub fn spent(&mut self, permit: Permit, back_at: Duration) {
        self.returned = true;
        if let Some(permits) = self.permits_of(&permit.bucket) {
            permits.spent(permit.inner, back_at);
        }
    }

    /// Gives back a permit whose call was not made.
    pub fn unspent(&mut self, permit: Permit) {
        self.returned = true;
        if let Some(permits) = self.permits_of(&permit.bucket) {
            permits.unspent(permit.inner);
        }
    }

    /// The service refused the call of `permit` for its rate: others draw on the same quota. Ours
    /// is halved, to no less than one a second, and recovers by one each second. Answers what it is
    /// from now on; none if other calls of the same burst had said so already.
    pub fn throttled(&mut self, permit: &Permit, now: Duration) -> Option<NonZeroU32> {
        self.permits_of(&permit.bucket)?.throttled(&permit.inner, now)
    }

    /// Whether a permit came back since this was asked last: a grant may be due earlier.
    pub fn take_returned(&mut self) -> bool {
        std::mem::take(&mut self.returned)
    }

    /// Makes sure that the bucket has a schedule. A new one pushes out those that are idle, so that
    /// there are no more than are in use: the accounts of temporary keys come and go.
    fn known(&mut self, bucket: &Bucket, now: Duration) -> Arc<Bucket> {
        // STS may have forgotten whose a key is.
        let bucket = self.resolved(bucket);
        if let Some((known, _)) = self.permits.get_key_value(bucket) {
            return Arc::clone(known);
        }
        let bucket = Arc::new(bucket.clone());
        self.permits.retain(|_, permits| !permits.is_idle(now));
        self.merged.retain(|_, user| self.permits.contains_key(user));
        // Nothing was called in a bucket that is not known, but in the last second of the process
        // before this.
        let permits = Permits::new(self.per_second).with_burst(self.burst);
        self.permits.insert(Arc::clone(&bucket), permits);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use Priority::{Attach, Detach, Retry};

    use super::*;
    use crate::fixtures::key;

    /// Long after the process began.
    const NOW: Duration = Duration::from_mins(1);

    fn bucket(account: &str) -> Bucket {
        Bucket { caller: Caller::User(account.into()), endpoint: "gs.tencentcloudapi.com".into() }
    }

    fn buckets(per_second: u32) -> Buckets {
        Buckets::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::MIN)
    }

    fn granted(buckets: &mut Buckets, now: Duration) -> Option<ObjectKey> {
        buckets.grant(now).map(|(key, permit)| {
            buckets.spent(permit, now + Duration::from_secs(1));
            key
        })
    }

    #[test]
    fn a_permit_that_was_not_used_goes_to_the_next_at_once() {
        let mut buckets = buckets(1);
        let permit = buckets.try_take(&bucket("a"), Attach, NOW).unwrap();
        buckets.enqueue(&bucket("a"), key("next"), Attach, NOW);
        assert_eq!((granted(&mut buckets, NOW), buckets.next(NOW)), (None, None));
        assert!(!buckets.take_returned());

        buckets.unspent(permit);

        assert!(buckets.take_returned() && !buckets.take_returned());
        assert_eq!(granted(&mut buckets, NOW), Some(key("next")));
    }

    #[test]
    fn a_spent_permit_does_not_come_back_before_its_time() {
        let mut buckets = buckets(1);
        let permit = buckets.try_take(&bucket("a"), Attach, NOW).unwrap();
        buckets.enqueue(&bucket("a"), key("next"), Attach, NOW);
        let before = NOW + Duration::from_millis(2_999);
        let back_at = NOW + Duration::from_secs(3);

        buckets.spent(permit, back_at);

        assert!(buckets.take_returned());
        assert_eq!(buckets.next(NOW), Some(back_at));
        assert_eq!(granted(&mut buckets, before), None);
        assert_eq!(granted(&mut buckets, back_at), Some(key("next")));
    }

    #[test]
    fn each_account_has_its_own_quota() {
        let mut buckets = buckets(1);
        let held = buckets.try_take(&bucket("a"), Attach, NOW).unwrap();

        assert!(buckets.try_take(&bucket("a"), Attach, NOW).is_none());
        let other = buckets.try_take(&bucket("b"), Attach, NOW).unwrap();

        assert_eq!((held.bucket(), other.bucket()), (&bucket("a"), &bucket("b")));
    }

    #[test]
    fn a_new_process_grants_nothing_at_first_in_any_bucket() {
        let mut buckets = buckets(20);
        assert!(buckets.try_take(&bucket("a"), Attach, Duration::ZERO).is_none());
        assert!(buckets.try_take(&bucket("b"), Attach, Duration::from_millis(999)).is_none());
    }

    #[test]
    fn a_cancelled_key_is_not_granted_and_one_that_moves_waits_once() {
        let mut buckets = buckets(1_000);
        buckets.enqueue(&bucket("a"), key("cancelled"), Attach, NOW);
        buckets.enqueue(&bucket("a"), key("moved"), Attach, NOW);
        buckets.enqueue(&bucket("b"), key("moved"), Attach, NOW);

        assert!(buckets.cancel(&key("cancelled")) && !buckets.cancel(&key("cancelled")));

        assert_eq!(buckets.waiting(), 1);
        let (granted, permit) = buckets.grant(NOW).unwrap();
        assert_eq!((granted, permit.bucket()), (key("moved"), &bucket("b")));
        assert_eq!((buckets.waiting(), buckets.next(NOW)), (0, None));
    }

    #[test]
    fn idle_buckets_are_forgotten_and_held_ones_are_not() {
        let mut buckets = buckets(1);
        let _held = buckets.try_take(&bucket("held"), Attach, NOW).unwrap();
        for account in ["a", "b", "c", "d"] {
            let permit = buckets.try_take(&bucket(account), Attach, NOW).unwrap();
            buckets.unspent(permit);
        }

        let known: Vec<_> = buckets.permits.keys().map(|known| (**known).clone()).collect();

        assert_eq!(known, [bucket("d"), bucket("held")]);
    }

    #[test]
    fn a_key_moves_up_in_its_bucket() {
        let mut buckets = buckets(1_000);
        buckets.enqueue(&bucket("a"), key("first"), Attach, NOW);
        buckets.enqueue(&bucket("a"), key("deleted"), Retry, NOW);

        buckets.enqueue(&bucket("a"), key("deleted"), Detach, NOW);

        assert_eq!(buckets.waiting(), 2);
        assert_eq!(granted(&mut buckets, NOW), Some(key("deleted")));
    }

    #[test]
    fn a_refused_call_halves_the_quota_of_its_bucket_alone_and_once() {
        let mut buckets = buckets(2);
        let permit = buckets.try_take(&bucket("a"), Attach, NOW).unwrap();
        let other = buckets.try_take(&bucket("b"), Attach, NOW).unwrap();

        assert_eq!(buckets.throttled(&permit, NOW), NonZeroU32::new(1));
        assert_eq!(buckets.throttled(&permit, NOW), None);
        assert_eq!(buckets.throttled(&other, NOW), NonZeroU32::new(1));
    }

    /// The bucket of a key whose sub-account is not known.
    fn of_key(key: u64) -> Bucket {
        Bucket { caller: Caller::Key(key), ..bucket("") }
    }

    #[test]
    fn a_key_whose_sub_account_becomes_known_goes_on_in_its_quota() {
        let mut buckets = buckets(1);
        let held = buckets.try_take(&of_key(7), Attach, NOW).unwrap();
        buckets.enqueue(&of_key(7), key("next"), Attach, NOW);
        buckets.enqueue(&bucket("b"), key("elsewhere"), Attach, NOW);

        buckets.merge(&of_key(7), &bucket("a"), NOW);

        assert!(buckets.cancel(&key("elsewhere")), "it waits where it was");

        assert!(buckets.take_returned());
        assert!(buckets.try_take(&bucket("a"), Attach, NOW).is_none(), "one quota is never two");
        assert!(buckets.try_take(&of_key(7), Attach, NOW).is_none(), "nor is it another one later");
        buckets.spent(held, NOW + Duration::from_secs(2));
        assert!(buckets.is_waiting(&key("next")));
        assert_eq!(buckets.next(NOW), Some(NOW + Duration::from_secs(2)));
        let (granted, permit) = buckets.grant(NOW + Duration::from_secs(2)).unwrap();
        assert_eq!((granted, permit.bucket()), (key("next"), &bucket("a")));
        buckets.enqueue(&bucket("a"), key("cancelled"), Attach, NOW);
        assert!(buckets.cancel(&key("cancelled")));
        assert_eq!(buckets.waiting(), 0);
    }

    #[test]
    fn two_keys_of_one_sub_account_share_its_quota() {
        let mut buckets = buckets(3);
        let first = buckets.try_take(&of_key(1), Attach, NOW).unwrap();
        let later = NOW + Duration::from_secs(1);
        let _second = buckets.try_take(&of_key(2), Attach, later).unwrap();
        let third = buckets.try_take(&of_key(2), Attach, later + Duration::from_secs(1)).unwrap();
        let now = later + Duration::from_secs(2);

        buckets.merge(&of_key(1), &bucket("a"), now);
        buckets.merge(&of_key(2), &bucket("a"), now);
        buckets.merge(&of_key(3), &bucket("a"), now);

        assert!(buckets.try_take(&bucket("a"), Attach, now).is_none(), "three calls are under way");
        buckets.unspent(first);
        let again = buckets.try_take(&bucket("a"), Attach, now).unwrap();
        assert_eq!(buckets.throttled(&third, now), NonZeroU32::new(1));
        buckets.unspent(again);
    }
}
