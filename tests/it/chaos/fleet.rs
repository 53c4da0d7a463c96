//! The objects of a campaign, the edits that they get, and what must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gs_simulator::{Call, Faults, Outcome};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use streamsession_operator::api::FINALIZER;
use streamsession_testkit::rng::Rng;
use tokio::process::Child;
use tokio::time::sleep;

use super::below;
use super::checker::{Checker, converged, name, objects, session};
use super::figures::Figures;
use crate::harness::{Lab, cluster, spec};
use crate::process::Logs;

/// Phones that an object may want.
const PHONES: usize = 6;
/// The first pause of the operator's own default, less its jitter.
const PAUSE_MIN_SECONDS: f64 = 0.74;
/// A request of a killed process may still be on its way for so long.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// An operator sees an edit no later than this.
const LAG: Duration = Duration::from_secs(5);
/// The longest that a fleet may take to converge: a healthy one needs the wait for the writer of a
/// journal that was left, the expiry of its signature, and some pauses of the backoff.
const CONVERGED_MAX: Duration = Duration::from_mins(3);

/// A lab whose objects are known by number.
pub struct Fleet {
    pub lab: Arc<Lab>,
    logs: Logs,
    checker: Checker,
    /// Its name in messages.
    title: String,
    /// What each object wants; none if it does not exist, or is being deleted.
    wanted: Vec<Option<BTreeSet<String>>>,
    figures: Figures,
    /// Answers that the current faults make so slow that the call times out.
    slow_answers: u32,
    /// Calls that have timed out so.
    timeouts: usize,
    /// Whether the service refuses to detach what is not attached.
    absent_refused: bool,
    /// When the backoff of an object began anew; of all objects if there is no number.
    backoff_resets: Vec<(Option<usize>, Timestamp)>,
    /// Since when nothing goes wrong any more.
    undisturbed: Option<(Instant, Timestamp)>,
    started: Instant,
}

fn phones(slot: usize, letters: &str) -> BTreeSet<String> {
    letters.chars().map(|letter| format!("phone-{slot}-{letter}")).collect()
}

impl Fleet {
    /// A fleet of up to `slots` objects, none of which exists yet; `title` is for messages.
    pub fn new(title: impl Into<String>, lab: Lab, slots: usize) -> Self {
        let lab = Arc::new(lab);
        let absent_refused = lab.simulator.unspecified_behaviour().remove_absent
            != gs_simulator::NoOpAnswer::Success;
        Self {
            checker: Checker::start(Arc::clone(&lab), slots),
            logs: Logs::of(&lab),
            title: title.into(),
            wanted: vec![None; slots],
            figures: Figures::default(),
            slow_answers: 0,
            timeouts: 0,
            absent_refused,
            backoff_resets: Vec::new(),
            undisturbed: None,
            started: Instant::now(),
            lab,
        }
    }

    /// Starts another process of the operator.
    pub fn start(&mut self, failpoint: Option<&str>) -> Child {
        self.figures.processes += 1;
        self.backoff_resets.push((None, Timestamp::now()));
        self.logs.start_process(&self.lab, self.figures.processes, failpoint)
    }

    /// Counts a process that was killed, and the journals that it has left: all that there are now,
    /// those of another process that runs included.
    pub async fn count_kill(&mut self, at_failpoint: bool) {
        self.figures.kills += 1;
        self.figures.at_failpoints += usize::from(at_failpoint);
        let objects = objects(&self.lab.sessions).await.expect("the objects");
        let pending = objects.values().filter(|object| {
            object.status.as_ref().is_some_and(|status| status.pending_call.is_some())
        });
        self.figures.journals_left += pending.count();
    }

    /// The letters are phones.
    pub async fn create(&mut self, slot: usize, letters: &str) {
        self.create_in(slot, 0, phones(slot, letters)).await;
    }

    async fn create_in(&mut self, slot: usize, number: usize, ids: BTreeSet<String>) {
        let spec = spec(&session(slot, number), &ids);
        self.lab.create_with(json!({"name": name(slot)}), spec).await;
        self.figures.objects += 1;
        self.count_edit(slot, Some(ids));
    }

    /// A copy of the object's manifest, finalizer and all, under the name `clone`; and it is
    /// deleted again.
    pub async fn clone_and_delete(&self, slot: usize) {
        let metadata = json!({"name": "clone", "finalizers": [FINALIZER]});
        self.lab.create_with(metadata, spec(&session(slot, 0), &self.wanted[slot])).await;
        self.lab.delete("clone").await;
    }

    pub async fn edit(&mut self, slot: usize, letters: &str) {
        self.edit_to(slot, phones(slot, letters)).await;
    }

    async fn edit_to(&mut self, slot: usize, ids: BTreeSet<String>) {
        self.lab.edit(&name(slot), json!({"slaveInstanceIds": ids})).await;
        self.count_edit(slot, Some(ids));
    }

    pub async fn delete(&mut self, slot: usize) {
        self.lab.delete(&name(slot)).await;
        self.count_edit(slot, None);
    }

