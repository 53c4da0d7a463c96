//! Decides which fault a call meets, and uses the faults up.

use std::collections::BTreeMap;
use std::time::Duration;

use super::answer::BodyThrottle;
use super::faults::{AnswerFault, Faults, GarbledAnswer};
use super::rng::{Probability, Rng};
use super::switch::Operation;

/// Ids whose failures are counted. Beyond, ids fail for ever: a soak test must not fill the memory.
const FAILED_IDS_MAX: usize = 100_000;

/// The faults in force, and what is left of them.
#[derive(Debug)]
pub(crate) struct FaultInjector {
    faults: Faults,
    rng: Rng,
    /// How often each id failed that has a number of tries.
    failed: BTreeMap<(Operation, String), u32>,
}

/// What becomes of a request before it reaches the service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestFault {
    Lost,
    /// It arrives so much later.
    Late(Duration),
    /// Something in front of the service answers in its place.
    Gateway(GarbledAnswer),
}

/// What becomes of the answer to a call that was applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReplyFault {
    Lost,
    Garbled(GarbledAnswer),
}

impl FaultInjector {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { rng: Rng::new(faults.seed), faults, failed: BTreeMap::new() }
    }

    /// The faults that are left.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn request_fault(&mut self) -> Option<RequestFault> {
        let Self { faults, rng, .. } = self;
        let chances = &faults.chances;
        if occurs(&mut faults.drop_requests, chances.drop_request, rng) {
            Some(RequestFault::Lost)
        } else if occurs(&mut faults.late_arrivals, chances.late_arrival, rng) {
            Some(RequestFault::Late(Duration::from_millis(faults.late_arrival_ms)))
        } else {
            garbled(&mut faults.gateways, &chances.gateways, rng).map(RequestFault::Gateway)
        }
    }

    pub(crate) fn throttles(&mut self) -> bool {
        occurs(&mut self.faults.throttle, self.faults.chances.throttle, &mut self.rng)
    }

    pub(crate) fn error(&mut self) -> Option<String> {
        self.faults.errors.retain(|error| error.times > 0);
        if let Some(error) = self.faults.errors.first_mut() {
            error.times -= 1;
            return Some(error.code.clone());
        }
        pick(&self.faults.chances.errors, &mut self.rng)
    }

    /// Whether this id fails in this call.
    pub(crate) fn fails(&mut self, operation: Operation, id: &str) -> bool {
        if operation == Operation::Attach && self.faults.fail_instances.contains(id) {
            return true;
        }
        let mut faults = self.faults.instance_faults.iter();
        let Some(fault) = faults.find(|fault| fault.matches(operation, id)) else { return false };
        let Some(tries) = fault.tries else { return true };
        let key = (operation, id.to_owned());
        if self.failed.len() >= FAILED_IDS_MAX && !self.failed.contains_key(&key) {
            return true;
        }
        let failed = self.failed.entry(key).or_default();
        let fails = *failed < tries;
        *failed += u32::from(fails);
        fails
    }

    pub(crate) fn reply_fault(&mut self) -> Option<ReplyFault> {
        let Self { faults, rng, .. } = self;
        if occurs(&mut faults.drop_answers, faults.chances.drop_answer, rng) {
            return Some(ReplyFault::Lost);
        }
        garbled(&mut faults.garbled_answers, &faults.chances.garbled_answers, rng)
            .map(ReplyFault::Garbled)
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let chance = self.faults.chances.delay;
        let all = chance == Probability::default();
        if all || self.rng.random_bool(chance) {
            Duration::from_millis(self.faults.delay_ms)
        } else {
            Duration::ZERO
        }
    }

    pub(crate) fn body_throttle(&mut self) -> Option<BodyThrottle> {
        let Self { faults, rng, .. } = self;
        let bytes = faults.slow_answer_bytes.max(1);
        let pause = Duration::from_millis(faults.slow_answer_pause_ms);
        occurs(&mut faults.slow_answers, faults.chances.slow_answer, rng)
            .then_some(BodyThrottle { bytes, pause })
    }
}

/// Counts go first.
fn occurs(left: &mut u32, chance: Probability, rng: &mut Rng) -> bool {
    let counted = *left > 0;
    *left = left.saturating_sub(1);
    counted || rng.random_bool(chance)
}

fn garbled(
    left: &mut Vec<AnswerFault>,
    chances: &BTreeMap<GarbledAnswer, Probability>,
    rng: &mut Rng,
) -> Option<GarbledAnswer> {
    left.retain(|fault| fault.times > 0);
    if let Some(fault) = left.first_mut() {
        fault.times -= 1;
        return Some(fault.kind);
    }
    pick(chances, rng)
}

