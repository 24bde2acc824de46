//! Users and groups as /etc/passwd and /etc/group have them: a static binary knows no other source.

use std::fs;
use std::io;

/// One line of /etc/passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

/// The texts of both files.
#[derive(Debug, Default)]
pub struct Users {
    passwd: String,
    group: String,
}

impl Users {
    /// Reads them. A file that is missing has no entries: a container from scratch has neither.
    pub fn read() -> io::Result<Users> {
        Ok(Users { passwd: text("/etc/passwd")?, group: text("/etc/group")? })
    }

    /// By name, else by number; a number that nobody has is nobody's.
    pub(super) fn user(&self, wanted: &str) -> Option<User> {
        let mut users = self.passwd.lines().filter_map(user);
        if let Some(found) = users.find(|user| user.name == wanted) {
            return Some(found);
        }
        let uid: u32 = wanted.parse().ok()?;
        self.passwd.lines().filter_map(user).find(|user| user.uid == uid)
    }

    /// Whether a unit's `user` could be set here: somebody has the name, or it is a number.
    pub fn has_user(&self, wanted: &str) -> bool {
        self.user(wanted).is_some() || wanted.parse::<u32>().is_ok()
    }

    /// The number of a group, by name, else itself.
    pub fn group(&self, wanted: &str) -> Option<u32> {
        let found = self.group.lines().filter_map(group).find(|(name, _, _)| *name == wanted);
        found.map(|(_, gid, _)| gid).or_else(|| wanted.parse().ok())
    }

    /// The primary group and every group that lists the user.
    pub(super) fn groups_of(&self, name: &str, primary: u32) -> Vec<u32> {
        let mut gids = vec![primary];
        for (_, gid, members) in self.group.lines().filter_map(group) {
            if members.split(',').any(|member| member == name) && !gids.contains(&gid) {
                gids.push(gid);
            }
        }
        gids
    }
}

fn text(path: &str) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot read {path}: {error}"))),
    }
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?;
    let shell = fields.next().unwrap_or("");
    Some(User { name: name.to_owned(), uid, gid, home: home.to_owned(), shell: shell.to_owned() })
}

fn group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or("").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users {
            passwd: "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken\nweb:x:33:34:,,:/var/www:\n".into(),
            group: "root:x:0:\nweb:x:34:\nlog:x:4:adm,web\nssl:x:9:web\n".into(),
        }
    }

    #[test]
    fn a_user_is_found_by_name_or_number() {
        let users = users();
        assert_eq!(users.user("web"), users.user("33"));
        assert_eq!(users.user("web").map(|user| (user.gid, user.home)), Some((34, "/var/www".to_owned())));
        assert_eq!(users.user("wwww"), None);
        assert_eq!(users.user("4711"), None);
        assert!(users.has_user("web") && users.has_user("4711") && !users.has_user("wwww"));
    }

    #[test]
    fn a_user_has_its_primary_group_and_those_that_list_it() {
        assert_eq!(users().groups_of("web", 34), [34, 4, 9]);
        assert_eq!(users().groups_of("we", 1), [1]);
        assert_eq!(users().group("ssl"), Some(9));
        assert_eq!(users().group("12"), Some(12));
        assert_eq!(users().group("nobodys"), None);
    }
}
