//! Rotation: `stdout.log` becomes `stdout.log.1`, that becomes `.2`, and so on; beyond `keep` they go.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::failpoint;
use crate::file_id::FileId;

/// `max_size` and `keep` of `[logs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes; 0: never rotate.
    pub(super) max_size: u64,
    /// How many rotated files stay.
    pub(super) keep: u32,
}

/// The path of a rotated file; 0 is the one that is written.
pub(super) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// How many links to a log are followed, as by the kernel.
const LINKS: usize = 40;

/// The file itself where a symbolic link leads to it: its directory is the one for what is rotated, and the link
/// stays. A link whose text is not where it leads, as in /proc, is left alone: no such file is rotated.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut real = path.to_owned();
    for _ in 0..LINKS {
        let Ok(text) = fs::read_link(&real) else { break };
        real = real.parent().map_or(text.clone(), |dir| dir.join(text));
    }
    if FileId::behind(&real) == FileId::behind(path) { real } else { path.to_owned() }
}

/// Where a file of a log is now, whatever its name. A rotation that was broken off may have left
/// one number free: the end is where two in a row are missing.
pub(super) fn find(path: &Path, id: FileId) -> Option<PathBuf> {
    let (path, mut missing) = (&real(path), 0);
    for path in (0..u32::MAX).map(|number| rotated(path, number)) {
        match fs::metadata(&path) {
            Ok(found) if FileId::from(&found) == id => return Some(path),
            Ok(_) => missing = 0,
            Err(_) if missing > 0 => return None,
            Err(_) => missing += 1,
        }
    }
    None
}

/// Moves the file out of the way. Each step is a rename, so that a reader that has it open reads on; without
/// any to keep it is deleted, or emptied where its directory does not allow that.
pub(super) fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let path = &real(path);
    remove_beyond(path, keep);
    if !exists(path) {
        // Somebody else has moved it: there is nothing left to do.
        return Ok(());
    }
    if keep == 0 {
        return fs::remove_file(path).or_else(|_| File::options().write(true).open(path)?.set_len(0));
    }
    let free = (1..keep).find(|number| !exists(&rotated(path, *number))).unwrap_or(keep);
    for number in (0..free).rev() {
        // Once a step: between any two of them uphold may be killed.
        failpoint::reach("rotating");
        fs::rename(rotated(path, number), rotated(path, number + 1))?;
    }
    Ok(())
}

/// Deletes what an earlier, greater `keep` has left; what cannot be deleted is tried again the next time.
fn remove_beyond(path: &Path, keep: u32) {
    for number in (0..u32::MAX).map(|step| keep.saturating_add(1).saturating_add(step)) {
        if fs::remove_file(rotated(path, number)).is_err() {
            return;
        }
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_log_behind_a_link_is_rotated_where_it_lies_and_the_link_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (link, far) = (dir.path().join("link"), dir.path().join("far"));
        fs::create_dir(&far).unwrap();
        std::os::unix::fs::symlink("second", &link).unwrap();
        std::os::unix::fs::symlink(far.join("log"), dir.path().join("second")).unwrap();
        for text in ["a", "b"] {
            fs::write(&link, text).unwrap();
            let id = FileId::behind(&link).unwrap();
            assert_eq!(find(&link, id), Some(far.join("log")));
            rotate(&link, 3).unwrap();
            assert_eq!(find(&link, id), Some(far.join("log.1")));
        }
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(names(&far), [pair("log.1", "b"), pair("log.2", "a")]);
        assert_eq!(real(&link), far.join("log"));
        // Its text names no file.
        let open = File::open(far.join("log.1")).unwrap();
        let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        fs::remove_file(far.join("log.1")).unwrap();
        assert_eq!(real(Path::new(&magic)), Path::new(&magic));
    }

    #[test]
    fn each_file_moves_up_and_no_more_than_keep_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for text in ["a", "b", "c", "d"] {
            fs::write(&path, text).unwrap();
            rotate(&path, 3).unwrap();
        }
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(names(dir.path()), [pair("log.1", "d"), pair("log.2", "c"), pair("log.3", "b")]);
        fs::write(&path, "e").unwrap();
        rotate(&path, 1).unwrap();
        assert_eq!(names(dir.path()), [pair("log.1", "e")]);
        fs::write(&path, "f").unwrap();
        rotate(&path, 0).unwrap();
        assert_eq!(names(dir.path()), []);
    }
}