/// The first that occurs.
fn pick<T: Clone>(chances: &BTreeMap<T, Probability>, rng: &mut Rng) -> Option<T> {
    chances.iter().find(|(_, chance)| rng.random_bool(**chance)).map(|(what, _)| what.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::faults::{Chances, ErrorFault, InstanceFault};

    fn half() -> Probability {
        Probability::try_from(0.5).unwrap()
    }

    #[test]
    fn errors_are_used_up_in_their_order() {
        let error = |code: &str, times| ErrorFault { code: code.to_owned(), times };
        let mut injector = FaultInjector::new(Faults {
            errors: vec![error("A", 2), error("None", 0), error("B", 1)],
            ..Faults::default()
        });
        let met: Vec<_> = std::iter::from_fn(|| injector.error()).collect();
        assert_eq!(met, ["A", "A", "B"]);
    }

    #[test]
    fn a_request_is_lost_before_it_can_be_late_and_late_before_a_gateway_answers() {
        let gateways = vec![AnswerFault { kind: GarbledAnswer::Html502, times: 1 }];
        let faults = Faults {
            drop_requests: 1,
            late_arrivals: 1,
            late_arrival_ms: 7,
            gateways,
            ..Faults::default()
        };
        let mut injector = FaultInjector::new(faults);
        let met: Vec<_> = std::iter::from_fn(|| injector.request_fault()).collect();
        assert_eq!(
            met,
            [
                RequestFault::Lost,
                RequestFault::Late(Duration::from_millis(7)),
                RequestFault::Gateway(GarbledAnswer::Html502),
            ]
        );
    }

    #[test]
    fn an_answer_is_lost_before_it_can_be_garbled() {
        let garbled_answers = vec![AnswerFault { kind: GarbledAnswer::Empty, times: 1 }];
        let mut injector =
            FaultInjector::new(Faults { drop_answers: 1, garbled_answers, ..Faults::default() });
        let met: Vec<_> = std::iter::from_fn(|| injector.reply_fault()).collect();
        assert_eq!(met, [ReplyFault::Lost, ReplyFault::Garbled(GarbledAnswer::Empty)]);
    }

    #[test]
    fn chances_come_after_the_counts_and_follow_from_the_seed() {
        let faults = |seed| {
            let chances = Chances {
                throttle: half(),
                errors: BTreeMap::from([("E".to_owned(), half())]),
                ..Chances::default()
            };
            let mut injector =
                FaultInjector::new(Faults { throttle: 1, chances, seed, ..Faults::default() });
            (0..50).map(|_| (injector.throttles(), injector.error())).collect::<Vec<_>>()
        };
        assert!(faults(1)[0].0);
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
    }

    #[test]
    fn an_id_recovers_after_its_own_tries() {
        let fault = |pattern: &str, tries, operation| InstanceFault {
            pattern: pattern.to_owned(),
            tries,
            operation,
        };
        let instance_faults =
            vec![fault("bad-*", Some(2), Operation::Attach), fault("*", None, Operation::Detach)];
        let mut injector = FaultInjector::new(Faults { instance_faults, ..Faults::default() });

        let mut fails = |operation, id| (0..3).filter(|_| injector.fails(operation, id)).count();
        assert_eq!(fails(Operation::Attach, "bad-1"), 2);
        assert_eq!(fails(Operation::Attach, "bad-1"), 0);
        assert_eq!(fails(Operation::Attach, "bad-2"), 2);
        assert_eq!(fails(Operation::Attach, "good"), 0);
        assert_eq!(fails(Operation::Detach, "good"), 3);
    }

    #[test]
    fn all_answers_are_delayed_unless_a_chance_says_some() {
        let mut all = FaultInjector::new(Faults { delay_ms: 5, ..Faults::default() });
        assert!((0..50).all(|_| all.delay() == Duration::from_millis(5)));

        let mut some = FaultInjector::new(Faults {
            delay_ms: 5,
            chances: Chances { delay: half(), ..Chances::default() },
            ..Faults::default()
        });
        let delayed = (0..50).filter(|_| !some.delay().is_zero()).count();
        assert!((5..45).contains(&delayed), "{delayed}");
    }

    #[test]
    fn slow_answers_have_pieces_of_at_least_a_byte() {
        let mut injector = FaultInjector::new(Faults {
            slow_answers: 1,
            slow_answer_pause_ms: 3,
            ..Faults::default()
        });
        assert_eq!(
            injector.body_throttle(),
            Some(BodyThrottle { bytes: 1, pause: Duration::from_millis(3) })
        );
        assert_eq!(injector.body_throttle(), None);
    }
}
