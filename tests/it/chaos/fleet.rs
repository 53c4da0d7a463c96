//! The objects of a campaign, the edits that they get, and what a fault may cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gs_simulator::{Call, Faults, Outcome};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use streamsession_operator::api::FINALIZER;
use streamsession_operator::api::v1alpha1::StreamSession;
use streamsession_testkit::rng::Rng;
use tokio::process::Child;
use tokio::time::sleep;

use super::below;
use super::checker::{Seen, Watch, converged, name, objects, session};
use crate::harness::{Lab, cluster, ready};
use crate::process::Logs;

/// Phones that an object may want.
const PHONES: usize = 6;
/// The first pause of the operator's own default, less its jitter.
const PAUSE_MIN_SECONDS: f64 = 0.74;
/// When a person would lose patience.
const HURRIED_AFTER: Duration = Duration::from_secs(45);
/// An operator sees an edit no later than this.
const LAG: Duration = Duration::from_secs(5);
/// The longest that a fleet may take to converge: a healthy one needs the patience with a dead
/// process's journal, the end of its signature, and some pauses of the backoff.
const CONVERGED_MAX: Duration = Duration::from_mins(3);

/// What became of it all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Processes that were started.
    pub lives: usize,
    /// Processes that died by SIGKILL.
    pub kills: usize,
    /// Of these, at a failpoint.
    pub at_failpoints: usize,
    /// Journals that stood in the objects when a process was dead.
    pub doomed: usize,
    pub objects: usize,
    pub edits: usize,
    /// One for each edit that takes phones out, one for each that puts some in: what a service
    /// without faults would see, at most.
    pub needed: usize,
    /// Signed calls that came.
    pub calls: usize,
    /// Of these, such that the caller got no good answer.
    pub unlucky: usize,
    /// Of these, such that were lost on their way or on their way back.
    pub lost: usize,
    /// Of these, such that came late, in time or not.
    pub late: usize,
    /// Of these, refusals of single ids.
    pub refused: usize,
    /// Pauses before a refused phone was tried again, as far as they could be judged.
    pub pauses: usize,
    /// Looks at an object, and at one that said Ready.
    pub judged: usize,
    pub ready: usize,
    pub wrong: usize,
    /// Edits that made the backoff begin anew at the end, which would take minutes.
    pub hurried: usize,
    /// Objects that wait for a person at the end.
    pub stuck: usize,
    pub took: Duration,
}

impl Figures {
    pub fn sum<'a>(campaigns: impl IntoIterator<Item = &'a Self>) -> Self {
        campaigns.into_iter().fold(Self::default(), |mut sum, campaign| {
            sum.add(campaign);
            sum
        })
    }

    fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.kills += other.kills;
        self.at_failpoints += other.at_failpoints;
        self.doomed += other.doomed;
        self.objects += other.objects;
        self.edits += other.edits;
        self.needed += other.needed;
        self.calls += other.calls;
        self.unlucky += other.unlucky;
        self.lost += other.lost;
        self.late += other.late;
        self.refused += other.refused;
        self.pauses += other.pauses;
        self.judged += other.judged;
        self.ready += other.ready;
        self.wrong += other.wrong;
        self.hurried += other.hurried;
        self.stuck += other.stuck;
        self.took = self.took.max(other.took);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("kills", self.kills),
            ("  at a failpoint", self.at_failpoints),
            ("  journals that they left", self.doomed),
            ("sessions", self.objects),
            ("edits", self.edits),
            ("calls", self.calls),
            ("  needed without faults, at most", self.needed),
            ("  without a good answer", self.unlucky),
            ("    lost, or the answer was", self.lost),
            ("    late", self.late),
            ("    refused for single phones", self.refused),
            ("pauses before another try, judged", self.pauses),
            ("looks at an object", self.judged),
            ("  that was Ready", self.ready),
            ("leaks, false records, false Readys", self.wrong),
            ("sessions that wait for a person", self.stuck),
            ("edits that hurried the end", self.hurried),
        ];
        for (what, count) in rows {
            writeln!(f, "{what:<36}{count:>8}")?;
        }
        write!(f, "{:<36}{:>7.0}s", "duration", self.took.as_secs_f64())
    }
}

