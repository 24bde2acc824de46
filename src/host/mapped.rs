//! A file of a fixed size that is mapped into memory: what is stored there stays when uphold is killed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// The mapping. It is never undone: what points into it is good for as long as uphold runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapped {
    start: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapped {}
// SAFETY: who hands out references into it gives them types that may be shared.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `length` bytes of a file, which are given their place on it first: a file system that is
    /// full says so here, and not by SIGBUS later. What is new in it is zero.
    pub(super) fn new(file: &File, length: usize) -> io::Result<Mapped> {
        let size = i64::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        allocate(file, size)?;
        let wanted = std::num::NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, wanted, access, MapFlags::MAP_SHARED, file.as_fd(), 0) }?;
        Ok(Mapped { start, length })
    }

    /// The bytes from `offset` on as `count` values of a type of which any bytes are a value.
    ///
    /// # Safety
    /// All fields of `T` are atomics of plain numbers.
    pub(super) unsafe fn slice<T>(&self, offset: usize, count: usize) -> &'static [T] {
        let end = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        let fits = end.is_some_and(|end| end <= self.length) && offset.is_multiple_of(align_of::<T>());
        if !fits {
            return &[];
        }
        let first = self.start.as_ptr().wrapping_byte_add(offset).cast::<T>();
        // SAFETY: the range lies in the mapping, which stays; a page is more than aligned; and atomics may be
        // read and written through shared references.
        unsafe { std::slice::from_raw_parts(first, count) }
    }
}

/// fallocate(2), or zeroes where the file system has no such thing.
fn allocate(file: &File, size: i64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let before = file.metadata()?.len();
    let wanted = u64::try_from(size).unwrap_or(0);
    match nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) if before < wanted => {
            let zeroes = vec![0; usize::try_from(wanted - before).unwrap_or(0)];
            file.write_all_at(&zeroes, before)
        }
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
