//! What a resync promises, once nothing goes wrong any more: what somebody took out is back within
//! the interval, or as soon as a tenth of the quota allows; that a session ended is told as soon;
//! nobody's conditions flap; and nothing else comes of it.

use std::collections::BTreeMap;

use streamsession_core::ledger::Ledger;
use streamsession_testkit::rng::Rng;

use crate::api::{Name, Object};
use crate::final_checks::EVENTS_MAX;
use crate::world::World;

/// Whether a resync has kept its promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncProof {
    Due,
    /// Only resyncs are under way: nobody's conditions change because of them.
    UnderWay,
    Over,
}

fn has_open_resync(ledger: &Ledger) -> bool {
    ledger.journal.as_ref().is_some_and(|journal| journal.resync)
}

impl World {
    /// Whether the write that was just made began a resync's call, or ended it.
    pub fn is_for_resync(&self, before: Option<&Object>, name: Name) -> bool {
        let ledgers = [before, self.api.objects.get(&name)].map(|object| object?.ledger());
        ledgers.into_iter().flatten().any(has_open_resync)
    }

    /// How long it takes until everybody had a turn: each call of a resync is one of ten, and the
    /// namespaces take turns.
    fn resync_period_ms(&self, interval_ms: u64) -> u64 {
        // A call that is one too large halves those after it.
        let limit = self.scenario.size_limit.map_or(usize::MAX, |limit| limit.ids.div_ceil(2));
        let batch_size = self.scenario.batch_size_max.min(limit);
        let mut calls = BTreeMap::<u8, usize>::new();
        for (name, object) in &self.api.objects {
            *calls.entry(name.namespace).or_default() +=
                object.spec.instances.len().div_ceil(batch_size);
        }
        let turns = calls.len() * calls.into_values().max().unwrap_or(0) * self.operators.len();
        interval_ms.max(u64::try_from(turns).unwrap() * 10_000 / u64::from(self.scenario.quota))
    }

    /// All is settled. Somebody takes everybody out, then a session ends; in the end nobody resyncs
    /// any more.
    pub fn prove_resync(&mut self, interval_ms: u64) {
        let period_ms = self.resync_period_ms(interval_ms) + 2_000;
        let sessions: Vec<_> = self
            .service
            .sessions
            .iter()
            .map(|(id, session)| (id.clone(), session.members.clone()))
            .collect();
        self.trace
            .log(self.now_ms, || format!("--- all are taken out; back within {period_ms} ms? ---"));
        for (session, members) in &sessions {
            self.foreign_detach(session, members);
        }
        self.resync_proof = ResyncProof::UnderWay;
        self.run(self.now_ms + period_ms, EVENTS_MAX);
        self.resync_proof = ResyncProof::Over;
        let still_out = self.api.objects.iter().filter(|(_, object)| object.is_ready()).find_map(
            |(name, object)| {
                let members = &self.service.sessions.get(&object.spec.session)?.members;
                object
                    .spec
                    .instances
                    .iter()
                    .find(|id| !members.contains(*id))
                    .map(|id| (*name, id.clone()))
            },
        );
        if let Some((name, id)) = still_out {
            self.fail("resync", format!("{id} of {name} is still out after {period_ms} ms"));
            return;
        }
        let rng = &mut Rng::new(self.scenario.seed, "ending");
        let number = rng.small(self.scenario.sessions);
        let ended = self.session(number);
        self.trace
            .log(self.now_ms, || format!("--- {ended} ends; told within {period_ms} ms? ---"));
        self.end_session(number);
        self.run(self.now_ms + period_ms, EVENTS_MAX);
        let untold = self.api.objects.iter().find(|(_, object)| {
            object.spec.session == ended && object.is_ready() && !object.spec.instances.is_empty()
        });
        if let Some((name, _)) = untold {
            self.fail("resync", format!("{name} is Ready {period_ms} ms after {ended} ended"));
            return;
        }
        self.note("a resync that proved itself");
        for name in self.names() {
            self.edit(name, |object| object.spec.resync_interval = None);
        }
        self.repair();
    }
}
