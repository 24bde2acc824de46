//! The bodies of the control API that are not views of the engine: shared by server and client.

use serde::{Deserialize, Serialize};

use crate::engine::{StateName, View};
use crate::unit::Name;

/// `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A word that programs may rely on: `no-such-unit`, `not-permitted`, `bad-request`, `conflict`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What could not be done, to what, why, and what would do.
    pub detail: String,
}

/// `GET /v1/units`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Units {
    /// By name.
    pub units: Vec<View>,
}

/// `GET /v1/units/NAME/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitConfig {
    /// The unit.
    pub name: Name,
    /// The file, then its drop-ins in order.
    pub files: Vec<String>,
    /// The merged unit as TOML, each value with the file and line it came from.
    pub text: String,
}

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of the daemon that answers.
    pub version: String,
    /// Its pid, in its own pid namespace.
    pub pid: u32,
    /// Which image of that process it is, from 1 on: an upgrade and a crash of uphold make one more each.
    pub image: u32,
    /// The same for as long as one uphold takes over from the other: then the numbers of events go on.
    pub life: String,
}

/// `GET /healthz` and `GET /readyz`: 200 or 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// All is well.
    pub healthy: bool,
    /// What is not.
    pub units: Vec<Unwell>,
}

/// A unit that keeps a [`Health`] from being well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwell {
    /// The instance.
    pub name: Name,
    /// Where it stands.
    pub state: StateName,
    /// Why, in a sentence.
    pub message: String,
}
