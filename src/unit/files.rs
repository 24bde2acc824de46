//! Which files make a unit, and their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::Dir;
use super::tree::Source;
use super::trust::Trust;
use super::{Name, Problem};

/// No file of units or configuration is longer, in bytes.
const LARGEST: u64 = 1 << 20;

/// The files of one unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// That of the last directory which has one.
    pub file: Option<PathBuf>,
    /// In the order of their merging.
    pub drop_ins: Vec<PathBuf>,
    /// The file is a link to /dev/null.
    pub masked: bool,
}

/// A hash of each file's content.
pub(super) type Fingerprint = Vec<(PathBuf, u64)>;

/// The names of all units in these directories.
pub(super) fn names(dirs: &[Dir], problems: &mut Vec<Problem>) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    let mut drop_ins = Vec::new();
    for dir in dirs {
        let entries = match fs::read_dir(&dir.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.named => continue,
            Err(error) => {
                problems.push(unreadable(dir, &error));
                continue;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => one_name(entry.path(), &mut names, &mut drop_ins, problems),
                Err(error) => {
                    let message = format!("cannot read the directory: {error}");
                    problems.push(Problem::file(dir.path.clone(), None, message, None));
                    break;
                }
            }
        }
    }
    for (path, name) in drop_ins {
        let right = path.to_string_lossy().ends_with(".toml.d");
        match (right, names.contains(&name)) {
            (true, true) => no_drop_ins(&path, problems),
            (true, false) => {
                let message = format!("these drop-ins are for no unit: there is no {name}.toml");
                problems.push(Problem::file(path, None, message, None).warning());
            }
            (false, true) => {
                let message = "ignored, because the drop-ins of a unit lie elsewhere".to_owned();
                let help = Some(format!("rename it to {name}.toml.d"));
                problems.push(Problem::file(path, None, message, help).warning());
            }
            (false, false) => {}
        }
    }
    names
}

/// Warns of what lies among the drop-ins of a unit and is none, as another program's `a.conf`.
pub(super) fn no_drop_ins(dir: &Path, problems: &mut Vec<Problem>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What an editor leaves is nobody's drop-in.
        if !(name.ends_with(".toml") || name.starts_with('.') || name.ends_with('~')) {
            let message = "ignored, because a drop-in's name ends in .toml".to_owned();
            problems.push(Problem::file(entry.path(), None, message, Some("rename it".to_owned())).warning());
        }
    }
}

/// The problem that a directory of units cannot be read.
pub(super) fn unreadable(dir: &Dir, error: &io::Error) -> Problem {
    let message = format!("cannot read the directory: {error}");
    let help = match error.kind() {
        io::ErrorKind::NotADirectory => Some("name the directory that the file is in".to_owned()),
        _ => dir.named.then(|| "it was named with --units: create it, or name another".to_owned()),
    };
    Problem::file(dir.path.clone(), None, message, help)
}

fn one_name(
    path: PathBuf,
    names: &mut BTreeSet<Name>,
    drop_ins: &mut Vec<(PathBuf, Name)>,
    problems: &mut Vec<Problem>,
) {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // `web.d` and `web.service.d` are what other programs would read.
    let drop_in = [".toml.d", ".service.d", ".d"].iter().find_map(|end| file.strip_suffix(end));
    if let Some(stem) = drop_in {
        if let Ok(name) = Name::new(stem) {
            drop_ins.push((path, name));
        }
        return;
    }
    let Some(stem) = file.strip_suffix(".toml") else { return };
    match Name::new(stem) {
        Ok(name) => {
            let clash = match name.as_str() {
                "all" => Some("stands for every unit on a command line of `uphold ctl`"),
                "uphold" => Some("is uphold itself in `uphold ctl events`"),
                _ => None,
            };
            if let Some(clash) = clash {
                let message = format!("`{name}` {clash}: this unit alone cannot be named there");
                let help = Some("rename the file".to_owned());
                problems.push(Problem::file(path, Some(&name), message, help).warning());
            }
            names.insert(name);
        }
        // An editor's lock or copy must not keep a whole set from being loaded.
        Err(_) if stem.starts_with('.') => {
            let message = "ignored, because its name begins with a dot".to_owned();
            problems.push(Problem::file(path, None, message, None).warning());
        }
        Err(bad) => {
            problems.push(Problem::file(path, None, bad.to_string(), Some("rename the file".to_owned())))
        }
    }
}

/// Nobody can say whether something is there, or what (EMFILE, EIO, EACCES, …).
#[derive(Debug, thiserror::Error)]
#[error("cannot look at {}: {error}", .path.display())]
pub struct Unseen {
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

/// What is there, or that there is nothing.
fn seen<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, Unseen> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Unseen { path: path.to_path_buf(), error }),
    }
}

