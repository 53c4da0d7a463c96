//! One reconcile under way: its permit, and what it learns that concerns others.

use std::sync::Arc;
use std::time::Duration;

use crate::answer::{Answer, NothingDone, Operation, Outcome, Verdict, is_too_large};
use crate::identity::{Caller, Identity};
use crate::ids::InstanceId;
use crate::ledger::Journal;
use crate::ledger::plan::Priority;
use crate::object::ObjectKey;
use crate::ownership::claims::Ownership;
use crate::reconcile::{Effect, Reconcile, ReconcileState, Response, StepContext};
use crate::scheduler::buckets::{Bucket, Permit};
use crate::scheduler::quota::WINDOW;
use crate::scheduler::resync::ResyncFailure;
use crate::scheduler::shared::{Access, Shared};
use crate::time::ServiceTime;

/// One reconcile under way. It goes back to the scheduler when it is over.
#[derive(Debug)]
#[must_use = "a run that does not come back blocks its object for good"]
pub struct Run {
    pub(super) key: ObjectKey,
    pub(super) number: u64,
    /// It began with a permit.
    pub(super) with_permit: bool,
    reconcile: Reconcile,
    permit: Option<Permit>,
    identity: Option<Identity>,
    call_deadline: Duration,
    /// What the last effect was, as far as its response needs to know.
    last: Last,
    /// The resource versions that it wrote.
    versions: Vec<Arc<str>>,
    lessons: Vec<Lesson>,
}

/// The last effect.
#[derive(Debug)]
enum Last {
    Other,
    Write,
    Permit(Priority),
    Call { sent_at: Duration, journal: Journal },
}

/// What a driver tells a run at each step.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Monotonic time since the start of the process.
    pub now: Duration,
    /// The lower bound of the service's clock at [`Run::endpoint`]; none if it is not known.
    pub service: Option<ServiceTime>,
    /// Random: the name of a journal that is written now.
    pub nonce: u128,
    /// Whether this process may still act.
    pub may_act: bool,
}

/// What the service teaches about the calls to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// It refused a call for its rate: the quota is this from now on.
    Throttled {
        /// Calls a second.
        calls_per_second: u32,
    },
    /// It called a call of so many ids too large: the credential's next ones have this many.
    TooLarge {
        /// Ids in that call.
        ids: usize,
        /// Ids in the next ones, at most.
        batch_size: usize,
    },
    /// It did not confirm members that were attached again: nothing follows from that.
    ResyncFailed {
        /// What it answered.
        failure: ResyncFailure,
        /// Those members.
        instances: Vec<InstanceId>,
    },
}

/// What is left of a run that is over.
pub(super) struct Remains {
    pub(super) state: Box<ReconcileState>,
    pub(super) permit: Option<Permit>,
    pub(super) bucket: Option<Bucket>,
    pub(super) versions: Vec<Arc<str>>,
    pub(super) resync_is_over: bool,
}

impl Run {
    pub(super) fn new(
        key: ObjectKey,
        number: u64,
        reconcile: Reconcile,
        permit: Option<Permit>,
        call_deadline: Duration,
    ) -> Self {
        Self {
            key,
            number,
            with_permit: permit.is_some(),
            reconcile,
            permit,
            identity: None,
            call_deadline,
            last: Last::Other,
            versions: Vec::new(),
            lessons: Vec::new(),
        }
    }

    /// The object.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Which run of this process it is.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The endpoint whose clock counts once `response` has come, if the object was read.
    #[must_use]
    pub fn endpoint<'a>(&'a self, response: &'a Response) -> Option<&'a Arc<str>> {
        match response {
            Response::Object(Some(view)) => Some(view.endpoint()),
            _ => self.reconcile.endpoint(),
        }
    }

    /// Instances of calls that were sent and that the object does not show yet.
    #[must_use]
    pub fn open_instances(&self) -> Vec<&InstanceId> {
        self.reconcile.state().open_instances()
    }

