//! Signals by number and name, as Linux has them on every architecture but MIPS and SPARC.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A signal, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Signal(u8);

/// Number and name of each standard signal (signal(7)).
const NAMES: [(u8, &str); 31] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (12, "SIGUSR2"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (16, "SIGSTKFLT"),
    (17, "SIGCHLD"),
    (18, "SIGCONT"),
    (19, "SIGSTOP"),
    (20, "SIGTSTP"),
    (21, "SIGTTIN"),
    (22, "SIGTTOU"),
    (23, "SIGURG"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (28, "SIGWINCH"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
    (31, "SIGSYS"),
];

/// The first and last real-time signal that a program may use (the C library keeps 32 and 33).
const REALTIME: std::ops::RangeInclusive<u8> = 34..=64;

#[allow(missing_docs, reason = "the names are those of signal(7)")]
impl Signal {
    pub const HUP: Signal = Signal(1);
    pub const INT: Signal = Signal(2);
    pub const QUIT: Signal = Signal(3);
    pub const KILL: Signal = Signal(9);
    pub const USR1: Signal = Signal(10);
    pub const USR2: Signal = Signal(12);
    pub const TERM: Signal = Signal(15);
    pub const CHLD: Signal = Signal(17);
    pub const CONT: Signal = Signal(18);
    pub const STOP: Signal = Signal(19);
    pub const TTIN: Signal = Signal(21);
    pub const TTOU: Signal = Signal(22);
}

impl Signal {
    /// By number: 1 to 31 and 34 to 64.
    pub fn from_number(number: i32) -> Option<Signal> {
        let number = u8::try_from(number).ok()?;
        ((1..=31).contains(&number) || REALTIME.contains(&number)).then_some(Signal(number))
    }

    /// By name, with or without `SIG`, in either case, or by number: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
    pub fn parse(text: &str) -> Option<Signal> {
        if let Ok(number) = text.parse() {
            return Signal::from_number(number);
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let realtime = |offset: &str, from: i32, sign: i32| {
            let offset: i32 = if offset.is_empty() { 0 } else { offset.get(1..)?.parse().ok()? };
            Signal::from_number(from + sign * offset).filter(|s| REALTIME.contains(&s.0))
        };
        match bare {
            "POLL" => return Some(Signal(29)),
            "IOT" => return Some(Signal(6)),
            _ => {}
        }
        if let Some(rest) = bare.strip_prefix("RTMIN").filter(|r| r.is_empty() || r.starts_with('+')) {
            return realtime(rest, 34, 1);
        }
        if let Some(rest) = bare.strip_prefix("RTMAX").filter(|r| r.is_empty() || r.starts_with('-')) {
            return realtime(rest, 64, -1);
        }
        NAMES.iter().find(|(_, name)| &name[3..] == bare).map(|&(number, _)| Signal(number))
    }

    /// The number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// The name, `SIGTERM` or `SIGRTMIN+3`.
    pub fn name(self) -> String {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => (*name).to_owned(),
            None if self.0 == 34 => "SIGRTMIN".to_owned(),
            None => format!("SIGRTMIN+{}", self.0 - 34),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_found_by_its_own_name() {
        for number in (1..=31).chain(34..=64) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(Signal::parse(&signal.name()), Some(signal));
        }
    }

    #[test]
    fn names_are_taken_as_people_write_them() {
        assert_eq!(Signal::parse("term"), Some(Signal::TERM));
        assert_eq!(Signal::parse("15"), Some(Signal::TERM));
        assert_eq!(Signal::parse("SIGRTMAX-30"), Signal::from_number(34));
        for bad in ["", "SIG", "0", "32", "65", "SIGRTMIN-1", "RTMIN+31", "TERMINATE", "-9", "RTMIN+"] {
            assert_eq!(Signal::parse(bad), None, "{bad:?} was taken");
        }
    }
}
