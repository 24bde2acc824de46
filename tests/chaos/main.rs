//! Fifty services write numbered lines, crash and are restarted, while uphold is killed with -9, crashes and is
//! upgraded at random moments.
//!
//! After each round: what should live has the pid that it had, no unit has two main processes, and no line that
//! was read is torn, doubled or missing. At the end: every line that was written is in a log exactly once,
//! restarts are counted right, and uphold is no larger than it was.
//!
//! ```text
//! UPHOLD_CHAOS_ROUNDS=500 cargo test --test chaos      40 without
//! UPHOLD_CHAOS_SEED=7                                  the same dice again
//! UPHOLD_CHAOS_KEEP=1                                  its directory stays
//! ```

#![allow(missing_docs, reason = "tests are claims, and their names say them")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and says how"
)]

#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "../process/dsl.rs"]
mod dsl;
mod ledger;
mod rounds;
mod sampler;
mod units;
mod writer;

use rounds::Chaos;

/// Rounds in CI.
const ROUNDS: u64 = 40;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, kind, dir, unit] = &arguments[..]
        && word == "writer"
    {
        writer::run(kind, dir.as_ref(), unit);
    }
    if arguments.iter().any(|word| word == "--list") {
        println!("chaos: test");
        return;
    }
    // `cargo test NAME` comes here, too.
    if arguments.iter().find(|word| !word.starts_with('-')).is_some_and(|filter| !"chaos".contains(&**filter))
    {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("UPHOLD_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("UPHOLD_CHAOS_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
            % 1_000_000
    });
    println!(
        "chaos: {rounds} rounds; UPHOLD_CHAOS_SEED={seed} UPHOLD_CHAOS_ROUNDS={rounds} has the same dice"
    );
    Chaos::new(seed).run(rounds);
}
