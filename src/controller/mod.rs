//! The shell around the protocol: it learns what is due, performs the effects of one round, and
//! reports.
//!
//! ```text
//!  watch ──digests──▶ agenda ──key──▶ reconcile: Read → step → effect → response → … → End
//!                       ▲                 │  object (API server)   gs (service)   events
//!                       └── after a time, │
//!                           on a permit ◀─┘
//! ```
//!
//! [`Controller::run`] is the only task that knows the [`agenda`]; rounds are tasks of their own
//! and hand back what to remember.

pub mod agenda;
pub mod context;
pub mod digest;
pub mod events;
#[cfg(debug_assertions)]
pub mod failpoint;
pub mod key;
pub mod object;
pub mod reconcile;
pub mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use streamsession_protocol::plan::Urgency;
use streamsession_protocol::step::End;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue;
use tracing::{info, warn};

use agenda::Agenda;
use context::Context;
use key::{ObjectKey, Scope};
use reconcile::{Finished, Permit};
use watch::Seen;

use crate::queue::{self, Priority};

/// Watch events on their way to the agenda: a bound, not a buffer to fill.
const SEEN_MAX: usize = 256;
/// A round that has come to its end.
struct Ended {
    key: ObjectKey,
    number: u64,
    /// It began with a permit.
    permitted: bool,
    finished: Finished,
}

/// Why the controller stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// A round or the watch panicked; what is in memory can't be trusted.
    #[error("a task of the controller died: {0}")]
    Died(#[from] tokio::task::JoinError),
}

/// The controller.
pub struct Controller {
    context: Arc<Context>,
    agenda: Agenda,
    timers: DelayQueue<ObjectKey>,
    timer_of: HashMap<ObjectKey, delay_queue::Key>,
    rounds: JoinSet<Ended>,
    /// Rounds that began without a permit: these are bounded, so that calls that wait for the
    /// service never keep edits from being read.
    plain: usize,
    /// What was never listed yet: no object there is worked on, since one that comes first may not
    /// be in sight.
    unlisted: Vec<Scope>,
    stopping: CancellationToken,
}

impl Controller {
    /// A controller that does nothing yet.
    #[must_use]
    pub fn new(context: Arc<Context>, stopping: CancellationToken) -> Self {
        Self {
            unlisted: context.scopes(),
            context,
            agenda: Agenda::default(),
            timers: DelayQueue::new(),
            timer_of: HashMap::new(),
            rounds: JoinSet::new(),
            plain: 0,
            stopping,
        }
    }

