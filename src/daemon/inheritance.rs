//! What an uphold before has left, and what of it this one goes by.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use super::journal::{self, Before, Head, STATE_VERSION};
use super::places::Places;
use crate::engine::Saved;
use crate::host::{self, World};

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
    /// Where the cgroups of its runs are.
    pub cgroups: Option<PathBuf>,
    /// `None`: nobody could tell later whose pids these are, so nothing is kept.
    pub world: Option<World>,
    /// What there is to say.
    pub complaint: Option<String>,
}

impl Inheritance {
    /// Reads what there is; what is of no use is set aside. An error: services may live that nobody could take
    /// over.
    pub fn find(places: &Places) -> Result<Inheritance, String> {
        let world = host::world();
        let none = Inheritance {
            state: None,
            same: false,
            token: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            image: 1,
            nofile: None,
            cgroups: None,
            world,
            complaint: None,
        };
        let Some(private) = places.private.as_deref() else { return Ok(none) };
        let own = (std::process::id(), host::own_start());
        Ok(match journal::read(private, none.world.as_ref(), own, host::is_pid1()) {
            Before::Nothing => none,
            Before::State(found) => {
                let (head, state) = *found;
                let same = (head.pid, head.start) == own;
                let (image, nofile) = if same { (head.image + 1, head.nofile) } else { (1, None) };
                let (token, cgroups) = (head.token, head.cgroups);
                Inheritance { state: Some(state), same, token, image, nofile, cgroups, ..none }
            }
            Before::Useless(why) => {
                let place = match journal::set_aside(private) {
                    Ok(aside) => format!("it is set aside as {}", aside.display()),
                    Err(error) => format!("it cannot be set aside: {error}"),
                };
                let complaint = format!("the state of an uphold before is not taken over: {why}; {place}");
                Inheritance { complaint: Some(complaint), ..none }
            }
            Before::Unreadable(error) => {
                return Err(format!(
                    "cannot read {}: {error}; services of an uphold before may live, and nothing is started beside \
                     them: start uphold again, or remove that file to begin without them",
                    private.join("state").display()
                ));
            }
        })
    }

    /// The head of this uphold's own journal.
    pub fn head(&self, world: World, cgroups: Option<&Path>) -> Head {
        Head {
            state_version: STATE_VERSION,
            world,
            token: self.token.clone(),
            cgroups: cgroups.map(Path::to_owned),
            pid: std::process::id(),
            start: host::own_start(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            image: self.image,
            nofile: self.nofile,
        }
    }
}
