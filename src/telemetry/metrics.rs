//! Counters and gauges, in a registry of their own. Labels are closed sets: never an id, a name or
//! a text.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};
use streamsession_core::answer::{Answer, Operation, Verdict};
use streamsession_core::ledger::Journal;
use streamsession_core::reconcile::{Notice, Requeue};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What is counted.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    calls: Family<CallLabels, Counter>,
    instances: Family<CallLabels, Counter>,
    reconciles: Family<OutcomeLabel, Counter>,
    writes: Family<OutcomeLabel, Counter>,
    released: Family<OutcomeLabel, Counter>,
    ledgers_rebuilt: Counter,
    /// What kept resyncs from success, told once each.
    pub resync_failures: Counter,
    invariants_violated: Counter,
    /// Events of the watch.
    pub watch_events: Counter,
    /// Interruptions of the watch.
    pub watch_errors: Counter,
    /// Objects known.
    pub objects: Gauge<i64, AtomicI64>,
    /// Objects that wait for a permit.
    pub waiting: Gauge<i64, AtomicI64>,
    /// Seconds by which the node's clock is ahead of the service's.
    pub clock_ahead: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("streamsession");
        let to = &mut registry;
        Self {
            calls: register(to, "gs_calls", "Calls of the service, by what came of them"),
            instances: register(
                to,
                "gs_instances",
                "Instances named in calls, by what came of them",
            ),
            reconciles: register(to, "reconciles", "Reconciles, by how they ended"),
            writes: register(to, "object_writes", "Writes to StreamSessions, by result"),
            released: register(
                to,
                "instances_released",
                "Instances that left a ledger though the service never said that they are out",
            ),
            ledgers_rebuilt: register(
                to,
                "ledgers_rebuilt",
                "Ledgers that were lost, copied or restored, and made anew",
            ),
            resync_failures: register(
                to,
                "resync_failures",
                "Causes that kept a resync from success; each counts once for an object, until a resync \
                 of it goes well",
            ),
            invariants_violated: register(
                to,
                "invariants_violated",
                "Objects on which the work has stopped; always an error in the operator",
            ),
            watch_events: register(to, "watch_events", "Events of the watch"),
            watch_errors: register(to, "watch_errors", "Interruptions of the watch"),
            objects: register(to, "objects", "StreamSessions known"),
            waiting: register(
                to,
                "permit_waiting",
                "StreamSessions that wait for a permit to call",
            ),
            clock_ahead: register(
                to,
                "node_clock_ahead_seconds",
                "Seconds by which the node's clock was ahead of the service's at the last answer; \
                 negative: behind",
            ),
            registry: Arc::new(registry),
        }
    }
}

/// A metric that starts at nothing, under its name.
fn register<M: Metric + Clone + Default>(to: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    to.register(name, help, metric.clone());
    metric
}

impl Metrics {
    /// A call has come to its end.
    pub fn call(&self, journal: &Journal, answer: &Answer) {
        let operation = match journal.operation {
            Operation::Attach => "attach",
            Operation::Detach => "detach",
        };
        let outcome = answer.verdict.result().into();
        self.calls.get_or_create(&CallLabels { operation, outcome }).inc();
        if let Verdict::Processed { succeeded, refused } = &answer.verdict {
            let unclear = journal.instances.len().saturating_sub(succeeded.len() + refused.len());
            for (outcome, count) in
                [("succeeded", succeeded.len()), ("refused", refused.len()), ("unclear", unclear)]
            {
                self.instances
                    .get_or_create(&CallLabels { operation, outcome })
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
            Requeue::OnPermit(_) | Requeue::OnResyncPermit(_) => "await_permit",
        };
        self.reconciles.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A write to an object has ended.
    pub fn write(&self, outcome: &'static str) {
        self.writes.get_or_create(&OutcomeLabel { outcome }).inc();
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
        self.released
            .get_or_create(&OutcomeLabel { outcome })
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
