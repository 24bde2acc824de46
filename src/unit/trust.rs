//! Who may have written a file that uphold obeys.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
    /// `Err` with the reason if somebody else can write the file or its directory. A symlink is judged by
    /// the directory it stands in and by that of its target: who can write either decides what is read.
    pub fn judge(&self, file: &File, path: &Path) -> Result<(), String> {
        // The mode of a link says nothing: it is its target that is to be mended.
        let target = if path.is_symlink() { path.canonicalize().ok() } else { None };
        self.judge_one(file, target.as_deref().unwrap_or(path))?;
        let parent = |path: &Path| match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_path_buf(),
            None => PathBuf::from("/"),
        };
        let mut parents = vec![parent(path)];
        parents.extend(target.as_deref().map(parent));
        for dir in parents {
            let opened =
                File::open(&dir).map_err(|error| format!("cannot open {}: {error}", dir.display()))?;
            self.judge_one(&opened, &dir)?;
        }
        Ok(())
    }

    fn judge_one(&self, file: &File, path: &Path) -> Result<(), String> {
        let at = path.display();
        let metadata = file.metadata().map_err(|error| format!("cannot look at {at}: {error}"))?;
        match self.breach(&metadata) {
            Some(reason) if !(self.read_only)(file) => Err(format!("{at} {reason}")),
            Some(_) | None => Ok(()),
        }
    }

    fn breach(&self, metadata: &Metadata) -> Option<String> {
        let (owner, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
        if owner != 0 && owner != self.uid && !self.owners.contains(&owner) {
            Some(format!("belongs to uid {owner}, neither root nor uphold's own"))
        } else if mode & 0o002 != 0 {
            Some("can be written by everybody".to_owned())
        } else if mode & 0o020 != 0 && group != 0 {
            Some(format!("can be written by the group {group}"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn trust() -> (tempfile::TempDir, Trust) {
        let dir = tempfile::tempdir().unwrap();
        set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let uid = std::fs::metadata(dir.path()).unwrap().uid();
        (dir, Trust { uid, owners: Vec::new(), lenient: false, read_only: |_| false })
    }

    fn file(path: &Path, mode: u32) -> File {
        write(path, "").unwrap();
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
        File::open(path).unwrap()
    }

    #[test]
    fn a_file_that_only_its_owner_writes_is_trusted() {
        let (dir, trust) = trust();
        let path = dir.path().join("a");
        assert_eq!(trust.judge(&file(&path, 0o644), &path), Ok(()));
    }

    #[test]
    fn a_file_or_directory_that_everybody_writes_is_not() {
        let (dir, trust) = trust();
        let path = dir.path().join("a");
        let reason = trust.judge(&file(&path, 0o646), &path).unwrap_err();
        assert_eq!(reason, format!("{} can be written by everybody", path.display()));
        set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let reason = trust.judge(&file(&path, 0o644), &path).unwrap_err();
        assert_eq!(reason, format!("{} can be written by everybody", dir.path().display()));
    }

    #[test]
    fn a_read_only_mount_is_exempt() {
        let (dir, mut trust) = trust();
        trust.read_only = |_| true;
        let path = dir.path().join("a");
        assert_eq!(trust.judge(&file(&path, 0o666), &path), Ok(()));
    }

    #[test]
    fn a_stranger_s_file_is_trusted_only_when_the_stranger_is() {
        let (dir, mut trust) = trust();
        let path = dir.path().join("a");
        let file = file(&path, 0o644);
        let metadata = file.metadata().unwrap();
        trust.uid = metadata.uid() + 1;
        // Root is always trusted, so the claim is only visible for another owner.
        assert_eq!(trust.breach(&metadata).is_some(), metadata.uid() != 0);
        trust.owners = vec![metadata.uid()];
        assert_eq!(trust.judge(&file, &path), Ok(()));
    }

    #[test]
    fn of_a_symlink_it_is_the_target_that_is_named() {
        let (dir, trust) = trust();
        let target = dir.path().canonicalize().unwrap().join("a");
        let link = dir.path().join("link");
        symlink(&target, &link).unwrap();
        let reason = trust.judge(&file(&target, 0o646), &link).unwrap_err();
        assert_eq!(reason, format!("{} can be written by everybody", target.display()));
    }

    #[test]
    fn a_symlink_is_judged_by_the_directory_of_its_target_too() {
        let (dir, trust) = trust();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        file(&open.join("a"), 0o644);
        set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let link = dir.path().join("link");
        symlink(open.join("a"), &link).unwrap();
        assert!(trust.judge(&File::open(&link).unwrap(), &link).is_err());
    }
}
