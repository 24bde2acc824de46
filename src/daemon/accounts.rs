//! The users and groups that files name, looked up on this machine. One that is not there is a warning: the
//! files may be meant for another machine, and it may come before it is needed.

use std::collections::BTreeMap;

use crate::control::Permissions;
use crate::host::{self, Users};
use crate::unit::{Config, Kind, Problem, Set, Severity};

/// Who may use the control API. A group that is not there admits nobody.
pub(super) fn permissions(config: &Config, problems: &mut Vec<Problem>) -> Permissions {
    let users = Users::read();
    let mut resolve = |key: &str, names: &[String]| {
        let mut gids = Vec::new();
        for name in names {
            let why = match &users {
                Ok(users) => match users.group(name) {
                    Some(gid) => {
                        gids.push(gid);
                        continue;
                    }
                    None => format!("/etc/group has no group `{name}`"),
                },
                Err(error) => format!("cannot look up the group `{name}`: {error}"),
            };
            let message = format!("{why}: nobody is admitted by it");
            problems.push(config.problem(Severity::Warning, key, Some(name), message, None));
        }
        gids
    };
    Permissions {
        uid: host::uid(),
        admin: resolve("control.admin_groups", &config.admin_groups),
        read: resolve("control.read_groups", &config.read_groups),
    }
}

/// Units that could not be started here, for want of their user or group.
pub(super) fn missing(set: &Set) -> Vec<Problem> {
    // Who cannot read them cannot tell.
    let Ok(users) = Users::read() else { return Vec::new() };
    let mut problems: Vec<Problem> = Vec::new();
    // Many units have one user: each name is looked up once.
    let mut known = BTreeMap::new();
    for loaded in set.units.values().filter(|loaded| !loaded.masked && loaded.unit.kind != Kind::Group) {
        let (user, group) = (&loaded.unit.user, &loaded.unit.group);
        for (key, file, name) in [("user", "/etc/passwd", user), ("group", "/etc/group", group)] {
            let Some(name) = name else { continue };
            let is_there = || if key == "user" { users.has_user(name) } else { users.group(name).is_some() };
            if *known.entry((key, name)).or_insert_with(is_there) {
                continue;
            }
            let message = format!("{file} has no {key} `{name}`: the unit cannot be started on this machine");
            let help = Some(format!("add the {key} before the start, or correct `{key}`"));
            let problem = loaded.problem(Severity::Warning, key, None, message, help);
            // What the defaults say is said once for all units.
            let same = |other: &Problem| {
                (&other.file, other.at, &other.message) == (&problem.file, problem.at, &problem.message)
            };
            if !problems.iter().any(same) {
                problems.push(problem);
            }
        }
    }
    problems
}
