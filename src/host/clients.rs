//! Clients of the control API of which nothing was read yet, or nothing that is not answered: an image that follows
//! this one in the process goes on with them as if they had just come in. Which they are stands in the socket
//! itself, because nothing else outlives an exec that nobody could prepare: SO_REUSEADDR, which means nothing to a
//! Unix socket.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{MsgFlags, getsockopt, recv, setsockopt, sockopt};

use super::Inherited;

/// Nothing is read of this client, or of its next request, yet.
pub fn mark_unread(stream: &tokio::net::UnixStream) {
    // Where that is refused it goes with this image.
    let _ = setsockopt(stream, sockopt::ReuseAddr, &true);
}

/// Whether there is something to be read of this client, and from here on it may be; the error is `WouldBlock` if
/// there is nothing yet.
pub fn mark_read(stream: &tokio::net::UnixStream) -> io::Result<()> {
    recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    let _ = setsockopt(stream, sockopt::ReuseAddr, &false);
    Ok(())
}

impl Inherited {
    /// Those who were let in at this path and have no request under way.
    pub fn take_clients(&mut self, path: &Path) -> Vec<UnixStream> {
        let is_one = |stream: &UnixStream| {
            getsockopt(stream, sockopt::ReuseAddr).is_ok_and(|unread| unread)
                && stream.local_addr().is_ok_and(|local| local.as_pathname() == Some(path))
        };
        self.take_all(|fd, _| {
            let stream = UnixStream::from(fd);
            if is_one(&stream) { Ok(stream) } else { Err(stream.into()) }
        })
    }
}