/// A lab whose objects are known by number.
pub struct Fleet {
    pub lab: Arc<Lab>,
    logs: Logs,
    watch: Watch,
    what: String,
    /// Who is wanted by each object; none if it is not there, or not for long.
    wanted: Vec<Option<BTreeSet<String>>>,
    figures: Figures,
    /// Answers that the service was told to give so slowly that nobody waits for them, by the
    /// faults in force.
    slow_answers: u32,
    /// Those that it gave so.
    timeouts: usize,
    absent_refused: bool,
    /// When a process was started, or an object was edited: its number.
    begun_anew: Vec<(Option<usize>, Timestamp)>,
    began: Instant,
}

fn phones(slot: usize, letters: &str) -> BTreeSet<String> {
    letters.chars().map(|letter| format!("phone-{slot}-{letter}")).collect()
}

impl Fleet {
    /// A fleet of up to `slots` objects, none of which is there yet; `what` is for messages.
    pub fn new(what: impl Into<String>, lab: Lab, slots: usize) -> Self {
        let lab = Arc::new(lab);
        let absent_refused = lab.simulator.unspecified_behaviour().remove_absent
            != gs_simulator::NoOpAnswer::Success;
        Self {
            watch: Watch::start(Arc::clone(&lab), slots),
            logs: Logs::of(&lab),
            what: what.into(),
            wanted: vec![None; slots],
            figures: Figures::default(),
            slow_answers: 0,
            timeouts: 0,
            absent_refused,
            begun_anew: Vec::new(),
            began: Instant::now(),
            lab,
        }
    }

    /// Starts another process of the operator.
    pub fn start(&mut self, failpoint: Option<&str>) -> Child {
        self.figures.lives += 1;
        self.begun_anew.push((None, Timestamp::now()));
        self.logs.start_process(&self.lab, self.figures.lives, failpoint)
    }

    /// A process was killed: its journals are the ones that stand there now. Those of another one
    /// that is alive are counted too.
    pub async fn buried(&mut self, at_failpoint: bool) {
        self.figures.kills += 1;
        self.figures.at_failpoints += usize::from(at_failpoint);
        let objects = objects(&self.lab.sessions).await.expect("the objects");
        let pending = objects.values().filter(|object| {
            object.status.as_ref().is_some_and(|status| status.pending_call.is_some())
        });
        self.figures.doomed += pending.count();
    }

    /// The letters are phones.
    pub async fn create(&mut self, slot: usize, letters: &str) {
        self.create_in(slot, 0, phones(slot, letters)).await;
    }

    async fn create_in(&mut self, slot: usize, number: usize, ids: BTreeSet<String>) {
        let spec = json!({"sessionId": session(slot, number), "slaveInstanceIds": ids, "credentialsRef": {"name": "tencent"}});
        let object = json!({
            "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession", "metadata": {"name": name(slot)}, "spec": spec,
        });
        let object: StreamSession = serde_json::from_value(object).expect("a StreamSession");
        self.lab.sessions.create(&PostParams::default(), &object).await.expect("created");
        self.figures.objects += 1;
        self.asked(slot, Some(ids));
    }

    /// A copy of the object's manifest, finalizer and all, under the name `clone`; and it is
    /// deleted again.
    pub async fn clone_and_delete(&self, slot: usize) {
        let spec = json!({"sessionId": session(slot, 0), "slaveInstanceIds": self.wanted[slot], "credentialsRef": {"name": "tencent"}});
        let object = json!({
            "apiVersion": "gs.tencentcloud.dev/v1alpha1", "kind": "StreamSession",
            "metadata": {"name": "clone", "finalizers": [FINALIZER]}, "spec": spec,
        });
        let object: StreamSession = serde_json::from_value(object).expect("a StreamSession");
        self.lab.sessions.create(&PostParams::default(), &object).await.expect("created");
        self.lab.sessions.delete("clone", &DeleteParams::default()).await.expect("deleted");
    }

    pub async fn edit(&mut self, slot: usize, letters: &str) {
        self.edit_to(slot, phones(slot, letters)).await;
    }

    async fn edit_to(&mut self, slot: usize, ids: BTreeSet<String>) {
        self.patch(slot, json!({"slaveInstanceIds": ids})).await;
        self.asked(slot, Some(ids));
    }

    pub async fn patch(&self, slot: usize, spec: serde_json::Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.lab
            .sessions
            .patch(&name(slot), &PatchParams::default(), &patch)
            .await
            .expect("edited");
    }

