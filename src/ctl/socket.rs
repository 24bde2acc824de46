//! Where the daemon's socket may be, and what would do where nobody answers there.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The host's daemon.
const HOST: &str = "/run/uphold/control.sock";

/// Is there where systemd runs the machine, sd_booted(3) says.
const SYSTEMD: &str = "/run/systemd/system";

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
        uid: fs::metadata("/proc/self").ok().map(|meta| meta.uid()),
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
    let owned = fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && Some(meta.uid()) == uid);
    owned && fs::symlink_metadata(dir.join("control.sock")).is_ok()
}

/// What would do where nobody answers at this socket. Of an uphold that lives there, no more is known than that.
pub(super) fn advice(socket: &Path) -> String {
    let start = match holder(socket) {
        Some(pid) => {
            return format!(
                "uphold (pid {pid}) lives: it may be about to begin or to end, or, after three crashes within a \
                 minute, supervise without its control API; then its log says so, and `kill -USR2 {pid}`, a minute \
                 after the last crash, brings the API back while services run on (not where signals go to a COMMAND)"
            );
        }
        None if socket == Path::new(HOST) && Path::new(SYSTEMD).is_dir() => {
            "start uphold as it usually is (`systemctl start uphold`, or `uphold run`)"
        }
        None => "start it with `uphold run`",
    };
    format!("{start}, or name its socket with --socket or UPHOLD_SOCKET")
}

/// The living process that has written the file `lock` beside this socket. `None` also where that file cannot be
/// read, or is of another pid namespace.
fn holder(socket: &Path) -> Option<u32> {
    let lock = socket.with_file_name("lock");
    // Whoever made another kind of file there may have us wait.
    let text =
        fs::symlink_metadata(&lock).is_ok_and(|found| found.is_file()).then(|| fs::read_to_string(lock))?;
    let text = text.ok()?;
    let (pid, start) = text.trim_end().split_once(' ')?;
    let (pid, start): (u32, u64) = (pid.parse().ok()?, start.parse().ok()?);
    (started(pid)? == start).then_some(pid)
}

/// When a process started that has not ended, in clock ticks since boot (proc_pid_stat(5)).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    let start = fields.nth(18)?.parse().ok()?;
    (!ended).then_some(start)
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
        let uid = fs::metadata(dir.path()).unwrap().uid();
        let around = |uid| Surroundings {
            xdg_runtime_dir: Some(dir.path().into()),
            uid: Some(uid),
            ..Surroundings::default()
        };
        assert_ne!(search(around(uid)), dir.path().join("uphold/control.sock"));
        fs::create_dir(dir.path().join("uphold")).unwrap();
        fs::write(dir.path().join("uphold/control.sock"), "").unwrap();
        assert_eq!(search(around(uid)), dir.path().join("uphold/control.sock"));
        assert_ne!(search(around(uid + 1)), dir.path().join("uphold/control.sock"), "of somebody else");
    }

    #[test]
    fn only_of_who_lives_and_has_written_the_lock_is_it_said_that_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, lock) = (dir.path().join("control.sock"), dir.path().join("lock"));
        let own = std::process::id();
        let start = started(own).unwrap();
        let nobody = "start it with `uphold run`, or name its socket with --socket or UPHOLD_SOCKET";
        for text in ["", "1", "x y", &format!("{own} {}\n", start + 1), &format!("{} {start}\n", u32::MAX)] {
            fs::write(&lock, text).unwrap();
            assert_eq!(advice(&socket), nobody, "{text}");
        }
        fs::write(&lock, format!("{own} {start}\n")).unwrap();
        let said = advice(&socket);
        assert!(
            said.starts_with(&format!("uphold (pid {own}) lives")) && !said.contains("uphold run"),
            "{said}"
        );
        // What is no plain file is not waited for.
        fs::rename(&lock, dir.path().join("aside")).unwrap();
        std::os::unix::fs::symlink("aside", &lock).unwrap();
        assert_eq!(advice(&socket), nobody);
    }

    #[test]
    fn a_zombie_has_ended() {
        let _alone = crate::alone::alone();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !state().contains(") Z ") {
            std::thread::yield_now();
        }
        assert_eq!(started(pid), None);
        child.wait().unwrap();
    }
}
