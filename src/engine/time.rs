//! Time as the engine sees it: always an argument, on two clocks.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// CLOCK_MONOTONIC in nanoseconds. Every deadline is on it: it does not jump, and it stays valid across a
/// re-exec in one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Mono(pub u64);

impl std::ops::Add<Duration> for Mono {
    type Output = Mono;
    /// Saturates: a deadline too far away to be counted never comes.
    fn add(self, length: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub for Mono {
    type Output = Duration;
    /// Zero if `earlier` is later.
    fn sub(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// CLOCK_REALTIME, for display only: it may jump either way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Wall(jiff::Timestamp);

impl Wall {
    /// A point so many nanoseconds after 1970-01-01T00:00:00Z; a clock out of jiff's range counts as its end.
    pub fn from_nanos(nanos: i128) -> Wall {
        let end = if nanos < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Wall(jiff::Timestamp::from_nanosecond(nanos).unwrap_or(end))
    }

    /// The same point for a calendar.
    pub fn timestamp(self) -> jiff::Timestamp {
        self.0
    }

    /// So much later, as far as the calendar goes.
    pub fn after(self, length: Duration) -> Wall {
        Wall(self.0.checked_add(length).unwrap_or(jiff::Timestamp::MAX))
    }

    /// From `earlier` to here, zero if that is later.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::try_from(self.0.duration_since(earlier.0)).unwrap_or_default()
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-01-01T12:00:00.123Z`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Wall> for String {
    fn from(wall: Wall) -> String {
        wall.to_string()
    }
}

impl TryFrom<String> for Wall {
    type Error = jiff::Error;
    fn try_from(text: String) -> Result<Wall, jiff::Error> {
        text.parse().map(Wall)
    }
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// For deadlines and lengths.
    pub mono: Mono,
    /// For people.
    pub wall: Wall,
}
