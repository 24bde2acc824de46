//! The tcp probe: success is a connect(2) that succeeds. Nothing is sent or read.

use tokio::time::Instant;

use super::resolve::Names;
use super::{Fault, dial};
use crate::engine::Outcome;
use crate::unit::{DEFAULT_HOST, Endpoint};

/// One attempt.
pub(super) async fn attempt(names: &Names, endpoint: &Endpoint, deadline: Instant) -> Outcome {
    match connect(names, endpoint, deadline).await {
        Ok(()) => Outcome::Success,
        Err(fault) => fault.outcome(),
    }
}

/// Connects and closes.
async fn connect(names: &Names, endpoint: &Endpoint, deadline: Instant) -> Result<(), Fault> {
    match endpoint {
        Endpoint::Port { host, port, .. } => {
            let host = host.as_deref().unwrap_or(DEFAULT_HOST);
            dial::tcp(names, bare(host), *port, deadline).await.map(drop)
        }
        Endpoint::Unix(path) => dial::unix(path, deadline).await.map(drop),
    }
}

/// A host without the brackets that an IPv6 address may be written in.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}
