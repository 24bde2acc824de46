//! The control API's server: HTTP/1.1 with JSON over a Unix socket. It asks the daemon and renders; it
//! decides only who may ask what.
//!
//! A connection takes its place (`limits`), each request on it becomes a [`Call`] (`routes`, `query`), is
//! allowed or not (`permissions`), goes to the daemon (`server`), and its [`Reply`] becomes a response
//! (`respond`); what is followed goes on as lines (`follow`). Who is owed a short answer is counted (`busy`).

mod busy;
mod follow;
mod limits;
mod permissions;
mod query;
mod respond;
mod routes;
mod server;

use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::api::{Health, Problem, UnitConfig, Version};
use crate::engine::{Changes, Done, Event, Verb, View, Wall};
use crate::unit::Name;

pub use server::Server;

/// Who is at the other end, as SO_PEERCRED and SO_PEERGROUPS say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// For messages.
    pub pid: Option<u32>,
    /// Effective uid at connect.
    pub uid: u32,
    /// Primary and supplementary groups.
    pub gids: Vec<u32>,
}

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub struct Permissions {
    /// The daemon's own uid.
    pub uid: u32,
    /// `control.admin_groups`
    pub admin: Vec<u32>,
    /// `control.read_groups`
    pub read: Vec<u32>,
}

/// What a client asks of the daemon. Each is one request of the API.
#[derive(Debug, Clone)]
pub enum Call {
    /// `GET /v1/units`
    List,
    /// `GET /v1/units/NAME`
    Get(Name),
    /// `GET /v1/units/NAME/config`
    Config(Name),
    /// `POST /v1/units/NAME/start|stop|restart|reset|signal`, `GET /v1/units/NAME/wait?for=GOAL`
    Command {
        /// On which.
        unit: Name,
        /// What.
        verb: Verb,
        /// Answer when it came about, not at once.
        wait: bool,
        /// How long to wait at most.
        timeout: Option<Duration>,
    },
    /// `GET /v1/units/NAME/logs`
    Logs {
        /// Whose.
        unit: Name,
        /// The last so many lines; `None`: all.
        lines: Option<usize>,
        /// Not older than this.
        since: Option<Wall>,
        /// Go on with what comes.
        follow: bool,
        /// Of the run before the current one.
        previous: bool,
        /// Each line says where it ends, as `position`.
        positions: bool,
        /// Go on behind such a position.
        after: Option<String>,
    },
    /// `GET /v1/events`
    Events {
        /// Of one unit only.
        unit: Option<Name>,
        /// Above this number.
        since: u64,
        /// Go on with what comes.
        follow: bool,
    },
    /// `POST /v1/daemon-reload` and `POST /v1/update`
    Load {
        /// `update`: also restart what changed and stop what is gone.
        update: bool,
        /// Only say what would be.
        dry_run: bool,
    },
    /// `POST /v1/shutdown`
    Shutdown,
    /// `POST /v1/upgrade`
    Upgrade,
    /// `GET /v1/version`
    Version,
    /// `GET /healthz`, without units: the daemon lives. `GET /readyz`: every unit that should be up is up and
    /// ready. `?unit=` (repeated) narrows either.
    Health {
        /// Ready, not only alive.
        ready: bool,
        /// These only; empty: all.
        units: Vec<Name>,
    },
}

impl Call {
    /// The answer may take long, or never end.
    fn is_long(&self) -> bool {
        match self {
            Call::Command { wait, .. } => *wait,
            Call::Logs { follow, .. } | Call::Events { follow, .. } => *follow,
            Call::List | Call::Get(_) | Call::Config(_) | Call::Load { .. } => false,
            Call::Shutdown | Call::Upgrade | Call::Version | Call::Health { .. } => false,
        }
    }
}

/// What the daemon answers.
#[derive(Debug)]
pub enum Reply {
    /// To `List`.
    List(Vec<View>),
    /// To `Get`.
    Unit(Box<View>),
    /// To `Config`.
    Config(UnitConfig),
    /// To `Command`, for one unit.
    Done(Done),
    /// To `Logs`: a stream of JSON lines, already rendered without the line end.
    Logs(mpsc::Receiver<String>),
    /// To `Events`: those before, and those to come. When the receiver lags, the rest is asked for again.
    Events(Vec<Event>, Option<broadcast::Receiver<Event>>),
    /// To `Load`.
    Changes(Changes),
    /// To `Shutdown` and `Upgrade`: it has begun.
    Accepted,
    /// To `Version`.
    Version(Version),
    /// To `Health`.
    Health(Health),
    /// It cannot be done.
    Problem(Problem),
}

/// One call and where its answer goes. A client that is gone drops the receiver; the call goes on.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub call: Call,
    /// Who asks, for the log.
    pub peer: Peer,
    /// Where to.
    pub reply: oneshot::Sender<Reply>,
}

#[cfg(test)]
mod tests;
