//! Descriptors that the image before has left open across its exec: those that are known again are taken, and
//! what is left is closed once all was taken over. Also those that a service manager has kept (`store`).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};

use super::store::{self, Stored};
use super::{reexec, sys};

/// What was open when this image began.
#[derive(Debug, Default)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Call it before anything else is opened.
    pub fn collect() -> Inherited {
        Inherited(reexec::open_descriptors())
    }

    /// The one that is this very file.
    pub(super) fn take_file(&mut self, path: &Path) -> Option<OwnedFd> {
        let id = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let wanted = id(path)?;
        let own = Path::new("/proc/self/fd");
        let at = self.0.iter().position(|fd| id(&own.join(fd.to_string())) == Some(wanted))?;
        sys::inherited(self.0.remove(at))
    }

    /// The socket that listens at this path, with those who wait to be let in.
    pub fn take_listener(&mut self, path: &Path) -> Option<UnixListener> {
        for at in 0..self.0.len() {
            let Some(fd) = sys::inherited(*self.0.get(at)?) else { continue };
            let raw = fd.as_raw_fd();
            if getsockopt(&fd, sockopt::AcceptConn).is_ok_and(|listens| listens) {
                let listener = UnixListener::from(fd);
                let here = listener.local_addr().is_ok_and(|local| local.as_pathname() == Some(path));
                if here {
                    self.0.remove(at);
                    return Some(listener);
                }
                std::mem::forget(listener);
            } else {
                std::mem::forget(fd);
            }
            debug_assert!(sys::is_open(raw));
        }
        None
    }

    /// Those that a service manager has kept for uphold (sd_listen_fds(3)). Not for an image after the first:
    /// the variables that tell of them are as the first has found them.
    pub fn take_stored(&mut self) -> Stored {
        let mut stored = Stored::default();
        // An error says that the variables are not as they should be: then nothing is known of them.
        for (fd, name) in sd_notify::listen_fds_with_names().into_iter().flatten() {
            let Some(key) = store::parse(&name) else { continue };
            let Some(at) = self.0.iter().position(|open| *open == fd) else { continue };
            if let Some(fd) = sys::inherited(self.0.remove(at)) {
                stored.put(key, fd);
            }
        }
        stored
    }

    /// Closes what nobody has taken.
    pub fn close(self) {
        for fd in self.0 {
            drop(sys::inherited(fd));
        }
    }
}
