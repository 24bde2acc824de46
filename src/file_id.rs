//! Which file it is, by whatever name.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Device and inode. A file that is removed may leave its inode to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// `st_dev`
    pub device: u64,
    /// `st_ino`
    pub inode: u64,
}

impl FileId {
    /// No file has this one.
    pub const NONE: FileId = FileId { device: 0, inode: 0 };

    /// What lies at this path; a symbolic link is itself a file. `None`: nothing that can be looked at.
    pub fn at(path: &Path) -> Option<FileId> {
        fs::symlink_metadata(path).ok().map(|found| (&found).into())
    }

    /// What this path leads to.
    pub fn behind(path: &Path) -> Option<FileId> {
        fs::metadata(path).ok().map(|found| (&found).into())
    }

    /// That of an open file.
    pub fn of(file: &File) -> Option<FileId> {
        file.metadata().ok().map(|found| (&found).into())
    }

    /// It lies at this path, and nobody has removed it or put another one there.
    pub fn is_at(self, path: &Path) -> bool {
        FileId::at(path) == Some(self)
    }
}

impl From<&Metadata> for FileId {
    fn from(found: &Metadata) -> FileId {
        FileId { device: found.dev(), inode: found.ino() }
    }
}