    /// Deletes an object only if it has its finalizer: one that the operator adds during the
    /// deletion does not always count (kubernetes/kubernetes#77988), and no call can be made safe
    /// against that.
    async fn delete_if_finalized(&mut self, slot: usize) {
        if !self.lab.get(&name(slot)).await.finalizers().is_empty() {
            self.delete(slot).await;
        }
    }

    fn count_edit(&mut self, slot: usize, wanted: Option<BTreeSet<String>>) {
        let none = BTreeSet::new();
        let before = std::mem::replace(&mut self.wanted[slot], wanted);
        let (before, after) =
            (before.as_ref().unwrap_or(&none), self.wanted[slot].as_ref().unwrap_or(&none));
        self.figures.edits += 1;
        self.backoff_resets.push((Some(slot), Timestamp::now()));
        self.figures.calls_needed +=
            usize::from(!before.is_subset(after)) + usize::from(!after.is_subset(before));
    }

    /// A random object gets another set of phones, is deleted, or is created again.
    pub async fn edit_at_random(&mut self, rng: &mut Rng) {
        let slot = below(rng, self.wanted.len());
        let letters: String = "abcdef".chars().take(PHONES).filter(|_| rng.percent(50)).collect();
        let ids = phones(slot, &letters);
        match &self.wanted[slot] {
            Some(_) if rng.percent(10) => self.delete_if_finalized(slot).await,
            Some(_) => self.edit_to(slot, ids).await,
            None if self.lab.sessions.get_opt(&name(slot)).await.expect("an answer").is_none() => {
                self.create_in(slot, below(rng, 2), ids).await;
            }
            // It is still being deleted.
            None => {}
        }
    }

    /// From now on, the service has these faults.
    pub fn set_faults(&mut self, faults: Faults) {
        let left = self.lab.simulator.faults().slow_answers;
        self.timeouts +=
            usize::try_from(self.slow_answers.saturating_sub(left)).expect("a small number");
        self.slow_answers = faults.slow_answers;
        self.lab.simulator.set_faults(faults);
    }

