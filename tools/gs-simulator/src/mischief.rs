//! Uses the faults up, call by call. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::answer::{Drip, Garbling};
use crate::dice::{Dice, Probability};
use crate::faults::{AnswerFault, Faults};
use crate::wire::Operation;

/// Ids whose failures are counted. Beyond, ids fail for ever: a soak test must not fill the memory.
const REFUSED_IDS_MAX: usize = 100_000;

/// The faults in force, and what is left of them.
#[derive(Debug)]
pub(crate) struct Mischief {
    faults: Faults,
    dice: Dice,
    /// How often each id failed under a rule that counts.
    refused: BTreeMap<(Operation, String), u32>,
}

/// What becomes of a request before the service sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Clear,
    Lost,
    Late(Duration),
    /// Something on the way answers instead.
    Gateway(Garbling),
}

/// What becomes of the answer to a call that was applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Return {
    Clear,
    Lost,
    Garbled(Garbling),
}

impl Mischief {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { dice: Dice::new(faults.seed), faults, refused: BTreeMap::new() }
    }

    /// The faults that are left.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn way(&mut self) -> Way {
        let Self { faults, dice, .. } = self;
        let chances = &faults.chances;
        if strikes(&mut faults.drop_requests, chances.drop_request, dice) {
            Way::Lost
        } else if strikes(&mut faults.late_arrivals, chances.late_arrival, dice) {
            Way::Late(Duration::from_millis(faults.late_arrival_ms))
        } else if let Some(kind) = garbling(&mut faults.gateways, &chances.gateways, dice) {
            Way::Gateway(kind)
        } else {
            Way::Clear
        }
    }

    pub(crate) fn throttles(&mut self) -> bool {
        strikes(&mut self.faults.throttle, self.faults.chances.throttle, &mut self.dice)
    }

    pub(crate) fn error(&mut self) -> Option<String> {
        self.faults.errors.retain(|error| error.times > 0);
        if let Some(error) = self.faults.errors.first_mut() {
            error.times -= 1;
            return Some(error.code.clone());
        }
        pick(&self.faults.chances.errors, &mut self.dice)
    }

    pub(crate) fn refuses(&mut self, operation: Operation, id: &str) -> bool {
        if operation == Operation::Attach && self.faults.fail_instances.contains(id) {
            return true;
        }
        let Some(rule) = self.faults.refusing.iter().find(|rule| rule.fits(operation, id)) else {
            return false;
        };
        let Some(tries) = rule.tries else { return true };
        let key = (operation, id.to_owned());
        if self.refused.len() >= REFUSED_IDS_MAX && !self.refused.contains_key(&key) {
            return true;
        }
        let failed = self.refused.entry(key).or_default();
        let refuses = *failed < tries;
        *failed += u32::from(refuses);
        refuses
    }

    pub(crate) fn back(&mut self) -> Return {
        let Self { faults, dice, .. } = self;
        if strikes(&mut faults.drop_answers, faults.chances.drop_answer, dice) {
            return Return::Lost;
        }
        garbling(&mut faults.garbled_answers, &faults.chances.garbled_answers, dice)
            .map_or(Return::Clear, Return::Garbled)
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let chance = self.faults.chances.delay;
        let all = chance == Probability::default();
        if all || self.dice.happens(chance) {
            Duration::from_millis(self.faults.delay_ms)
        } else {
            Duration::ZERO
        }
    }

    pub(crate) fn drip(&mut self) -> Option<Drip> {
        let slow =
            strikes(&mut self.faults.slow_answers, self.faults.chances.slow_answer, &mut self.dice);
        let (bytes, pause) =
            (self.faults.drip_bytes.max(1), Duration::from_millis(self.faults.drip_pause_ms));
        slow.then_some(Drip { bytes, pause })
    }
}

/// Counts go first.
fn strikes(left: &mut u32, chance: Probability, dice: &mut Dice) -> bool {
    let counted = *left > 0;
    *left = left.saturating_sub(1);
    counted || dice.happens(chance)
}

fn garbling(
    left: &mut Vec<AnswerFault>,
    chances: &BTreeMap<Garbling, Probability>,
    dice: &mut Dice,
) -> Option<Garbling> {
    left.retain(|fault| fault.times > 0);
    if let Some(fault) = left.first_mut() {
        fault.times -= 1;
        return Some(fault.kind);
    }
    pick(chances, dice)
}

