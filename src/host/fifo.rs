//! A run's output: a FIFO that uphold reads and the child holds open for reading and writing, so that it
//! never sees EPIPE and what it wrote waits for a reader.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};
use nix::unistd::{Gid, Uid, mkfifo, pipe2};

use super::{Captured, Stream, kin};
use crate::engine::Run;
use crate::unit::Name;

/// More than there will ever be, and a number that JSON has room for.
const MOST: u64 = 1 << 48;

/// Both ends of a stream.
#[derive(Debug)]
pub(super) struct Pair {
    /// For the log pump.
    pub captured: Captured,
    /// For the child.
    pub child: OwnedFd,
}

/// Makes `NAME.RUN.out` or `.err` in the private directory, for this owner.
pub(super) fn make(dir: &Path, stem: &str, stream: Stream, owner: (u32, u32)) -> io::Result<Pair> {
    let path = dir.join(name(stem, stream));
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match mkfifo(&path, mode) {
        // Whoever has put it there: no run has had this number.
        Err(Errno::EEXIST) => {
            std::fs::remove_file(&path)?;
            mkfifo(&path, mode)?;
        }
        made => made?,
    }
    open(path.clone(), stream, owner).inspect_err(|_| drop(std::fs::remove_file(&path)))
}

fn open(path: PathBuf, stream: Stream, owner: (u32, u32)) -> io::Result<Pair> {
    // The umask may have taken what the owner needs.
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    fchmodat(nix::fcntl::AT_FDCWD, &path, mode, FchmodatFlags::FollowSymlink)?;
    // Opened for reading first: nothing that is written is ever without a reader.
    let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
    let child = OpenOptions::new().read(true).write(true).open(&path)?;
    // Where that is not permitted, becoming the user is neither: the child will say so.
    let _ = give(&child, owner);
    let child = super::sys::above_stdio(child.into())?;
    let captured = Captured { stream, pipe: pipe.into(), path: Some(path), kept: false, room: None };
    Ok(Pair { captured, child })
}

/// What there is of a FIFO that an uphold before has made.
pub(super) enum Existing {
    /// Nothing: its output was read to its end.
    Nothing,
    /// Its reading end.
    There(Captured),
    /// Somebody has removed it, and nothing leads to it any more: this is at its end.
    Lost(Captured),
}

/// Opens what an uphold before has made, for reading. `kept`: its reading end, which was open since then; an error
/// leaves it there. `process`: the main process, if it lives: where somebody has removed the FIFO, it has it still.
/// An uphold that has seen that has left an empty file in its place ([`mark`]).
pub(super) fn existing(
    dir: Option<&Path>,
    stem: &str,
    stream: Stream,
    kept: &mut Option<OwnedFd>,
    process: Option<i32>,
) -> io::Result<Existing> {
    let path = dir.map(|dir| dir.join(name(stem, stream)));
    let open = |path| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let left = match path.as_ref().map(open) {
        Some(Ok(pipe)) if pipe.metadata()?.file_type().is_fifo() => {
            let kept = kept.take().is_some_and(|kept| is_same(&kept, &pipe));
            return Ok(Existing::There(Captured { stream, pipe: pipe.into(), path, kept, room: None }));
        }
        Some(Ok(_)) => true,
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Some(Err(_)) | None => false,
    };
    let (was_kept, pipe) = match (&*kept, process, path.as_deref().and_then(Path::file_name)) {
        (Some(pipe), _, _) => {
            super::sys::set_nonblocking(pipe)?;
            (true, kept.take())
        }
        (None, Some(process), Some(name)) => (false, through(process, name)?),
        (None, _, _) => (false, None),
    };
    let captured = |pipe, path, kept| Captured { stream, pipe, path, kept, room: None };
    Ok(match (pipe, left) {
        (Some(pipe), left) => Existing::There(captured(pipe, path.filter(|_| left), was_kept)),
        (None, true) => Existing::Lost(captured(pipe2(OFlag::O_CLOEXEC)?.0, path, false)),
        (None, false) => Existing::Nothing,
    })
}

