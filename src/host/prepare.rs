//! What is resolved before a clone: user, environment, command, directories, limits. All of it may block,
//! so all of it is done on a spawning thread.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::{self, c_int};

use super::Settings;
use super::environment::{self, Environment};
use super::identity::Identity;
use super::spawn::{Image, Stage};
use crate::engine::SpawnFailure;
use crate::unit::{Limit, Resource, Unit};

/// Makers of [`SpawnFailure`].
pub(super) struct Failed;

impl Failed {
    /// One that stays as it is until somebody changes something.
    pub(super) fn plain(stage: &str, message: String) -> SpawnFailure {
        SpawnFailure { stage: stage.to_owned(), message, passing: false, code: 126 }
    }

    /// One that the system gave.
    pub(super) fn io(stage: &str, about: &str, error: &io::Error) -> SpawnFailure {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let message = match errno {
            Some(errno) => format!("{about}{}", sentence(errno)),
            None => format!("{about}{error}"),
        };
        let passing = errno.is_some_and(passing);
        SpawnFailure { stage: stage.to_owned(), message, passing, code: 126 }
    }

    fn errno(stage: &str, about: &str, errno: Errno) -> SpawnFailure {
        Failed::io(stage, about, &errno.into())
    }
}

/// For want of something that comes back.
pub(super) fn passing(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ETXTBSY)
}

fn sentence(errno: Errno) -> String {
    // The kernel's "try again" does not say that something is lacking, and uphold tries again anyway.
    if errno == Errno::EAGAIN {
        return "resource temporarily unavailable".to_owned();
    }
    let mut text = errno.desc().to_owned();
    if let Some(first) = text.get_mut(0..1) {
        first.make_ascii_lowercase();
    }
    text
}

/// Resolved, but for the descriptors.
#[derive(Debug)]
pub(super) struct Prepared {
    /// For the child.
    pub image: Image,
    /// Who it will be.
    pub identity: Identity,
    /// The names of `image.limits`.
    limit_names: Vec<&'static str>,
    /// What to say beside the start.
    pub warnings: Vec<String>,
}

/// What kind of process is to be started.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role<'a> {
    /// A main process, with this UPHOLD_RUN.
    Main(&'a str),
    /// COMMAND of `init`.
    Foreground,
    /// An exec probe, with this UPHOLD_PROBE.
    Probe(&'a str),
}

/// Resolves what a command as this unit needs. `ignored`: the signals that uphold ignores.
pub(super) fn prepare(
    settings: &Settings,
    unit: &Unit,
    command: &[String],
    role: Role<'_>,
    ignored: &Arc<[c_int]>,
) -> Result<Prepared, SpawnFailure> {
    let mut warnings = Vec::new();
    let identity = Identity::of(unit)?;
    let foreground = matches!(role, Role::Foreground);
    let mut environment = if foreground {
        let mut own = Environment::new();
        own.extend(std::env::vars_os().filter(|(name, _)| name != super::reexec::GOES_ON));
        own
    } else {
        environment::of(unit, &identity, &settings.trust, &mut warnings)?
    };
    // uphold itself may have been started by one of its services: what it starts is not of that run.
    if let Some(mark) = environment.get_mut(OsStr::new("UPHOLD_RUN"))
        && mark.as_bytes().ends_with(settings.token.as_bytes())
    {
        mark.clear();
    }
    match role {
        Role::Main(marker) => drop(environment.insert("UPHOLD_RUN".into(), marker.into())),
        Role::Probe(marker) => drop(environment.insert("UPHOLD_PROBE".into(), marker.into())),
        Role::Foreground => {}
    }
    if !matches!(role, Role::Probe(_)) {
        for directory in &unit.directories {
            super::directory::make(directory, identity.uid, identity.gid).map_err(|error| {
                Failed::io("making its directories", &format!("{}: ", directory.path.display()), &error)
            })?;
        }
    }
    let dir = match &unit.working_dir {
        Some(dir) => Some(dir.clone()),
        None if foreground => None,
        None => Some(settings.default_dir.clone()),
    };
    let candidates = candidates(command, environment.get(OsStr::new("PATH")), dir.as_deref())?;
    let (limits, limit_names) = limits(unit, settings.nofile);
    let envp = environment.into_iter().map(|(name, value)| {
        let mut bytes = name.into_vec();
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        text(bytes, "its environment")
    });
    let image = Image {
        candidates,
        argv: command
            .iter()
            .map(|word| text(word.as_bytes().to_vec(), "its command"))
            .collect::<Result<_, _>>()?,
        envp: envp.collect::<Result<_, _>>()?,
        dir: dir.map(|dir| text(dir.into_os_string().into_vec(), "its working directory")).transpose()?,
        identity: identity.change.clone(),
        umask: (!foreground).then_some(unit.umask),
        limits,
        oom_score_adj: settings.oom_score_adj.and_then(|score| CString::new(score.to_string()).ok()),
        stdio: None,
        session: !foreground,
        ignored: ignored.clone(),
    };
    Ok(Prepared { image, identity, limit_names, warnings })
}

fn text(bytes: Vec<u8>, what: &str) -> Result<CString, SpawnFailure> {
    CString::new(bytes)
        .map_err(|_| Failed::plain("preparing the command", format!("{what} has a NUL byte in it")))
}

/// The files that execve is tried on, in order.
fn candidates(
    command: &[String],
    path: Option<&std::ffi::OsString>,
    dir: Option<&Path>,
) -> Result<Vec<CString>, SpawnFailure> {
    const STAGE: &str = "finding the command";
    let Some(program) = command.first().filter(|program| !program.is_empty()) else {
        return Err(Failed::plain(STAGE, "the command is empty".to_owned()));
    };
    if program.contains('/') {
        return Ok(vec![text(program.as_bytes().to_vec(), "its command")?]);
    }
    let path = path.map_or(environment::PATH.into(), |path| path.to_string_lossy().into_owned());
    let mut found = Vec::new();
    let mut closed: Option<PathBuf> = None;
    for part in std::env::split_paths(&path) {
        // A relative part is taken from the working directory, where the child will be.
        let file = dir.unwrap_or(Path::new("")).join(part).join(program);
        match std::fs::metadata(&file) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
                found.push(text(file.into_os_string().into_vec(), "its command")?);
            }
            Ok(metadata) if metadata.is_file() => closed = Some(file),
            Ok(_) | Err(_) => {}
        }
    }
    match (found.is_empty(), closed) {
        (false, _) => Ok(found),
        (true, Some(file)) => {
            Err(Failed::plain(STAGE, format!("{} is not executable: chmod +x would do", file.display())))
        }
        (true, None) => {
            let message = format!("no {program} in PATH ({path}): name it with its whole path");
            Err(SpawnFailure { code: 127, ..Failed::plain(STAGE, message) })
        }
    }
}

