//! What is to happen, made from a seed before it begins: a list of which each item can be left out,
//! so that a failure can be made short.

use std::collections::{BTreeMap, BTreeSet};

use streamsession_testkit::rng::Rng;
use streamsession_testkit::service::{CallFault, SizeLimit, UnspecifiedBehaviour};

use crate::api::Name;

/// What users do, and what happens to machines. Numbers are resolved when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create {
        name: Name,
        session: u8,
        instances: u8,
        region: bool,
        orphan: bool,
        forgets: bool,
    },
    Edit {
        name: Name,
        instances: u8,
    },
    Move {
        name: Name,
        session: u8,
        region: Option<bool>,
    },
    Policy {
        name: Name,
        orphan: bool,
    },
    FailurePolicy {
        name: Name,
        forgets: bool,
    },
    Delete {
        name: Name,
    },
    Forget {
        name: Name,
        instances: u8,
    },
    Adopt {
        name: Name,
        instances: u8,
    },
    /// Someone who is no operator attaches instances.
    ForeignAttach {
        session: u8,
        instances: u8,
    },
    /// Someone who is no operator takes instances out.
    ForeignDetach {
        session: u8,
        instances: u8,
    },
    /// What the Secret of a namespace holds: a key, or nothing.
    Secret {
        namespace: u8,
        key: Option<u8>,
    },
    WipeStatus {
        name: Name,
    },
    StripFinalizer {
        name: Name,
    },
    Clone {
        from: Name,
        to: Name,
        finalizer: bool,
        status: bool,
    },
    BackUp {
        name: Name,
    },
    Restore {
        name: Name,
        finalizer: bool,
        status: bool,
    },
    SessionEnds {
        session: u8,
    },
    Poison {
        instance: u8,
        on: bool,
    },
    Unwelcome {
        instance: u8,
        on: bool,
    },
    Crash {
        operator: u8,
    },
    /// The process is told to stop, and another one follows it.
    Stop {
        operator: u8,
    },
    Fence {
        operator: u8,
        for_ms: u64,
    },
    Freeze {
        operator: u8,
        for_ms: u64,
    },
    WatchStalls {
        operator: u8,
        for_ms: u64,
    },
    /// The watch breaks, and a new list tells what there is: what happened in between is never
    /// seen. Lists are read from the quorum, so that they do not go back in time.
    WatchBreaks {
        operator: u8,
    },
}

/// What goes wrong at one effect of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operator dies before it.
    CrashBefore,
    /// The operator dies once the request has left.
    CrashAfter,
    /// The operator is frozen before the request leaves.
    FreezeBefore(u64),
    /// The operator is frozen once the request has left.
    FreezeAfter(u64),
    /// The request never arrives.
    Lost,
    /// It arrives so late.
    Late(u64),
    /// It arrives, and the answer does not.
    AnswerLost,
    /// Not one byte leaves.
    NotSent,
    /// The service answers InternalError and does it, later or never.
    Internal(Option<u64>),
    Call(CallFault),
}

/// The fleet that a seed stands for, and what is to happen to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub operators: u8,
    pub sessions: u8,
    pub instances: u8,
    pub namespaces: u8,
    pub behaviour: UnspecifiedBehaviour,
    pub quota: u32,
    pub batch_size_max: usize,
    /// Larger calls fail.
    pub size_limit: Option<SizeLimit>,
    /// A list comes in two portions.
    pub has_partial_lists: bool,
    pub concurrency: usize,
    /// Each process goes through another access point than the one before, whose clock differs.
    pub has_two_access_points: bool,
    /// So often everybody's members are attached again, if at all.
    pub resync_ms: Option<u64>,
    /// When everything has happened.
    pub end_ms: u64,
    pub actions: Vec<(u64, Action)>,
    pub faults: BTreeMap<(Name, u32), Fault>,
}

/// A sort of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Crashes,
    Stops,
    Freezes,
    Watches,
    Losses,
    ServiceFaults,
    Secrets,
    LostLedgers,
    Policies,
    SessionsEnd,
    Moves,
    BadInstances,
    SizeLimits,
    PartialLists,
}

impl Trouble {
    const ALL: [Self; 14] = [
        Self::Crashes,
        Self::Stops,
        Self::Freezes,
        Self::Watches,
        Self::Losses,
        Self::ServiceFaults,
        Self::Secrets,
        Self::LostLedgers,
        Self::Policies,
        Self::SessionsEnd,
        Self::Moves,
        Self::BadInstances,
        Self::SizeLimits,
        Self::PartialLists,
    ];
}

/// What happens at all: not everything in each fleet, so that each sort of trouble is also met
/// without the others.
struct Troubles(BTreeSet<Trouble>);

