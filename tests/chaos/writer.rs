//! A service: it writes `UNIT RUN N`, one line after the other, and notes how far it has come.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::rounds::Dice;

/// Ends as its kind does. In the directory: `locks`, of which each unit has one for as long as a main process of
/// it lives; `ledger`, with a number a run; `calm`, once nobody is to crash any more; and `wrong`, for what must
/// not be.
pub fn run(kind: &str, dir: &Path, unit: &str) -> ! {
    let marker = std::env::var("UPHOLD_RUN").unwrap();
    let run: u64 = marker.split(':').nth(1).unwrap().parse().unwrap();
    let wrong = |what: &str| {
        let mut file = File::options().append(true).create(true).open(dir.join("wrong")).unwrap();
        file.write_all(format!("{unit} {run}: {what}\n").as_bytes()).unwrap();
    };
    let lock = File::create(dir.join("locks").join(unit)).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock);
    if lock.is_err() {
        wrong("beside another main process");
    }
    let ledger = File::create_new(dir.join("ledger").join(format!("{unit}.{run}"))).unwrap_or_else(|error| {
        wrong(&format!("this run was there before: {error}"));
        std::process::exit(70)
    });
    let mut dice = Dice::new(run * 1_000 + unit.len() as u64);
    let begun = Instant::now();
    let span = Duration::from_millis(if kind == "crashes" { 200 + dice.below(6_000) } else { 300 });
    for number in 1_u64.. {
        // One write: whole, or not at all.
        let line = format!("{unit} {run} {number}\n");
        if std::io::stdout().write_all(line.as_bytes()).is_err() {
            wrong("its output is closed");
            std::process::exit(71);
        }
        ledger.write_all_at(&number.to_le_bytes(), 0).unwrap();
        let over = begun.elapsed() >= span;
        match kind {
            "completes" if over => std::process::exit(0),
            "crashes" if over && !fs::exists(dir.join("calm")).unwrap() => match dice.below(3) {
                0 => std::process::exit(0),
                1 => std::process::exit(3),
                _ => std::process::abort(),
            },
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10 + dice.below(40)));
    }
    unreachable!("it has counted to the end")
}
