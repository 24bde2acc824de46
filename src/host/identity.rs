//! Who a unit's processes are.

use nix::unistd::{getegid, geteuid};

use super::prepare::Failed;
use super::spawn::Become;
use super::users::{User, Users};
use crate::engine::SpawnFailure;
use crate::unit::Unit;

/// A unit's user and group, resolved.
#[derive(Debug)]
pub(super) struct Identity {
    /// Effective.
    pub uid: u32,
    /// Effective.
    pub gid: u32,
    /// Of `user`, where the unit names one.
    pub account: Option<User>,
    /// What the child has to change.
    pub change: Become,
}

impl Identity {
    /// Looks up `user` and `group`. Who already is the wanted uid keeps the groups it has.
    pub(super) fn of(unit: &Unit) -> Result<Identity, SpawnFailure> {
        let own = Identity {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            account: None,
            change: Become::default(),
        };
        if unit.user.is_none() && unit.group.is_none() {
            return Ok(own);
        }
        let users = Users::read().map_err(|error| Failed::io("setting the user", "", &error))?;
        let account = unit.user.as_deref().map(|wanted| account(&users, wanted)).transpose()?;
        let group = unit.group.as_deref().map(|wanted| group(&users, wanted)).transpose()?;
        let uid = account.as_ref().map_or(own.uid, |user| user.uid);
        let same = uid == own.uid;
        let primary = account.as_ref().filter(|_| !same).map(|user| user.gid);
        let gid = group.or(primary).unwrap_or(own.gid);
        let groups = account.as_ref().filter(|_| !same).map(|user| users.groups_of(&user.name, gid));
        let change =
            Become { groups, gid: (!same || gid != own.gid).then_some(gid), uid: (!same).then_some(uid) };
        Ok(Identity { uid, gid, account, change })
    }
}

fn account(users: &Users, wanted: &str) -> Result<User, SpawnFailure> {
    if let Some(user) = users.user(wanted) {
        return Ok(user);
    }
    let Ok(uid) = wanted.parse::<u32>() else {
        let message = format!("no user named {wanted} in /etc/passwd: add it there, or write a number");
        return Err(Failed::plain("setting the user", message));
    };
    // A number that nobody has, as in a container from scratch: the group of the same number.
    Ok(User { name: wanted.to_owned(), uid, gid: uid, home: "/".to_owned(), shell: String::new() })
}

fn group(users: &Users, wanted: &str) -> Result<u32, SpawnFailure> {
    users.group(wanted).ok_or_else(|| {
        let message = format!("no group named {wanted} in /etc/group: add it there, or write a number");
        Failed::plain("setting the group", message)
    })
}
