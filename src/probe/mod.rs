//! Probes: one attempt, with a kubelet's verdict and text. It decides nothing about thresholds.

use std::time::Duration;

use crate::engine::{Exit, Outcome, SpawnFailure};
use crate::unit::Probe;

/// Tries tcp and http probes. Cheap until the first https probe or host name.
#[derive(Default)]
pub struct Prober {}

impl Prober {
    /// One attempt of a tcp or http probe, time-out included. An exec probe is the host's to run:
    /// see [`exec_outcome`].
    pub async fn attempt(&self, _probe: &Probe) -> Outcome {
        todo!()
    }
}

/// The verdict over an exec probe; `end` is `None` where the command was killed at its time-out.
pub fn exec_outcome(
    _command: &[String],
    _timeout: Duration,
    _end: Option<Result<Exit, SpawnFailure>>,
    _output: &[u8],
) -> Outcome {
    todo!()
}
