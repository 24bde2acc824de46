//! A run's processes where there is no cgroup: its session and process group, descent from what is known
//! to be its own, and the marker UPHOLD_RUN in the environment. What leaves all of these cannot be found.
//!
//! Descent ends with the parent: who was found is kept in a file, NAME.RUN.kin in the private directory, for the
//! uphold that comes after an upgrade, a crash or a kill. A pid and its start are proof.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::prepare::passing;
use super::{slots, sys};
use crate::file_id::FileId;
use crate::unit::Signal;

/// What is known of a run.
#[derive(Debug)]
pub(super) struct Kin {
    main: i32,
    /// When the main process started, in clock ticks since boot: nothing of the run is older.
    born: u64,
    /// It leads a session, not only a group.
    session: bool,
    uid: u32,
    /// `UPHOLD_RUN=…`, if it was set.
    marker: Option<Vec<u8>>,
    /// `Some`: this uphold never saw the main process alive. Its number may have been used again since, for a session
    /// that a stranger has left, too: it counts only where a member is known by something else, such as by one of
    /// these FIFOs of the run as its output.
    unseen: Option<Vec<PathBuf>>,
    /// Processes found before, by pid and start: a pid alone may be used again.
    known: HashMap<i32, u64>,
    /// Where they are kept for the next uphold; empty, which cannot be written: nowhere.
    file: PathBuf,
    /// What is to stand there, a word for each.
    kept: Vec<u8>,
    /// It could not be written.
    lacks: bool,
}

/// A process as /proc shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proc {
    pub pid: i32,
    pub parent: i32,
    group: i32,
    session: i32,
    pub start: u64,
    pub zombie: bool,
    /// It was forked and has executed nothing since, or had not until its end.
    pub unborn: bool,
}

/// What a /proc that does not show this pid namespace means, and what would do.
pub(super) const FOREIGN: &str = "only main processes are found; mount the /proc of this pid namespace";

/// Where a process has its stdout and stderr in /proc.
pub(super) const STREAMS: [&str; 2] = ["fd/1", "fd/2"];

/// PF_FORKNOEXEC of the kernel, among the flags of /proc/PID/stat.
const FORKED: u64 = 0x40;

impl Kin {
    /// Of a main process that is not reaped yet.
    pub(super) fn new(main: i32, session: bool, uid: u32, marker: Option<&str>) -> Kin {
        Kin::since(main, started(main), session, uid, marker)
    }

    /// Of a main process that started at this tick, and may be gone.
    pub(super) fn since(main: i32, born: u64, session: bool, uid: u32, marker: Option<&str>) -> Kin {
        let marker = marker.map(|marker| format!("UPHOLD_RUN={marker}").into_bytes());
        let known = HashMap::from([(main, born)]);
        Kin {
            main,
            born,
            session,
            uid,
            marker,
            unseen: None,
            known,
            file: PathBuf::new(),
            kept: Vec::new(),
            lacks: false,
        }
    }

    /// Who is found is kept in this file from now on. `goes_on`: what lies there an uphold before has kept. Else it is
    /// of a dead run.
    pub(super) fn keep_in(&mut self, file: PathBuf, goes_on: bool) {
        self.file = file;
        if goes_on {
            self.kept = fs::read(&self.file).unwrap_or_default();
        } else {
            self.forget();
        }
        for word in self.kept.as_chunks().0 {
            let (pid, start) = slots::unpaired(u64::from_le_bytes(*word));
            // What stands further behind is older.
            self.known.entry(pid).or_insert(start);
        }
    }

    /// This uphold never saw the main process alive. The run has these FIFOs.
    pub(super) fn unseen(self, fifos: Vec<PathBuf>) -> Kin {
        Kin { unseen: Some(fifos), ..self }
    }

