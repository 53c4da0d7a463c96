//! Counters and gauges, in a registry of their own. Labels are closed sets: never an id, a name or
//! a text.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use streamsession_core::answer::{Answer, NothingDone, Operation, Verdict};
use streamsession_core::ledger::Journal;
use streamsession_core::reconcile::{Notice, Requeue};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// What is counted.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    calls: Family<Call, Counter>,
    instances: Family<Call, Counter>,
    reconciles: Family<Ended, Counter>,
    writes: Family<Ended, Counter>,
    release: Family<Ended, Counter>,
    ledgers_rebuilt: Counter,
    invariants_violated: Counter,
    /// Events of the watch.
    pub watch_events: Counter,
    /// Interruptions of the watch.
    pub watch_errors: Counter,
    /// Objects known.
    pub sessions: Gauge<i64, AtomicI64>,
    /// Objects that wait for a permit.
    pub waiting: Gauge<i64, AtomicI64>,
    /// Seconds by which the node's clock is ahead of the service's.
    pub clock_ahead: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("streamsession");
        let (calls, instances) =
            (Family::<Call, Counter>::default(), Family::<Call, Counter>::default());
        let (reconciles, writes) =
            (Family::<Ended, Counter>::default(), Family::<Ended, Counter>::default());
        let release = Family::<Ended, Counter>::default();
        let (ledgers_rebuilt, invariants_violated) = (Counter::default(), Counter::default());
        let (watch_events, watch_errors) = (Counter::default(), Counter::default());
        let (sessions, waiting, clock_ahead) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("gs_calls", "Calls of the service, by what came of them", calls.clone());
        registry.register(
            "gs_instances",
            "Instances named in calls, by what came of them",
            instances.clone(),
        );
        registry.register(
            "reconciles",
            "Reconciles, by how they ended",
            reconciles.clone(),
        );
        registry.register("object_writes", "Writes to StreamSessions, by result", writes.clone());
        registry.register(
            "instances_let_go",
            "Instances that left a record though the service never said that they are out",
            release.clone(),
        );
        registry.register(
            "ledgers_rebuilt",
            "Records that were lost, copied or restored, and made anew",
            ledgers_rebuilt.clone(),
        );
        registry.register(
            "invariants_violated",
            "Objects on which the work has stopped; always an error in the operator",
            invariants_violated.clone(),
        );
        registry.register("watch_events", "Events of the watch", watch_events.clone());
        registry.register("watch_errors", "Interruptions of the watch", watch_errors.clone());
        registry.register("objects", "StreamSessions known", sessions.clone());
        registry.register(
            "permit_waiting",
            "StreamSessions that wait for a permit to call",
            waiting.clone(),
        );
        registry.register(
            "node_clock_ahead_seconds",
            "Seconds by which the node's clock was ahead of the service's at the last answer; negative: behind",
            clock_ahead.clone(),
        );
        Self {
            registry: Arc::new(registry),
            calls,
            instances,
            reconciles,
            writes,
            release,
            ledgers_rebuilt,
            invariants_violated,
            watch_events,
            watch_errors,
            sessions,
            waiting,
            clock_ahead,
        }
    }
}

impl Metrics {
    /// A call has come to its end.
    pub fn call(&self, journal: &Journal, answer: &Answer) {
        let operation = match journal.operation {
            Operation::Attach => "attach",
            Operation::Detach => "detach",
        };
        let outcome = match &answer.verdict {
            Verdict::Processed { .. } => "processed",
            Verdict::NothingDone(NothingDone::Throttled) => "throttled",
            Verdict::NothingDone(NothingDone::Credentials) => "credentials",
            Verdict::NothingDone(NothingDone::NotSent) => "not_sent",
            Verdict::SessionGone => "session_gone",
            Verdict::Invalid => "invalid",
            Verdict::NotFound => "not_found",
            Verdict::Unclear => "unclear",
            Verdict::Unanswered => "unanswered",
        };
        self.calls.get_or_create(&Call { operation, outcome }).inc();
        if let Verdict::Processed { succeeded, refused } = &answer.verdict {
            let unclear = journal.instances.len().saturating_sub(succeeded.len() + refused.len());
            for (outcome, count) in
                [("succeeded", succeeded.len()), ("refused", refused.len()), ("unclear", unclear)]
            {
                self.instances
                    .get_or_create(&Call { operation, outcome })
                    .inc_by(count.try_into().unwrap_or(u64::MAX));
            }
        }
    }

    /// A reconcile has ended.
    pub fn reconcile(&self, end: Requeue) {
        let outcome = match end {
            Requeue::Never => "gone",
            Requeue::OnChange => "at_rest",
            Requeue::After(_) => "later",
            Requeue::OnPermit(_) => "await_permit",
        };
        self.reconciles.get_or_create(&Ended { outcome }).inc();
    }

    /// A write to an object has ended.
    pub fn write(&self, outcome: &'static str) {
        self.writes.get_or_create(&Ended { outcome }).inc();
    }

    /// Something was told to people.
    pub fn notice(&self, notice: &Notice) {
        let outcome = match notice {
            Notice::Rebuilt(_) => {
                self.ledgers_rebuilt.inc();
                return;
            }
            Notice::Violated(_) => {
                self.invariants_violated.inc();
                return;
            }
            Notice::Forgotten(_) => "forgotten",
            Notice::HandedOver(_) => "handed_over",
            Notice::Unproven(_) => "dropped",
            Notice::Orphaned(_) => "orphaned",
        };
        self.release
            .get_or_create(&Ended { outcome })
            .inc_by(notice.instances().len().try_into().unwrap_or(u64::MAX));
    }

    /// All of it as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
