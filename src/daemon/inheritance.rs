//! What an uphold before has left, and what of it this one goes by.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::journal::{self, Before, Head};
use super::places::Places;
use super::versions;
use crate::engine::Saved;
use crate::failpoint;
use crate::host::{self, Crashes, Inherited, Lock, LockError, Stored, World};

/// Found once the runtime directory is locked.
#[derive(Debug)]
pub struct Inheritance {
    /// The engine's state; `None`: a first start.
    pub state: Option<Saved<'static>>,
    /// The same process goes on: after an upgrade or a crash.
    pub same: bool,
    /// Sixteen hex digits that mark all that this line of upholds has started.
    pub token: String,
    /// Which image of this process this is, from 1 on.
    pub image: u32,
    /// What children get for RLIMIT_NOFILE, if uphold has raised its own.
    pub nofile: Option<(u64, u64)>,
    /// oom_score_adj likewise.
    pub oom_score_adj: Option<i32>,
    /// Where the cgroups of its runs are.
    pub cgroups: Option<PathBuf>,
    /// `None`: nobody could tell later whose pids these are, so nothing is kept.
    pub world: Option<World>,
    /// How often and why this process has crashed.
    pub crashes: Crashes,
    /// What the image before has left open.
    pub descriptors: Inherited,
    /// What a service manager has kept of what an uphold before had open.
    pub stored: Stored,
    /// What there is to say, each with the reason of its event.
    pub complaints: Vec<(&'static str, String)>,
    /// Pid and start of the uphold that has left the state, if that is another process.
    pub before: Option<(u32, u64)>,
    /// Held for as long as uphold runs; `None`: there is no runtime directory.
    pub lock: Option<Lock>,
}

/// Why this uphold must not begin.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The runtime directory is another's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Services may live that nobody could take over.
    #[error(
        "cannot read {}: {error}; services of an uphold before may live, and nothing is started beside them: \
         start uphold again, or remove that file to begin without them", path.display()
    )]
    Unreadable {
        /// The state.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody has removed what the image before had, and it cannot be put back.
    #[error("cannot go on in {}: putting back what somebody has removed from it failed: {error}", private.display())]
    Removed {
        /// Where it was.
        private: PathBuf,
        /// What the system said, and of which file.
        error: io::Error,
    },
    /// The image before has left services and no state.
    #[error(
        "cannot go on: there is no state that is of use, processes that uphold has started live ({pids}), and nothing is \
         started beside them: stop these processes to begin without them"
    )]
    Stateless {
        /// Which, in words.
        pids: String,
    },
    /// Services live that this uphold cannot take over, and another can.
    #[error(
        "cannot go on from {}: {why}; uphold {release} wrote it, processes of it live ({pids}), and nothing is \
         started beside them: start that uphold again, or stop these processes, or remove the file to begin \
         without them", path.display()
    )]
    Strange {
        /// The state.
        path: PathBuf,
        /// Why it is not understood.
        why: String,
        /// Of the uphold that wrote it.
        release: String,
        /// Which, in words.
        pids: String,
    },
}

/// What becomes of processes that live and of which there is no state.
pub const BESIDE: &str =
    "nobody supervises them, and units start a second time beside them: stop these processes";

impl Inheritance {
    /// Locks the runtime directory and reads what there is; what is of no use is set aside.
    pub fn find(places: &Places, mut descriptors: Inherited) -> Result<Inheritance, Refused> {
        let lock = places.runtime.as_deref().map(|dir| host::lock_runtime_dir(dir, &mut descriptors));
        let lock = lock.transpose()?;
        failpoint::reach("locked");
        match Inheritance::of(places, descriptors) {
            Ok(found) => Ok(Inheritance { lock, ..found }),
            Err(refused) => {
                if host::goes_on() {
                    // It is tried again.
                    lock.into_iter().for_each(Lock::hand_on);
                }
                Err(refused)
            }
        }
    }

    /// What there is in a place that is this uphold's.
    fn of(places: &Places, descriptors: Inherited) -> Result<Inheritance, Refused> {
        let private = places.private.as_deref();
        let odd = private.map(host::clear_away).unwrap_or_default();
        let mut lack = None;
        if let (Some(private), true) = (private, host::goes_on()) {
            let put_back = descriptors.salvage(private, journal::FILE);
            lack = put_back.map_err(|error| Refused::Removed { private: private.to_owned(), error })?;
        }
        let mut found = Inheritance::read(private, Inheritance::nothing(descriptors))?;
        if let (Some((pid, start)), Some(runtime)) = (found.before, &places.runtime) {
            host::wait_for_end(runtime, pid, start)?;
        }
        let descriptors = &mut found.descriptors;
        if found.same {
            let (stored, unmarked) = descriptors.take_pipes(private);
            found.stored = stored;
            lack = lack.or(unmarked);
        } else {
            found.stored = descriptors.take_stored();
        }
        found.complaints.extend(odd.into_iter().map(|odd| ("SetAside", odd)));
        found.complaints.extend(lack.map(|lack| ("RuntimeDirLost", lack)));
        match host::catch_crashes(descriptors, private, !found.same) {
            Ok(crashes) => found.crashes = crashes,
            Err(error) => {
                let lack =
                    format!("cannot keep a page for crashes: {error}; uphold survives none of its own");
                found.complaints.push(("CrashesNotKept", lack));
            }
        }
        Ok(found)
    }