    pub async fn delete(&mut self, slot: usize) {
        self.lab.sessions.delete(&name(slot), &DeleteParams::default()).await.expect("deleted");
        self.asked(slot, None);
    }

    /// Deletes an object only if it has its finalizer: one that the operator adds while the
    /// deletion is under way does not always count, as the API server decides without a second look
    /// (kubernetes/kubernetes#77988). Nobody's call can be made safe against that.
    async fn delete_if_finalized(&mut self, slot: usize) {
        if !self.lab.get(&name(slot)).await.finalizers().is_empty() {
            self.delete(slot).await;
        }
    }

    fn asked(&mut self, slot: usize, wanted: Option<BTreeSet<String>>) {
        let none = BTreeSet::new();
        let before = std::mem::replace(&mut self.wanted[slot], wanted);
        let (before, after) =
            (before.as_ref().unwrap_or(&none), self.wanted[slot].as_ref().unwrap_or(&none));
        self.figures.edits += 1;
        self.begun_anew.push((Some(slot), Timestamp::now()));
        self.figures.needed +=
            usize::from(!before.is_subset(after)) + usize::from(!after.is_subset(before));
    }

    /// A random object gets another set of phones, is deleted, or comes back.
    pub async fn edit_somehow(&mut self, rng: &mut Rng) {
        let slot = below(rng, self.wanted.len());
        let letters: String = "abcdef".chars().take(PHONES).filter(|_| rng.percent(50)).collect();
        let ids = phones(slot, &letters);
        match &self.wanted[slot] {
            Some(_) if rng.percent(10) => self.delete_if_finalized(slot).await,
            Some(_) => self.edit_to(slot, ids).await,
            None if self.lab.sessions.get_opt(&name(slot)).await.expect("an answer").is_none() => {
                self.create_in(slot, below(rng, 2), ids).await;
            }
            // It is being deleted.
            None => {}
        }
    }

    /// From now on, these go wrong.
    pub fn set_faults(&mut self, faults: Faults) {
        let left = self.lab.simulator.faults().slow_answers;
        self.timeouts +=
            usize::try_from(self.slow_answers.saturating_sub(left)).expect("a small number");
        self.slow_answers = faults.slow_answers;
        self.lab.simulator.set_faults(faults);
    }

