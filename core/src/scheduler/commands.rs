//! The scheduler: takes what happened, answers what to do next.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::InstanceId;
use crate::ledger::plan::Priority;
use crate::object::{ObjectKey, Scope};
use crate::reconcile::{Reconcile, ReconcileState, Requeue, Settings};
use crate::scheduler::buckets::Permit;
use crate::scheduler::digest::Digest;
use crate::scheduler::run::{Remains, Run};
use crate::scheduler::shared::{Access, Shared};
use crate::scheduler::work_queue::WorkQueue;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A list of the objects of a scope begins: what it does not name is gone.
    ListBegan(Scope),
    /// It has ended: from now on the objects of the scope are worked on.
    ListEnded(Scope),
    /// An object was seen, new or changed.
    Seen(ObjectKey, Digest),
    /// An object is gone.
    Gone(ObjectKey),
    /// A run is over, and the object is due again then.
    Finished(Box<Run>, Requeue),
    /// The process stops: what is under way may settle, and nothing else is begun.
    Stopping,
}

/// What to do next.
#[derive(Debug)]
pub enum Command {
    /// Drive this run until it is done, then say [`Event::Finished`].
    Start(Box<Run>),
    /// Find out which objects of other sessions want these too, and tell both.
    FindWanters(BTreeSet<InstanceId>),
    /// Nothing before that time, unless something happens.
    WakeAt(Duration),
    /// Nothing, unless something happens.
    Wait,
}

/// For so long after the start of the process nothing is begun before everything was listed: an
/// object of another namespace may own a session. Then a list that fails stops its own scope only.
const LISTS_WAIT: Duration = Duration::from_secs(30);

/// All objects are read for that, so no more often.
const WANTERS_INTERVAL: Duration = Duration::from_mins(1);

/// How much may be under way.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs at a time that began without a permit; those that hold one come on top, of each bucket
    /// never more than its calls a second. So calls that wait for the service never keep edits from
    /// being read.
    pub concurrency: usize,
    /// Calls a second, for each account and endpoint.
    pub calls_per_second: NonZeroU32,
    /// Calls at once after a pause.
    pub burst: NonZeroU32,
    /// How long a call may take.
    pub call_deadline: Duration,
}

/// The scheduler of one process. Times are monotonic, since the start of the process.
///
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Duration;
///
/// use streamsession_core::ledger::Ledger;
/// use streamsession_core::object::Scope;
/// use streamsession_core::reconcile::Requeue;
/// use streamsession_core::scheduler::{Command, Digest, Event, Limits, Scheduler};
/// use streamsession_testkit::fixtures::{key, settings, view};
///
/// let limits = Limits {
///     concurrency: 16,
///     calls_per_second: NonZeroU32::new(20).unwrap(),
///     burst: NonZeroU32::MIN,
///     call_deadline: Duration::from_secs(10),
/// };
/// let mut scheduler = Scheduler::new(settings(), limits, vec![Scope::All]);
/// let object = view(Ledger::default(), &["a"]);
/// let at = Duration::from_secs;
///
/// scheduler.handle(Event::ListBegan(Scope::All), at(0));
/// scheduler.handle(Event::Seen(key("lobby"), Digest::of(&object)), at(0));
/// let command = scheduler.next_command(at(0));
/// assert!(matches!(command, Command::WakeAt(_)), "it was not all listed yet");
/// scheduler.handle(Event::ListEnded(Scope::All), at(1));
///
/// let Command::Start(run) = scheduler.next_command(at(1)) else { panic!("it is due") };
/// scheduler.handle(Event::Finished(run, Requeue::After(at(5))), at(2));
/// assert!(matches!(scheduler.next_command(at(2)), Command::WakeAt(time) if time == at(7)));
/// ```
#[derive(Debug)]
pub struct Scheduler {
    settings: Arc<Settings>,
    limits: Limits,
    queue: WorkQueue,
    shared: Shared,
    /// What was never listed yet: no object there is worked on, since one that comes first may not
    /// be in sight. At the start of the process, none anywhere.
    unlisted: Vec<Scope>,
    /// Before this nobody is asked again who wants what.
    wanters_at: Duration,
    /// Runs under way.
    running: usize,
    /// Those of them that began without a permit.
    without_permit: usize,
}

