//! Where a daemon's files go (DESIGN section 4), found by trying.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use super::journal;
use crate::host::{self, Inherited};
use crate::unit::Dir;

/// How long the log directory may take to answer. Behind it may be a dead mount, and services wait.
const ANSWERS: Duration = Duration::from_secs(1);
/// A file in memory, of an image whose units log to its own output for want of a log directory.
const NO_LOGS: &str = "no-log-directory";

/// The directories of one daemon. What could not be made is `None`, and said once.
#[derive(Debug)]
pub struct Places {
    /// 0755: `control.sock`, `lock`.
    pub runtime: Option<PathBuf>,
    /// 0700 below it: FIFOs.
    pub private: Option<PathBuf>,
    /// Log files.
    pub logs: Option<PathBuf>,
    /// What is lacking, each in a sentence.
    pub lacks: Vec<String>,
    /// Tells the next image that this one has no log directory; open for as long as this one runs.
    _no_logs: Option<File>,
}

/// Why a directory cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A system call failed.
    #[error("cannot use {path} as {what}: {error}; name another with {flag}")]
    Io {
        /// Which.
        path: PathBuf,
        /// For what.
        what: &'static str,
        /// Why.
        error: io::Error,
        /// What would do.
        flag: &'static str,
    },
    /// It is somebody else's.
    #[error(
        "cannot use {path} as runtime directory: it belongs to uid {owner}; name another with --runtime-dir"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose.
        owner: u32,
    },
}

impl Places {
    /// Makes what is missing. A directory that was named has to do; a default that does not is a lack.
    /// What an image before in the same process had as its place, or that it had none, passes over in `before`.
    pub fn find(
        uid: u32,
        runtime: Option<&Path>,
        logs: Option<&Path>,
        before: &Inherited,
    ) -> Result<Places, PlaceError> {
        let mut lacks = Vec::new();
        let in_memory = before.memory_path(journal::FILE).is_some();
        let passed = passed_over(uid, before);
        let default = passed.clone().unwrap_or_else(|| default_runtime(uid));
        let runtime_dir = match runtime {
            Some(named) => Some(make_runtime(named, uid)?),
            None if in_memory && passed.is_none() => {
                lacks.push(
                    "uphold had no runtime directory when it began, and takes none while it runs: there is no \
                     control socket until it is started anew"
                        .to_owned(),
                );
                None
            }
            None => match make_runtime(&default, uid) {
                Ok(made) => Some(made),
                Err(error) if passed.is_some() || holds_state(&default) => return Err(error),
                Err(error) => {
                    lacks.push(format!(
                        "{error}: there is no control socket until then, and services are not taken over should \
                         uphold be killed"
                    ));
                    None
                }
            },
        };
        let private = match runtime_dir.as_deref().filter(|_| !in_memory).map(make_private) {
            Some(Ok(private)) => Some(private),
            Some(Err(error)) if runtime.is_some() || runtime_dir.as_deref().is_some_and(holds_state) => {
                return Err(error);
            }
            Some(Err(error)) => {
                lacks.push(format!("{error}: services are not taken over should uphold be killed"));
                None
            }
            None if in_memory => {
                lacks.push(
                    "the state stays in memory, where the image before had it: services are not taken over should \
                     uphold be killed"
                        .to_owned(),
                );
                None
            }
            None => None,
        };
        let takes_over = host::goes_on() || runtime_dir.as_deref().is_some_and(holds_state);
        let logs = find_logs(uid, logs, (before, private.as_deref()), takes_over, &mut lacks)?;
        let no_logs = if logs.is_none() { mark_no_logs() } else { None };
        Ok(Places { runtime: runtime_dir, private, logs, lacks, _no_logs: no_logs })
    }
}

impl Places {
    /// Leaves word for an uphold that comes after a kill whether there was a log directory. Call it once the runtime
    /// directory is locked.
    pub fn note_logs(&self) {
        self.private.iter().for_each(|private| note_logs(private, self.logs.is_some()));
    }
}

/// Leaves word for an uphold that comes after a kill whether there is a log directory: what it finds by then says
/// nothing of that.
pub(super) fn note_logs(private: &Path, there: bool) {
    let mark = private.join(NO_LOGS);
    // Where it cannot be left, the next one takes a directory that it finds for one that was used. What lies there
    // says the same, whatever it is, and is not opened.
    let _ = if there {
        fs::remove_file(mark)
    } else {
        File::options().write(true).create_new(true).mode(0o600).open(mark).map(drop)
    };
}

