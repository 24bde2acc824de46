//! A directory that is held open: what is done in it is done there, whatever lies at its path by then.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat, renameat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::file_id::FileId;

/// A directory that is held open.
#[derive(Debug)]
pub struct OpenDir(File);

impl OpenDir {
    /// The one that lies at this path now.
    pub fn at(path: &Path) -> io::Result<OpenDir> {
        File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path).map(OpenDir)
    }

    /// Which one it is.
    pub fn id(&self) -> Option<FileId> {
        FileId::of(&self.0)
    }

    /// Makes or empties a file in it.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::from_bits_truncate(0o644))?.into())
    }

    /// Gives a file of it another name, which may be taken.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file from it.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }
}
