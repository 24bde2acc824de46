//! The environment of a unit's processes, later wins: inherited, the user's, the unit's, the files'.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use super::identity::Identity;
use super::prepare::Failed;
use super::reexec::GOES_ON;
use crate::engine::SpawnFailure;
use crate::unit::{EnvironmentFile, Inherit, Unit, envfile, trust::Trust};

/// Where a bare command is looked for if nothing says otherwise.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// No environment file is longer.
const LONGEST: u64 = 1 << 20;
const STAGE: &str = "reading its environment files";

pub(super) type Environment = BTreeMap<OsString, OsString>;

/// Puts it together. Breaches of trust that are only warnings go to `warnings`.
pub(super) fn of(
    unit: &Unit,
    identity: &Identity,
    trust: &Trust,
    warnings: &mut Vec<String>,
) -> Result<Environment, SpawnFailure> {
    let mut environment = Environment::new();
    environment.extend(std::env::vars_os().filter(|(name, _)| inherits(&unit.inherit_environment, name)));
    if let Some(user) = &identity.account {
        let shell = if user.shell.is_empty() { "/bin/sh" } else { &user.shell };
        for (name, value) in
            [("HOME", &*user.home), ("USER", &user.name), ("LOGNAME", &user.name), ("SHELL", shell)]
        {
            environment.insert(name.into(), value.into());
        }
    }
    for (name, value) in &unit.environment {
        environment.insert(name.into(), value.into());
    }
    for file in &unit.environment_files {
        for (name, value) in read(file, trust, warnings)? {
            environment.insert(name.into(), value.into());
        }
    }
    environment.entry("PATH".into()).or_insert_with(|| PATH.into());
    Ok(environment)
}

/// What the manager above said to uphold is not for its children.
fn inherits(rule: &Inherit, name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let ours = [b"NOTIFY_SOCKET".as_slice(), b"INVOCATION_ID", b"JOURNAL_STREAM"].contains(&bytes)
        || name == GOES_ON
        || bytes.starts_with(b"WATCHDOG_")
        || bytes.starts_with(b"LISTEN_");
    let wanted = match rule {
        Inherit::All => true,
        Inherit::Nothing => false,
        Inherit::Names(names) => names.iter().any(|wanted| wanted.as_bytes() == bytes),
    };
    wanted && !ours
}

fn read(
    file: &EnvironmentFile,
    trust: &Trust,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, String)>, SpawnFailure> {
    let path = file.path.display();
    let open = |path| -> io::Result<File> {
        // A FIFO there must not hold up every other start.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    };
    let opened = match open(&file.path) {
        Err(error) if file.optional && error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failed::io(STAGE, &format!("{path}: "), &error)),
        Ok(opened) => opened,
    };
    if let Err(reason) = trust.judge(&opened, &file.path) {
        let message = format!("{path} is not to be trusted: {reason}");
        if !trust.lenient {
            return Err(Failed::plain(STAGE, message));
        }
        warnings.push(message);
    }
    let mut text = String::new();
    let length = (&opened)
        .take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failed::io(STAGE, &format!("{path}: "), &error))?;
    if length as u64 > LONGEST {
        return Err(Failed::plain(STAGE, format!("{path} is longer than 1 MiB")));
    }
    envfile::parse(&text).map_err(|(line, problem)| Failed::plain(STAGE, format!("{path}:{line}: {problem}")))
}
