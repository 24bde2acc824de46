//! A service manager that keeps descriptors of runs (sd_notify(3), `FDSTORE=1`), and hands them to the uphold
//! that it starts after one that was killed.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

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
        let plan = format!("UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
        (manager, uphold.under(&["env", &plan, &format!("NOTIFY_SOCKET={path}")]).start())
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
fn how_a_run_ended_while_no_uphold_ran_is_known_also_after_a_crash_of_the_one_that_takes_over() {
    for crash in ["adopting 1 panic", "adopted 1 panic"] {
        let text =
            "command = [\"sh\", \"-c\", \"trap 'exit 7' TERM; echo here; while :; do sleep 0.01; done\"]
[restart]\npolicy = \"never\"\n[logs]\nstderr = \"file\"\n";
        let (mut manager, mut uphold) = Manager::of(Uphold::new().unit("web", text));
        let pid = uphold.until("web", "running").main_pid("web");
        uphold.eventually("it listens", |uphold| uphold.log("web") == ["here"]);
        manager.until(&uphold, &["READY=1", "keep 1.out", "keep 1.err", "keep 1.pid"]);
        uphold.kill();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        uphold.eventually("it was reaped", |_| !Path::new(&format!("/proc/{pid}")).exists());
        uphold.fail(crash);
        manager.start_again(&mut uphold);
        crate::goes_on::until_image(&uphold, 2);
        uphold.until("web", "failed");
        let exit = &uphold.view("web")["last_exit"];
        assert!(exit["code"] == 7 || !the_kernel_tells_of_the_dead(), "{crash}: {exit}");
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
    // One that has no name any more is given as any other.
    fs::remove_file(uphold.path("run/private/web.1.out")).unwrap();
    uphold.until_event("web", "FifoRemoved");
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

/// So many words a manager may leave unread before who writes to it has to wait.
fn unread() -> usize {
    fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap().trim().parse().unwrap()
}

impl Manager {
    /// Reads until it keeps these, each once, and nothing else.
    #[track_caller]
    fn until_it_keeps(&mut self, uphold: &Uphold, wanted: &[String]) {
        let mut wanted = wanted.to_vec();
        wanted.sort();
        let until = Instant::now() + PATIENCE;
        loop {
            self.listen();
            let mut kept: Vec<&str> = self.store.iter().map(|(name, _)| name.as_str()).collect();
            kept.sort_unstable();
            if kept == wanted {
                return;
            }
            assert!(Instant::now() < until, "not {wanted:?}, but {kept:?}\n{}", uphold.stderr());
            pause();
        }
    }
}

fn names(runs: impl Iterator<Item = u64>) -> Vec<String> {
    runs.flat_map(|run| [format!("{run}.out"), format!("{run}.pid")]).collect()
}

#[test]
fn a_manager_that_reads_late_is_given_all_that_runs_and_nothing_of_what_is_over() {
    let sleep = "command = [\"sleep\", \"600\"]\n";
    // More than wait in its socket and in uphold.
    let count = 300 + unread() as u64 / 2;
    let uphold = (1..=count).fold(Uphold::new(), |uphold, at| uphold.unit(&format!("unit{at}"), sleep));
    let (mut manager, uphold) = Manager::of(uphold);
    uphold.eventually("all run", |uphold| {
        let list = uphold.get("/v1/units").unwrap_or_default();
        list["units"].as_array().is_some_and(|units| units.iter().all(|unit| unit["state"] == "running"))
    });
    // What ends before it was given is not given at all.
    assert_eq!(uphold.ctl(&["restart", "unit7"]).0, 0);
    let living = fs::read_dir(uphold.path("run/private")).unwrap().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.strip_suffix(".out")?.rsplit_once('.')?.1.parse().ok()
    });
    let living: Vec<u64> = living.collect();
    assert_eq!(living.len() as u64, count);
    manager.until_it_keeps(&uphold, &names(living.into_iter()));
}

#[test]
fn what_a_manager_was_not_told_before_an_upgrade_or_a_crash_it_is_told_after_that() {
    for crash in [false, true] {
        let sleep = "command = [\"sleep\", \"600\"]\n";
        let (mut manager, uphold) = Manager::of(Uphold::new().unit("web", sleep));
        uphold.until("web", "running");
        manager.until_it_keeps(&uphold, &names(1..=1));
        // It does not read from here on, and its socket is full.
        for _ in 0..=unread() {
            let full = UnixDatagram::unbound().unwrap();
            full.set_nonblocking(true).unwrap();
            drop(full.send_to(b"STATUS=1", uphold.path("notify")));
        }
        assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
        if crash {
            uphold.fail("command 1 segv");
            drop(uphold.http("POST /v1/units/web/reset"));
        } else {
            uphold.signal(Signal::SIGUSR2);
        }
        uphold.eventually("the next image answers", |uphold| {
            uphold.get("/v1/version").is_some_and(|version| version["image"] == 2)
        });
        manager.until_it_keeps(&uphold, &names(2..=2));
        assert!(manager.heard.contains(&"forget 1.out".to_owned()), "{:?}", manager.heard);
    }
}
