//! The journal: the engine's state on disk, written ahead. A change is here before its effects are carried
//! out, so that whoever comes after a kill knows at least what was done.
//!
//! ```text
//! CRC32 {"state_version":1,"world":…,"token":…}     the head: which world, which process
//! CRC32 {"core":…,"instances":…}                    all there was when the file was begun
//! CRC32 {"core":…,"instances":…}                    what one input has changed, and so on
//! ```
//!
//! Where no directory is writable it is in memory, and outlives an image of uphold, but no kill.
//!
//! It is never fsync'ed: it has to outlive uphold, not the machine. A line that was being written when uphold
//! was killed is cut, and so are its effects: they were not carried out.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::line::{Line, unwrap};
use super::versions;
use crate::engine::{Engine, Saved};
use crate::failpoint;
use crate::file_id::FileId;
use crate::host::{self, World, patiently};

/// Its name, in the private directory or in memory.
pub const FILE: &str = "state";

/// The file is begun anew once it is longer than this,
const LONG: u64 = 1 << 20;
/// and so many times as long as it was at its beginning.
const TIMES: u64 = 4;

/// After a write that has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Whose state it is, and what it hangs on: the same in every version, but for what later ones add.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Of the lines below it (`versions`).
    pub state_version: u32,
    /// In which the pids are pids.
    pub world: World,
    /// That marks the processes, FIFOs and cgroups of this line of upholds.
    pub token: String,
    /// Where the cgroups of its runs are.
    pub cgroups: Option<PathBuf>,
    /// The uphold that wrote it.
    pub pid: u32,
    /// When that started, in clock ticks since boot.
    pub start: u64,
    /// Its release.
    pub release: String,
    /// Which image of that process it is, from 1 on: each upgrade and each crash makes one more.
    pub image: u32,
    /// Soft and hard RLIMIT_NOFILE as the first image found them, if it raised its own: what children get.
    pub nofile: Option<(u64, u64)>,
    /// oom_score_adj likewise.
    pub oom_score_adj: Option<i32>,
}

