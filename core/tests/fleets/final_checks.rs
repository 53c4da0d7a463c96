//! The end: nothing goes wrong any more, users repair what only they can, and everything comes to
//! rest where it should.

use std::collections::{BTreeMap, BTreeSet};

use streamsession_core::conditions::{Mode, Reason};
use streamsession_core::ids::InstanceId;
use streamsession_core::ledger::record::{Record, Want};
use streamsession_core::ownership::claims::Claims;
use streamsession_testkit::describe;

use crate::api::{Name, Object, tracked};
use crate::checks::place;
use crate::resync::ResyncProof;
use crate::world::World;

/// How long users wait before they look, and how often they look.
const PATIENCE_MS: u64 = 90 * 60_000;
const LOOKS_MAX: u32 = 12;
/// How often they help one object.
const HELPS_MAX: u32 = 2;
/// Events between two looks, at most: more is a livelock.
pub const EVENTS_MAX: usize = 500_000;
/// How long it has to be quiet at the end.
const QUIET_MS: u64 = 3 * 3_600_000;

impl World {
    /// Runs the whole scenario, then until all is at rest.
    pub fn play(&mut self) {
        self.run(self.scenario.end_ms, 150_000);
        self.faults_are_over = true;
        self.repair();
        self.start_stopwatch();
        let mut helped = BTreeMap::new();
        for look in 0..LOOKS_MAX {
            if self.failure.is_some() {
                return;
            }
            self.run(self.now_ms + PATIENCE_MS, EVENTS_MAX);
            let unsettled = self.unsettled();
            if unsettled.is_empty() {
                if look == 0 {
                    self.note_settled();
                }
                if let Some(interval_ms) = self.scenario.resync_ms
                    && self.resync_proof == ResyncProof::Due
                {
                    self.prove_resync(interval_ms);
                    continue;
                }
                self.stay_quiet();
                return;
            }
            if self.failure.is_none() && !self.help(&unsettled, &mut helped) && look >= 2 {
                let (name, why) = unsettled[0].clone();
                self.fail("no convergence", format!("{name}: {why}"));
            }
        }
        self.fail("no convergence", format!("users had to help too often: {:?}", self.unsettled()));
    }

    /// Secrets are right again, instances exist, specs name sessions that exist.
    pub fn repair(&mut self) {
        self.trace.log(self.now_ms, || "--- no more faults ---".to_owned());
        self.secrets.clear();
        self.service.poisoned.clear();
        self.service.unwelcome.clear();
        for operator in &mut self.operators {
            operator.fenced_until_ms = self.now_ms;
        }
        for name in self.names() {
            let session = self.api.objects[&name].spec.session.clone();
            let current = self.session(World::session_number(&session));
            let region = self.region_of(&current);
            self.edit(name, |object| {
                if !object.deleting {
                    object.spec.session = current;
                    if region.is_some() {
                        object.spec.region = region;
                    }
                }
            });
        }
    }

    pub fn names(&self) -> Vec<Name> {
        self.api.objects.keys().copied().collect()
    }

    /// Who is not where it should be, and why.
    fn unsettled(&self) -> Vec<(Name, String)> {
        let claims = self.claims();
        let mut unsettled = Vec::new();
        for (name, object) in &self.api.objects {
            if let Some(why) = self.why_unsettled(&claims, *name, object) {
                unsettled.push((*name, why));
            }
        }
        if unsettled.is_empty() { self.strangers(&claims) } else { unsettled }
    }

