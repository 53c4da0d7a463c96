//! What is to happen in a world, made from a seed before it begins: a list of which each item can
//! be left out, so that a failure can be made short.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Name;
use crate::service::ServiceFault;
use streamsession_testkit::rng::Rng;

/// What people do, and what happens to machines. Numbers are resolved when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create {
        name: Name,
        session: u8,
        phones: u8,
        region: bool,
        orphan: bool,
        forgets: bool,
    },
    Edit {
        name: Name,
        phones: u8,
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
        phones: u8,
    },
    Adopt {
        name: Name,
        phones: u8,
    },
    /// Someone who is no operator attaches phones.
    Script {
        session: u8,
        phones: u8,
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
        phone: u8,
        on: bool,
    },
    Unwelcome {
        phone: u8,
        on: bool,
    },
    Crash {
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
    /// The operator stands still before the request leaves.
    FreezeBefore(u64),
    /// The operator stands still once the request has left.
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
    ServiceFault(ServiceFault),
}

/// The world that a seed stands for, and what is to happen in it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub operators: u8,
    pub sessions: u8,
    pub phones: u8,
    pub namespaces: u8,
    pub add_present_ok: bool,
    pub remove_absent_ok: bool,
    pub quota: u32,
    pub batch_size_max: usize,
    pub concurrency: usize,
    /// When everything has happened.
    pub end_ms: u64,
    pub actions: Vec<(u64, Action)>,
    pub faults: BTreeMap<(Name, u32), Fault>,
}

/// A sort of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Crashes,
    Freezes,
    Watches,
    Losses,
    Tricks,
    Secrets,
    Rescues,
    Policies,
    SessionsEnd,
    Moves,
    BadPhones,
}

impl Sort {
    const ALL: [Self; 11] = [
        Self::Crashes,
        Self::Freezes,
        Self::Watches,
        Self::Losses,
        Self::Tricks,
        Self::Secrets,
        Self::Rescues,
        Self::Policies,
        Self::SessionsEnd,
        Self::Moves,
        Self::BadPhones,
    ];
}

/// What happens at all in a world: not everything in each, so that each sort of trouble is also met
/// without the others.
struct Menu(BTreeSet<Sort>);

impl Menu {
    fn of(rng: &mut Rng) -> Self {
        Self(Sort::ALL.into_iter().filter(|_| rng.percent(40)).collect())
    }

    fn has(&self, sort: Sort) -> bool {
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
        let rng = &mut Rng::new(seed, "plan");
        let menu = Menu::of(rng);
        let small = |rng: &mut Rng, most| u8::try_from(few(rng, most)).unwrap();
        let mut scenario = Self {
            seed,
            operators: if rng.percent(30) { 2 } else { 1 },
            sessions: small(rng, 5),
            phones: small(rng, 7).max(2),
            namespaces: small(rng, 4),
            add_present_ok: rng.coin(),
            remove_absent_ok: rng.coin(),
            quota: rng.pick(&[1, 3, 20]),
            batch_size_max: rng.pick(&[1, 2, 3, 100]),
            concurrency: rng.pick(&[1, 2, 8]),
            end_ms: rng.between(20, 300) * 1_000,
            actions: Vec::new(),
            faults: BTreeMap::new(),
        };
        let objects = few(rng, 20);
        let names: Vec<_> = (0..objects).map(|_| scenario.name(rng)).collect();
        scenario.create(rng, &menu, &names);
        let actions = few(rng, 12 + 4 * objects);
        let mut at = 0;
        for _ in 0..actions {
            // What people do comes in bursts: at one instant, or while the last thing is under way.
            at = match rng.below(4) {
                0 => at,
                1 => at + rng.below(300),
                2 => at + rng.below(4_000),
                _ => rng.below(scenario.end_ms),
            };
            let action = scenario.action(rng, &menu, &names);
            scenario.actions.push((at.min(scenario.end_ms), action));
        }
        scenario.actions.sort_by_key(|(at, _)| *at);
        scenario.trouble(rng, &menu, &names);
        scenario
    }

    fn name(&self, rng: &mut Rng) -> Name {
        Name { namespace: rng.small(self.namespaces), number: rng.small(8) }
    }

    fn bits(&self, rng: &mut Rng) -> u8 {
        rng.small(1 << self.phones)
    }

    fn create(&mut self, rng: &mut Rng, menu: &Menu, names: &[Name]) {
        let mut at = 0;
        for name in names {
            let action = Action::Create {
                name: *name,
                session: rng.small(self.sessions),
                phones: self.bits(rng),
                region: menu.has(Sort::Moves) && rng.percent(20),
                orphan: menu.has(Sort::Policies) && rng.percent(15),
                forgets: menu.has(Sort::Policies) && rng.percent(15),
            };
            self.actions.push((at, action));
            at += rng.pick(&[0, 0, 5, 200, 3_000, 20_000]);
        }
        for session in 0..self.sessions {
            if menu.has(Sort::Rescues) && rng.percent(30) {
                self.actions.push((
                    rng.below(self.end_ms),
                    Action::Script { session, phones: self.bits(rng) },
                ));
            }
        }
        self.end_ms = self.end_ms.max(at + 10_000);
    }

