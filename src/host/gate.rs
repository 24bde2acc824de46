//! What a thread has in hand that would be gone with it. An exec of uphold by itself lets nobody take anything more,
//! and waits for what was taken, but not for long.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use nix::libc;

/// Looked at so often,
const LOOKS: u32 = 500;
/// and so long apart.
const PAUSE: Duration = Duration::from_millis(1);
/// An exec is under way.
const CLOSED: u32 = 1 << 31;

/// How much is in hand, all in all.
#[derive(Debug)]
pub struct Gate(AtomicU32);

/// The one of this process.
pub static GATE: Gate = Gate(AtomicU32::new(0));

impl Gate {
    /// Something is about to be taken in hand. While an exec is under way, it is waited for.
    pub fn enter(&self) {
        while self.0.fetch_add(1, SeqCst) & CLOSED != 0 {
            self.leave();
            std::thread::sleep(PAUSE);
        }
    }

    /// It is where it belongs.
    pub fn leave(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    /// An exec is under way: waits for what is in hand. Async-signal-safe.
    pub(super) fn close(&self) {
        self.0.fetch_or(CLOSED, SeqCst);
        let pause = libc::timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
        for _ in 0..LOOKS {
            if self.0.load(SeqCst) == CLOSED {
                return;
            }
            // SAFETY: the time is valid and lives through the call; nothing is asked for what is left of it.
            let _ = unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
        }
    }

    /// There was no exec.
    pub(super) fn open(&self) {
        self.0.fetch_and(!CLOSED, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_closes_waits_for_what_is_in_hand_and_nothing_more_is_taken() {
        let gate = Gate(AtomicU32::new(0));
        gate.enter();
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| gate.close());
            while gate.0.load(SeqCst) & CLOSED == 0 {
                std::thread::yield_now();
            }
            assert!(!closing.is_finished());
            gate.leave();
            closing.join().unwrap();
            let entering = scope.spawn(|| gate.enter());
            assert!(!entering.is_finished());
            gate.open();
            entering.join().unwrap();
        });
        assert_eq!(gate.0.load(SeqCst), 1);
    }
}