/// The files of this unit; none is left out because it could not be looked at.
pub(super) fn of(name: &Name, dirs: &[Dir]) -> Result<Files, Unseen> {
    let mut found = Files::default();
    let mut drop_ins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for dir in dirs {
        let file = dir.path.join(format!("{name}.toml"));
        if seen(&file, fs::symlink_metadata(&file))?.is_some() {
            found.file = Some(file);
        }
        let dir = dir.path.join(format!("{name}.toml.d"));
        for entry in seen(&dir, fs::read_dir(&dir))?.into_iter().flatten() {
            let Some(entry) = seen(&dir, entry)? else { continue };
            let (name, path) = (entry.file_name(), entry.path());
            let text = name.to_string_lossy();
            if text.ends_with(".toml") && !text.starts_with('.') {
                drop_ins.insert(name, path);
            }
        }
    }
    found.masked = found.file.as_deref().map(is_null).transpose()?.unwrap_or(false);
    for path in drop_ins.into_values() {
        // A link to /dev/null takes the drop-in of that name away.
        if !is_null(&path)? {
            found.drop_ins.push(path);
        }
    }
    Ok(found)
}

pub(super) fn is_null(path: &Path) -> Result<bool, Unseen> {
    let link = seen(path, fs::symlink_metadata(path))?.is_some_and(|metadata| metadata.is_symlink());
    Ok(link && seen(path, fs::canonicalize(path))?.as_deref() == Some(Path::new("/dev/null")))
}

/// It is the device /dev/null, or a link to it (null(4): major 1, minor 3).
pub(super) fn is_null_device(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0x103)
}

/// Which of the directories a path is in.
pub(super) fn dir_of<'d>(path: &Path, dirs: &'d [Dir]) -> Option<&'d Dir> {
    // The empty path, which is the current directory, begins every path.
    let same_kind = |dir: &Dir| path.is_absolute() == dir.path.is_absolute();
    dirs.iter().rev().find(|dir| same_kind(dir) && path.starts_with(&dir.path))
}

/// A directory as a system call takes it: empty, as the parent of a bare name, it is the current one.
pub(super) fn place(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

/// The trust for the files below a directory: that of one that was named includes its owner.
pub(super) fn trust_in(trust: &Trust, dir: Option<&Dir>) -> Trust {
    use std::os::unix::fs::MetadataExt;
    let mut trust = trust.clone();
    if let Some(owner) = dir.filter(|dir| dir.named).and_then(|dir| fs::metadata(place(&dir.path)).ok()) {
        trust.owners.push(owner.uid());
    }
    trust
}

/// Reads a file, if it is to be trusted.
pub(super) fn read(
    path: &Path,
    rank: usize,
    trust: &Trust,
    unit: Option<&Name>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Source>> {
    let mut fail = |message: String, help: Option<String>| {
        problems.push(Problem::file(path.to_path_buf(), unit, message, help));
    };
    let bytes = match open(path) {
        Ok(file) => {
            if let Err(reason) = trust.judge(&file, path) {
                let message = format!("not to be trusted: {reason}");
                let help =
                    Some("let only root or uphold's own user write the file and its directory".to_owned());
                if !trust.lenient {
                    fail(message, help);
                    return None;
                }
                problems.push(Problem::file(path.to_path_buf(), unit, message, help).warning());
            }
            content(file)
        }
        Err(error) => Err(error),
    };
    let mut fail = |message: String, help: Option<String>| {
        problems.push(Problem::file(path.to_path_buf(), unit, message, help));
    };
    match bytes.map(String::from_utf8) {
        Err(error) => {
            let target = fs::read_link(path).ok().filter(|_| error.kind() == io::ErrorKind::NotFound);
            let help = target.map(|to| format!("it is a link to {}, which is not there", to.display()));
            fail(format!("cannot read the file: {error}"), help);
        }
        Ok(Ok(text)) => return Some(Arc::new(Source { path: path.to_path_buf(), text, rank })),
        Ok(Err(error)) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes().iter().take(good).filter(|b| **b == b'\n').count() + 1;
            fail(
                format!("cannot read the file: line {line} is not UTF-8"),
                Some("save it as UTF-8".to_owned()),
            );
        }
    }
    None
}

/// Opens a regular file; opening anything else could block for ever.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)
}

fn content(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(bytes)
}

/// What the disk says of these files by now; `None` where one is gone, or is none that could be read as a
/// unit's.
pub(super) fn fingerprint(files: &Files) -> Result<Option<Fingerprint>, Unseen> {
    let mut fingerprint = Fingerprint::new();
    for path in files.file.iter().chain(&files.drop_ins) {
        let hash = match files.masked {
            true => 0,
            false => match open(path).and_then(content) {
                Ok(content) => hash(&content),
                // No error of the system: what stands there is no regular file, or too long.
                Err(error) if error.raw_os_error().is_none() => return Ok(None),
                Err(error) => return seen(path, Err(error)),
            },
        };
        fingerprint.push((path.clone(), hash));
    }
    Ok(Some(fingerprint))
}

/// The hash of a content. Compared within one process only.
pub(super) fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
