//! The engine against a world that goes wrong: seeded random units, a fake host that obeys, two clocks that
//! are numbers, operators, reloads, shutdowns and deaths of uphold; the rules that never bend (DESIGN section
//! 8) are looked at after every input.
//!
//! `UPHOLD_SIM_SECONDS` says how long it runs (3 without it) and, where it is set, begins at a seed of its
//! own or at `UPHOLD_SIM_FROM`; `UPHOLD_SIM_SEED` replays one seed and tells its story.

#![allow(clippy::unwrap_used, reason = "a test")]

mod adopt;
mod death;
mod host;
mod rules;
mod same;
mod units;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use world::World;

/// How much of the story of a failure is told.
const STORY: usize = 120;

/// splitmix64: small, seeded, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed throws the same.
    pub fn new(seed: u64) -> Dice {
        Dice(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// From 0 to this, small more often than large.
    pub fn wait(&mut self, up_to: Duration) -> Duration {
        let nanos = u64::try_from(up_to.as_nanos()).unwrap();
        let shift = self.below(12);
        Duration::from_nanos(self.below(nanos >> shift))
    }
}

/// What was wrong, if anything.
fn live(seed: u64, told: bool) -> Result<(), String> {
    let mut world = World::new(seed, told);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let wrong = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(wrong)) => wrong,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        }
    };
    let story = world.story();
    let from = story.len().saturating_sub(STORY);
    Err(format!("{}\n{wrong}", story[from..].join("\n")))
}

#[test]
fn whatever_goes_wrong_the_rules_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("UPHOLD_SIM_SEED") {
        if let Err(wrong) = live(seed, true) {
            panic!("seed {seed}:\n{wrong}");
        }
        return;
    }
    let seconds = number("UPHOLD_SIM_SECONDS");
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // Of its own accord a test does the same each time; who asks for more wants to see what is new.
    let own = seconds.map_or(0, |_| u64::try_from(clock.as_millis()).unwrap() << 20);
    let mut seed = number("UPHOLD_SIM_FROM").unwrap_or(own);
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(3));
    while Instant::now() < end {
        if live(seed, false).is_err() {
            let wrong = live(seed, true).err().unwrap_or_else(|| "it does not replay".to_owned());
            panic!("{wrong}\nseed {seed}: replay with UPHOLD_SIM_SEED={seed} cargo test --test simulation");
        }
        seed += 1;
    }
}
