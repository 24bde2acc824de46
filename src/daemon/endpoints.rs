//! `endpoints/NAME.json` in the runtime directory: where services can be reached, for a proxy in front of
//! them (PROBES section 14, M3). A file is written beside its place and renamed, so that a reader sees the
//! old one or the new one.
//!
//! A thread writes: a full or dead file system must not stop supervision. What comes while it writes waits,
//! and of one service only the last. It writes in the directory that it has made or found, and in no other that
//! lies at its path later: that may be another uphold's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::Endpoints;
use crate::file_id::FileId;
use crate::host::OpenDir;
use crate::unit::Name;

/// How long the thread rests after it has written, at the least: a unit that starts is soon up, and then only
/// that counts. And it rests so many times as long as it worked: a burst of starts needs the processors.
const PAUSE: Duration = Duration::from_millis(50);
const SHARE: u32 = 3;
/// How long it rests before it tries again what could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// For so long it has to have gone well before a failure is said once more: on a full disk each file that goes makes
/// room for another.
const CALM: Duration = Duration::from_secs(60);

/// What a file is to become; `None`: it goes.
type Wish = Option<Box<Endpoints>>;

/// A way to the files that never blocks.
#[derive(Debug)]
pub struct Board(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// What lies between the deciding thread and the writing one.
#[derive(Debug, Default)]
struct Desk {
    wishes: BTreeMap<Name, Wish>,
    /// The directory was removed: it is to be made again.
    anew: bool,
    /// The one in which files are; `None`: there is none yet.
    dir: Option<FileId>,
    /// The thread has worked, and will look by itself.
    resting: bool,
    /// No more will come: all files go.
    closing: bool,
    /// They are gone.
    closed: bool,
}

impl Shared {
    /// Neither thread panics while it holds the desk, so a poisoned one is as good.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Starts the thread, where there is a runtime directory. What lies there is of an uphold before, and goes
    /// first, but for what is `known`: that was taken over, and stays until there is something newer.
    pub fn start(runtime: Option<&Path>, known: BTreeSet<Name>) -> io::Result<Board> {
        let Some(dir) = runtime.map(|runtime| runtime.join("endpoints")) else { return Ok(Board(None)) };
        let shared = Arc::<Shared>::default();
        let writer = Writer { shared: shared.clone(), path: dir, dir: None, written: known };
        std::thread::Builder::new().name("uphold-endpoints".to_owned()).spawn(move || writer.work())?;
        Ok(Board(Some(shared)))
    }

    /// This is so now.
    pub fn put(&self, instance: Name, wish: Wish) {
        if let Some(shared) = &self.0 {
            let mut desk = shared.desk();
            desk.wishes.insert(instance, wish);
            let waited_for = !desk.resting;
            drop(desk);
            if waited_for {
                shared.changed.notify_all();
            }
        }
    }

    /// The directory lies where it is looked for.
    pub fn is_at(&self, path: &Path) -> bool {
        let dir = self.0.as_ref().and_then(|shared| shared.desk().dir);
        path.exists() && dir.is_none_or(|dir| FileId::behind(path) == Some(dir))
    }

    /// Somebody has removed the directory: all files are written again.
    pub fn put_back(&self, all: impl IntoIterator<Item = (Name, Wish)>) {
        if let Some(shared) = &self.0 {
            let mut desk = shared.desk();
            desk.anew = true;
            for (name, wish) in all {
                desk.wishes.entry(name).or_insert(wish);
            }
            shared.changed.notify_all();
        }
    }

    /// Takes all files away, as nothing is served any more. Waits for it, at most that long.
    pub fn finish(&self, limit: Duration) {
        if let Some(shared) = &self.0 {
            let mut desk = shared.desk();
            desk.closing = true;
            shared.changed.notify_all();
            let _ = shared.changed.wait_timeout_while(desk, limit, |desk| !desk.closed);
        }
    }
}

/// The thread.
struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    /// What lay there when it was made or found.
    dir: Option<OpenDir>,
    /// Whose files lie there, or may.
    written: BTreeSet<Name>,
}

impl Writer {
    fn work(mut self) {
        let mut failed_at = None::<Instant>;
        drop(self.begin());
        while let Some(wishes) = self.next() {
            let began = Instant::now();
            let mut failed = Vec::new();
            let mut left = BTreeMap::new();
            let anew = std::mem::take(&mut self.shared.desk().anew);
            if (anew || self.dir.is_none())
                && let Err(error) = self.begin()
            {
                failed.push(error.to_string());
                self.shared.desk().anew = true;
            }
            for (name, wish) in wishes {
                if let Err(error) = self.fulfil(&name, wish.as_deref()) {
                    failed.push(error.to_string());
                    left.insert(name, wish);
                }
            }
            if let Some(error) = failed.first() {
                if failed_at.is_none_or(|at| at.elapsed() > CALM) {
                    let dir = self.path.display();
                    tracing::warn!("cannot write endpoints to {dir}: {error}; trying again every second");
                }
                failed_at = Some(Instant::now());
            }
            self.rest(left, if failed.is_empty() { PAUSE.max(began.elapsed() * SHARE) } else { AGAIN });
        }
        for name in std::mem::take(&mut self.written) {
            drop(self.remove(&name));
        }
        self.shared.desk().closed = true;
        self.shared.changed.notify_all();
    }

