//! Connecting, with the texts of Go's `net.OpError`: `dial tcp 127.0.0.1:80: connect: connection refused`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::Fault;
use super::resolve::Names;
use super::text::errno;

/// A connection, of whatever kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to a port of a host. All addresses of a name are tried in turn; each may take its even share
/// of what time is left, so one that swallows packets does not hide the next. The first error is told.
pub(super) async fn tcp(names: &Names, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, Fault> {
    let addresses = names
        .addresses(host, deadline)
        .await
        .map_err(|fault| fault.map(|text| format!("dial tcp: {text}")))?;
    let mut first = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match tcp_address(*address, port, Instant::now() + share).await {
            Ok(stream) => return Ok(stream),
            Err(fault @ Fault::Ours(_)) => return Err(fault),
            Err(fault) => first = first.or(Some(fault)),
        }
    }
    Err(first.unwrap_or_else(|| Fault::Service(format!("dial tcp: lookup {host}: no such host"))))
}

/// Connects to one address.
async fn tcp_address(address: IpAddr, port: u16, deadline: Instant) -> Result<TcpStream, Fault> {
    let address = SocketAddr::new(address, port);
    match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            Err(Fault::from_io(&error, format!("dial tcp {address}: connect: {}", errno(&error))))
        }
        Err(_) => Err(Fault::Late(format!("dial tcp {address}: i/o timeout"))),
    }
}

/// Connects to a stream socket in the file system.
pub(super) async fn unix(path: &Path, deadline: Instant) -> Result<UnixStream, Fault> {
    let shown = path.display();
    match timeout_at(deadline, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            Err(Fault::from_io(&error, format!("dial unix {shown}: connect: {}", errno(&error))))
        }
        Err(_) => Err(Fault::Late(format!("dial unix {shown}: i/o timeout"))),
    }
}