    /// Those that live now, the main process among them. Remembers them, so that a later look knows their
    /// children. None where /proc does not show this pid namespace.
    pub(super) fn find(&mut self, main_alive: bool) -> io::Result<Vec<i32>> {
        if !proc_is_of_this_namespace() {
            return Ok(Vec::new());
        }
        let own = std::process::id().cast_signed();
        let mut procs: Vec<Proc> =
            snapshot()?.into_iter().filter(|proc| proc.start >= self.born && proc.pid != own).collect();
        // The kernel keeps a number from being used again while a group or session has it: a new process of
        // that number says that both are gone, and what has it now is a stranger's.
        let stranger = !main_alive
            && (procs.iter().any(|proc| proc.pid == self.main && !proc.zombie)
                || !self.is_numbered_by_main(&procs));
        let mut members: HashSet<i32> =
            procs.iter().filter(|proc| self.is_kin(proc, stranger)).map(|proc| proc.pid).collect();
        loop {
            let before = members.len();
            for proc in &procs {
                if members.contains(&proc.parent) {
                    members.insert(proc.pid);
                }
            }
            if members.len() == before {
                break;
            }
        }
        procs.retain(|proc| members.contains(&proc.pid));
        self.known = procs.iter().map(|proc| (proc.pid, proc.start)).collect();
        self.keep(&procs);
        Ok(procs.iter().filter(|proc| !proc.zombie).map(|proc| proc.pid).collect())
    }

    /// Whose parent has ended is known to the next uphold by this alone. The main process alone is on record elsewhere.
    fn keep(&mut self, found: &[Proc]) {
        let mut words = Vec::new();
        for proc in found {
            words.extend_from_slice(&slots::paired(proc.pid, proc.start).to_le_bytes());
        }
        if found.iter().any(|proc| proc.pid != self.main) && (self.lacks || self.kept != words) {
            self.kept = words;
            // Nothing fails for want of this: the next uphold knows less then. It is tried again after the next look.
            self.lacks = self.write().is_err();
        }
    }

    /// What stood there is not cut off: all of it was this run's.
    fn write(&self) -> io::Result<()> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&self.file)?;
        file.write_all_at(&self.kept, 0)
    }

    /// Somebody has removed the file, or the directory.
    pub(super) fn put_back(&self) {
        if !self.kept.is_empty() {
            let _ = self.write();
        }
    }

    /// The run is over.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }

    fn is_kin(&self, proc: &Proc, stranger: bool) -> bool {
        self.known.get(&proc.pid) == Some(&proc.start)
            || !stranger && self.has_number(proc)
            || self.is_marked(proc)
    }

    /// It is in the session or the group of the main process's number.
    fn has_number(&self, proc: &Proc) -> bool {
        proc.group == self.main || self.session && proc.session == self.main
    }

    /// What has the main process's number has it from that.
    fn is_numbered_by_main(&self, procs: &[Proc]) -> bool {
        let Some(fifos) = &self.unseen else { return true };
        procs.iter().filter(|proc| self.has_number(proc)).any(|proc| {
            self.known.get(&proc.pid) == Some(&proc.start)
                || self.has_marker(proc)
                || fifos.iter().any(|fifo| writes_to(proc.pid, fifo))
        })
    }

    fn is_marked(&self, proc: &Proc) -> bool {
        !proc.zombie && owner(proc.pid) == self.uid && self.has_marker(proc)
    }

    fn has_marker(&self, proc: &Proc) -> bool {
        let Some(marker) = self.marker.as_deref() else { return false };
        read(proc.pid, "environ")
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == marker))
    }

    /// A signal to one that was found, and to no other that has its pid by now.
    pub(super) fn strike(&self, pid: i32, signal: Signal) {
        let is_same =
            || proc(pid).ok().flatten().is_some_and(|proc| self.known.get(&pid) == Some(&proc.start));
        match sys::pidfd_open(pid) {
            Ok(pidfd) if is_same() => drop(sys::pidfd_kill(&pidfd, signal)),
            Ok(_) | Err(Errno::ESRCH) => {}
            Err(_) if is_same() => drop(sys::kill(pid, signal)),
            Err(_) => {}
        }
    }
}

/// The process has this FIFO for its stdout or stderr. What else it has there is not looked at: that may lie where
/// nobody answers.
fn writes_to(pid: i32, fifo: &Path) -> bool {
    STREAMS.iter().any(|stream| {
        let Ok(link) = place(pid, stream) else { return false };
        fs::read_link(&link).is_ok_and(|target| target.file_name() == fifo.file_name())
            && FileId::behind(Path::new(&link)).is_some_and(|file| file.is_at(fifo))
    })
}