    /// Nothing has been wrong so far.
    pub fn check(&self) {
        let violations = self.checker.findings().violations;
        assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), self.history());
    }

    /// The calls, and where the logs are: those of the operators, and what the API server says
    /// about the namespace.
    pub fn history(&self) -> String {
        let audit = std::fs::read_to_string(cluster().audit_log()).expect("the audit log");
        let audit: Vec<_> =
            audit.lines().filter(|line| line.contains(&self.lab.namespace)).collect();
        std::fs::write(self.logs.folder().join("audit.log"), audit.join("\n")).expect("a log");
        let lines = self.lab.calls().into_iter().map(|call| {
            let operation = call.operation.map_or("?", |operation| {
                if operation == gs_simulator::Operation::Attach { "attach" } else { "detach" }
            });
            let (time, session) = (call.time, call.session_id.unwrap_or_default());
            format!(
                "{time:.3} {session} {operation} {} -> {} failed {:?}",
                call.instance_ids.join(","),
                call.outcome,
                call.failed
            )
        });
        let lines: Vec<_> = lines.collect();
        format!(
            "the calls of {}:\n{}\nthe logs: {}",
            self.title,
            lines.join("\n"),
            self.logs.folder().display()
        )
    }

    /// From now on nothing goes wrong, and nobody edits.
    pub fn faults_are_over(&mut self) {
        self.undisturbed = Some((Instant::now(), Timestamp::now()));
    }

    /// The longest time that a wanted phone was out by the operator's own hand since then: from the
    /// detach that has taken it out to the attach that put it back.
    fn outage(&self, since: Timestamp) -> Duration {
        let wanted: BTreeSet<_> = self.wanted.iter().flatten().flatten().collect();
        let (mut out, mut longest) = (BTreeMap::new(), 0.0_f64);
        // What a killed process has sent, and comes late, is a doubt: that ends with its signature.
        let is_of_the_dead =
            |call: &Call| call.outcome == Outcome::LateApplied || call.time < since + IN_FLIGHT;
        for call in self.lab.calls().iter().filter(|call| !is_of_the_dead(call)) {
            for id in call.succeeded.iter().filter(|id| wanted.contains(id)) {
                let place = (call.session_id.clone(), id.clone());
                if call.operation == Some(gs_simulator::Operation::Detach) {
                    out.insert(place, call.arrival_ms);
                } else if let Some(since) = out.remove(&place) {
                    longest = longest.max(call.arrival_ms - since);
                }
            }
        }
        Duration::from_secs_f64(longest / 1_000.0)
    }

    /// Waits until all is as wanted. The service must have no faults, and an operator must run.
    pub async fn until_converged(&mut self) {
        let start = Instant::now();
        loop {
            self.check();
            let seen = match objects(&self.lab.sessions).await {
                Ok(objects) => {
                    converged(self.wanted.len(), &objects, &self.lab.simulator, self.absent_refused)
                }
                Err(error) => Err(error.to_string()),
            };
            match seen {
                Ok(stuck) => {
                    self.figures.stuck = stuck.len();
                    if let Some((since, time)) = self.undisturbed {
                        self.figures.settling = since.elapsed();
                        self.figures.outage = self.outage(time);
                    }
                    return self.orphan(stuck).await;
                }
                Err(seen) => assert!(
                    start.elapsed() < CONVERGED_MAX,
                    "not converged within {CONVERGED_MAX:?}: {seen}\n{}",
                    self.history()
                ),
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Does what the message tells the person for whom these objects wait.
    async fn orphan(&mut self, stuck: Vec<String>) {
        if !stuck.is_empty() {
            // What is orphaned stays attached, and is no leak.
            self.checker.stop();
        }
        for name in &stuck {
            // Of all objects, for short.
            self.backoff_resets.push((None, Timestamp::now()));
            self.lab.edit(name, json!({"deletionPolicy": "Orphan"})).await;
            // One that was deleted already may be gone by now.
            let _ = self.lab.sessions.delete(name, &DeleteParams::default()).await;
        }
        for name in &stuck {
            self.lab.until_gone(name).await;
        }
    }

    /// For a converged fleet a new process makes no call and no write. Only a new object needs
    /// some, which shows that all have been reconciled.
    pub async fn check_restart_is_free(&mut self) {
        let versions = async |fleet: &Self| {
            let objects = objects(&fleet.lab.sessions).await.expect("the objects");
            objects
                .into_iter()
                .map(|(name, object)| (name, object.resource_version()))
                .collect::<BTreeMap<_, _>>()
        };
        // What the dead have sent may still arrive.
        let sent = |fleet: &Self| {
            let is_late = |call: &Call| {
                matches!(call.outcome, Outcome::LateApplied | Outcome::LateRefused(_))
            };
            fleet.lab.calls().iter().filter(|call| !is_late(call)).count()
        };
        let (calls, before) = (sent(self), versions(self).await);
        let _process = self.start(None);
        self.lab.until_marked().await;
        self.figures.calls_needed += 1;

        let mut after = versions(self).await;
        after.remove("marker");
        assert_eq!(after, before, "{}", self.history());
        assert_eq!(sent(self), calls + 1, "{}", self.history());
    }

    /// What was refused is tried again after pauses that double from one second, less a quarter for
    /// jitter, unless a new process, an edit or another answer ends the backoff. For campaigns with
    /// one operator at a time.
    pub fn check_pauses(&mut self) {
        let mut refused: BTreeMap<String, (Call, i32)> = BTreeMap::new();
        for call in self.lab.calls() {
            let Some(session) = call.session_id.clone() else { continue };
            let before = refused.remove(&session);
            if call.outcome != Outcome::Applied || call.failed.is_empty() {
                continue;
            }
            let again = before.filter(|(before, _)| {
                let same = before.operation == call.operation
                    && call.instance_ids.iter().all(|id| before.failed.contains(id));
                let is_between = |(slot, time): &(Option<usize>, Timestamp)| {
                    slot.is_none_or(|slot| session.starts_with(&format!("{slot}-")))
                        && *time > before.time - LAG
                        && *time < call.time
                };
                same && !self.backoff_resets.iter().any(is_between)
            });
            let mut count = 1;
            if let Some((before, refusals)) = again {
                let (pause, least) = (
                    call.time.duration_since(before.time).as_secs_f64(),
                    PAUSE_MIN_SECONDS * 2_f64.powi(refusals - 1),
                );
                assert!(
                    pause >= least,
                    "{session} was tried again after {pause} s, not {least} s, at {}\n{}",
                    call.time,
                    self.history()
                );
                self.figures.pauses += 1;
                count = refusals + 1;
            }
            refused.insert(session, (call, count));
        }
    }

    /// Checks the whole campaign, of which all processes have converged or been killed.
    pub fn finish(mut self) -> Figures {
        self.check();
        let findings = self.checker.findings();
        let calls = self.lab.calls();
        let count =
            |is_such: &dyn Fn(&Call) -> bool| calls.iter().filter(|call| is_such(call)).count();
        // A late arrival is an entry of its own.
        let late =
            count(&|call| matches!(call.outcome, Outcome::LateApplied | Outcome::LateRefused(_)));
        let lost = count(&|call| {
            matches!(call.outcome, Outcome::Dropped | Outcome::Held | Outcome::AppliedUnanswered)
        });
        let refused = count(&|call| call.outcome == Outcome::Applied && !call.failed.is_empty());
        let applied = count(&|call| call.outcome == Outcome::Applied && call.failed.is_empty());
        let succeeded = applied.saturating_sub(self.timeouts);
        let figures = &mut self.figures;
        figures.calls = calls.len() - late;
        figures.calls_failed = figures.calls - succeeded;
        figures.calls_lost = lost + self.timeouts;
        figures.calls_late = late;
        figures.calls_refused = refused;
        figures.checks = findings.checks;
        figures.ready = findings.ready;
        figures.violations = findings.violations.len();
        figures.took = self.started.elapsed();
        let (figures, successes_max) = (*figures, figures.successes_max());
        assert!(
            succeeded <= successes_max,
            "{succeeded} calls succeeded, more than {successes_max}: {figures:?}\n{}",
            self.history()
        );
        figures
    }
}