fn make(path: &Path, mode: u32) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    fs::canonicalize(path)
}

/// Makes a runtime directory, unless it is there, and looks whether it serves.
pub(super) fn make_runtime(path: &Path, uid: u32) -> Result<PathBuf, PlaceError> {
    let fail = |error| PlaceError::Io {
        path: path.to_owned(),
        what: "runtime directory",
        error,
        flag: "--runtime-dir",
    };
    let shared = path.parent() == Some(Path::new("/tmp"));
    let made = make(path, if shared { 0o700 } else { 0o755 }).map_err(fail)?;
    let meta = fs::symlink_metadata(path).map_err(fail)?;
    if meta.uid() != uid && uid != 0 {
        return Err(PlaceError::Foreign { path: path.to_owned(), owner: meta.uid() });
    }
    // Where an uphold before has left a state, to do without would be to start all of it a second time.
    if !holds_state(&made) {
        probe_write(&made).map_err(fail)?;
    }
    Ok(made)
}

/// An uphold before has left something there to take over.
fn holds_state(runtime: &Path) -> bool {
    runtime.join("private/state").exists()
}

/// The same for the private one in it.
pub(super) fn make_private(runtime: &Path) -> Result<PathBuf, PlaceError> {
    let path = runtime.join("private");
    let fail =
        |error| PlaceError::Io { path: path.clone(), what: "place for FIFOs", error, flag: "--runtime-dir" };
    make(&path, 0o700).map_err(fail)?;
    let mode = fs::metadata(&path).map_err(fail)?.permissions().mode();
    if mode & 0o7777 != 0o700 {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(fail)?;
    }
    Ok(path)
}

/// The log directory, made if it is missing; `None`: a default that does not do. One that refuses files for now is
/// kept: the log thread tries again, and counts what is lost until then. `takes_over`: services run, and come first:
/// then one that they have logged to is kept whatever is wrong with it.
fn find_logs(
    uid: u32,
    named: Option<&Path>,
    (before, private): (&Inherited, Option<&Path>),
    takes_over: bool,
    lacks: &mut Vec<String>,
) -> Result<Option<PathBuf>, PlaceError> {
    let Some(path) = named.map(Path::to_owned).or_else(|| default_logs(uid)) else {
        lacks.push(
            "there is no log directory: neither HOME nor XDG_STATE_HOME is set; name one with --log-dir: units \
             that log to files write to uphold's own output"
                .to_owned(),
        );
        return Ok(None);
    };
    let marked = |private: &Path| private.join(NO_LOGS).exists();
    let used = takes_over && before.memory_path(NO_LOGS).is_none() && !private.is_some_and(marked);
    let Unusable { error, there } = match try_logs(&path, used) {
        Ok(made) => return Ok(Some(made)),
        Err(unusable) => unusable,
    };
    let kept = if takes_over {
        named.is_some() || used && (there || host::goes_on())
    } else {
        !is_for_good(&error, there, named.is_some())
    };
    let error = PlaceError::Io { path: path.clone(), what: "log directory", error, flag: "--log-dir" };
    if kept {
        lacks.push(format!(
            "{error}; it is kept: until it can be written, what is logged there waits, or is lost and counted"
        ));
        return Ok(Some(std::path::absolute(&path).unwrap_or(path)));
    }
    if named.is_some() {
        return Err(error);
    }
    lacks.push(format!("{error}: units that log to files write to uphold's own output"));
    Ok(None)
}

/// Why a log directory does not do, and whether it is one.
struct Unusable {
    error: io::Error,
    there: bool,
}

/// Makes and tries the log directory on a thread of its own: where it does not answer, only that waits. One that is in
/// use (`used`) is not tried if it is there: who logs finds out, and a thread that hangs in a write on a frozen file system
/// would keep every exec of uphold waiting, and its end.
fn try_logs(path: &Path, used: bool) -> Result<PathBuf, Unusable> {
    let unusable = |there| move |error| Unusable { error, there };
    let (answer, answered) = sync_channel(1);
    let tried = path.to_owned();
    let work = move || {
        let outcome = if used && tried.is_dir() {
            fs::canonicalize(&tried).map_err(unusable(true))
        } else {
            let made = make(&tried, 0o755).map_err(unusable(false));
            made.and_then(|made| probe_write(&made).map(|()| made).map_err(unusable(true)))
        };
        drop(answer.send(outcome));
    };
    thread::Builder::new().name("uphold-log-dir".to_owned()).spawn(work).map_err(unusable(true))?;
    answered.recv_timeout(ANSWERS).unwrap_or_else(|_| {
        let error = io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        Err(Unusable { error, there: true })
    })
}

