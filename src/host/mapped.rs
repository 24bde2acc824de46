//! A file in memory: what stands in it outlives this process, however that ends.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;

use super::sys::check;

/// The beginning of a file, mapped and shared with it. Stores are in the page cache at once, in the order of
/// the program: a process that opens the file after a SIGKILL finds each that was made. A crash of the
/// machine may lose them.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<u8>,
    size: usize,
    /// Where it is in memory only, this is what passes over.
    _file: Option<File>,
}

// SAFETY: the mapping belongs to no thread, and only its one owner reaches it.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps the file and holds it open. All `size` bytes are allocated here: later a full disk would be SIGBUS.
    /// The file must be uphold's own, where nobody else can cut it short, and mapped once. Errors are those of
    /// fallocate(2) and mmap(2).
    pub fn new(file: File, size: usize) -> io::Result<Mapped> {
        let mut mapped = Mapped::of(&file, size)?;
        mapped._file = Some(file);
        Ok(mapped)
    }

    /// The same of a file that somebody else holds open.
    pub(super) fn of(file: &File, size: usize) -> io::Result<Mapped> {
        let length = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            // What cannot allocate is written.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                let from = file.metadata()?.len();
                let missing = size.saturating_sub(usize::try_from(from).unwrap_or(usize::MAX));
                file.write_all_at(&vec![0; missing], from)?;
            }
            outcome => outcome?,
        }
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: without an address and MAP_FIXED, mmap replaces no memory that is in use; the descriptor is
        // open, and an error is looked for before the address is used.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapped { start, size, _file: None })
    }

    /// The bytes from `offset` on as `count` values of a type, for good: the mapping is not undone any more.
    /// None where they do not all lie in it.
    ///
    /// # Safety
    /// All fields of `T` are atomics of plain numbers, of which any bytes are a value.
    pub(super) unsafe fn forever<T>(self, offset: usize, count: usize) -> &'static [T] {
        let end = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > self.size) || !offset.is_multiple_of(align_of::<T>()) {
            return &[];
        }
        let first = self.start.as_ptr().wrapping_add(offset).cast::<T>();
        std::mem::forget(self);
        // SAFETY: the range lies in the mapping, which stays; a page is more than aligned; and atomics may be
        // read and written through shared references.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    /// Where it lies.
    pub(super) fn place(&self) -> Place {
        Place { start: self.start, size: self.size }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `size` bytes long, readable and writable, lives as long as `self`, and is
        // reached through `self` only; the file was allocated to its full length and is cut by nobody.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.size) }
    }
}

/// Where a mapping lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: an address and a size, through which nothing is read or written.
unsafe impl Send for Place {}
// SAFETY: the same.
unsafe impl Sync for Place {}

impl Place {
    /// Puts another file there, in one step: who stores meanwhile stores in the old one or in the new one, and
    /// every reference stays what it is. The file must be as long, and allocated. Errors are those of mmap(2).
    ///
    /// # Safety
    /// The mapping is there for good, and is reached only through shared references to atomics.
    pub(super) unsafe fn put(self, file: &File) -> io::Result<()> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        let (flags, fd) = (flags | libc::MAP_FIXED, file.as_raw_fd());
        // SAFETY: what is replaced is a mapping of this module's of this very size, and nothing beside it; what
        // may be referenced in it are atomics, which may change at any time.
        let start = unsafe { libc::mmap(self.start.as_ptr().cast(), self.size, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this start and size, and no slice of it outlives `self`.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// How many bytes wait in a pipe or a stream socket (ioctl FIONREAD, pipe(7)).
pub fn waiting(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD writes one int, and the pointer is to one of ours that lives through the call.
    let answer = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    check(answer.into())?;
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    /// A place at which no file can be put.
    pub(in super::super) fn nowhere() -> Place {
        Place { start: NonNull::dangling(), size: 64 }
    }

    #[test]
    fn what_is_stored_is_in_the_file_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let mut map = Mapped::new(open(), 10_000).unwrap();
        assert!(map.bytes().iter().all(|byte| *byte == 0));
        map.bytes()[9_999] = 7;
        assert_eq!(std::fs::read(&path).unwrap()[9_999], 7);
        drop(map);
        assert_eq!(Mapped::new(open(), 10_000).unwrap().bytes()[9_999], 7);
    }

    #[test]
    fn what_waits_in_a_pipe_is_counted() {
        let (reader, mut writer) = io::pipe().unwrap();
        assert_eq!(waiting(reader.as_fd()).unwrap(), 0);
        writer.write_all(b"four").unwrap();
        assert_eq!(waiting(reader.as_fd()).unwrap(), 4);
        assert!(waiting(File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}
