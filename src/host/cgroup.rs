//! A cgroup v2 leaf for each run, wherever mkdir works. No controller is needed: `cgroup.procs` lists a
//! run's processes, `cgroup.events` tells when none is left, `cgroup.kill` ends them all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::spawn::Into;

/// The directory below uphold's own cgroup that holds all leaves.
#[derive(Debug, Clone)]
pub(super) struct Base(PathBuf);

/// One run's cgroup.
#[derive(Debug)]
pub(super) struct Leaf(PathBuf);

impl Base {
    /// Makes it, and tries a leaf in it. The error says what is lacking.
    pub(super) fn new(token: &str) -> Result<Base, String> {
        let own = own()?;
        let base = own.join(format!("uphold-{token}"));
        let said = |error: io::Error| format!("{}: {error}", base.display());
        make(&base).map_err(said)?;
        let trial = base.join("trial");
        let tried = make(&trial).and_then(|()| File::options().write(true).open(trial.join("cgroup.procs")));
        let _ = fs::remove_dir(&trial);
        match tried {
            Ok(_) => {
                count(&own);
                count(&base);
                Ok(Base(base))
            }
            Err(error) => {
                let message = said(error);
                let _ = fs::remove_dir(&base);
                Err(message)
            }
        }
    }

    /// The one that an uphold before has made, if it is still there.
    pub(super) fn existing(path: &Path) -> Option<Base> {
        path.is_dir().then(|| Base(path.to_owned()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The leaf of a run that an uphold before has made, if it is still there.
    pub(super) fn existing_leaf(&self, stem: &str) -> Option<Leaf> {
        let path = self.0.join(stem);
        path.is_dir().then_some(Leaf(path))
    }

    /// All leaves that there are, by their stems.
    pub(super) fn leaves(&self) -> Vec<(String, Leaf)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.filter_map(|entry| Some((entry.file_name().into_string().ok()?, Leaf(entry.path())))).collect()
    }

    /// Makes a leaf; what a child needs to be born into it comes with it.
    pub(super) fn leaf(&self, stem: &str) -> io::Result<(Leaf, Into)> {
        let path = self.0.join(stem);
        make(&path)?;
        let leaf = Leaf(path);
        match leaf.open() {
            Ok(into) => Ok((leaf, into)),
            Err(error) => {
                leaf.remove();
                Err(error)
            }
        }
    }

    /// Removes it if it is empty.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Has the kernel count memory and tasks in what is below, for those who look at a service. It does so below
/// its root, as on a machine that uphold booted; elsewhere not while uphold itself is in there (the "no internal
/// processes" rule of cgroups(7)), and nothing depends on it.
fn count(dir: &Path) {
    for controller in ["+memory", "+pids"] {
        let _ = fs::write(dir.join("cgroup.subtree_control"), controller);
    }
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        answer => answer,
    }
}

/// uphold's own cgroup in the first cgroup2 mount that shows it.
fn own() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let groups = read("/proc/self/cgroup")?;
    let path =
        groups.lines().find_map(|line| line.strip_prefix("0::")).ok_or("no cgroup v2 in this kernel")?;
    let mounts = read("/proc/self/mountinfo")?;
    let found = mounts.lines().filter_map(|line| below_mount(line, path)).find(|dir| is_own(dir));
    found.ok_or_else(|| "no cgroup v2 is mounted that shows uphold's own".to_owned())
}

/// Where a line of mountinfo shows the cgroup of that path.
fn below_mount(line: &str, path: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let rest = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(&unescape(point)).join(rest))
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

fn is_own(dir: &Path) -> bool {
    pids_in(dir).is_some_and(|pids| pids.contains(&own_pid()))
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn pids_in(dir: &Path) -> Option<Vec<i32>> {
    let text = String::from_utf8(super::sys::read_short(dir.join("cgroup.procs")).ok()?).ok()?;
    // 0 is a process that our pid namespace cannot name.
    Some(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The processes in and below a directory of cgroups.
pub(super) fn pids_below(dir: &Path) -> Vec<i32> {
    Leaf(dir.to_owned()).pids()
}

impl Leaf {
    fn open(&self) -> io::Result<Into> {
        let dir = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(&self.0)?;
        Ok(Into(super::sys::above_stdio(dir.into())?))
    }

    /// Whether a process is in it or below. What is gone is empty; an error says nothing.
    pub(super) fn populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.events()) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes it, as long as nothing was ever made below it; `true`: it is gone, so nothing lived in it.
    pub(super) fn vanish(&self) -> bool {
        match fs::remove_dir(&self.0) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// The file that changes when it empties.
    pub(super) fn events(&self) -> PathBuf {
        self.0.join("cgroup.events")
    }

    /// Its processes and those below it, but for uphold. Zombies are not listed.
    pub(super) fn pids(&self) -> Vec<i32> {
        let mut pids = self.all_pids();
        pids.retain(|pid| *pid != own_pid());
        pids.sort_unstable();
        pids
    }

    fn all_pids(&self) -> Vec<i32> {
        self.tree().iter().filter_map(|dir| pids_in(dir)).flatten().collect()
    }

    /// uphold itself is in it: a service has started it.
    pub(super) fn holds_uphold(&self) -> bool {
        self.all_pids().contains(&own_pid())
    }

    /// SIGKILL to all of it at once; `Err` where the kernel is older than 5.14, or uphold is in it.
    pub(super) fn kill(&self) -> io::Result<()> {
        if self.holds_uphold() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        fs::write(self.0.join("cgroup.kill"), "1")
    }

    /// Removes it; `false`: something still lives in it.
    pub(super) fn remove(&self) -> bool {
        // Few have anything below them.
        if self.vanish() {
            return true;
        }
        for dir in self.tree().iter().rev() {
            let _ = fs::remove_dir(dir);
        }
        !self.0.exists()
    }

    /// A file of it as text.
    pub(super) fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.0.join(file)).ok()
    }

    /// A number in a flat-keyed file of it.
    pub(super) fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        self.read(file)?.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
    }

    /// Itself and what its processes have made below it, parents first.
    fn tree(&self) -> Vec<PathBuf> {
        let mut tree = vec![self.0.clone()];
        let mut next = 0;
        while let Some(dir) = tree.get(next).cloned() {
            next += 1;
            // Two links and one for each directory in it, kernfs counts them: most have none.
            if fs::metadata(&dir).is_ok_and(|metadata| metadata.nlink() == 2) {
                continue;
            }
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            tree.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_below_a_mount_of_a_part_of_the_tree() {
        let line = "41 31 0:38 /docker/a /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw";
        assert_eq!(below_mount(line, "/docker/a/b"), Some(PathBuf::from("/sys/fs/cgroup/b")));
        assert_eq!(below_mount(line, "/docker/ab"), None);
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        assert_eq!(below_mount(hybrid, "/"), None);
    }
}