    /// Takes the response to the last effect and says what to do next.
    pub fn step(&mut self, access: &mut impl Access, response: Response, facts: Facts) -> Effect {
        let context = access.with(|shared| {
            self.learn(shared, &response, facts.now);
            self.context(shared, &response, facts)
        });
        let effect = self.reconcile.step(response, &context);
        self.last = match &effect {
            Effect::WriteStatus(..) | Effect::AddFinalizer | Effect::RemoveFinalizer => Last::Write,
            Effect::Permit(priority) => Last::Permit(*priority),
            Effect::Call(call) => {
                // What is freed from now on it does not know of.
                access.with(|shared| shared.freed.tried(&self.key, &call.journal().instances));
                Last::Call { sent_at: facts.now, journal: call.journal().clone() }
            }
            _ => Last::Other,
        };
        effect
    }

    /// Takes a permit if one is at hand: the response to [`Effect::Permit`].
    #[must_use]
    pub fn take_permit(&mut self, access: &mut impl Access, now: Duration) -> Response {
        if let Last::Permit(priority) = self.last
            && self.permit.is_none()
            && let Some(bucket) = self.bucket()
        {
            self.permit = access.with(|shared| {
                if shared.stopping { None } else { shared.buckets.try_take(&bucket, priority, now) }
            });
        }
        Response::Permit(self.permit.as_ref().map(Permit::priority))
    }

    /// What the last answer taught that is news.
    pub fn take_lessons(&mut self) -> Vec<Lesson> {
        std::mem::take(&mut self.lessons)
    }

    pub(super) fn finish(self) -> Remains {
        let bucket = self.bucket();
        let Self { reconcile, permit, versions, .. } = self;
        let resync_is_over = reconcile.resync_is_over();
        let state = Box::new(reconcile.into_state());
        Remains { state, permit, bucket, versions, resync_is_over }
    }

    fn context(&self, shared: &Shared, response: &Response, facts: Facts) -> StepContext {
        let place = match response {
            Response::Object(Some(view)) => Some(view.place()),
            _ => self.reconcile.place(),
        };
        let claims = &shared.claims;
        StepContext {
            service: facts.service,
            elapsed: facts.now,
            nonce: facts.nonce,
            ownership: place
                .as_ref()
                .map_or(Ownership::Uncontested, |place| claims.ownership(&self.key, place)),
            must_identify: claims.must_identify(&self.key),
            freed: shared.freed.of(&self.key),
            resync: shared.resyncs.of(&self.key, facts.now),
            others: place
                .iter()
                .flat_map(|place| claims.others(&self.key, place))
                .cloned()
                .collect(),
            may_act: facts.may_act,
        }
    }

    /// What a response means for others: claims, permits, the size of calls.
    fn learn(&mut self, shared: &mut Shared, response: &Response, now: Duration) {
        match response {
            Response::Object(Some(view)) => {
                if matches!(self.last, Last::Write) {
                    self.versions.push(Arc::clone(&view.version));
                }
                shared.claims.set(&self.key, &view.version, view.claimant());
                shared.freed.waits(&self.key, view.failed_attaches());
            }
            // One that the watch has seen go meanwhile claims nothing any more.
            Response::Claimant(key, Some(view)) if shared.claims.is_in_sight(key) => {
                shared.claims.set(key, &view.version, view.claimant());
            }
            Response::Credentials(found) => {
                shared.claims.identify(&self.key, found.as_ref().ok().cloned());
                if let Ok(identity) = found {
                    self.identity = Some(identity.clone());
                    if let Some(bucket) = self.bucket() {
                        self.use_bucket(shared, &bucket, identity, now);
                    }
                }
            }
            Response::Answer(answer) => self.call_ended(shared, answer, now),
            _ => {}
        }
        if shared.stopping {
            self.lose_permit(shared);
        }
        if let Some(identity) = &self.identity {
            self.reconcile.limit_batches(shared.batch_size_max(&identity.credential));
        }
    }

