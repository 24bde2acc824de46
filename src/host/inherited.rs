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

use super::memory::{self, name_in};
use super::pipes::Pipes;
use super::store::{self, Part, Stored};
use super::{fifo, reexec, sys};
use crate::file_id::FileId;

/// What was open when this image began.
#[derive(Debug, Default)]
pub struct Inherited {
    open: Vec<Descriptor>,
    /// Files in memory.
    memory: HashMap<String, RawFd>,
}

/// One of these.
#[derive(Debug)]
struct Descriptor {
    fd: RawFd,
    /// What /proc calls it. To read that looks at no file, and it says what may be looked at: a file may lie where
    /// nobody answers.
    link: PathBuf,
}

impl Descriptor {
    /// Of a file: where it lies, or lay before somebody removed it.
    fn place(&self) -> Option<&Path> {
        Some(place(&self.link)).filter(|place| place.is_absolute())
    }
}

/// Without the kernel's word for a file that was removed.
fn place(link: &Path) -> &Path {
    let bytes = link.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)))
}

/// It lies in the private directory, or lay there: that may have been moved, or its file system unmounted.
pub(super) fn lay_in(private: &Path, place: &Path) -> bool {
    place.parent().and_then(Path::file_name) == private.file_name()
}

impl Inherited {
    /// Call it before anything else is opened.
    pub fn collect() -> Inherited {
        let descriptor = |fd| Descriptor { fd, link: fs::read_link(memory::own(fd)).unwrap_or_default() };
        let open: Vec<Descriptor> = reexec::open_descriptors().into_iter().map(descriptor).collect();
        let memory = open.iter().filter_map(|one| Some((name_in(one.fd, &one.link)?, one.fd))).collect();
        Inherited { open, memory }
    }

