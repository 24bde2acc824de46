//! The generator for jitter: part of the state, so that a run of the engine repeats exactly.

use serde::{Deserialize, Serialize};

/// SplitMix64 (Steele, Lea and Flood, 2014): good enough to spread restarts, and eight bytes of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0.0 to 1.0.
    pub(super) fn share(&mut self) -> f64 {
        (self.spread() + 1.0) / 2.0
    }

    /// From -1.0 to 1.0.
    pub(super) fn spread(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}