    fn nothing(descriptors: Inherited) -> Inheritance {
        Inheritance {
            state: None,
            same: false,
            token: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            image: 1,
            nofile: None,
            oom_score_adj: None,
            cgroups: None,
            world: host::world(),
            crashes: Crashes::default(),
            descriptors,
            stored: Stored::default(),
            complaints: Vec::new(),
            before: None,
            lock: None,
        }
    }

    /// The state in the private directory, or in memory where there is none.
    fn read(private: Option<&Path>, none: Inheritance) -> Result<Inheritance, Refused> {
        let own = (std::process::id(), host::own_start());
        let path = private.map(|private| private.join(journal::FILE));
        let Some(path) = path.or_else(|| none.descriptors.memory_path(journal::FILE)) else {
            return none.at_the_beginning();
        };
        Ok(match journal::read(&path, none.world.as_ref(), own, host::is_pid1()) {
            Before::Nothing => {
                let mut none = none.at_the_beginning()?;
                if let Some((private, pids)) =
                    private.and_then(|private| Some((private, host::recorded_alive(private)?)))
                {
                    let text = format!(
                        "there is no state in {}, and processes of an uphold before live ({pids}): {BESIDE}",
                        private.display()
                    );
                    none.complaints.push(("StateLost", text));
                }
                none
            }
            Before::State(found) => {
                let (head, state) = *found;
                let same = (head.pid, head.start) == own;
                // An image that goes on finds the state of another process where somebody has removed its own: that
                // says nothing of what it has started itself.
                let none = if same { none } else { none.at_the_beginning()? };
                let (image, nofile, oom_score_adj) =
                    if same { (head.image + 1, head.nofile, head.oom_score_adj) } else { (1, None, None) };
                let before = (!same).then_some((head.pid, head.start));
                let (token, cgroups) = (head.token, head.cgroups);
                let state = Some(state);
                Inheritance { state, same, token, image, nofile, oom_score_adj, cgroups, before, ..none }
            }
            Before::Strange(strange) => {
                let (head, why) = *strange;
                match host::left_alive(private, &head.token, head.cgroups.as_deref()) {
                    None => none.without(private, &why),
                    Some(pids) => return Err(Refused::Strange { path, why, release: head.release, pids }),
                }
            }
            Before::Useless(why) => none.at_the_beginning()?.without(private, &why),
            Before::Unreadable(error) => {
                return Err(Refused::Unreadable { path, error });
            }
        })
    }

    /// There is no state of this process: nothing was started yet. For an image that goes on that is to be seen.
    fn at_the_beginning(self) -> Result<Inheritance, Refused> {
        if !host::goes_on() {
            return Ok(self);
        }
        match host::own_alive() {
            None => Ok(self),
            Some(pids) => Err(Refused::Stateless { pids }),
        }
    }

    /// What stands there is of no use, and goes out of the way.
    fn without(mut self, private: Option<&Path>, why: &str) -> Inheritance {
        let place = match private.map(journal::set_aside) {
            Some(Ok(aside)) => format!("it is set aside as {}", aside.display()),
            Some(Err(error)) => format!("it cannot be set aside: {error}"),
            None => "it was in memory".to_owned(),
        };
        let mut complaint = format!("the state of an uphold before is not taken over: {why}; {place}");
        if let Some(pids) = private.and_then(host::recorded_alive) {
            complaint.push_str(&format!("; processes of it live ({pids}): {BESIDE}"));
        }
        self.complaints.push(("StateNotTakenOver", complaint));
        self
    }

    /// This image cannot begin, and tries again: all stays open for the next attempt.
    pub fn hand_on(mut self) {
        self.lock.take().into_iter().for_each(Lock::hand_on);
        std::mem::forget(self);
    }

    /// Closes what was open before, once all was taken over.
    pub fn close_descriptors(&mut self) {
        self.stored = Stored::default();
        let descriptors = std::mem::take(&mut self.descriptors);
        if self.same || host::goes_on() {
            descriptors.close();
        }
    }

    /// What marks this line of upholds for everybody. Its token marks processes, and is nobody's business.
    pub fn life(&self) -> String {
        format!("{:08x}", crc32fast::hash(self.token.as_bytes()))
    }

    /// The head of this uphold's own journal.
    pub fn head(&self, world: World, cgroups: Option<&Path>) -> Head {
        Head {
            state_version: versions::newest(),
            world,
            token: self.token.clone(),
            cgroups: cgroups.map(Path::to_owned),
            pid: std::process::id(),
            start: host::own_start(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            image: self.image,
            nofile: self.nofile,
            oom_score_adj: self.oom_score_adj,
        }
    }
}
