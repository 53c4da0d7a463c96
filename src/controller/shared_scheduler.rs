//! The one scheduler of the process, as its tasks share it: a lock, a clock, and a wake-up.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamsession_core::scheduler::{Access, Command, Event, Scheduler, Shared};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The scheduler. Cheap to clone.
#[derive(Clone)]
pub struct SharedScheduler {
    scheduler: Arc<Mutex<Scheduler>>,
    /// A run did something that may be followed by another command.
    changed: Arc<Notify>,
    started: Instant,
}

impl SharedScheduler {
    /// The scheduler of a process that began at `started`.
    #[must_use]
    pub fn new(scheduler: Scheduler, started: Instant) -> Self {
        Self { scheduler: Arc::new(Mutex::new(scheduler)), changed: Arc::default(), started }
    }

    /// Monotonic time since the start of the process.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells it what happened.
    pub fn handle(&self, event: Event) {
        self.scheduler.lock().handle(event, self.now());
    }

    /// What to do next.
    #[must_use]
    pub fn next_command(&self) -> Command {
        self.scheduler.lock().next_command(self.now())
    }

    /// Waits until that time, or until a run did something that may be followed by another command.
    pub async fn news_or(&self, at: Option<Duration>) {
        let news = self.changed.notified();
        match at {
            // It is asked again if it was the time; if not, the news is what counts.
            Some(at) => timeout_at(self.started + at, news).await.unwrap_or_default(),
            None => news.await,
        }
    }

    /// How many objects there are.
    #[must_use]
    pub fn objects(&self) -> i64 {
        gauge(self.scheduler.lock().objects())
    }

    /// How many objects wait for a permit.
    #[must_use]
    pub fn waiting(&self) -> i64 {
        gauge(self.scheduler.lock().waiting())
    }

    /// How many reconciles are under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.scheduler.lock().running()
    }

    /// Whether a process that stops has nothing to wait for any more.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.scheduler.lock().is_drained()
    }
}

fn gauge(count: usize) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

impl Access for SharedScheduler {
    fn with<R>(&mut self, work: impl FnOnce(&mut Shared) -> R) -> R {
        let mut scheduler = self.scheduler.lock();
        let result = scheduler.with(work);
        if scheduler.has_news() {
            self.changed.notify_one();
        }
        result
    }
}