    /// The call is over: what it teaches about the account, and when its permit comes back.
    fn call_ended(&mut self, shared: &mut Shared, answer: &Answer, now: Duration) {
        let Last::Call { sent_at, journal } = &self.last else { return };
        let Journal { operation, instances, resync, .. } = journal;
        let (sent_at, ids) = (*sent_at, instances.len());
        // That the session is gone is told by the conditions, if it is believed.
        let is_gone = answer.verdict == Verdict::SessionGone;
        if let (true, Some(last)) = (*resync, instances.last()) {
            let failed =
                answer.outcomes(instances).filter(|(_, outcome)| *outcome != Outcome::Done);
            let failed: Vec<_> = failed.map(|(id, _)| id.clone()).filter(|_| !is_gone).collect();
            let failure = (!failed.is_empty()).then(|| ResyncFailure {
                result: answer.verdict.result(),
                code: answer.code.clone(),
            });
            if let Some(failure) = shared.resyncs.answered(&self.key, last, failure, now) {
                self.lessons.push(Lesson::ResyncFailed { failure, instances: failed });
            }
        }
        match (operation, &answer.verdict) {
            (Operation::Attach, Verdict::Processed { succeeded, .. }) => {
                shared.freed.attached(&self.key, succeeded);
            }
            (Operation::Detach, Verdict::Processed { succeeded, .. }) => {
                // What was only taken out to know where it stands goes back.
                let wanted = self.reconcile.wanted();
                let freed = succeeded.iter().filter(|id| !wanted.contains(*id)).cloned().collect();
                shared.freed.detached(&self.key, &freed);
            }
            (Operation::Attach | Operation::Detach, _) => {}
        }
        if let (true, Some(identity)) = (is_too_large(&answer.code), &self.identity)
            && let Some(batch_size) = shared.too_large(&identity.credential, ids)
        {
            self.lessons.push(Lesson::TooLarge { ids, batch_size });
        }
        let Some(permit) = self.permit.take() else { return };
        if answer.verdict == Verdict::NothingDone(NothingDone::Throttled)
            && let Some(quota) = shared.buckets.throttled(&permit, now)
        {
            self.lessons.push(Lesson::Throttled { calls_per_second: quota.get() });
        }
        shared.buckets.spent(permit, self.permit_comes_back_at(answer, sent_at, now));
    }

    /// One window after the answer, or after the deadline of a call that nobody answered: so long
    /// the service may count it.
    fn permit_comes_back_at(&self, answer: &Answer, sent_at: Duration, now: Duration) -> Duration {
        let unanswered = answer.verdict == Verdict::Unanswered;
        let over = if unanswered { now.max(sent_at + self.call_deadline) } else { now };
        over + WINDOW
    }

    /// Its calls are counted in this bucket.
    fn use_bucket(
        &mut self,
        shared: &mut Shared,
        bucket: &Bucket,
        identity: &Identity,
        now: Duration,
    ) {
        let of_key = Bucket { caller: Caller::Key(identity.key), ..bucket.clone() };
        if of_key != *bucket {
            shared.buckets.merge(&of_key, bucket, now);
        }
        let buckets = &shared.buckets;
        let is_of_another =
            |permit: &Permit| buckets.resolved(permit.bucket()) != buckets.resolved(bucket);
        if self.permit.as_ref().is_some_and(is_of_another) {
            // The spec or the Secret changed while it waited.
            self.lose_permit(shared);
        }
    }

    fn lose_permit(&mut self, shared: &mut Shared) {
        if let Some(permit) = self.permit.take() {
            shared.buckets.unspent(permit);
            self.reconcile.lose_permit();
        }
    }

    fn bucket(&self) -> Option<Bucket> {
        let caller = self.identity.as_ref()?.caller();
        Some(Bucket { caller, endpoint: Arc::clone(self.reconcile.endpoint()?) })
    }
}
