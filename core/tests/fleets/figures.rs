//! The two times that are promised, measured in virtual time once nothing goes wrong any more: how
//! long a wanted phone is out by our own hand, and how long it takes until everything is settled.
//! The first is one spacing and two round trips of a session that nobody else names; here others
//! use the same quota, which may be halved. The second is four validities of what is settled in one
//! piece; here moves and hand-overs wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use streamsession_core::answer::Operation;
use streamsession_core::ids::InstanceId;
use streamsession_core::ownership::claims::Ownership;

use crate::calls::{MARGIN_SECONDS, SIGNATURE_SECONDS, SentCall};
use crate::checks::place;
use crate::oracle::Member;
use crate::world::World;

/// The longest outage of a wanted phone by our own hand.
const OUTAGE_MAX_MS: u64 = 5_000;
/// The longest time to settle, in validities.
const VALIDITIES_MAX: u64 = 6;

/// What a fleet took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The longest that a wanted phone was out because its own object had it detached.
    pub outage_ms: u64,
    /// From the last fault to the last call or write; none if a user had to help.
    pub settling_ms: Option<u64>,
}

/// The worst of many fleets, each with its seed.
#[derive(Debug, Default)]
pub struct Worst {
    outage_ms: (u64, u64),
    settling_ms: (u64, u64),
}

impl Worst {
    pub fn add(&mut self, seed: u64, figures: Figures) {
        self.outage_ms = self.outage_ms.max((figures.outage_ms, seed));
        self.settling_ms = self.settling_ms.max((figures.settling_ms.unwrap_or(0), seed));
    }
}

impl Worst {
    /// Both are within their bounds.
    pub fn check(&self) {
        let validity_ms = u64::try_from((SIGNATURE_SECONDS + MARGIN_SECONDS) * 1_000).unwrap();
        assert!(self.outage_ms.0 <= OUTAGE_MAX_MS, "{self}");
        assert!(self.settling_ms.0 <= VALIDITIES_MAX * validity_ms, "{self}");
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((outage, its_seed), (settling, seed)) = (self.outage_ms, self.settling_ms);
        write!(
            f,
            "a wanted phone is out by our own hand for {outage} ms at most (seed {its_seed}); "
        )?;
        write!(f, "all is settled after {settling} ms (seed {seed})")
    }
}

/// The clock of a fleet's figures.
#[derive(Debug, Default)]
pub struct Stopwatch {
    pub figures: Figures,
    /// Who is out by our own hand, and since when.
    out: BTreeMap<Member, u64>,
    faults_ended_ms: u64,
    last_action_ms: u64,
}

impl World {
    /// Nothing goes wrong from now on.
    pub fn start_stopwatch(&mut self) {
        self.stopwatch = Stopwatch {
            faults_ended_ms: self.now_ms,
            last_action_ms: self.now_ms,
            ..Stopwatch::default()
        };
    }

    /// A call or a write.
    pub fn note_action(&mut self) {
        self.stopwatch.last_action_ms = self.now_ms;
    }

    /// All is settled, and nobody had to help.
    pub fn note_settled(&mut self) {
        let Stopwatch { figures, faults_ended_ms, last_action_ms, .. } = &mut self.stopwatch;
        figures.settling_ms = Some(*last_action_ms - *faults_ended_ms);
    }

    /// The service has done this for `ids`.
    pub fn note_outage(&mut self, call: &SentCall, ids: &BTreeSet<InstanceId>) {
        // Of a session that two objects name, another one may be the reason.
        let ownership = self.claims().ownership(&call.name.key(), &place(&call.session));
        let object = self
            .api
            .objects
            .get(&call.name)
            .filter(|object| object.uid == call.uid && ownership == Ownership::Uncontested);
        let wants = |id: &InstanceId| {
            object.is_some_and(|object| {
                !object.deleting
                    && object.spec.session == call.session
                    && (object.spec.region.is_none() || object.spec.region == call.region)
                    && object.spec.instances.contains(id)
            })
        };
        let Stopwatch { figures, out, .. } = &mut self.stopwatch;
        for id in ids {
            let member = (call.session.clone(), id.clone());
            match call.operation {
                Operation::Detach if wants(id) => {
                    out.insert(member, self.now_ms);
                }
                Operation::Detach => {
                    out.remove(&member);
                }
                Operation::Attach => {
                    let since = out.remove(&member).filter(|_| wants(id));
                    let outage_ms = since.map_or(0, |since| self.now_ms - since);
                    figures.outage_ms = figures.outage_ms.max(outage_ms);
                }
            }
        }
    }
}
