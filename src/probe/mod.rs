//! Probes: one attempt, with a kubelet's verdict and text. It decides nothing about thresholds.
//!
//! An attempt is a future that may be dropped at any point: its sockets close with it, and nothing that
//! it waits for runs on in a thread of its own. What a peer sends is held to a bound, and is escaped before
//! it stands in a text (`text`).

mod dial;
mod exchange;
mod exec;
mod http;
mod path;
mod resolve;
mod tap;
mod target;
mod tcp;
mod text;
mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Outcome;
use crate::unit::{Check, Probe};

pub use exec::exec_outcome;
use resolve::Names;
use text::escaped;
use tls::Tls;

/// Tries tcp and http probes. Cheap until the first https probe or host name.
#[derive(Default)]
pub struct Prober {
    names: Arc<Names>,
    tls: Arc<Tls>,
}

impl Prober {
    /// One attempt of a tcp or http probe, time-out included. An exec probe is the host's to run:
    /// see [`exec_outcome`].
    pub async fn attempt(&self, probe: &Probe) -> Outcome {
        let deadline = deadline(probe.timeout);
        match &probe.check {
            Check::Tcp(endpoint) => tcp::attempt(&self.names, endpoint, deadline).await,
            Check::Http(check) => http::attempt(self, check, deadline).await,
            Check::Exec { command } => {
                let program = exec::program(command);
                Outcome::Error(escaped(&format!("cannot try \"{program}\": it is the host's to run")))
            }
        }
    }
}

/// Now and this much more. A time-out that no clock can hold is one of a year.
fn deadline(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + timeout.min(YEAR)
}

/// Why an attempt did not pass.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The service's doing: it counts.
    #[error("{0}")]
    Service(String),
    /// The supervisor's doing: the attempt is thrown away.
    #[error("{0}")]
    Ours(String),
    /// The time-out came first.
    #[error("{0}")]
    Late(String),
}

impl Fault {
    /// An error of a system call, in words. It is the supervisor's where the supervisor had no room: no
    /// descriptor (EMFILE, ENFILE) or no memory (ENOMEM, ENOBUFS).
    fn from_io(error: &std::io::Error, words: String) -> Fault {
        const ENOMEM: i32 = 12;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOBUFS: i32 = 105;
        match error.raw_os_error() {
            Some(ENOMEM | ENFILE | EMFILE | ENOBUFS) => Fault::Ours(words),
            Some(_) | None => Fault::Service(words),
        }
    }

    /// The same fault with a longer text.
    fn map(self, words: impl FnOnce(String) -> String) -> Fault {
        match self {
            Fault::Service(text) => Fault::Service(words(text)),
            Fault::Ours(text) => Fault::Ours(words(text)),
            Fault::Late(text) => Fault::Late(words(text)),
        }
    }

    /// As the engine takes it.
    fn outcome(self) -> Outcome {
        match self {
            Fault::Service(text) | Fault::Late(text) => Outcome::Failure(escaped(&text)),
            Fault::Ours(text) => Outcome::Error(escaped(&text)),
        }
    }
}