    /// All of them, by their numbers.
    pub fn numbers(&self) -> Vec<RawFd> {
        self.open.iter().map(|one| one.fd).collect()
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
    pub(super) fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = (PathBuf, &Path)> {
        self.files().filter(move |(_, place)| place.file_name() == Some(OsStr::new(name)))
    }

    /// The same of all that lie somewhere.
    pub(super) fn files(&self) -> impl DoubleEndedIterator<Item = (PathBuf, &Path)> {
        self.open.iter().filter_map(|one| Some((memory::own(one.fd), one.place()?)))
    }

    /// Those whose names begin so, each opened.
    pub fn memories(&self, begin: &str) -> HashMap<String, File> {
        let names = self.memory.keys().filter(|name| name.starts_with(begin));
        names.filter_map(|name| Some((name.clone(), self.memory(name)?.ok()?))).collect()
    }

    /// The reading ends of output: those of FIFOs in the private directory, which somebody may have removed since or
    /// remove yet, and those of pipes without a name; and pidfds of main processes that are no children. A mark tells of each FIFO that is gone (`fifo`). Gives what this
    /// image has to do without, and why. Call it once.
    pub fn take_pipes(&mut self, private: Option<&Path>) -> (Stored, Option<String>) {
        let noted = self.memory(super::pipes::FILE).and_then(Result::ok).map(Pipes::of);
        let processes = self.take_all(|fd, link| {
            match noted.as_ref().and_then(|noted| noted.process(fd.as_raw_fd(), link)) {
                Some(run) => Ok((run, fd)),
                None => Err(fd),
            }
        });
        let found = self.take_all(|fd, link| {
            let at = private.filter(|private| lay_in(private, place(link))).zip(place(link).file_name());
            if let Some((private, name)) = at
                && let Some(whose) = name.to_str().and_then(fifo::named)
                && fifo::is_reading_end(&fd)
            {
                return Ok((whose, fd, Some(private.join(name))));
            }
            match noted.as_ref().and_then(|noted| noted.whose(fd.as_raw_fd(), link)) {
                Some(whose) => Ok((whose, fd, None)),
                None => Err(fd),
            }
        });
        let (mut stored, mut lack) = (Stored::default(), None);
        for (run, pidfd) in processes {
            stored.put((run, Part::Pid), pidfd);
        }
        for ((instance, run, stream), pipe, path) in found {
            if let Some(path) = path
                && let Err(error) = fifo::mark(&path)
            {
                let (path, lines) = (path.display(), "should uphold be killed, lines may be lost");
                lack = Some(format!(
                    "somebody has removed {path}; it is read on, and {lines}: cannot leave a mark in its place: {error}"
                ));
            }
            stored.put_pipe(instance, run, stream, pipe);
        }
        (stored, lack)
    }

    /// The one that is this very file.
    pub(super) fn take_file(&mut self, path: &Path) -> Option<OwnedFd> {
        let wanted = FileId::behind(path)?;
        let named = |one: &Descriptor| place(&one.link).file_name() == path.file_name();
        let is_it = |one: &Descriptor| named(one) && FileId::behind(&memory::own(one.fd)) == Some(wanted);
        let at = self.open.iter().position(is_it)?;
        sys::inherited(self.open.remove(at).fd)
    }

    /// The socket that listens at this path, with those who wait to be let in.
    pub fn take_listener(&mut self, path: &Path) -> Option<UnixListener> {
        let listens = |listener: &UnixListener| {
            getsockopt(listener, sockopt::AcceptConn).is_ok_and(|listens| listens)
                && listener.local_addr().is_ok_and(|local| local.as_pathname() == Some(path))
        };
        let found = self.take_all(|fd, _| {
            let listener = UnixListener::from(fd);
            if listens(&listener) { Ok(listener) } else { Err(listener.into()) }
        });
        found.into_iter().next()
    }

    /// All that are what is looked for; what is given back stays.
    pub(super) fn take_all<T>(
        &mut self,
        mut is_one: impl FnMut(OwnedFd, &Path) -> Result<T, OwnedFd>,
    ) -> Vec<T> {
        let (mut found, mut rest) = (Vec::new(), Vec::new());
        for Descriptor { fd, link } in self.open.drain(..) {
            match sys::inherited(fd).map(|fd| is_one(fd, &link)) {
                Some(Ok(one)) => found.push(one),
                Some(Err(other)) => rest.push(Descriptor { fd: other.into_raw_fd(), link }),
                None => {}
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
            let Some(at) = self.open.iter().position(|open| open.fd == fd) else { continue };
            if let Some(fd) = sys::inherited(self.open.remove(at).fd) {
                stored.put(key, fd);
            }
        }
        stored
    }

    /// Closes what nobody has taken.
    pub fn close(self) {
        for one in self.open {
            drop(sys::inherited(one.fd));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::host::{Stream, fifo};

    /// These are open, and nobody else's.
    pub(in super::super) fn inherited(files: impl IntoIterator<Item = File>) -> Inherited {
        let descriptor = |file: File| {
            let fd = file.into_raw_fd();
            Descriptor { fd, link: fs::read_link(memory::own(fd)).unwrap() }
        };
        Inherited { open: files.into_iter().map(descriptor).collect(), memory: HashMap::new() }
    }

    #[test]
    fn a_file_of_another_name_is_not_even_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let [lock, other] = ["lock", "stdout.log"].map(|name| dir.path().join(name));
        let file = File::create(&lock).unwrap();
        fs::hard_link(&lock, &other).unwrap();
        let mut inherited = inherited([File::open(&other).unwrap(), file]);
        assert!(inherited.take_file(&lock).is_some());
        assert!(inherited.take_file(&lock).is_none());
        inherited.close();
    }

    #[test]
    fn only_reading_ends_of_fifos_of_the_private_directory_are_taken_and_each_stream_once() {
        let dir = tempfile::tempdir().unwrap();
        let [private, elsewhere] = ["private", "elsewhere"].map(|name| dir.path().join(name));
        let owner = (crate::host::uid(), 0);
        let made = |place: &Path, stream| {
            let _ = fs::create_dir(place);
            fifo::make(place, "web.7", stream, owner).unwrap()
        };
        let (out, err) = (made(&private, Stream::Stdout), made(&private, Stream::Stderr));
        let other = made(&elsewhere, Stream::Stdout);
        let again = out.captured.pipe.try_clone().unwrap();
        // The other still has its name.
        fs::remove_file(private.join("web.7.out")).unwrap();
        let all = [
            out.captured.pipe,
            out.child,
            again,
            err.captured.pipe,
            err.child,
            other.captured.pipe,
            other.child,
        ];
        let mut inherited = inherited(all.map(File::from));
        let (mut stored, lack) = inherited.take_pipes(Some(&private));
        assert_eq!((lack, inherited.open.len()), (None, 4));
        inherited.close();
        let name = crate::unit::Name::new("web").unwrap();
        let run = crate::engine::Run(7);
        let mut pipes = stored.pipes();
        pipes.sort_by_key(|(_, _, stream)| *stream == Stream::Stderr);
        assert_eq!(pipes, [Stream::Stdout, Stream::Stderr].map(|stream| (name.clone(), run, stream)));
        assert!(stored.take(run, Part::Out).is_some() && stored.take(run, Part::Err).is_some());
        assert!(fs::symlink_metadata(private.join("web.7.out")).unwrap().is_file());
        assert!(!fs::symlink_metadata(private.join("web.7.err")).unwrap().is_file());
    }

    #[test]
    fn a_fifo_that_nothing_can_tell_of_is_taken_all_the_same_and_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("private");
        fs::create_dir(&private).unwrap();
        let pair = fifo::make(&private, "web.7", Stream::Stdout, (crate::host::uid(), 0)).unwrap();
        fs::remove_dir_all(&private).unwrap();
        let (stored, lack) = inherited([File::from(pair.captured.pipe)]).take_pipes(Some(&private));
        assert_eq!(stored.runs().len(), 1);
        assert!(
            lack.is_some_and(|lack| lack.contains("web.7.out; it is read on, and should uphold be killed"))
        );
    }
}
