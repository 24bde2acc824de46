//! A service manager that keeps descriptors of runs (sd_notify(3), `FDSTORE=1`), and hands them to the uphold
//! that it starts after one that was killed.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::dsl::*;

/// One that does what systemd does with the words of uphold.
struct Manager {
    socket: UnixDatagram,
    /// What it has heard, but for the watchdog.
    heard: Vec<String>,
    store: Vec<(String, OwnedFd)>,
}

impl Manager {
    fn of(uphold: Uphold) -> (Manager, Uphold) {
        let path = uphold.path("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = Manager { socket, heard: Vec::new(), store: Vec::new() };
        (manager, uphold.under(&["env", &format!("NOTIFY_SOCKET={path}")]).start())
    }

    fn listen(&mut self) {
        loop {
            let mut text = [0; 1024];
            let mut space = nix::cmsg_space!([i32; 4]);
            let mut parts = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let Ok(got) = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags) else {
                return;
            };
            let raw = got.cmsgs().unwrap().find_map(|message| match message {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            });
            // SAFETY: the kernel has just made it for this message, and nobody else knows it.
            let fd = raw.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
            let length = got.bytes;
            let text = String::from_utf8(text[..length].to_vec()).unwrap();
            self.obey(&text, fd);
        }
    }

    fn obey(&mut self, text: &str, fd: Option<OwnedFd>) {
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
        if text.contains("FDSTORE=1") {
            assert!(text.contains("FDPOLL=0"), "it would be let go of when its last writer ends: {text}");
            self.heard.push(format!("keep {name}"));
            self.store.push((name, fd.unwrap()));
        } else if text.contains("FDSTOREREMOVE=1") {
            self.store.retain(|(kept, _)| *kept != name);
            self.heard.push(format!("forget {name}"));
        } else {
            self.heard.push(text.trim().to_owned());
        }
    }

    #[track_caller]
    fn until(&mut self, uphold: &Uphold, wanted: &[&str]) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.listen();
            if self.heard == wanted {
                return;
            }
            pause();
        }
        panic!("not {wanted:?}, but {:?}\n{}", self.heard, uphold.stderr());
    }

    /// Starts uphold again with what it keeps, as systemd does. Three of them, because the standard streams
    /// are what a child inherits without ado.
    fn start_again(&self, uphold: &mut Uphold) {
        let inner = uphold.command();
        let [(one, first), (two, second), (three, third)] = &self.store[..] else {
            panic!("it keeps {:?}", self.store);
        };
        let script = format!(
            "exec 3<&0 4<&1 5<&2 </dev/null >>{0}/stdout 2>>{0}/stderr
             export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES={one}:{two}:{three}
             exec \"$@\"",
            uphold.dir.path().display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        let inherited = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        command.stdin(inherited(first)).stdout(inherited(second)).stderr(inherited(third));
        uphold.again_by(command);
    }
}

/// What uphold has open of this run's FIFOs.
fn open_of_run_1(uphold: &Uphold) -> Vec<String> {
    let fds = fs::read_dir(format!("/proc/{}/fd", uphold.pid())).unwrap().flatten();
    fds.filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.display().to_string())
        .filter(|link| link.contains("/web.1."))
        .collect()
}

#[test]
fn what_a_run_wrote_that_ended_while_no_uphold_ran_is_in_its_log_and_its_status_is_known() {
    for (path_is_gone, oops) in [(false, "echo oops >&2; "), (true, "")] {
        let uphold = Uphold::new();
        let gate = uphold.path("gate");
        let text = format!(
            "command = [\"sh\", \"-c\", \"echo first; until [ -e {gate} ]; do sleep 0.01; done; {oops}echo last; exit 7\"]
[restart]\npolicy = \"never\"\n[logs]\nstderr = \"file\"\n",
            gate = gate.display()
        );
        let (mut manager, mut uphold) = Manager::of(uphold.unit("web", &text));
        let pid = uphold.until("web", "running").main_pid("web");
        uphold.eventually("it has said it", |uphold| uphold.log("web") == ["first"]);
        let mut heard = vec!["READY=1", "keep 1.out", "keep 1.err", "keep 1.pid"];
        manager.until(&uphold, &heard);
        uphold.kill();
        fs::write(&gate, "").unwrap();
        uphold.eventually("it was reaped", |_| !Path::new(&format!("/proc/{pid}")).exists());
        if path_is_gone {
            fs::remove_file(uphold.path("run/private/web.1.out")).unwrap();
        }
        manager.start_again(&mut uphold);
        uphold.until("web", "failed");
        uphold.eventually("all is in its log", |uphold| uphold.log("web") == ["first", "last"]);
        let exit = &uphold.view("web")["last_exit"];
        assert!(exit["code"] == 7 || !the_kernel_tells_of_the_dead(), "{exit}");
        heard.extend(["READY=1", "forget 1.out", "forget 1.err", "forget 1.pid"]);
        manager.until(&uphold, &heard);
        uphold.eventually("nothing of it is open any more", |uphold| open_of_run_1(uphold).is_empty());
        // Where nothing came, nothing is said to be lost.
        let stderr = fs::read_to_string(uphold.path("log/web/stderr.log")).unwrap_or_default();
        let lines: Vec<&str> = stderr.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, if oops.is_empty() { vec![] } else { vec!["oops"] });
    }
}

#[test]
fn a_manager_keeps_each_once_over_kills_and_upgrades_and_nothing_of_what_is_over() {
    let web = "command = [\"sh\", \"-c\", \"echo here; ls /proc/self/fd | wc -l; exec sleep 600\"]\n";
    let (mut manager, mut uphold) = Manager::of(Uphold::new().unit("web", web));
    let pid = uphold.until("web", "running").main_pid("web");
    let mut heard = vec!["READY=1", "keep 1.out", "keep 1.pid"];
    manager.until(&uphold, &heard);
    // Something of a run that no state knows.
    let (mut writer, stale) = std::os::unix::net::UnixStream::pair().unwrap();
    manager.store.push(("99.out".to_owned(), stale.into()));
    uphold.kill();
    manager.start_again(&mut uphold);
    heard.extend(["forget 99.out", "forget 99.err", "forget 99.pid", "READY=1"]);
    manager.until(&uphold, &heard);
    assert_eq!(uphold.main_pid("web"), pid);
    // Nobody has the other end any more: uphold neither.
    writer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(writer.read(&mut [0]).unwrap(), 0);
    let (code, _, err) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{err}");
    // A new image does not know what has come to the manager of what the one before has said.
    heard.extend(["forget 1.out", "forget 1.err", "forget 1.pid", "READY=1", "keep 1.out", "keep 1.pid"]);
    manager.until(&uphold, &heard);
    assert_eq!(uphold.main_pid("web"), pid);
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    heard.extend(["forget 1.out", "forget 1.err", "forget 1.pid", "keep 2.out", "keep 2.pid"]);
    manager.until(&uphold, &heard);
    // Its own three, that of the pipe of ls, and that of the directory: nothing of uphold's.
    uphold.eventually("the second run has counted", |uphold| uphold.log("web").len() == 4);
    let log = uphold.log("web");
    assert!(log[1] == log[3] && log[0] == log[2], "{log:?}");
}
