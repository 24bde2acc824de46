//! Which descriptors of uphold are the reading ends of whose output, where that comes out of no FIFO that has a
//! name, and which are pidfds of main processes that are no children of uphold: for the next image, to which they
//! pass over by their numbers.
//!
//! ```text
//! 128 bytes for each descriptor, in the order of their numbers: its inode (8) | length (8) | NAME.RUN.out, or RUN.pid
//! ```
//!
//! Nothing is ever taken out: a pipe of another inode is another pipe. So is a pidfd, from Linux 6.9 on; before, it
//! tells nothing of a process that has ended.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::inherited::Inherited;
use super::store::{self, Part};
use super::{Stream, fifo, memory};
use crate::engine::Run;
use crate::unit::Name;

/// Its name in memory.
pub(super) const FILE: &str = "pipes";
/// More than the longest name of a FIFO and two numbers.
const ENTRY: usize = 128;
const NAME: usize = 16;

/// The file.
#[derive(Debug)]
pub struct Pipes {
    file: File,
    said: AtomicBool,
}

impl Pipes {
    /// Goes on with that of the image before, or begins one.
    pub fn open(inherited: &Inherited) -> io::Result<Pipes> {
        inherited.lasting(None, FILE, |file| Ok(Pipes::of(file))).map(|(pipes, _)| pipes)
    }

    pub(super) fn of(file: File) -> Pipes {
        Pipes { file, said: AtomicBool::new(false) }
    }

    /// Whether it was not said yet that there is need of it.
    pub(super) fn is_new(&self) -> bool {
        !self.said.swap(true, SeqCst)
    }

    /// This is the reading end of the output of which the FIFO would have this name, or a pidfd of that name
    /// (`store`).
    pub(super) fn note(&self, descriptor: &OwnedFd, name: &str) -> io::Result<()> {
        let inode = fs::metadata(memory::own(descriptor.as_raw_fd()))?.ino();
        let mut entry = [0; ENTRY];
        let parts = [&inode.to_le_bytes()[..], &(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
        entry.get_mut(..parts.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(&parts);
        self.file.write_all_at(&entry, place(descriptor.as_raw_fd()))
    }

    /// Whose output comes out of this descriptor, which /proc calls so: that has the inode. The number may be that of
    /// a file by now, which nobody looks at here.
    pub(super) fn whose(&self, fd: RawFd, link: &Path) -> Option<(Name, Run, Stream)> {
        let (inode, name) = self.noted(fd)?;
        fifo::named(&name).filter(|_| link.to_str() == Some(&format!("pipe:[{inode}]")))
    }

    /// Which run's main process this is a pidfd of, likewise.
    pub(super) fn process(&self, fd: RawFd, link: &Path) -> Option<Run> {
        if link != Path::new("anon_inode:[pidfd]") {
            return None;
        }
        let (inode, name) = self.noted(fd)?;
        let (run, part) = store::parse(&name)?;
        let same = fs::metadata(memory::own(fd)).is_ok_and(|found| found.ino() == inode);
        (same && part == Part::Pid).then_some(run)
    }

    /// Inode and name of the descriptor that had this number last.
    fn noted(&self, fd: RawFd) -> Option<(u64, String)> {
        let mut entry = [0; ENTRY];
        self.file.read_exact_at(&mut entry, place(fd)).ok()?;
        let (numbers, _) = entry[..NAME].as_chunks();
        let [inode, length] = <[[u8; 8]; 2]>::try_from(numbers).ok()?.map(u64::from_le_bytes);
        let name = entry[NAME..].get(..usize::try_from(length).ok()?)?;
        Some((inode, std::str::from_utf8(name).ok()?.to_owned()))
    }
}

fn place(fd: RawFd) -> u64 {
    u64::from(fd.unsigned_abs()) * ENTRY as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_known_again_and_no_other_of_its_number() {
        let pipes = Pipes::open(&Inherited::default()).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let (other, _its_writer) = io::pipe().unwrap();
        let (reader, other) = (OwnedFd::from(reader), OwnedFd::from(other));
        let whose = |fd: &OwnedFd| {
            let fd = fd.as_raw_fd();
            pipes.whose(fd, &fs::read_link(memory::own(fd)).unwrap())
        };
        assert_eq!(whose(&reader), None);
        let name = format!("{}.{}.err", "w".repeat(64), u64::MAX);
        pipes.note(&reader, &name).unwrap();
        let owner = Name::new(&"w".repeat(64)).unwrap();
        assert_eq!(whose(&reader), Some((owner, Run(u64::MAX), Stream::Stderr)));
        let entry = fs::read(memory::path_of(&pipes.file)).unwrap();
        let at = usize::try_from(place(reader.as_raw_fd())).unwrap();
        pipes.file.write_all_at(&entry[at..][..ENTRY], place(other.as_raw_fd())).unwrap();
        assert_eq!(whose(&other), None);
        // A pidfd by its own name, and as nothing else.
        let pidfd = super::super::sys::pidfd_open(std::process::id().cast_signed()).unwrap();
        let process = |fd: &OwnedFd| {
            let fd = fd.as_raw_fd();
            pipes.process(fd, &fs::read_link(memory::own(fd)).unwrap())
        };
        assert_eq!(process(&pidfd), None);
        pipes.note(&pidfd, &store::name(Run(7), Part::Pid)).unwrap();
        assert_eq!((process(&pidfd), whose(&pidfd), process(&reader)), (Some(Run(7)), None, None));
        // Nothing is looked at but what it is called.
        assert_eq!(pipes.whose(reader.as_raw_fd(), Path::new("/log/web/stdout.log")), None);
    }
}