    fn why_unsettled(&self, claims: &Claims, name: Name, object: &Object) -> Option<String> {
        let wants =
            object.spec.instances.iter().map(InstanceId::as_str).collect::<Vec<_>>().join(" ");
        let status = format!(
            "{:?} {:?}, wants [{wants}] of {}, has {}",
            object.mode(),
            object.reason(),
            object.spec.session,
            describe::ledger(&object.status.ledger, 0)
        );
        if object.deleting {
            return Some(format!("is still being deleted: {status}"));
        }
        if object.status.observed_generation != object.generation {
            return Some(format!("has not seen generation {}: {status}", object.generation));
        }
        let Some(ledger) = object.ledger().filter(|ledger| !ledger.has_open_change()) else {
            return Some(format!("has no ledger, or an open call: {status}"));
        };
        let members = object.view();
        let members = members.desired.at(ledger.target.as_ref());
        if claims.is_contender(&name.key()) {
            let stale_members = ledger
                .records
                .iter()
                .find(|(id, record)| members.want(id) == Want::Out && record.is_tracked());
            return match stale_members {
                Some((id, _)) => Some(format!("is a contender and still tracks {id}: {status}")),
                // One whose last call was refused says so until an edit, or its turn, brings another.
                None if object.mode() == Some(Mode::Stalled)
                    && matches!(
                        object.reason(),
                        Some(
                            Reason::SessionConflict
                                | Reason::CredentialsRejected
                                | Reason::ActionUnavailable
                        )
                    ) =>
                {
                    None
                }
                None => Some(format!("is a contender and does not say so: {status}")),
            };
        }
        if !object.is_ready() {
            return Some(format!("owns {} and is not Ready: {status}", object.spec.session));
        }
        let clean = |(id, record): (&InstanceId, &Record)| {
            object.spec.instances.contains(id) && *record == Record::attached()
        };
        if !ledger.records.iter().all(clean) || ledger.records.len() != object.spec.instances.len()
        {
            return Some(format!("is Ready with a ledger of {}", describe::ledger(ledger, 0)));
        }
        let members = &self.service.sessions[&object.spec.session].members;
        let missing = object.spec.instances.iter().find(|id| {
            !members.contains(*id) && !self.oracle.is_detached_unnoticed(&object.spec.session, id)
        });
        missing.map(|id| format!("is Ready, and {id} is not in {}", object.spec.session))
    }

    /// Members that nobody wants: of the owner, or of a contender that would have them if it could.
    fn strangers(&self, claims: &Claims) -> Vec<(Name, String)> {
        let mut strangers = Vec::new();
        for (session, state) in &self.service.sessions {
            for id in &state.members {
                let wanted = self.api.objects.values().any(|object| {
                    object.spec.session == *session
                        && object.spec.instances.contains(id)
                        && object
                            .ledger()
                            .is_some_and(|ledger| tracked(ledger).any(|other| other == id))
                });
                if !wanted && !self.oracle.is_excused(session, id) {
                    let mut names = self.api.objects.keys();
                    let is_owner = |name: &&Name| {
                        let key = name.key();
                        claims.owner(&key, &place(session)) == Some(&key)
                    };
                    let nobody = Name { namespace: 0, number: 0 };
                    let name = names.find(is_owner).copied().unwrap_or(nobody);
                    strangers.push((name, format!("{id} is in {session}, and nobody wants it")));
                }
            }
        }
        strangers
    }

    /// Users help where only they can. Says whether anybody needed that.
    fn help(&mut self, unsettled: &[(Name, String)], helped: &mut BTreeMap<Name, u32>) -> bool {
        let mut any = false;
        for (name, why) in unsettled {
            let Some(object) = self.api.objects.get(name) else { continue };
            let Some(ledger) = object.ledger().cloned() else { continue };
            let view = object.view();
            let members = view.desired.at(ledger.target.as_ref());
            let unwanted: BTreeSet<_> = ledger
                .records
                .iter()
                .filter(|(id, record)| members.want(id) == Want::Out && record.may_be_attached())
                .map(|(id, _)| id.clone())
                .collect();
            let is_for_users = matches!(
                object.reason(),
                Some(Reason::InstancesRefused | Reason::TargetMismatch | Reason::SessionConflict)
            );
            let times = helped.entry(*name).or_default();
            if !is_for_users || unwanted.is_empty() || *times == HELPS_MAX {
                continue;
            }
            *times += 1;
            self.trace.log(self.now_ms, || format!("USER: {name} {why}; forget {unwanted:?}"));
            self.forget(*name, unwanted);
            any = true;
        }
        any
    }

    /// All is as it should be: nobody writes and nobody calls any more.
    fn stay_quiet(&mut self) {
        let before = (self.writes, self.calls);
        self.run(self.now_ms + QUIET_MS, EVENTS_MAX);
        if before != (self.writes, self.calls) {
            self.fail(
                "unrest",
                format!(
                    "{} writes and {} calls after all was settled",
                    self.writes - before.0,
                    self.calls - before.1
                ),
            );
        }
    }
}
