//! Chance that follows from a seed.

use std::env::var;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// SplitMix64: small, and good enough to throw dice with.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Of `CHAOS_SEED`; else of any, which a failure shows.
    pub fn from_environment() -> Self {
        let seed = var("CHAOS_SEED").map_or_else(
            |_| RandomState::new().hash_one(0),
            |seed| seed.parse().expect("CHAOS_SEED is a number"),
        );
        println!("CHAOS_SEED={seed}");
        Self::new(seed)
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a small number");
        usize::try_from(self.throw() % bound).expect("a small number")
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from)).expect("a small number"))
    }
}
