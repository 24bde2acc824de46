//! `directories`: made before a start, owned by the unit's user and group.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::libc;
use nix::unistd::{Gid, Uid, fchown};

use crate::unit::Directory;

/// Makes it and what is missing above it (0755, uphold's own). One that exists keeps its mode and gets the
/// owner. Not through a symlink: whoever can write above it could point it anywhere.
pub(super) fn make(directory: &Directory, uid: u32, gid: u32) -> io::Result<()> {
    let path: &Path = &directory.path;
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let made = match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = opened.metadata()?;
    if (metadata.uid(), metadata.gid()) != (uid, gid) {
        fchown(&opened, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    if made {
        // After the change of owner, which takes set-id bits away.
        opened.set_permissions(std::fs::Permissions::from_mode(directory.mode))?;
    }
    Ok(())
}
