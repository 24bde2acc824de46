//! Descriptors that the image before has left open across its exec: those that are known again are taken, and
//! what is left is closed once all was taken over. Also those that a service manager has kept (`store`).
//!
//! An image that cannot begin executes itself again: till all was taken over, whatever has no other place stays
//! open here.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};

use super::memory::{self, name_of};
use super::pipes::Pipes;
use super::store::{self, Stored};
use super::{reexec, sys};
use crate::file_id::FileId;

/// What was open when this image began.
#[derive(Debug, Default)]
pub struct Inherited {
    open: Vec<RawFd>,
    /// Files in memory.
    memory: HashMap<String, RawFd>,
}

impl Inherited {
    /// Call it before anything else is opened.
    pub fn collect() -> Inherited {
        let open = reexec::open_descriptors();
        let memory = open.iter().filter_map(|fd| Some((name_of(*fd)?, *fd))).collect();
        Inherited { open, memory }
    }

    /// All of them, by their numbers.
    pub fn numbers(&self) -> Vec<RawFd> {
        self.open.clone()
    }

    /// Where the file of this name in memory is; `None`: there is none.
    pub fn memory_path(&self, name: &str) -> Option<PathBuf> {
        self.memory.get(name).map(|fd| memory::own(*fd))
    }

    /// That file, opened; `None`: there is none.
    pub(super) fn memory(&self, name: &str) -> Option<io::Result<File>> {
        let path = self.memory_path(name)?;
        Some(
            File::options()
                .read(true)
                .write(true)
                .open(path)
                .and_then(|file| Ok(sys::above_stdio(file.into())?.into())),
        )
    }

    /// Those of files of this name: where this process finds each, and where it lies, or lay before somebody removed
    /// it.
    pub(super) fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = (PathBuf, PathBuf)> {
        self.files().filter(move |(_, path)| path.file_name() == Some(OsStr::new(name)))
    }

    /// The same of all that lie somewhere.
    pub(super) fn files(&self) -> impl DoubleEndedIterator<Item = (PathBuf, PathBuf)> {
        self.open.iter().filter_map(|fd| {
            let own = memory::own(*fd);
            let link = fs::read_link(&own).ok()?;
            let link = link.as_os_str().as_bytes();
            let path = Path::new(OsStr::from_bytes(link.strip_suffix(b" (deleted)").unwrap_or(link)));
            path.is_absolute().then(|| (own, path.to_owned()))
        })
    }

    /// Those whose names begin so, each opened.
    pub fn memories(&self, begin: &str) -> HashMap<String, File> {
        let names = self.memory.keys().filter(|name| name.starts_with(begin));
        names.filter_map(|name| Some((name.clone(), self.memory(name)?.ok()?))).collect()
    }

    /// The reading ends of output that come out of no FIFO. Call it once.
    pub fn take_pipes(&mut self) -> Stored {
        let mut stored = Stored::default();
        let Some(Ok(pipes)) = self.memory(super::pipes::FILE).map(|file| file.map(Pipes::of)) else {
            return stored;
        };
        let found = self.take_all(|fd| match pipes.whose(fd.as_raw_fd()) {
            Some(whose) => Ok((whose, fd)),
            None => Err(fd),
        });
        for ((instance, run, stream), pipe) in found {
            stored.put_pipe(instance, run, stream, pipe);
        }
        stored
    }

    /// The one that is this very file.
    pub(super) fn take_file(&mut self, path: &Path) -> Option<OwnedFd> {
        let wanted = FileId::behind(path)?;
        let at = self.open.iter().position(|fd| FileId::behind(&memory::own(*fd)) == Some(wanted))?;
        sys::inherited(self.open.remove(at))
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
        for fd in self.open.drain(..).filter_map(sys::inherited) {
            match is_one(fd) {
                Ok(one) => found.push(one),
                Err(other) => rest.push(other.into_raw_fd()),
            }
        }
        self.open = rest;
        found
    }

    /// Those that a service manager has kept for uphold (sd_listen_fds(3)). Not for an image after the first:
    /// the variables that tell of them are as the first has found them.
    pub fn take_stored(&mut self) -> Stored {
        let mut stored = Stored::default();
        // An error says that the variables are not as they should be: then nothing is known of them.
        for (fd, name) in sd_notify::listen_fds_with_names().into_iter().flatten() {
            let Some(key) = store::parse(&name) else { continue };
            let Some(at) = self.open.iter().position(|open| *open == fd) else { continue };
            if let Some(fd) = sys::inherited(self.open.remove(at)) {
                stored.put(key, fd);
            }
        }
        stored
    }

    /// Closes what nobody has taken.
    pub fn close(self) {
        for fd in self.open {
            drop(sys::inherited(fd));
        }
    }
}