    fn action(&self, rng: &mut Rng, menu: &Menu, names: &[Name]) -> Action {
        let name = rng.pick(names);
        let phones = self.bits(rng);
        let session = rng.small(self.sessions);
        let wait = rng.pick(&[300, 3_000, 9_000, 30_000]);
        let operator = rng.small(self.operators);
        loop {
            let action = match rng.below(24) {
                0..=6 => Action::Edit { name, phones },
                7 | 8 => Action::Delete { name },
                9 | 10 => Action::Create {
                    name,
                    session,
                    phones,
                    region: false,
                    orphan: false,
                    forgets: false,
                },
                11 if menu.has(Sort::Moves) => Action::Move {
                    name,
                    session,
                    region: if rng.percent(30) { Some(rng.coin()) } else { None },
                },
                12 if menu.has(Sort::Policies) => Action::Policy { name, orphan: rng.coin() },
                13 if menu.has(Sort::Policies) => {
                    Action::FailurePolicy { name, forgets: rng.coin() }
                }
                14 if menu.has(Sort::Policies) => Action::Forget { name, phones },
                15 if menu.has(Sort::Rescues) => Action::Adopt { name, phones },
                16 if menu.has(Sort::Rescues) => Action::WipeStatus { name },
                17 if menu.has(Sort::Rescues) => Action::StripFinalizer { name },
                18 if menu.has(Sort::Rescues) => Action::Clone {
                    from: name,
                    to: self.name(rng),
                    finalizer: rng.coin(),
                    status: rng.coin(),
                },
                19 if menu.has(Sort::Rescues) && rng.coin() => Action::BackUp { name },
                19 if menu.has(Sort::Rescues) => {
                    Action::Restore { name, finalizer: rng.coin(), status: rng.coin() }
                }
                20 if menu.has(Sort::Secrets) => Action::Secret {
                    namespace: name.namespace,
                    key: if rng.percent(25) { None } else { Some(rng.pick(&[0, 0, 0, 1, 2, 3])) },
                },
                21 if menu.has(Sort::SessionsEnd) && rng.coin() => Action::SessionEnds { session },
                21 if menu.has(Sort::BadPhones) && rng.coin() => {
                    Action::Poison { phone: rng.small(self.phones), on: rng.coin() }
                }
                21 if menu.has(Sort::BadPhones) => {
                    Action::Unwelcome { phone: rng.small(self.phones), on: rng.coin() }
                }
                22 if menu.has(Sort::Crashes) => Action::Crash { operator },
                22 if menu.has(Sort::Freezes) && rng.coin() => {
                    Action::Fence { operator, for_ms: wait }
                }
                22 if menu.has(Sort::Freezes) => Action::Freeze { operator, for_ms: wait },
                23 if menu.has(Sort::Watches) && rng.coin() => {
                    Action::WatchStalls { operator, for_ms: wait }
                }
                23 if menu.has(Sort::Watches) => Action::WatchBreaks { operator },
                _ => continue,
            };
            return action;
        }
    }

    fn trouble(&mut self, rng: &mut Rng, menu: &Menu, names: &[Name]) {
        let count = few(rng, 10 + 6 * u64::try_from(names.len()).unwrap());
        for _ in 0..count {
            let (name, most) = (rng.pick(names), rng.pick(&[12, 40, 150]));
            let effect = u32::try_from(rng.below(most)).unwrap();
            let wait = rng.pick(&[500, 2_500, 4_000, 9_000, 15_000, 25_000]);
            let fault = match rng.below(10) {
                0 if menu.has(Sort::Crashes) => Fault::CrashBefore,
                1 if menu.has(Sort::Crashes) => Fault::CrashAfter,
                2 if menu.has(Sort::Freezes) => Fault::FreezeBefore(wait),
                3 if menu.has(Sort::Freezes) => Fault::FreezeAfter(wait),
                4 if menu.has(Sort::Losses) => Fault::Lost,
                5 if menu.has(Sort::Losses) => Fault::Late(wait),
                6 if menu.has(Sort::Losses) => Fault::AnswerLost,
                7 if menu.has(Sort::Losses) => Fault::NotSent,
                8 if menu.has(Sort::Tricks) => Fault::Internal(rng.coin().then_some(wait)),
                _ if menu.has(Sort::Tricks) => Fault::ServiceFault(match rng.below(5) {
                    0 => ServiceFault::Throttle,
                    1 => ServiceFault::Unclear(rng.coin()),
                    2 => ServiceFault::Silent(rng.small(255)),
                    _ => ServiceFault::Refuse(rng.small(255)),
                }),
                _ => continue,
            };
            self.faults.insert((name, effect), fault);
        }
    }
}
