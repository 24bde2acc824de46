//! What lies in the private directory and is none of uphold's: to open it may take for ever, and uphold's own files
//! have its name.

use std::fs::{self, DirEntry};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::fifo;

/// After the name of what was set aside.
const ASIDE: &str = ".aside";

/// Sets aside what lies in the private directory, which is this uphold's, and is neither a file nor a directory nor
/// the FIFO of a run. Says what that was.
pub fn clear_away(private: &Path) -> Vec<String> {
    let entries = fs::read_dir(private).into_iter().flatten().flatten();
    entries.filter(is_odd).map(|entry| set_aside(&entry.path())).collect()
}

fn is_odd(entry: &DirEntry) -> bool {
    let Ok(kind) = entry.file_type() else { return false };
    let name = entry.file_name();
    let name = name.to_str().unwrap_or_default();
    let odd = kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device();
    odd && fifo::named(name).is_none() && !name.ends_with(ASIDE)
}

fn set_aside(path: &Path) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(ASIDE);
    let what = format!("{} is no regular file", path.display());
    match fs::rename(path, &aside) {
        Ok(()) => format!("{what}; it is set aside as {}", Path::new(&aside).display()),
        Err(error) => format!("{what}, and cannot be set aside: {error}"),
    }
}