/// The first that happens.
fn pick<T: Clone>(chances: &BTreeMap<T, Probability>, dice: &mut Dice) -> Option<T> {
    chances.iter().find(|(_, chance)| dice.happens(**chance)).map(|(what, _)| what.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Chances, ErrorFault, Refusing};

    fn half() -> Probability {
        Probability::try_from(0.5).unwrap()
    }

    #[test]
    fn errors_are_used_up_in_their_order() {
        let error = |code: &str, times| ErrorFault { code: code.to_owned(), times };
        let mut mischief = Mischief::new(Faults {
            errors: vec![error("A", 2), error("None", 0), error("B", 1)],
            ..Faults::default()
        });
        let met: Vec<_> = std::iter::from_fn(|| mischief.error()).collect();
        assert_eq!(met, ["A", "A", "B"]);
    }

    #[test]
    fn a_request_is_lost_before_it_can_be_late_and_late_before_a_gateway_sees_it() {
        let gateways = vec![AnswerFault { kind: Garbling::Html502, times: 1 }];
        let faults = Faults {
            drop_requests: 1,
            late_arrivals: 1,
            late_arrival_ms: 7,
            gateways,
            ..Faults::default()
        };
        let mut mischief = Mischief::new(faults);
        let met: Vec<_> = (0..4).map(|_| mischief.way()).collect();
        assert_eq!(
            met,
            [
                Way::Lost,
                Way::Late(Duration::from_millis(7)),
                Way::Gateway(Garbling::Html502),
                Way::Clear
            ]
        );
    }

    #[test]
    fn an_answer_is_lost_before_it_can_be_garbled() {
        let garbled_answers = vec![AnswerFault { kind: Garbling::Empty, times: 1 }];
        let mut mischief =
            Mischief::new(Faults { drop_answers: 1, garbled_answers, ..Faults::default() });
        let met: Vec<_> = (0..3).map(|_| mischief.back()).collect();
        assert_eq!(met, [Return::Lost, Return::Garbled(Garbling::Empty), Return::Clear]);
    }

    #[test]
    fn chances_strike_after_the_counts_and_follow_from_the_seed() {
        let fates = |seed| {
            let chances = Chances {
                throttle: half(),
                errors: BTreeMap::from([("E".to_owned(), half())]),
                ..Chances::default()
            };
            let mut mischief =
                Mischief::new(Faults { throttle: 1, chances, seed, ..Faults::default() });
            (0..50).map(|_| (mischief.throttles(), mischief.error())).collect::<Vec<_>>()
        };
        assert!(fates(1)[0].0);
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }

    #[test]
    fn an_id_recovers_after_its_own_tries() {
        let rule = |pattern: &str, tries, operation| Refusing {
            pattern: pattern.to_owned(),
            tries,
            operation,
        };
        let refusing =
            vec![rule("bad-*", Some(2), Operation::Attach), rule("*", None, Operation::Detach)];
        let mut mischief = Mischief::new(Faults { refusing, ..Faults::default() });

        let mut fails = |operation, id| (0..3).filter(|_| mischief.refuses(operation, id)).count();
        assert_eq!(fails(Operation::Attach, "bad-1"), 2);
        assert_eq!(fails(Operation::Attach, "bad-1"), 0);
        assert_eq!(fails(Operation::Attach, "bad-2"), 2);
        assert_eq!(fails(Operation::Attach, "good"), 0);
        assert_eq!(fails(Operation::Detach, "good"), 3);
    }

    #[test]
    fn all_answers_are_delayed_unless_a_chance_says_some() {
        let mut all = Mischief::new(Faults { delay_ms: 5, ..Faults::default() });
        assert!((0..50).all(|_| all.delay() == Duration::from_millis(5)));

        let mut some = Mischief::new(Faults {
            delay_ms: 5,
            chances: Chances { delay: half(), ..Chances::default() },
            ..Faults::default()
        });
        let delayed = (0..50).filter(|_| !some.delay().is_zero()).count();
        assert!((5..45).contains(&delayed), "{delayed}");
    }

    #[test]
    fn slow_answers_have_pieces_of_at_least_a_byte() {
        let mut mischief =
            Mischief::new(Faults { slow_answers: 1, drip_pause_ms: 3, ..Faults::default() });
        assert_eq!(mischief.drip(), Some(Drip { bytes: 1, pause: Duration::from_millis(3) }));
        assert_eq!(mischief.drip(), None);
    }
}