/// The pipe of a FIFO that is gone by its name, if this process has it for its stdout or stderr.
fn through(process: i32, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    for stream in kin::STREAMS {
        let Ok(link) = kin::place(process, stream) else { continue };
        let Ok(target) = std::fs::read_link(&link) else { continue };
        let last = target.file_name().unwrap_or_default().as_bytes();
        if last.strip_suffix(b" (deleted)").unwrap_or(last) != name.as_bytes() {
            continue;
        }
        let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&link)?;
        if pipe.metadata()?.file_type().is_fifo() {
            return Ok(Some(pipe.into()));
        }
    }
    Ok(None)
}

/// Tells a successor of a FIFO that somebody has removed, and that was not at its end: an empty file in its place.
/// What lies there already stays.
pub(super) fn mark(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// It is a FIFO, and open for reading only. Look first what /proc calls it: this looks at the file.
pub(super) fn is_reading_end(fd: &OwnedFd) -> bool {
    let mode = |flags| OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE;
    let reads = fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| mode(flags) == OFlag::O_RDONLY);
    reads && fstat(fd).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

/// Both are ends of one pipe.
fn is_same(one: &impl AsFd, other: &impl AsFd) -> bool {
    let id = |file: BorrowedFd<'_>| fstat(file).ok().map(|found| (found.st_dev, found.st_ino));
    let one = id(one.as_fd());
    one.is_some() && one == id(other.as_fd())
}

/// Whose output a file in the private directory is, by its name; `None`: nobody's.
pub(super) fn named(file: &str) -> Option<(Name, Run, Stream)> {
    let (stem, stream) = match file.rsplit_once('.')? {
        (stem, "out") => (stem, Stream::Stdout),
        (stem, "err") => (stem, Stream::Stderr),
        (_, _) => return None,
    };
    let (name, run) = stem.rsplit_once('.')?;
    Some((Name::new(name).ok()?, Run(run.parse().ok()?), stream))
}

/// The highest run of which this private directory has a FIFO, whatever the state says; 0: there is none.
pub fn highest_run(private: &Path) -> u64 {
    let entries = std::fs::read_dir(private).into_iter().flatten().flatten();
    let runs =
        entries.filter_map(|entry| entry.file_name().to_str().and_then(named)).map(|(_, run, _)| run.0);
    // What no uphold has come to is no run of any.
    runs.filter(|run| *run < MOST).max().unwrap_or_default()
}

/// What the FIFO is called.
pub(super) fn name(stem: &str, stream: Stream) -> String {
    let end = match stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    };
    format!("{stem}.{end}")
}

/// The file system has no FIFOs, or no sockets.
pub fn is_refused(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EPERM | Errno::EACCES | Errno::EROFS | Errno::EOPNOTSUPP | Errno::ENOSYS))
}

/// The same without a directory: an anonymous pipe, its other end opened anew for reading and writing.
pub(super) fn anonymous(stream: Stream, owner: (u32, u32)) -> io::Result<Pair> {
    let (pipe, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let again = format!("/proc/self/fd/{}", write.as_raw_fd());
    let child = match OpenOptions::new().read(true).write(true).open(again) {
        Ok(both) => both,
        // No /proc: the plain end, with EPIPE should uphold die.
        Err(_) => File::from(write),
    };
    // Only /dev/stdout needs it, and only for another user.
    let _ = give(&child, owner);
    let child = super::sys::above_stdio(child.into())?;
    Ok(Pair { captured: Captured { stream, pipe, path: None, kept: false, room: None }, child })
}

/// The owner may open /dev/stdout, that is the FIFO itself, again.
fn give(file: &File, (uid, gid): (u32, u32)) -> io::Result<()> {
    if uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    nix::unistd::fchown(file.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(())
}