impl Troubles {
    fn of(rng: &mut Rng) -> Self {
        Self(Trouble::ALL.into_iter().filter(|_| rng.percent(40)).collect())
    }

    fn has(&self, sort: Trouble) -> bool {
        self.0.contains(&sort)
    }
}

/// Small numbers more often than large ones.
fn few(rng: &mut Rng, most: u64) -> u64 {
    let most = rng.between(1, most);
    rng.between(1, most)
}

impl Scenario {
    pub fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed, "scenario");
        let troubles = Troubles::of(rng);
        let small = |rng: &mut Rng, most| u8::try_from(few(rng, most)).unwrap();
        let mut scenario = Self {
            seed,
            operators: if rng.percent(30) { 2 } else { 1 },
            sessions: small(rng, 5),
            instances: small(rng, 7).max(2),
            namespaces: small(rng, 4),
            behaviour: UnspecifiedBehaviour {
                add_present_ok: rng.coin(),
                remove_absent_ok: rng.coin(),
            },
            quota: rng.pick(&[1, 3, 20]),
            batch_size_max: rng.pick(&[1, 2, 3, 100]),
            size_limit: troubles
                .has(Trouble::SizeLimits)
                .then(|| SizeLimit { ids: rng.pick(&[1, 2, 3, 5]), is_of_answer: rng.coin() }),
            has_partial_lists: troubles.has(Trouble::PartialLists),
            concurrency: rng.pick(&[1, 2, 8]),
            has_two_access_points: Rng::new(seed, "access points").below(4) == 0,
            resync_ms: None,
            end_ms: rng.between(20, 300) * 1_000,
            actions: Vec::new(),
            faults: BTreeMap::new(),
        };
        let objects = few(rng, 20);
        let names: Vec<_> = (0..objects).map(|_| scenario.name(rng)).collect();
        scenario.create(rng, &troubles, &names);
        let actions = few(rng, 12 + 4 * objects);
        let mut at = 0;
        for _ in 0..actions {
            // What users do comes in bursts: at one time, or while the last thing is under way.
            at = match rng.below(4) {
                0 => at,
                1 => at + rng.below(300),
                2 => at + rng.below(4_000),
                _ => rng.below(scenario.end_ms),
            };
            let action = scenario.action(rng, &troubles, &names);
            scenario.actions.push((at.min(scenario.end_ms), action));
        }
        scenario.actions.sort_by_key(|(at, _)| *at);
        scenario.trouble(rng, &troubles, &names);
        scenario.resync();
        scenario
    }

    /// Every eighth fleet attaches its members again and again, since somebody takes some out.
    fn resync(&mut self) {
        let rng = &mut Rng::new(self.seed, "resync");
        if rng.below(8) != 0 {
            return;
        }
        self.resync_ms = Some(rng.pick(&[120_000, 600_000]));
        for _ in 0..few(rng, 8) {
            let (session, instances) = (rng.small(self.sessions), self.bits(rng));
            self.actions
                .push((rng.below(self.end_ms), Action::ForeignDetach { session, instances }));
        }
        self.actions.sort_by_key(|(at, _)| *at);
    }

    fn name(&self, rng: &mut Rng) -> Name {
        Name { namespace: rng.small(self.namespaces), number: rng.small(8) }
    }

    fn bits(&self, rng: &mut Rng) -> u8 {
        rng.small(1 << self.instances)
    }

    fn create(&mut self, rng: &mut Rng, troubles: &Troubles, names: &[Name]) {
        let mut at = 0;
        for name in names {
            let action = Action::Create {
                name: *name,
                session: rng.small(self.sessions),
                instances: self.bits(rng),
                region: troubles.has(Trouble::Moves) && rng.percent(20),
                orphan: troubles.has(Trouble::Policies) && rng.percent(15),
                forgets: troubles.has(Trouble::Policies) && rng.percent(15),
            };
            self.actions.push((at, action));
            at += rng.pick(&[0, 0, 5, 200, 3_000, 20_000]);
        }
        for session in 0..self.sessions {
            if troubles.has(Trouble::LostLedgers) && rng.percent(30) {
                self.actions.push((
                    rng.below(self.end_ms),
                    Action::ForeignAttach { session, instances: self.bits(rng) },
                ));
            }
        }
        self.end_ms = self.end_ms.max(at + 10_000);
    }

    fn action(&self, rng: &mut Rng, troubles: &Troubles, names: &[Name]) -> Action {
        let name = rng.pick(names);
        let instances = self.bits(rng);
        let session = rng.small(self.sessions);
        let wait = rng.pick(&[300, 3_000, 9_000, 30_000]);
        let operator = rng.small(self.operators);
        loop {
            let action = match rng.below(25) {
                0..=6 => Action::Edit { name, instances },
                7 | 8 => Action::Delete { name },
                9 | 10 => Action::Create {
                    name,
                    session,
                    instances,
                    region: false,
                    orphan: false,
                    forgets: false,
                },
                11 if troubles.has(Trouble::Moves) => Action::Move {
                    name,
                    session,
                    region: if rng.percent(30) { Some(rng.coin()) } else { None },
                },
                12 if troubles.has(Trouble::Policies) => {
                    Action::Policy { name, orphan: rng.coin() }
                }
                13 if troubles.has(Trouble::Policies) => {
                    Action::FailurePolicy { name, forgets: rng.coin() }
                }
                14 if troubles.has(Trouble::Policies) => Action::Forget { name, instances },
                15 if troubles.has(Trouble::LostLedgers) => Action::Adopt { name, instances },
                16 if troubles.has(Trouble::LostLedgers) => Action::WipeStatus { name },
                17 if troubles.has(Trouble::LostLedgers) => Action::StripFinalizer { name },
                18 if troubles.has(Trouble::LostLedgers) => Action::Clone {
                    from: name,
                    to: self.name(rng),
                    finalizer: rng.coin(),
                    status: rng.coin(),
                },
                19 if troubles.has(Trouble::LostLedgers) && rng.coin() => Action::BackUp { name },
                19 if troubles.has(Trouble::LostLedgers) => {
                    Action::Restore { name, finalizer: rng.coin(), status: rng.coin() }
                }
                20 if troubles.has(Trouble::Secrets) => Action::Secret {
                    namespace: name.namespace,
                    key: if rng.percent(25) { None } else { Some(rng.pick(&[0, 0, 0, 1, 2, 3])) },
                },
                21 if troubles.has(Trouble::SessionsEnd) && rng.coin() => {
                    Action::SessionEnds { session }
                }
                21 if troubles.has(Trouble::BadInstances) && rng.coin() => {
                    Action::Poison { instance: rng.small(self.instances), on: rng.coin() }
                }
                21 if troubles.has(Trouble::BadInstances) => {
                    Action::Unwelcome { instance: rng.small(self.instances), on: rng.coin() }
                }
                22 if troubles.has(Trouble::Crashes) => Action::Crash { operator },
                22 if troubles.has(Trouble::Freezes) && rng.coin() => {
                    Action::Fence { operator, for_ms: wait }
                }
                22 if troubles.has(Trouble::Freezes) => Action::Freeze { operator, for_ms: wait },
                23 if troubles.has(Trouble::Watches) && rng.coin() => {
                    Action::WatchStalls { operator, for_ms: wait }
                }
                23 if troubles.has(Trouble::Watches) => Action::WatchBreaks { operator },
                24 if troubles.has(Trouble::Stops) => Action::Stop { operator },
                _ => continue,
            };
            return action;
        }
    }

    fn trouble(&mut self, rng: &mut Rng, troubles: &Troubles, names: &[Name]) {
        let count = few(rng, 10 + 6 * u64::try_from(names.len()).unwrap());
        for _ in 0..count {
            let (name, most) = (rng.pick(names), rng.pick(&[12, 40, 150]));
            let effect = u32::try_from(rng.below(most)).unwrap();
            let wait = rng.pick(&[500, 2_500, 4_000, 9_000, 15_000, 25_000]);
            let fault = match rng.below(10) {
                0 if troubles.has(Trouble::Crashes) => Fault::CrashBefore,
                1 if troubles.has(Trouble::Crashes) => Fault::CrashAfter,
                2 if troubles.has(Trouble::Freezes) => Fault::FreezeBefore(wait),
                3 if troubles.has(Trouble::Freezes) => Fault::FreezeAfter(wait),
                4 if troubles.has(Trouble::Losses) => Fault::Lost,
                5 if troubles.has(Trouble::Losses) => Fault::Late(wait),
                6 if troubles.has(Trouble::Losses) => Fault::AnswerLost,
                7 if troubles.has(Trouble::Losses) => Fault::NotSent,
                8 if troubles.has(Trouble::ServiceFaults) => {
                    Fault::Internal(rng.coin().then_some(wait))
                }
                _ if troubles.has(Trouble::ServiceFaults) => Fault::Call(match rng.below(7) {
                    0 => CallFault::Throttle,
                    3 => CallFault::Unavailable,
                    4 => CallFault::Rejected,
                    1 => CallFault::Unclear { done: if rng.coin() { u8::MAX } else { 0 } },
                    2 => CallFault::Omit(rng.small(255)),
                    _ => CallFault::Refuse(rng.small(255)),
                }),
                _ => continue,
            };
            self.faults.insert((name, effect), fault);
        }
    }
}
