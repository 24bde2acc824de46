//! Where the daemon's socket may be.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The host's daemon.
const HOST: &str = "/run/uphold/control.sock";

/// What the search depends on.
#[derive(Debug, Default)]
struct Surroundings {
    named: Option<PathBuf>,
    uphold_socket: Option<OsString>,
    xdg_runtime_dir: Option<OsString>,
    uid: Option<u32>,
}

/// The one socket to ask: the first of those that were named, that are there, and the host's. A user's own
/// that is there and does not answer is not passed over: what was meant for it must not hit the host's.
pub(super) fn find(named: Option<PathBuf>) -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    search(Surroundings {
        named,
        uphold_socket: set("UPHOLD_SOCKET"),
        xdg_runtime_dir: set("XDG_RUNTIME_DIR"),
        uid: std::fs::metadata("/proc/self").ok().map(|meta| meta.uid()),
    })
}

fn search(around: Surroundings) -> PathBuf {
    if let Some(path) = around.named.or(around.uphold_socket.map(PathBuf::from)) {
        return path;
    }
    let own = [
        around.xdg_runtime_dir.map(|dir| PathBuf::from(dir).join("uphold")),
        around.uid.map(|uid| PathBuf::from(format!("/run/user/{uid}/uphold"))),
        around.uid.map(|uid| PathBuf::from(format!("/tmp/uphold-{uid}"))),
    ];
    let found = own.into_iter().flatten().find(|dir| is_ours(dir, around.uid));
    found.map_or(PathBuf::from(HOST), |dir| dir.join("control.sock"))
}

/// A directory in /tmp may be anybody's: one that is not ours could hold a daemon that only pretends.
fn is_ours(dir: &Path, uid: Option<u32>) -> bool {
    let owned = std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && Some(meta.uid()) == uid);
    owned && std::fs::symlink_metadata(dir.join("control.sock")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_named_is_taken_the_flag_before_the_variable() {
        let around = Surroundings {
            named: Some("/a".into()),
            uphold_socket: Some("/b".into()),
            ..Surroundings::default()
        };
        assert_eq!(search(around), PathBuf::from("/a"));
        let around = Surroundings { uphold_socket: Some("/b".into()), ..Surroundings::default() };
        assert_eq!(search(around), PathBuf::from("/b"));
    }

    #[test]
    fn the_users_own_daemon_comes_before_the_hosts_if_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let uid = std::fs::metadata(dir.path()).unwrap().uid();
        let around = |uid| Surroundings {
            xdg_runtime_dir: Some(dir.path().into()),
            uid: Some(uid),
            ..Surroundings::default()
        };
        assert_ne!(search(around(uid)), dir.path().join("uphold/control.sock"));
        std::fs::create_dir(dir.path().join("uphold")).unwrap();
        std::fs::write(dir.path().join("uphold/control.sock"), "").unwrap();
        assert_eq!(search(around(uid)), dir.path().join("uphold/control.sock"));
        assert_ne!(search(around(uid + 1)), dir.path().join("uphold/control.sock"), "of somebody else");
    }
}
