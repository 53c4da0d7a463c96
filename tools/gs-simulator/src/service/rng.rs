//! A random generator with a seed: the same calls in the same order meet the same faults.

use serde::{Deserialize, Serialize};

/// How likely something is: 0 never, 1 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Probability(f64);

/// It is never NaN.
impl Eq for Probability {}

/// A number that is no [`Probability`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is no probability: those are from 0 to 1")]
pub struct InvalidProbability(f64);

impl TryFrom<f64> for Probability {
    type Error = InvalidProbability;

    fn try_from(number: f64) -> Result<Self, InvalidProbability> {
        if (0.0..=1.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(InvalidProbability(number))
        }
    }
}

impl From<Probability> for f64 {
    fn from(probability: Probability) -> Self {
        probability.0
    }
}

/// SplitMix64: small, and good enough for faults.
#[derive(Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Draws no number for 0: a fault that is not used does not change when others occur.
    pub(crate) fn random_bool(&mut self, probability: Probability) -> bool {
        probability.0 > 0.0 && self.fraction() < probability.0
    }

    /// From 0 up to, but not including, 1.
    fn fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(u32::MAX);
        f64::from(high) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(seed: u64, probability: f64) -> usize {
        let mut rng = Rng::new(seed);
        let probability = Probability::try_from(probability).unwrap();
        (0..10_000).filter(|_| rng.random_bool(probability)).count()
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(count(7, 0.3), count(7, 0.3));
        assert_ne!(count(7, 0.3), count(8, 0.3));
    }

    #[test]
    fn a_probability_is_how_often_it_is_true() {
        assert!((2_700..3_300).contains(&count(1, 0.3)), "{}", count(1, 0.3));
        assert_eq!(count(1, 0.0), 0);
        assert_eq!(count(1, 1.0), 10_000);
    }

    #[test]
    fn a_probability_is_from_0_to_1() {
        for number in ["-0.1", "1.1", "null"] {
            assert!(serde_json::from_str::<Probability>(number).is_err(), "{number}");
        }
        assert!(Probability::try_from(f64::NAN).is_err());
    }
}
