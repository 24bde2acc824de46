//! Who may have written a file that uphold obeys.

use std::fs::File;
use std::path::Path;

/// The rule for files: judged by fstat of the opened file, symlinks followed, and of its directory.
#[derive(Debug, Clone)]
pub struct Trust {
    /// uphold's own uid; it and root may own and write files.
    pub uid: u32,
    /// Further trusted owners: that of a `--units` directory.
    pub owners: Vec<u32>,
    /// `init` in a container: a breach is a warning.
    pub lenient: bool,
    /// Whether the file is on a read-only mount, which is exempt; the host answers it.
    pub read_only: fn(&File) -> bool,
}

impl Trust {
    /// `Err` with the reason if somebody else can write the file or its directory.
    pub fn judge(&self, _file: &File, _path: &Path) -> Result<(), String> {
        todo!()
    }
}