/// A signal to every process of this group but uphold.
pub(super) fn strike_group_of_uphold(group: i32, signal: Signal) {
    let own = std::process::id().cast_signed();
    for found in snapshot().unwrap_or_default() {
        if found.group == group
            && found.pid != own
            && let Ok(pidfd) = sys::pidfd_open(found.pid)
            && proc(found.pid).ok().flatten().is_some_and(|now| now.start == found.start)
        {
            let _ = sys::pidfd_kill(&pidfd, signal);
        }
    }
}

/// When a process started, in clock ticks since boot; 0: it is gone, or nobody can tell.
pub(super) fn started(pid: i32) -> u64 {
    proc(pid).ok().flatten().map_or(0, |proc| proc.start)
}

/// /proc shows the pid namespace that this process is in. Once it does, it goes on to.
pub(super) fn proc_is_of_this_namespace() -> bool {
    static IT_IS: AtomicBool = AtomicBool::new(false);
    if !IT_IS.load(Ordering::Relaxed) {
        let own = std::process::id().to_string();
        let is_it = fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str());
        IT_IS.store(is_it, Ordering::Relaxed);
        return is_it;
    }
    true
}

/// Where /proc has this of a process. In that of another pid namespace it has another number, which only the fdinfo of
/// a pidfd tells; what has its number there is a stranger.
pub(super) fn place(pid: i32, file: &str) -> io::Result<String> {
    let mut number = pid;
    if !proc_is_of_this_namespace() {
        number = sys::pidfd_pid(&sys::pidfd_open(pid)?).ok_or(Errno::ESRCH)?;
    }
    Ok(format!("/proc/{number}/{file}"))
}

/// What /proc says of a process in this file.
pub(super) fn read(pid: i32, file: &str) -> io::Result<Vec<u8>> {
    sys::read_short(place(pid, file)?)
}

/// Who a process runs as; 0: it is gone, or nobody can tell.
pub(super) fn owner(pid: i32) -> u32 {
    place(pid, "").and_then(fs::metadata).map_or(0, |metadata| metadata.uid())
}

/// Every process of this pid namespace; an error where /proc does not show it. One that cannot be read for want of
/// descriptors or memory is an error, too: nobody may take it for gone.
pub(super) fn snapshot() -> io::Result<Vec<Proc>> {
    if !proc_is_of_this_namespace() {
        return Err(io::Error::other(FOREIGN));
    }
    let mut procs = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            procs.extend(proc(pid)?);
        }
    }
    Ok(procs)
}

pub(super) fn proc(pid: i32) -> io::Result<Option<Proc>> {
    match read(pid, "stat") {
        Ok(stat) => Ok(parse(pid, &stat)),
        Err(error) if error.raw_os_error().map(Errno::from_raw).is_some_and(passing) => Err(error),
        // It has ended since.
        Err(_) => Ok(None),
    }
}

/// Reads /proc/PID/stat; the name in it may hold anything, blanks and parentheses too.
fn parse(pid: i32, stat: &[u8]) -> Option<Proc> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X" | "x");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let flags: u64 = fields.nth(2)?.parse().ok()?;
    let start = fields.nth(12)?.parse().ok()?;
    Some(Proc { pid, parent, group, session, start, zombie, unborn: flags & FORKED != 0 })
}