/// On a first start: it is somebody's mistake, and no disk that is full or ails. A default on a read-only file system
/// is as good as none.
fn is_for_good(error: &io::Error, there: bool, named: bool) -> bool {
    match error.kind() {
        io::ErrorKind::PermissionDenied => true,
        io::ErrorKind::ReadOnlyFilesystem => !(there && named),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => false,
        _ => !there,
    }
}

/// Without memory for it, the next image takes a directory that it could not use for one that was used.
fn mark_no_logs() -> Option<File> {
    let mark = host::memory(NO_LOGS).ok()?;
    host::count(&mark).ok()?;
    Some(mark)
}

/// Permission bits do not tell whether a write would do: a read-only mount, a full quota.
fn probe_write(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".probe.{}", std::process::id()));
    File::create(&path)?;
    fs::remove_file(path)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// `None` where neither variable is set: there is no home to be below.
fn below_home(variable_name: &str, default: &str) -> Option<PathBuf> {
    variable(variable_name).or_else(|| variable("HOME").map(|home| home.join(default)))
}

/// All that may be the default at one time or another, the best first.
fn defaults(uid: u32) -> Vec<PathBuf> {
    if uid == 0 {
        return vec![PathBuf::from("/run/uphold")];
    }
    let below = variable("XDG_RUNTIME_DIR").into_iter().chain([format!("/run/user/{uid}").into()]);
    below.map(|dir| dir.join("uphold")).chain([format!("/tmp/uphold-{uid}").into()]).collect()
}

fn default_runtime(uid: u32) -> PathBuf {
    if let (1.., Some(dir)) = (uid, variable("XDG_RUNTIME_DIR")) {
        return dir.join("uphold");
    }
    let mut defaults = defaults(uid);
    let last = defaults.pop().unwrap_or_default();
    defaults.into_iter().find(|dir| dir.parent().is_some_and(Path::is_dir)).unwrap_or(last)
}

/// The default of the image before in the same process: what is there by now, or is no more, might make it another
/// one, where nothing is known of what runs.
fn passed_over(uid: u32, before: &Inherited) -> Option<PathBuf> {
    let dir = host::runtime_dir_before(before)?;
    let is_it =
        |default: &PathBuf| *default == dir || fs::canonicalize(default).is_ok_and(|real| real == dir);
    defaults(uid).iter().any(is_it).then_some(dir)
}

fn default_logs(uid: u32) -> Option<PathBuf> {
    if uid == 0 {
        Some(PathBuf::from("/var/log/uphold"))
    } else {
        below_home("XDG_STATE_HOME", ".local/state").map(|dir| dir.join("uphold/log"))
    }
}

/// The daemon config where none is named.
pub fn default_config(uid: u32) -> PathBuf {
    if uid == 0 {
        PathBuf::from("/etc/uphold/uphold.toml")
    } else {
        let dir = below_home("XDG_CONFIG_HOME", ".config").unwrap_or_else(|| "/nonexistent".into());
        dir.join("uphold/uphold.toml")
    }
}

/// The search path of units: what is named replaces it. Empty for a user without a home.
pub fn unit_dirs(uid: u32, named: &[PathBuf]) -> Vec<Dir> {
    if !named.is_empty() {
        return named.iter().map(|path| Dir { path: path.clone(), named: true }).collect();
    }
    let paths = if uid == 0 {
        vec!["/usr/lib/uphold/units".into(), "/etc/uphold/units".into(), "/run/uphold/units".into()]
    } else {
        below_home("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("uphold/units")).into_iter().collect()
    };
    paths.into_iter().map(|path| Dir { path, named: false }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_a_state_in_it_is_used_even_if_no_file_can_be_made_there() {
        let dir = tempfile::tempdir().unwrap();
        let (run, logs, uid) = (dir.path().join("run"), dir.path().join("log"), host::uid());
        fs::create_dir_all(run.join(format!(".probe.{}", std::process::id()))).unwrap();
        let find = || Places::find(uid, Some(&run), Some(&logs), &Inherited::default());
        assert!(find().is_err());
        fs::create_dir(run.join("private")).unwrap();
        fs::write(run.join("private/state"), "").unwrap();
        let places = find().unwrap();
        assert_eq!((places.runtime, places.private), (Some(run.clone()), Some(run.join("private"))));
    }
}
