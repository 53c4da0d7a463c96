//! Random numbers from a seed. Each part of a simulation has its own generator, so that what is
//! left out of a scenario does not change anything else.

/// A small generator (SplitMix64): what it answers depends on the seed and on nothing else, on
/// every machine and with every version of every crate.
#[derive(Clone, Debug)]
pub struct Rng(u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The generator of one part of the simulation of `seed`.
    #[must_use]
    pub fn new(seed: u64, part: &str) -> Self {
        Self(part.bytes().fold(mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15)), |state, byte| {
            mix(state ^ u64::from(byte)).wrapping_add(1)
        }))
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number less than `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// A number from `least` to `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A small number less than `bound`.
    pub fn small(&mut self, bound: u8) -> u8 {
        u8::try_from(self.below(u64::from(bound))).unwrap()
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// True in every second case.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// One of the choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(u64::try_from(choices.len()).unwrap())).unwrap()]
    }
}
