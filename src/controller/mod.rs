//! The shell around the core: performs the commands of the scheduler and the effects of each
//! reconcile, and tells them what came of it. It decides nothing about sessions.
//!
//! ```text
//!  watch ──Event──▶ Scheduler ──Command──▶ Controller ──Run──▶ reconcile: effect → response → …
//!                       ▲                                          │  object (API server)
//!                       └──────────────── Finished ◀───────────────┘  gs (service), events
//! ```

pub mod context;
pub mod events;
#[cfg(debug_assertions)]
pub mod failpoint;
pub mod object;
pub mod reconcile;
pub mod shared_scheduler;
mod wanted_twice;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use streamsession_core::scheduler::{Command, Event};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use context::Context;
use reconcile::Finished;

/// Watch events on their way to the scheduler: a bound, not a buffer to fill.
const EVENTS_MAX: usize = 256;

/// Why the controller stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// A reconcile or the watch panicked; what is in memory can't be trusted.
    #[error("a task of the controller died: {0}")]
    Died(#[from] JoinError),
}

/// The controller.
pub struct Controller {
    context: Arc<Context>,
    runs: JoinSet<Finished>,
    searches: JoinSet<()>,
    stopping: CancellationToken,
}

impl Controller {
    /// A controller that does nothing yet.
    #[must_use]
    pub fn new(context: Arc<Context>, stopping: CancellationToken) -> Self {
        Self { context, runs: JoinSet::new(), searches: JoinSet::new(), stopping }
    }

    /// Works until `stopping` is cancelled; then lets the reconciles that are under way settle.
    pub async fn run(mut self) -> Result<(), Stopped> {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let mut watches = watch::spawn(&self.context, &sender);
        drop(sender);
        let (stopping, scheduler) = (self.stopping.clone(), self.context.scheduler.clone());
        loop {
            let wake_at = self.perform_commands();
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(event) = events.recv() => self.seen(event),
                Some(finished) = self.runs.join_next() => self.finished(finished?),
                () = scheduler.news_or(wake_at) => {}
                Some(watch) = watches.join_next() => watch?,
            }
        }
        watches.abort_all();
        self.drain().await
    }

    /// Lets what is under way settle: for as long as a call and two writes may take.
    async fn drain(mut self) -> Result<(), Stopped> {
        let drain_timeout = self.context.call_deadline + self.context.kube_deadline * 2;
        let scheduler = self.context.scheduler.clone();
        scheduler.handle(Event::Stopping);
        info!(running = scheduler.running(), "stopping: reconciles that are under way may settle");
        let drained = timeout(drain_timeout, async {
            loop {
                let wake_at = self.perform_commands();
                if scheduler.is_drained() {
                    return Ok(());
                }
                tokio::select! {
                    Some(finished) = self.runs.join_next() => self.finished(finished?),
                    () = scheduler.news_or(wake_at) => {}
                }
            }
        });
        if let Ok(ended) = drained.await {
            return ended;
        }
        warn!(
            running = scheduler.running(),
            "stopped before every reconcile had settled. Its journal tells the next process"
        );
        Ok(())
    }

    /// Starts what is due. Answers when the scheduler wants to be asked again.
    fn perform_commands(&mut self) -> Option<Duration> {
        loop {
            match self.context.scheduler.next_command() {
                Command::Start(run) => {
                    self.runs.spawn(reconcile::drive(Arc::clone(&self.context), run));
                }
                Command::FindWanters(ids) => {
                    // One at a time: each reads all objects.
                    while self.searches.try_join_next().is_some() {}
                    if self.searches.is_empty() {
                        let context = Arc::clone(&self.context);
                        self.searches.spawn(wanted_twice::tell(context, ids));
                    }
                }
                Command::WakeAt(at) => return Some(at),
                Command::Wait => return None,
            }
        }
    }

    fn seen(&self, event: Event) {
        let Context { scheduler, metrics, readiness, credentials, .. } = &*self.context;
        metrics.watch_events.inc();
        match &event {
            Event::ListEnded(scope) => readiness.listed(scope.name()),
            Event::Gone(key) => credentials.forget(key),
            _ => {}
        }
        scheduler.handle(event);
        metrics.objects.set(scheduler.objects());
    }

    fn finished(&self, Finished { run, requeue }: Finished) {
        let Context { scheduler, metrics, .. } = &*self.context;
        metrics.reconcile(requeue);
        scheduler.handle(Event::Finished(run, requeue));
        metrics.waiting.set(scheduler.waiting());
    }
}