/// Everything that descends from this process, itself not.
pub(super) fn descendants(of: i32) -> Vec<i32> {
    let procs = snapshot().unwrap_or_default();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(procs.iter().filter(|proc| proc.parent == parent && !proc.zombie).map(|proc| proc.pid));
        next += 1;
    }
    found.retain(|pid| *pid != of);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    /// A session whose leader is gone, as a daemon leaves it: the leader's pid, and the one that is left.
    fn daemon(script: &str, marker: &str) -> (i32, i32) {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", script]).env("UPHOLD_RUN", marker);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let mut pids = said.split_whitespace().map(|pid| pid.parse().unwrap());
        (pids.next().unwrap(), pids.next().unwrap())
    }

    #[test]
    fn a_session_of_the_number_of_a_process_that_nobody_saw_is_a_strangers_unless_a_member_proves_it() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("web.1.out");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let quiet = "sleep 600 >/dev/null 2>&1 & echo $$ $!";
        let piped = format!("sleep 600 <>{0} >&0 2>/dev/null & echo $$ $!", fifo.display());
        for (script, marker, is_kin) in [
            (quiet, "web:1:0123456789abcdef", true),
            (quiet, "web:2:0123456789abcdef", false),
            // Another user's environment is not read, and some overwrite their own.
            (&piped, "", true),
        ] {
            let (main, left) = daemon(script, marker);
            // The uid is not that of what is left: it may have become another user.
            let kin = || Kin::since(main, 1, true, 45_673, Some("web:1:0123456789abcdef"));
            let seen = kin().find(false).unwrap();
            let mut kin = kin().unseen(vec![fifo.clone()]);
            let unseen = [kin.find(false).unwrap(), kin.find(false).unwrap()];
            sys::kill(left, Signal::KILL).unwrap();
            assert_eq!(seen, [left], "{script}");
            let expected = if is_kin { vec![left] } else { vec![] };
            assert_eq!(unseen, [expected.clone(), expected], "{script}");
        }
    }

    /// A process and its child, which has a session of its own and no marker. It ends with its stdin.
    fn parent_and_child() -> (Child, i32) {
        let mut command = Command::new("sh");
        command.args(["-c", "setsid env -i sleep 600 >/dev/null & echo $!; exec cat"]);
        let mut parent = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        (parent, line.trim().parse().unwrap())
    }

    #[test]
    fn who_was_known_by_descent_alone_is_known_to_the_next_uphold() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        let [path, stale] = ["web.1.kin", "web.7.kin"].map(|name| dir.path().join(name));
        fs::write(&path, [1; 16]).unwrap();
        let (mut parent, child) = parent_and_child();
        let main = parent.id().cast_signed();
        let mut first = Kin::new(main, false, 0, None);
        first.keep_in(path.clone(), false);
        let (born, fresh) = (first.born, !path.exists());
        let found: HashSet<i32> = first.find(true).unwrap().into_iter().collect();
        // Whoever has removed the directory.
        let mut second = Kin::new(main, false, 0, None);
        second.keep_in(dir.path().join("private/web.1.kin"), false);
        second.find(true).unwrap();
        fs::create_dir(dir.path().join("private")).unwrap();
        second.put_back();
        let late = fs::read(&second.file).unwrap();
        drop(parent.stdin.take());
        parent.wait().unwrap();
        let next = |words: &[u64]| {
            fs::write(&stale, words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
            let mut kin = Kin::since(main, born, false, 0, None);
            kin.keep_in(if words.is_empty() { path.clone() } else { stale.clone() }, true);
            kin.find(false).unwrap()
        };
        let kept = fs::read(&path).unwrap();
        let (known, other) = (next(&[]), next(&[slots::paired(child, started(child) - 1)]));
        // Whoever has removed it.
        fs::remove_file(&path).unwrap();
        first.put_back();
        let again = fs::read(&path).unwrap();
        sys::kill(child, Signal::KILL).unwrap();
        assert!(fresh);
        assert_eq!((found, kept.len()), (HashSet::from([main, child]), 16));
        assert_eq!((known, other), (vec![child], vec![]));
        assert_eq!([again, late], [kept.clone(), kept]);
        first.forget();
        assert!(!path.exists());
    }

    #[test]
    fn a_main_process_that_is_alone_is_kept_nowhere_else() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.1.kin");
        let mut main = Command::new("sleep").arg("600").spawn().unwrap();
        let mut kin = Kin::new(main.id().cast_signed(), false, 0, None);
        kin.keep_in(path.clone(), false);
        let found = kin.find(true).unwrap();
        main.kill().unwrap();
        main.wait().unwrap();
        assert_eq!((found, kin.kept.len(), path.exists()), (vec![main.id().cast_signed()], 0, false));
    }

    #[test]
    fn a_process_may_call_itself_anything() {
        let stat = b"7 (a) S 1 (b) Z 3 4 5 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 4711 0 0";
        let proc = parse(7, stat).unwrap();
        assert_eq!((proc.parent, proc.group, proc.session, proc.start, proc.zombie), (3, 4, 5, 4711, true));
        assert!(!proc.unborn);
        let stat = b"7 (a) S 3 4 5 0 -1 4194368 0 0 0 1 2 0 0 20 0 1 0 4711 0 0";
        assert!(parse(7, stat).unwrap().unborn);
    }
}