    /// Works until `stopping` is cancelled; then lets the rounds that are under way settle.
    pub async fn run(mut self) -> Result<(), Stopped> {
        let (sender, mut seen) = mpsc::channel(SEEN_MAX);
        let mut watches = watch::spawn(&self.context, &sender);
        drop(sender);
        let stopping = self.stopping.clone();
        loop {
            self.start_ready();
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(event) = seen.recv() => self.see(event),
                Some(expired) = self.timers.next(), if !self.timers.is_empty() => {
                    let key = expired.into_inner();
                    self.timer_of.remove(&key);
                    self.agenda.due(&key);
                }
                (key, permit) = self.context.limiter.granted() => self.granted(key, permit),
                Some(joined) = self.rounds.join_next(), if !self.rounds.is_empty() => {
                    self.finish(joined?);
                }
                Some(watch) = watches.join_next() => watch?,
            }
        }
        watches.abort_all();
        self.drain().await
    }

    /// Lets what is under way settle: for as long as a call and two writes may take.
    async fn drain(mut self) -> Result<(), Stopped> {
        let patience = self.context.call_deadline + self.context.kube_deadline * 2;
        for key in self.agenda.owing() {
            self.start(key, None);
        }
        info!(open_rounds = self.rounds.len(), "stopping: rounds that are under way may settle");
        let settled = timeout(patience, async {
            while let Some(joined) = self.rounds.join_next().await {
                let Ended { key, finished, .. } = joined?;
                // An answer that could not be written yet is in this memory alone.
                if let (End::After(pause), true) = (finished.end, finished.memory.owes_settle()) {
                    let again = reconcile::round(
                        Arc::clone(&self.context),
                        key.clone(),
                        Some(finished.memory),
                        None,
                        self.stopping.clone(),
                    );
                    self.rounds.spawn(async move {
                        sleep(pause).await;
                        Ended { key, number: 0, permitted: false, finished: again.await }
                    });
                }
            }
            Ok(())
        });
        if let Ok(ended) = settled.await {
            return ended;
        }
        warn!(
            open_rounds = self.rounds.len(),
            "stopped before every round had settled; its journal tells the next process"
        );
        Ok(())
    }

    fn see(&mut self, event: Seen) {
        self.context.metrics.watch_events.inc();
        match event {
            Seen::Began(scope) => self.agenda.list_began(&scope),
            Seen::Listed(scope) => {
                for key in self.agenda.list_ended(&scope) {
                    self.forget(&key);
                }
                self.unlisted.retain(|unlisted| *unlisted != scope);
                self.context.readiness.listed(scope.name());
            }
            Seen::Object(key, mut digest, claim) => {
                {
                    let mut claims = self.context.claims();
                    claims.set(&key, claim);
                    digest.converged &= !claims.is_behind(&key);
                }
                let converged = digest.converged;
                if self.agenda.saw(&key, digest) {
                    self.cancel_timer(&key);
                } else if converged {
                    // Nothing is due any more, whatever it waited for.
                    self.cancel_timer(&key);
                    self.context.limiter.cancel(&key);
                }
            }
            Seen::Gone(key) => {
                self.agenda.gone(&key);
                self.forget(&key);
            }
        }
        self.wake_rivals();
        self.context.metrics.sessions.set(self.agenda.len().try_into().unwrap_or(i64::MAX));
    }

    /// Objects that drive their session now, or don't any more.
    fn wake_rivals(&mut self) {
        let changed = self.context.claims().take_changed();
        for key in &changed {
            self.cancel_timer(key);
            self.agenda.stands_otherwise(key);
        }
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.context.claims().remove(key);
        self.cancel_timer(key);
        self.context.limiter.cancel(key);
    }

    fn cancel_timer(&mut self, key: &ObjectKey) {
        if let Some(timer) = self.timer_of.remove(key) {
            self.timers.try_remove(&timer);
        }
    }

    fn start_ready(&mut self) {
        while self.plain < self.context.concurrency {
            let Some(key) = self.agenda.pop(&self.unlisted) else { return };
            self.start(key, None);
        }
    }

    /// A permit is there: its round starts at once, above the usual concurrency if need be; there
    /// are never more permits than the quota.
    fn granted(&mut self, key: ObjectKey, permit: Permit) {
        if self.agenda.may_start(&key) {
            self.cancel_timer(&key);
            self.start(key, Some(permit));
        }
    }

    fn start(&mut self, key: ObjectKey, permit: Option<Permit>) {
        let (number, memory) = self.agenda.started(&key);
        self.cancel_timer(&key);
        let permitted = permit.is_some();
        self.plain += usize::from(!permitted);
        let round = reconcile::round(
            Arc::clone(&self.context),
            key.clone(),
            memory,
            permit,
            self.stopping.clone(),
        );
        self.rounds.spawn(async move { Ended { key, number, permitted, finished: round.await } });
    }

    fn finish(&mut self, ended: Ended) {
        let Ended { key, number, permitted, finished } = ended;
        let key = &key;
        self.plain = self.plain.saturating_sub(usize::from(!permitted));
        let Finished { end, memory, versions, bucket } = finished;
        let keep = if end == End::OnChange || end == End::Gone { None } else { Some(memory) };
        let counts = self.agenda.finished(key, number, keep, versions);
        if !self.agenda.knows(key) {
            // What the round saw last is gone meanwhile.
            self.context.claims().remove(key);
        }
        self.wake_rivals();
        if !counts {
            return;
        }
        match (end, bucket) {
            (End::After(pause), _) => {
                let timer = self.timers.insert(key.clone(), pause);
                if let Some(old) = self.timer_of.insert(key.clone(), timer) {
                    self.timers.try_remove(&old);
                }
            }
            (End::AwaitPermit(urgency), Some(bucket)) => {
                self.context.limiter.enqueue(&bucket, key.clone(), priority(urgency))
            }
            (End::AwaitPermit(_), None) => self.agenda.due(key),
            (End::OnChange | End::Gone, _) => {}
        }
        self.context
            .metrics
            .waiting
            .set(self.context.limiter.waiting().try_into().unwrap_or(i64::MAX));
    }
}

fn priority(urgency: Urgency) -> Priority {
    match urgency {
        Urgency::Detach => Priority::Detach,
        Urgency::Attach => Priority::Attach,
        Urgency::Retry => Priority::Retry,
    }
}

impl queue::Key for ObjectKey {
    fn group(&self) -> &str {
        &self.namespace
    }
}