    /// What the watch has found to be wrong, if anything.
    pub fn check(&self) {
        let Seen { wrong, .. } = self.watch.seen();
        assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), self.history());
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
            self.what,
            lines.join("\n"),
            self.logs.folder().display()
        )
    }

    /// Waits until all is as it was asked for. The service must be without faults, and some
    /// operator be at work.
    pub async fn until_converged(&mut self) {
        let start = Instant::now();
        let mut hurried = start;
        loop {
            self.check();
            if hurried.elapsed() > HURRIED_AFTER {
                hurried = Instant::now();
                self.hurry().await;
            }
            let seen = match objects(&self.lab.sessions).await {
                Ok(objects) => {
                    converged(self.wanted.len(), &objects, &self.lab.simulator, self.absent_refused)
                }
                Err(error) => Err(error.to_string()),
            };
            match seen {
                Ok(stuck) => {
                    self.figures.stuck = stuck.len();
                    return self.let_go(stuck).await;
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

    /// An edit makes the backoff begin anew, and this one asks for nothing. One object has one
    /// backoff: where a phone that can't be removed shares it with one that must be refused three
    /// times before it is found, the pauses add up to minutes.
    async fn hurry(&mut self) {
        let objects = objects(&self.lab.sessions).await.expect("the objects");
        for slot in 0..self.wanted.len() {
            let Some(object) = objects.get(&name(slot)) else { continue };
            if object.metadata.deletion_timestamp.is_none() && !ready(object).0 {
                self.begun_anew.push((Some(slot), Timestamp::now()));
                self.patch(slot, json!({"deletionPolicy": "Orphan"})).await;
                self.patch(slot, json!({"deletionPolicy": "Delete"})).await;
                self.figures.hurried += 1;
            }
        }
    }

    /// The way out that the message names for those that wait for a person.
    async fn let_go(&mut self, stuck: Vec<String>) {
        if !stuck.is_empty() {
            // What is orphaned stays in its session, and is no leak.
            self.watch.stop();
        }
        for name in &stuck {
            // Of any object, for short.
            self.begun_anew.push((None, Timestamp::now()));
            let patch = Patch::Merge(json!({"spec": {"deletionPolicy": "Orphan"}}));
            self.lab.sessions.patch(name, &PatchParams::default(), &patch).await.expect("edited");
            // One that was deleted already may be gone by now.
            let _ = self.lab.sessions.delete(name, &DeleteParams::default()).await;
        }
        for name in &stuck {
            self.lab.until_gone(name).await;
        }
    }

    /// A converged fleet costs nothing, not even a new process: no call, no write. The new object
    /// that shows that all was looked at does.
    pub async fn until_at_rest(&mut self) {
        let versions = async |fleet: &Self| {
            let objects = objects(&fleet.lab.sessions).await.expect("the objects");
            objects
                .into_iter()
                .map(|(name, object)| (name, object.resource_version()))
                .collect::<BTreeMap<_, _>>()
        };
        let (calls, before) = (self.lab.calls().len(), versions(self).await);
        let _process = self.start(None);
        self.lab.until_marked().await;
        self.figures.needed += 1;

        let mut after = versions(self).await;
        after.remove("marker");
        assert_eq!(after, before, "{}", self.history());
        assert_eq!(self.lab.calls().len(), calls + 1, "{}", self.history());
    }

    /// Nobody hammers: what was refused is tried again after pauses that double from one second,
    /// less a quarter for jitter, unless a new process, an edit or another answer makes them begin
    /// anew. For campaigns with one operator at a time.
    pub fn check_pauses(&mut self) {
        let mut runs: BTreeMap<String, (Call, i32)> = BTreeMap::new();
        for call in self.lab.calls() {
            let Some(session) = call.session_id.clone() else { continue };
            let before = runs.remove(&session);
            if call.outcome != Outcome::Applied || call.failed.is_empty() {
                continue;
            }
            let again = before.filter(|(before, _)| {
                let same = before.operation == call.operation
                    && call.instance_ids.iter().all(|id| before.failed.contains(id));
                let anew = |(slot, time): &(Option<usize>, Timestamp)| {
                    slot.is_none_or(|slot| session.starts_with(&format!("{slot}-")))
                        && *time > before.time - LAG
                        && *time < call.time
                };
                same && !self.begun_anew.iter().any(anew)
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
            runs.insert(session, (call, count));
        }
    }

    /// Judges the whole campaign. All processes have been at rest, or are dead.
    pub fn finish(mut self) -> Figures {
        self.check();
        let seen = self.watch.seen();
        let calls: Vec<_> = self.lab.calls();
        // A late arrival is an entry of its own.
        let late = calls
            .iter()
            .filter(|call| matches!(call.outcome, Outcome::LateApplied | Outcome::LateRefused(_)))
            .count();
        let refused = calls
            .iter()
            .filter(|call| call.outcome == Outcome::Applied && !call.failed.is_empty())
            .count();
        let good = calls
            .iter()
            .filter(|call| call.outcome == Outcome::Applied && call.failed.is_empty())
            .count();
        let good = good.saturating_sub(self.timeouts);
        let lost = |outcome: &Outcome| {
            matches!(outcome, Outcome::Dropped | Outcome::Held | Outcome::AppliedUnanswered)
        };
        let figures = &mut self.figures;
        figures.calls = calls.len() - late;
        figures.unlucky = figures.calls - good;
        figures.lost = calls.iter().filter(|call| lost(&call.outcome)).count() + self.timeouts;
        figures.late = late;
        figures.refused = refused;
        (figures.judged, figures.ready, figures.wrong) =
            (seen.judged, seen.ready, seen.wrong.len());
        figures.took = self.began.elapsed();
        let figures = *figures;
        let bound = good_calls_max(&figures);
        assert!(
            good <= bound,
            "{good} good calls, more than {bound}: {figures:?}\n{}",
            self.history()
        );
        figures
    }
}

/// Calls with a good answer, at most.
///
/// Each edit needs one for the phones that it takes out and one for those that it puts in
/// ([`Figures::needed`]); edits that overtake each other need fewer. Besides, a call without a good
/// answer and a journal whose process died each cost two at most: the call is made again (one whose
/// error may be one phone's fault as two halves), and if the spec has turned meanwhile, what it may
/// still do is made good by one more once it can't arrive any more. Refusals of a service that
/// refuses what is done already are such calls too, and three of them cost a detach that finds out
/// and an attach.
fn good_calls_max(figures: &Figures) -> usize {
    figures.needed + 2 * (figures.unlucky + figures.doomed)
}