    /// Waits for something to do; `None`: no more comes.
    fn next(&self) -> Option<BTreeMap<Name, Wish>> {
        let desk = self.shared.desk();
        let idle = |desk: &mut Desk| desk.wishes.is_empty() && !desk.anew && !desk.closing;
        let mut desk = self.shared.changed.wait_while(desk, idle).unwrap_or_else(PoisonError::into_inner);
        (!desk.closing).then(|| std::mem::take(&mut desk.wishes))
    }

    /// What could not be done goes back, unless there is something newer, and is tried again later.
    fn rest(&self, left: BTreeMap<Name, Wish>, length: Duration) {
        let mut desk = self.shared.desk();
        for (name, wish) in left {
            desk.wishes.entry(name).or_insert(wish);
        }
        desk.resting = true;
        let rested = self.shared.changed.wait_timeout_while(desk, length, |desk| !desk.closing);
        rested.unwrap_or_else(PoisonError::into_inner).0.resting = false;
    }

    /// Makes the directory, and empties it of what is not known.
    fn begin(&mut self) -> io::Result<()> {
        self.dir = None;
        DirBuilder::new().recursive(true).mode(0o755).create(&self.path)?;
        // Whatever the umask is: others read here.
        fs::set_permissions(&self.path, Permissions::from_mode(0o755))?;
        let dir = OpenDir::at(&self.path)?;
        for entry in fs::read_dir(&self.path)? {
            let found = entry?.file_name();
            if !self.written.iter().any(|name| file_name(name).as_str() == found) {
                dir.remove(&found)?;
            }
        }
        self.shared.desk().dir = dir.id();
        self.dir = Some(dir);
        Ok(())
    }

    fn remove(&self, name: &Name) -> io::Result<()> {
        self.dir.iter().try_for_each(|dir| dir.remove(OsStr::new(&file_name(name))))
    }

    fn fulfil(&mut self, name: &Name, wish: Option<&Endpoints>) -> io::Result<()> {
        let Some(endpoints) = wish else {
            if self.written.contains(name) {
                match self.remove(name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => self.written.remove(name),
                };
            }
            return Ok(());
        };
        let written = self.write(name, endpoints);
        if written.is_ok() {
            self.written.insert(name.clone());
        } else if self.written.remove(name) {
            // Better none than one that is not true any more: the disk may be full for long.
            drop(self.remove(name));
        }
        written
    }

    fn write(&self, name: &Name, endpoints: &Endpoints) -> io::Result<()> {
        let dir = self.dir.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut text = serde_json::to_vec(endpoints)?;
        text.push(b'\n');
        // No unit's name begins with a dot.
        let draft = ".draft";
        let mut file = dir.create(draft)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(&text)?;
        dir.rename(draft, &file_name(name))
    }
}

fn file_name(name: &Name) -> String {
    format!("{name}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Wall;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn of(ready: bool) -> Wish {
        let (unit, since) = (Name::new("web").unwrap(), Wall::from_nanos(0));
        let (serving, terminating) = (ready, false);
        let (addresses, reason) = (Vec::new(), None);
        Some(Box::new(Endpoints { unit, ready, serving, terminating, addresses, since, reason }))
    }

    fn says(path: &Path, text: &str) {
        let begun = Instant::now();
        while !fs::read_to_string(path).is_ok_and(|found| found.contains(text)) {
            assert!(begun.elapsed() < PATIENCE, "{} never says {text}", path.display());
            std::thread::yield_now();
        }
    }

    #[test]
    fn nothing_is_written_or_removed_where_another_uphold_has_its_files_by_now() {
        let runtime = tempfile::tempdir().unwrap();
        let (dir, gone) = (runtime.path().join("endpoints"), runtime.path().join("gone"));
        let (name, file) = (Name::new("web").unwrap(), dir.join("web.json"));
        let board = Board::start(Some(runtime.path()), BTreeSet::new()).unwrap();
        board.put(name.clone(), of(false));
        says(&file, "\"ready\":false");
        assert!(board.is_at(&dir));
        fs::rename(&dir, &gone).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "another's").unwrap();
        assert!(!board.is_at(&dir));
        board.put(name.clone(), of(true));
        says(&gone.join("web.json"), "\"ready\":true");
        board.put(name.clone(), None);
        board.finish(PATIENCE);
        assert!(!gone.join("web.json").exists());
        assert_eq!(fs::read_to_string(&file).unwrap(), "another's");
        // Until the place is this one's again.
        let board = Board::start(Some(runtime.path()), BTreeSet::new()).unwrap();
        board.put(name.clone(), of(false));
        says(&file, "\"ready\":false");
        fs::remove_dir_all(&dir).unwrap();
        board.put_back([(name, of(true))]);
        says(&file, "\"ready\":true");
        assert!(board.is_at(&dir));
    }
}