/// What an uphold before has left.
#[derive(Debug)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// Its state.
    State(Box<(Head, Saved<'static>)>),
    /// Something that says nothing of this world, and why.
    Useless(String),
    /// Something of this world that is whole, and that this uphold does not understand: what it says is true.
    Strange(Box<(Head, String)>),
    /// Something that cannot be read: what it says may be true.
    Unreadable(io::Error),
}

/// Reads what stands in this file. `own`: pid and start of this process. `pid1`: as the first of
/// its pid namespace it takes over nobody but itself.
pub fn read(file: &Path, world: Option<&World>, own: (u32, u64), pid1: bool) -> Before {
    let bytes = match patiently(|| host::read_file(file)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Before::Nothing,
        // A PID 1 that refuses to go on would take everything with it.
        Err(error) if pid1 => return Before::Useless(format!("it cannot be read: {error}")),
        Err(error) => return Before::Unreadable(error),
    };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let head = lines.next().and_then(unwrap);
    let Some(head) = head.and_then(|json| serde_json::from_slice::<Head>(json).ok()) else {
        return Before::Useless("its first line is cut or corrupt".to_owned());
    };
    let same = (head.pid, head.start) == own;
    if Some(&head.world) != world {
        return Before::Useless("it is of another boot or another pid namespace".to_owned());
    }
    if pid1 && !same {
        return Before::Useless("it is of another uphold than this PID 1".to_owned());
    }
    let (version, known) = (head.state_version, versions::known());
    if !known.contains(&version) {
        let why =
            format!("it is of state version {version}, and this uphold reads {}", versions::shown(known));
        return Before::Strange(Box::new((head, why)));
    }
    let mut state = None;
    let mut torn = false;
    for (number, line) in (2..).zip(lines) {
        match unwrap(line) {
            Some(_) if torn => return Before::Useless("a line in the middle of it is corrupt".to_owned()),
            Some(json) => match versions::read(version, json) {
                Ok(change) => state.get_or_insert_with(Saved::default).merge(change),
                Err(error) => {
                    let why = format!(
                        "line {number} of it is not what one of state version {version} looks like: {error}"
                    );
                    return Before::Strange(Box::new((head, why)));
                }
            },
            None => torn = true,
        }
    }
    // It gets its name when all that there was then is in it.
    match state {
        Some(state) => Before::State(Box::new((head, state))),
        None => Before::Useless("all but its first line is cut or corrupt".to_owned()),
    }
}

/// Whose state stands in this file, if that can be told.
fn head(file: &Path) -> Option<Head> {
    let bytes = host::read_file(file).ok()?;
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(unwrap(line)?).ok()
}

/// Why this binary cannot go on from what stands in the private directory, or in this file; `None`: it can.
pub fn refuses(place: &Path) -> Option<String> {
    let world = host::world();
    let file = if place.is_dir() { path(place) } else { place.to_owned() };
    // Whose it is does not matter: it is for the process that has asked.
    match read(&file, world.as_ref(), (0, 0), false) {
        Before::Nothing => Some("there is none".to_owned()),
        Before::State(_) => None,
        Before::Strange(strange) => Some(strange.1),
        Before::Useless(why) => Some(why),
        Before::Unreadable(error) => Some(format!("it cannot be read: {error}")),
    }
}

/// Moves what is of no use out of the way, for who wants to look at it.
pub fn set_aside(private: &Path) -> io::Result<PathBuf> {
    let aside = private.join("state.aside");
    fs::rename(path(private), &aside)?;
    Ok(aside)
}

/// uphold has ended in order: there is nothing to take over.
pub fn remove(private: &Path) {
    // What cannot be removed is of a process that is no more, and found out by the next.
    drop(fs::remove_file(path(private)));
}

/// Where it stands.
pub fn path(private: &Path) -> PathBuf {
    private.join(FILE)
}

/// That the state cannot be recorded any more, or can be again.
pub struct News {
    /// The file, or that it is in memory.
    pub place: PathBuf,
    /// Why it cannot.
    pub why: Option<String>,
}

/// The file that is written.
pub struct Journal {
    /// In this directory, or in memory. `None`: nobody could tell later whose it is, so nothing is kept.
    place: Option<(Option<PathBuf>, Head)>,
    /// The newest; `None`: none could be begun yet. In memory it is there for as long as it is open.
    file: Option<File>,
    length: u64,
    /// As long it was when it was begun.
    began: u64,
    /// Nothing was put down yet since it was first begun. What is first will be of every unit.
    opening: bool,
    /// The last attempt to write has failed: what is there lacks something.
    failing: bool,
    /// That began or ended, which nobody has said yet.
    news: Option<News>,
    due: Option<Instant>,
}

impl Journal {
    /// Begins the file anew, with all of the state in it, in the version of its head.
    pub fn begin(place: Option<(Option<&Path>, Head)>, engine: &Engine) -> Journal {
        let place = place.map(|(private, head)| (private.map(Path::to_owned), head));
        let (length, began, opening, failing) = (0, 0, false, false);
        let mut journal =
            Journal { place, file: None, length, began, opening, failing, news: None, due: None };
        // It will be said, and is tried again.
        drop(journal.renew(engine));
        journal.opening = true;
        journal
    }

    /// Nobody has removed what was written: it is where the next uphold looks for it.
    pub fn is_whole(&self) -> bool {
        match (&self.file, &self.place) {
            (Some(file), Some((Some(private), _))) => {
                FileId::of(file).is_some_and(|file| file.is_at(&path(private)))
            }
            // What is in memory nobody removes.
            (_, _) => true,
        }
    }

    /// Nothing lives of another uphold that had this directory while this one had lost it, and that is no more: its
    /// state would be replaced, and nobody find what it has left. The error names what does.
    pub fn left_by_another(&self, private: &Path) -> Result<(), String> {
        let (Some(head), Some((_, own))) = (head(&path(private)), &self.place) else { return Ok(()) };
        if head.token == own.token || head.world != own.world {
            return Ok(());
        }
        match host::left_alive(Some(private), &head.token, head.cgroups.as_deref()) {
            None => Ok(()),
            Some(living) => Err(format!(
                "uphold with pid {} has had the directory meanwhile and is no more, and processes of it live ({living}): \
                 stop these",
                head.pid
            )),
        }
    }

    /// Begins the file anew, whatever lies there: the directory is this uphold's.
    pub fn renew(&mut self, engine: &Engine) -> io::Result<()> {
        let begun = self.begin_anew(engine);
        self.settle(begun)
    }

    /// Where another process finds it: [`refuses`] takes it. `None`: nowhere.
    pub fn place(&self) -> Option<PathBuf> {
        match &self.place {
            Some((Some(private), _)) => Some(private.clone()),
            Some((None, _)) => self.file.as_ref().map(host::path_of),
            None => None,
        }
    }

    /// Puts down what has changed, and what could not be put down before. `Err`: it is not on record, and what
    /// must not be done without that has to wait.
    pub fn record(&mut self, engine: &mut Engine) -> io::Result<()> {
        let whole = !self.failing && !self.opening && self.length < LONG.max(self.began * TIMES);
        let appended = match engine.changes() {
            Some(changes) => whole && self.append(&changes).is_ok(),
            None if !self.failing => return Ok(()),
            None => false,
        };
        let recorded = if appended { Ok(()) } else { self.replace(engine) };
        self.settle(recorded)
    }

    /// The version in which it is written.
    pub fn version(&self) -> Option<u32> {
        self.place.as_ref().map(|(_, head)| head.state_version)
    }

    /// Begins the file anew in this version, and goes on in it. `Err`: what stands there may be older, and of
    /// another version.
    pub fn write_in(&mut self, version: u32, engine: &Engine) -> io::Result<()> {
        match &mut self.place {
            Some((_, head)) if head.state_version != version => head.state_version = version,
            Some(_) | None => return Ok(()),
        }
        let begun = self.replace(engine);
        self.settle(begun)
    }

    fn append(&mut self, changes: &Saved<'_>) -> io::Result<()> {
        let (Some(file), Some((_, head))) = (&self.file, &self.place) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match Line::write(file, self.length, &versions::write(head.state_version, changes)) {
            Ok(length) => {
                self.length += length;
                Ok(())
            }
            Err(error) => {
                // A part of a line would make what follows it corrupt.
                drop(file.set_len(self.length));
                Err(error)
            }
        }
    }

    /// Begins the file anew in the place of the one that lies there. Where somebody has removed that, another
    /// uphold may have come: nothing is done before it is known whose the directory is.
    fn replace(&mut self, engine: &Engine) -> io::Result<()> {
        if self.is_whole() {
            self.begin_anew(engine)
        } else {
            Err(io::Error::other("somebody has removed it"))
        }
    }

    fn begin_anew(&mut self, engine: &Engine) -> io::Result<()> {
        let Some((private, head)) = &self.place else { return Ok(()) };
        let new = private.as_ref().map(|private| private.join("state.new"));
        let written = begin_file(new.as_deref()).and_then(|file| {
            let mut length = Line::write(&file, 0, head)?;
            let state = engine.state();
            length += Line::write(&file, length, &versions::write(head.state_version, &state))?;
            failpoint::reach("journal-written");
            match (private, &new) {
                (Some(private), Some(new)) => fs::rename(new, path(private))?,
                (_, _) => host::count(&file)?,
            }
            Ok((file, length))
        });
        match written {
            Ok((file, length)) => {
                self.length = length;
                self.began = length;
                self.opening = false;
                self.file = Some(file);
                failpoint::reach("journal-begun");
                Ok(())
            }
            Err(error) => {
                if let Some(new) = new {
                    drop(fs::remove_file(new));
                }
                Err(error)
            }
        }
    }

    /// When the next attempt is due, after one that has failed.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// That attempt is for later.
    pub fn put_off(&mut self) {
        self.due = self.due.map(|_| Instant::now() + AGAIN);
    }

    /// What is to be said, once: where it is written, and why it cannot be any more, if it cannot.
    pub fn news(&mut self) -> Option<News> {
        self.news.take()
    }

    /// After each attempt.
    fn settle(&mut self, recorded: io::Result<()>) -> io::Result<()> {
        if recorded.is_err() != self.failing {
            let why = recorded.as_ref().err().map(io::Error::to_string);
            let private = self.place.as_ref().and_then(|(private, _)| private.as_deref());
            let place = private.map_or_else(|| "in memory".into(), path);
            self.news = Some(News { place, why });
        }
        self.failing = recorded.is_err();
        // What was answered for has to be on record, also if nothing else happens.
        self.due = self.failing.then(|| Instant::now() + AGAIN);
        recorded
    }
}

/// A new file, at this path or in memory.
fn begin_file(path: Option<&Path>) -> io::Result<File> {
    match path {
        Some(path) => {
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            // Whatever lies there: nobody is waited for.
            options.custom_flags(host::NONBLOCK).open(path)
        }
        None => host::memory(FILE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Input, Settings};

    fn head() -> Head {
        let world = World { boot: "boot".to_owned(), pid_namespace: "pid:[1]".to_owned(), first: 1 };
        let (token, release) = ("0123456789abcdef".to_owned(), "0.1.0".to_owned());
        let (state_version, cgroups, nofile, oom_score_adj) = (1, None, None, None);
        Head {
            state_version,
            world,
            token,
            cgroups,
            pid: 7,
            start: 70,
            release,
            image: 1,
            nofile,
            oom_score_adj,
        }
    }

    fn own(message: &str) -> Input {
        Input::Own { reason: "Said", warning: false, message: message.to_owned() }
    }

    fn say(engine: &mut Engine, message: &str) {
        engine.handle(host::now(), own(message), &mut Vec::new());
    }

    fn found(private: &Path) -> Option<String> {
        match read(&path(private), Some(&head().world), (1, 1), false) {
            Before::State(found) => Some(serde_json::to_string(&found.1).unwrap()),
            Before::Nothing | Before::Strange(_) | Before::Useless(_) | Before::Unreadable(_) => None,
        }
    }

    #[test]
    fn a_state_that_is_damaged_anywhere_is_what_was_on_record_before_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Engine::new(Settings::default());
        let mut journal = Journal::begin(Some((Some(dir.path()), head())), &engine);
        let mut whole = vec![found(dir.path()).unwrap()];
        for message in ["one", "two"] {
            say(&mut engine, message);
            journal.record(&mut engine).unwrap();
            whole.push(found(dir.path()).unwrap());
        }
        let bytes = fs::read(path(dir.path())).unwrap();
        for length in 0..bytes.len() {
            fs::write(path(dir.path()), &bytes[..length]).unwrap();
            let read = found(dir.path());
            assert!(read.is_none_or(|read| whole.contains(&read)), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(path(dir.path()), damaged).unwrap();
            assert!(found(dir.path()).is_none_or(|read| whole.contains(&read)), "a bit of byte {at}");
        }
    }

    #[test]
    fn a_state_goes_on_in_another_version_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Engine::new(Settings::default());
        let mut journal = Journal::begin(Some((Some(dir.path()), head())), &engine);
        for (version, message) in [(2, "one"), (1, "two"), (2, "three")] {
            journal.write_in(version, &engine).unwrap();
            say(&mut engine, message);
            journal.record(&mut engine).unwrap();
            let text = fs::read_to_string(path(dir.path())).unwrap();
            assert!(
                text.contains(&format!("\"state_version\":{version},")) && text.contains(message),
                "{text}"
            );
            assert_eq!(text.matches("\"later\":").count(), if version == 1 { 0 } else { 2 }, "{text}");
            // Only the first is known here.
            let strange =
                matches!(read(&path(dir.path()), Some(&head().world), (1, 1), false), Before::Strange(_));
            assert_eq!((strange, found(dir.path()).is_some()), (version != 1, version == 1));
        }
    }

    #[test]
    fn what_lies_in_the_place_of_a_state_that_somebody_has_removed_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Engine::new(Settings::default());
        let mut journal = Journal::begin(Some((Some(dir.path()), head())), &engine);
        say(&mut engine, "none");
        journal.record(&mut engine).unwrap();
        fs::remove_file(path(dir.path())).unwrap();
        fs::write(path(dir.path()), "another's").unwrap();
        assert!(!journal.is_whole());
        say(&mut engine, "one");
        // As long as it only grows, it goes on where nobody sees it.
        journal.record(&mut engine).unwrap();
        journal.write_in(2, &engine).unwrap_err();
        assert!(journal.record(&mut engine).is_err());
        assert_eq!(fs::read_to_string(path(dir.path())).unwrap(), "another's");
        journal.renew(&engine).unwrap();
        assert!(journal.is_whole() && !journal.failing);
    }

    #[test]
    fn a_line_that_is_whole_and_not_understood_is_no_line_that_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        Journal::begin(Some((Some(dir.path()), head())), &Engine::new(Settings::default()));
        let whole = fs::read_to_string(path(dir.path())).unwrap();
        for (json, why) in
            [("{\"core\":7}", "invalid type: integer `7`"), ("{\"later\":{}}", "unknown field `later`")]
        {
            let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
            fs::write(path(dir.path()), format!("{whole}{line}")).unwrap();
            let said = match read(&path(dir.path()), Some(&head().world), (1, 1), false) {
                Before::Strange(strange) => strange.1,
                before => panic!("{json}: {before:?}"),
            };
            assert!(said.starts_with("line 3 of it ") && said.contains(why), "{said}");
        }
    }

    #[test]
    fn what_could_not_be_recorded_is_as_long_as_it_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Engine::new(Settings::default());
        let private = dir.path().join("private");
        let mut journal = Journal::begin(Some((Some(&private), head())), &engine);
        assert!(journal.failing);
        say(&mut engine, "one");
        assert!(journal.record(&mut engine).is_err());
        // There is no change any more, and still nothing on record.
        assert!(journal.record(&mut engine).is_err());
        fs::create_dir(&private).unwrap();
        journal.record(&mut engine).unwrap();
        assert!(found(&private).unwrap().contains("one"));
    }
}