fn limits(unit: &Unit, nofile: Option<(u64, u64)>) -> (Vec<(c_int, u64, u64)>, Vec<&'static str>) {
    let mut limits = Vec::new();
    let mut names = Vec::new();
    if let Some((soft, hard)) = nofile
        && !unit.limits.contains_key(&Resource::Nofile)
    {
        limits.push((number(Resource::Nofile), soft, hard));
        names.push("nofile");
    }
    for (resource, Limit { soft, hard }) in &unit.limits {
        let plain = |limit: Option<u64>| limit.unwrap_or(libc::RLIM64_INFINITY);
        limits.push((number(*resource), plain(*soft), plain(*hard)));
        names.push(resource.name());
    }
    (limits, names)
}

fn number(resource: Resource) -> c_int {
    let number = match resource {
        Resource::As => libc::RLIMIT_AS,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Cpu => libc::RLIMIT_CPU,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Locks => libc::RLIMIT_LOCKS,
        Resource::Memlock => libc::RLIMIT_MEMLOCK,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Nproc => libc::RLIMIT_NPROC,
        Resource::Rss => libc::RLIMIT_RSS,
        Resource::Rtprio => libc::RLIMIT_RTPRIO,
        Resource::Rttime => libc::RLIMIT_RTTIME,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING,
        Resource::Stack => libc::RLIMIT_STACK,
    };
    c_int::try_from(number).unwrap_or(c_int::MAX)
}

/// Says what a child's stage and errno mean.
pub(super) fn explain(unit: &Unit, prepared: &Prepared, stage: Stage, errno: Errno) -> SpawnFailure {
    match stage {
        Stage::Clone => {
            let mut failure = Failed::errno("creating the process", "", errno);
            if errno == Errno::EAGAIN {
                failure
                    .message
                    .push_str(": no more processes are allowed (RLIMIT_NPROC, pids.max, threads-max)");
            }
            failure
        }
        Stage::Session => Failed::errno("starting a session", "", errno),
        Stage::Memory => Failed::errno("setting its oom_score_adj", "/proc/self/oom_score_adj: ", errno),
        Stage::Stdio => Failed::errno("connecting its output", "", errno),
        Stage::Limit(index) => {
            let name = prepared.limit_names.get(index).copied().unwrap_or("");
            let help = if errno == Errno::EPERM {
                ": above the hard limit, and uphold may not raise it"
            } else {
                ""
            };
            let mut failure = Failed::errno(&format!("setting the limit {name}"), "", errno);
            failure.message.push_str(help);
            failure
        }
        Stage::User => {
            let who = unit.user.as_deref().or(unit.group.as_deref()).unwrap_or("");
            let mut failure = Failed::errno("setting the user", &format!("becoming {who}: "), errno);
            if errno == Errno::EPERM {
                failure.message.push_str(": run uphold as root, or take `user` and `group` out of the unit");
            }
            failure
        }
        Stage::Directory => {
            let dir = prepared.image.dir.as_ref().map(|dir| dir.to_string_lossy().into_owned());
            Failed::errno("entering the working directory", &format!("{}: ", dir.unwrap_or_default()), errno)
        }
        Stage::Exec => not_executed(prepared, errno),
    }
}

fn not_executed(prepared: &Prepared, errno: Errno) -> SpawnFailure {
    let path = prepared.image.candidates.first().map(|path| path.to_string_lossy().into_owned());
    let path = path.unwrap_or_default();
    let mut failure = Failed::errno("executing the command", &format!("{path}: "), errno);
    match errno {
        // Seen from uphold's own place and rights: a guess, used only for the words.
        Errno::ENOENT if Path::new(&path).is_absolute() && Path::new(&path).exists() => {
            failure.message.push_str(": it is there, but the interpreter or loader that it names is not");
        }
        Errno::ENOENT | Errno::ENOTDIR => failure.code = 127,
        Errno::EAGAIN => failure.message.push_str(": its user has as many processes as RLIMIT_NPROC allows"),
        Errno::ENOEXEC => failure.message.push_str(
            ": a script needs a first line like #!/bin/sh, a binary is cut short or of another machine",
        ),
        _ => {}
    }
    failure
}