impl Scheduler {
    /// A scheduler that knows no object yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>, limits: Limits, scopes: Vec<Scope>) -> Self {
        Self {
            settings,
            limits,
            queue: WorkQueue::default(),
            shared: Shared::new(limits.calls_per_second, limits.burst),
            unlisted: scopes,
            wanters_at: Duration::ZERO,
            running: 0,
            without_permit: 0,
        }
    }

    /// Takes note of what happened at `now`.
    pub fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::ListBegan(scope) => self.queue.list_began(&scope),
            Event::ListEnded(scope) => {
                for key in self.queue.list_ended(&scope) {
                    self.forget(&key);
                }
                self.unlisted.retain(|unlisted| *unlisted != scope);
            }
            Event::Seen(key, digest) => self.seen(&key, digest, now),
            Event::Gone(key) => {
                self.queue.remove(&key);
                self.forget(&key);
            }
            Event::Finished(run, requeue) => self.finished(*run, requeue, now),
            Event::Stopping => {
                self.shared.stopping = true;
                self.queue.stop();
            }
        }
        self.wake_claimants();
    }

    /// What to do next at `now`. Ask again at once, until there is nothing before some time.
    pub fn next_command(&mut self, now: Duration) -> Command {
        self.wake_claimants();
        self.queue.expire_timers(now);
        for key in self.shared.resyncs.take_due(now) {
            self.queue.due_anyway(&key);
        }
        while let Some((key, permit)) = self.grant(now) {
            if self.queue.may_start(&key) {
                return self.start(key, Some(permit));
            }
            self.shared.buckets.unspent(permit);
        }
        let waits_for_lists = !self.unlisted.is_empty() && now < LISTS_WAIT;
        if (self.without_permit < self.limits.concurrency || self.shared.stopping)
            && !waits_for_lists
            && let Some(key) = self.queue.pop(&self.unlisted)
        {
            return self.start(key, None);
        }
        let asks = self.shared.freed.has_unexplained() && !self.shared.stopping;
        if asks && self.wanters_at <= now {
            self.wanters_at = now + WANTERS_INTERVAL;
            return Command::FindWanters(self.shared.freed.take_unexplained());
        }
        let wanters = asks.then_some(self.wanters_at);
        self.shared.buckets.take_returned();
        let grant = self.shared.buckets.next(now).filter(|_| !self.shared.stopping);
        let resync = self.shared.resyncs.next().filter(|_| !self.shared.stopping);
        let lists = waits_for_lists.then_some(LISTS_WAIT);
        let timer = self.queue.next_timer();
        let due = [timer, grant, resync, wanters, lists];
        match due.into_iter().flatten().min() {
            Some(at) => Command::WakeAt(at),
            None => Command::Wait,
        }
    }

    /// Whether a run did something, since the last command, that may be followed by another one.
    pub fn has_news(&mut self) -> bool {
        self.shared.claims.has_changed()
            || self.shared.freed.has_changed()
            || self.shared.buckets.take_returned()
    }

    /// Whether a process that stops has nothing to wait for any more.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.running == 0 && self.queue.is_at_rest()
    }

    /// How many objects there are.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.queue.len()
    }

    /// How many objects wait for a permit.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.buckets.waiting()
    }

    /// How many runs are under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// What the runs share, to look at.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    fn seen(&mut self, key: &ObjectKey, digest: Digest, now: Duration) {
        let Digest { version, converged, claimant, resync_interval } = digest;
        self.shared.resyncs.set(key, resync_interval, now);
        if let Some(claimant) = claimant {
            self.shared.claims.set(key, &version, claimant);
        }
        // One that another object keeps from its session has to say so. One that waits is looked
        // at: this version may be older than what it waits for.
        let waits = self.queue.has_timer(key) || self.shared.buckets.is_waiting(key);
        let claims = &self.shared.claims;
        let is_alone = !claims.is_contender(key) && !claims.must_identify(key);
        let converged = converged && !waits && is_alone;
        self.queue.saw(key, version, converged);
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.shared.claims.remove(key);
        self.shared.freed.remove(key);
        self.shared.resyncs.remove(key);
        self.shared.buckets.cancel(key);
    }

    /// Objects are due that share a session with one whose claim changed, or for which a phone was
    /// freed.
    fn wake_claimants(&mut self) {
        let freed = self.shared.freed.take_changed();
        for key in self.shared.claims.take_changed().into_iter().chain(freed) {
            self.queue.cancel_timer(&key);
            self.queue.due_anyway(&key);
        }
    }

    fn grant(&mut self, now: Duration) -> Option<(ObjectKey, Permit)> {
        if self.shared.stopping { None } else { self.shared.buckets.grant(now) }
    }

    fn start(&mut self, key: ObjectKey, permit: Option<Permit>) -> Command {
        let (number, left) = self.queue.started(&key);
        let state = left.map_or_else(|| ReconcileState::new(&self.settings), |left| *left);
        let granted = permit.as_ref().map(Permit::priority);
        let reconcile = Reconcile::new(Arc::clone(&self.settings), state, granted);
        self.running += 1;
        self.without_permit += usize::from(permit.is_none());
        let deadline = self.limits.call_deadline;
        Command::Start(Box::new(Run::new(key, number, reconcile, permit, deadline)))
    }

    fn finished(&mut self, run: Run, requeue: Requeue, now: Duration) {
        self.running = self.running.saturating_sub(1);
        self.without_permit = self.without_permit.saturating_sub(usize::from(!run.with_permit));
        let (key, number) = (run.key.clone(), run.number);
        let Remains { state, permit, bucket, versions, resync_is_over } = run.finish();
        if resync_is_over {
            self.shared.resyncs.over(&key, now);
        }
        if let Some(permit) = permit {
            self.shared.buckets.unspent(permit);
        }
        let left = match requeue {
            Requeue::OnChange | Requeue::Never => None,
            Requeue::After(_) | Requeue::OnPermit(_) | Requeue::OnResyncPermit(_) => Some(state),
        };
        let counts = self.queue.finished(&key, number, left, versions);
        if !self.queue.contains(&key) {
            // What the run saw last is gone meanwhile.
            self.shared.claims.remove(&key);
            self.shared.freed.remove(&key);
        }
        if !counts {
            return;
        }
        if !matches!(requeue, Requeue::OnPermit(_) | Requeue::OnResyncPermit(_)) {
            self.shared.buckets.cancel(&key);
        }
        if let Requeue::After(pause) | Requeue::OnResyncPermit(Some(pause)) = requeue {
            self.queue.set_timer(&key, now + pause);
        }
        match (requeue, bucket) {
            (Requeue::OnPermit(priority), Some(bucket)) => {
                self.shared.buckets.enqueue(&bucket, key, priority, now);
            }
            (Requeue::OnResyncPermit(_), Some(bucket)) => {
                self.shared.buckets.enqueue(&bucket, key, Priority::Resync, now);
            }
            (Requeue::OnPermit(_) | Requeue::OnResyncPermit(_), None) => self.queue.due(&key),
            (Requeue::After(_) | Requeue::OnChange | Requeue::Never, _) => {}
        }
    }
}

impl Access for Scheduler {
    fn with<R>(&mut self, work: impl FnOnce(&mut Shared) -> R) -> R {
        work(&mut self.shared)
    }
}
