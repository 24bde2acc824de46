//! Descriptors that the image before has left open across its exec: those that are known again are taken, and
//! what is left is closed once all was taken over. Also those that a service manager has kept (`store`).

use std::fs;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
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
        let listens = |listener: &UnixListener| {
            getsockopt(listener, sockopt::AcceptConn).is_ok_and(|listens| listens)
                && listener.local_addr().is_ok_and(|local| local.as_pathname() == Some(path))
        };
        let found = self.take_all(|fd| {
            let listener = UnixListener::from(fd);
            if listens(&listener) { Ok(listener) } else { Err(listener.into()) }
        });
        found.into_iter().next()
    }

    /// All that are what is looked for; what is given back stays.
    pub(super) fn take_all<T>(&mut self, mut is_one: impl FnMut(OwnedFd) -> Result<T, OwnedFd>) -> Vec<T> {
        let (mut found, mut rest) = (Vec::new(), Vec::new());
        for fd in self.0.drain(..).filter_map(sys::inherited) {
            match is_one(fd) {
                Ok(one) => found.push(one),
                Err(other) => rest.push(other.into_raw_fd()),
            }
        }
        self.0 = rest;
        found
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
