//! What is to happen in a world, made from a seed before it begins: a list of which each item can
//! be left out, so that a failure can be made short.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Name;
use crate::dice::Dice;
use crate::service::Trick;

/// What people do, and what happens to machines. Numbers are resolved when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
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
    Trick(Trick),
}

/// The world that a seed stands for, and what is to happen in it.
#[derive(Clone, Debug)]
pub struct Plan {
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
    pub acts: Vec<(u64, Act)>,
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
    fn of(dice: &mut Dice) -> Self {
        Self(Sort::ALL.into_iter().filter(|_| dice.percent(40)).collect())
    }

    fn has(&self, sort: Sort) -> bool {
        self.0.contains(&sort)
    }
}

/// Small numbers more often than large ones.
fn few(dice: &mut Dice, most: u64) -> u64 {
    let most = dice.between(1, most);
    dice.between(1, most)
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let dice = &mut Dice::new(seed, "plan");
        let menu = Menu::of(dice);
        let small = |dice: &mut Dice, most| u8::try_from(few(dice, most)).unwrap();
        let mut plan = Self {
            seed,
            operators: if dice.percent(30) { 2 } else { 1 },
            sessions: small(dice, 5),
            phones: small(dice, 7).max(2),
            namespaces: small(dice, 4),
            add_present_ok: dice.coin(),
            remove_absent_ok: dice.coin(),
            quota: dice.pick(&[1, 3, 20]),
            batch_size_max: dice.pick(&[1, 2, 3, 100]),
            concurrency: dice.pick(&[1, 2, 8]),
            end_ms: dice.between(20, 300) * 1_000,
            acts: Vec::new(),
            faults: BTreeMap::new(),
        };
        let objects = few(dice, 20);
        let names: Vec<_> = (0..objects).map(|_| plan.name(dice)).collect();
        plan.create(dice, &menu, &names);
        let acts = few(dice, 12 + 4 * objects);
        let mut at = 0;
        for _ in 0..acts {
            // What people do comes in bursts: at one instant, or while the last thing is under way.
            at = match dice.below(4) {
                0 => at,
                1 => at + dice.below(300),
                2 => at + dice.below(4_000),
                _ => dice.below(plan.end_ms),
            };
            let act = plan.act(dice, &menu, &names);
            plan.acts.push((at.min(plan.end_ms), act));
        }
        plan.acts.sort_by_key(|(at, _)| *at);
        plan.trouble(dice, &menu, &names);
        plan
    }

    fn name(&self, dice: &mut Dice) -> Name {
        Name { namespace: dice.small(self.namespaces), number: dice.small(8) }
    }

    fn bits(&self, dice: &mut Dice) -> u8 {
        dice.small(1 << self.phones)
    }

    fn create(&mut self, dice: &mut Dice, menu: &Menu, names: &[Name]) {
        let mut at = 0;
        for name in names {
            let act = Act::Create {
                name: *name,
                session: dice.small(self.sessions),
                phones: self.bits(dice),
                region: menu.has(Sort::Moves) && dice.percent(20),
                orphan: menu.has(Sort::Policies) && dice.percent(15),
                forgets: menu.has(Sort::Policies) && dice.percent(15),
            };
            self.acts.push((at, act));
            at += dice.pick(&[0, 0, 5, 200, 3_000, 20_000]);
        }
        for session in 0..self.sessions {
            if menu.has(Sort::Rescues) && dice.percent(30) {
                self.acts.push((
                    dice.below(self.end_ms),
                    Act::Script { session, phones: self.bits(dice) },
                ));
            }
        }
        self.end_ms = self.end_ms.max(at + 10_000);
    }

    fn act(&self, dice: &mut Dice, menu: &Menu, names: &[Name]) -> Act {
        let name = dice.pick(names);
        let phones = self.bits(dice);
        let session = dice.small(self.sessions);
        let wait = dice.pick(&[300, 3_000, 9_000, 30_000]);
        let operator = dice.small(self.operators);
        loop {
            let act = match dice.below(24) {
                0..=6 => Act::Edit { name, phones },
                7 | 8 => Act::Delete { name },
                9 | 10 => Act::Create {
                    name,
                    session,
                    phones,
                    region: false,
                    orphan: false,
                    forgets: false,
                },
                11 if menu.has(Sort::Moves) => Act::Move {
                    name,
                    session,
                    region: if dice.percent(30) { Some(dice.coin()) } else { None },
                },
                12 if menu.has(Sort::Policies) => Act::Policy { name, orphan: dice.coin() },
                13 if menu.has(Sort::Policies) => Act::FailurePolicy { name, forgets: dice.coin() },
                14 if menu.has(Sort::Policies) => Act::Forget { name, phones },
                15 if menu.has(Sort::Rescues) => Act::Adopt { name, phones },
                16 if menu.has(Sort::Rescues) => Act::WipeStatus { name },
                17 if menu.has(Sort::Rescues) => Act::StripFinalizer { name },
                18 if menu.has(Sort::Rescues) => Act::Clone {
                    from: name,
                    to: self.name(dice),
                    finalizer: dice.coin(),
                    status: dice.coin(),
                },
                19 if menu.has(Sort::Rescues) && dice.coin() => Act::BackUp { name },
                19 if menu.has(Sort::Rescues) => {
                    Act::Restore { name, finalizer: dice.coin(), status: dice.coin() }
                }
                20 if menu.has(Sort::Secrets) => Act::Secret {
                    namespace: name.namespace,
                    key: if dice.percent(25) { None } else { Some(dice.pick(&[0, 0, 0, 1, 2, 3])) },
                },
                21 if menu.has(Sort::SessionsEnd) && dice.coin() => Act::SessionEnds { session },
                21 if menu.has(Sort::BadPhones) && dice.coin() => {
                    Act::Poison { phone: dice.small(self.phones), on: dice.coin() }
                }
                21 if menu.has(Sort::BadPhones) => {
                    Act::Unwelcome { phone: dice.small(self.phones), on: dice.coin() }
                }
                22 if menu.has(Sort::Crashes) => Act::Crash { operator },
                22 if menu.has(Sort::Freezes) && dice.coin() => {
                    Act::Fence { operator, for_ms: wait }
                }
                22 if menu.has(Sort::Freezes) => Act::Freeze { operator, for_ms: wait },
                23 if menu.has(Sort::Watches) && dice.coin() => {
                    Act::WatchStalls { operator, for_ms: wait }
                }
                23 if menu.has(Sort::Watches) => Act::WatchBreaks { operator },
                _ => continue,
            };
            return act;
        }
    }

    fn trouble(&mut self, dice: &mut Dice, menu: &Menu, names: &[Name]) {
        let count = few(dice, 10 + 6 * u64::try_from(names.len()).unwrap());
        for _ in 0..count {
            let (name, most) = (dice.pick(names), dice.pick(&[12, 40, 150]));
            let effect = u32::try_from(dice.below(most)).unwrap();
            let wait = dice.pick(&[500, 2_500, 4_000, 9_000, 15_000, 25_000]);
            let fault = match dice.below(10) {
                0 if menu.has(Sort::Crashes) => Fault::CrashBefore,
                1 if menu.has(Sort::Crashes) => Fault::CrashAfter,
                2 if menu.has(Sort::Freezes) => Fault::FreezeBefore(wait),
                3 if menu.has(Sort::Freezes) => Fault::FreezeAfter(wait),
                4 if menu.has(Sort::Losses) => Fault::Lost,
                5 if menu.has(Sort::Losses) => Fault::Late(wait),
                6 if menu.has(Sort::Losses) => Fault::AnswerLost,
                7 if menu.has(Sort::Losses) => Fault::NotSent,
                8 if menu.has(Sort::Tricks) => Fault::Internal(dice.coin().then_some(wait)),
                _ if menu.has(Sort::Tricks) => Fault::Trick(match dice.below(5) {
                    0 => Trick::Throttle,
                    1 => Trick::Unclear(dice.coin()),
                    2 => Trick::Silent(dice.small(255)),
                    _ => Trick::Refuse(dice.small(255)),
                }),
                _ => continue,
            };
            self.faults.insert((name, effect), fault);
        }
    }
}
