//! System calls of uphold fail, as strace makes them: once, at the first, second or tenth time, or for as long as
//! the fault lasts. uphold stays, says what it could not do, and does it when it can.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dsl::*;

/// How long a fault is provoked at most: the tenth call may need ten starts.
const PROVOKED: Duration = Duration::from_secs(10);

/// strace, attached to every thread of uphold: the calls of these fail. When it goes, so does the fault.
struct Fault {
    strace: Child,
    trace: PathBuf,
}

impl Fault {
    /// `inject`: as strace has it. `paths`: only calls on these files, if any is named. `children`: theirs fail,
    /// too, between clone and exec and after it.
    fn on(uphold: &Uphold, inject: &[String], paths: &[&str], children: bool) -> Fault {
        let trace = uphold.path("trace");
        let calls: Vec<&str> = inject.iter().filter_map(|rule| rule.split(':').next()).collect();
        let mut command = Command::new("strace");
        command.arg("-qq").arg("-o").arg(&trace).arg(format!("--trace={}", calls.join(",")));
        for rule in inject {
            command.arg(format!("--inject={rule}"));
        }
        let tasks = || fs::read_dir(format!("/proc/{}/task", uphold.pid())).unwrap().flatten();
        for path in paths {
            command.arg("-P").arg(uphold.path(path));
        }
        if children {
            command.arg("-f");
        }
        for task in tasks() {
            command.arg("-p").arg(task.file_name());
        }
        let strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let fault = Fault { strace, trace };
        let traced =
            |text: String| text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
        uphold.eventually("strace has all threads", |_| {
            tasks().all(|task| fs::read_to_string(task.path().join("status")).is_ok_and(traced))
        });
        fault
    }

    /// Calls that it has let fail.
    fn count(&self) -> usize {
        fs::read_to_string(&self.trace).unwrap_or_default().matches("(INJECTED)").count()
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets go of uphold, and ends.
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        let until = Instant::now() + PATIENCE;
        while matches!(self.strace.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                let _ = self.strace.kill();
            }
            pause();
        }
    }
}

/// A request whose answer may not come: its status, if that comes soon.
fn ask(uphold: &Uphold, request: &str) -> Option<u16> {
    let mut stream = UnixStream::connect(uphold.socket()).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let head =
        format!("{request} HTTP/1.1\r\nHost: uphold\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).ok()?;
    String::from_utf8_lossy(&answer[..length]).split(' ').nth(1)?.parse().ok()
}

/// An uphold of which calls are to fail.
struct Bench {
    uphold: Uphold,
    steady: i32,
}

impl Bench {
    /// `None`: there is no strace here.
    fn new() -> Option<Bench> {
        if !have("strace") {
            skip("strace is not installed");
            return None;
        }
        let sleep =
            "command = [\"/bin/sleep\", \"600\"]\n[restart]\ndelay = \"20ms\"\nmax_delay = \"40ms\"\n";
        let steady = "command = [\"sh\", \"-c\", \"i=0; while :; do i=$((i+1)); echo LINE $i 0123456789012345678901234567890123456789; sleep 0.02; done\"]
[logs]
timestamps = false
max_size = \"1KiB\"
keep = 10000
";
        let uphold = Uphold::new().unit("web", sleep).unit("steady", steady).unit("op", sleep).start();
        for unit in ["web", "steady", "op"] {
            uphold.until(unit, "running");
        }
        let steady = uphold.main_pid("steady");
        Some(Bench { uphold, steady })
    }

    /// The fault comes, is provoked, and goes; then all is as it was. `said`: a text in uphold's own log.
    fn bears(&self, inject: &[String], paths: &[&str], children: bool, said: Option<&str>) {
        let uphold = &self.uphold;
        let before = uphold.stderr().len();
        let wanted = if inject.iter().any(|rule| rule.ends_with('+')) { 2 } else { 1 };
        let fault = Fault::on(uphold, inject, paths, children);
        let (mut asked, mut verb) = (None, "start");
        let until = Instant::now() + PROVOKED;
        while fault.count() < wanted && Instant::now() < until {
            verb = if verb == "start" { "stop" } else { "start" };
            if ask(uphold, &format!("POST /v1/units/op/{verb}")) == Some(200) {
                asked = Some(verb);
            }
            ask(uphold, "POST /v1/units/web/restart");
            ask(uphold, "POST /v1/daemon-reload");
            for _ in 0..10 {
                pause();
            }
        }
        let count = fault.count();
        drop(fault);
        assert!(count >= wanted, "{inject:?}: {count} calls failed");
        let shown = || uphold.stderr().get(before..).unwrap_or_default().to_owned();
        assert!(is_alive(uphold.pid()), "{inject:?}: {}", shown());
        uphold.eventually(&format!("uphold answers after {inject:?}"), |uphold| {
            uphold.get("/v1/version").is_some_and(|version| version["image"] == 1)
        });
        if let Some(text) = said {
            uphold.eventually(&format!("it says `{text}` after {inject:?}"), |_| shown().contains(text));
        }
        uphold.until("web", "running");
        // The next fault is a new one.
        uphold.eventually(&format!("the logs are well after {inject:?}"), |uphold| {
            let said = uphold.stderr();
            let count = |reason: &str| {
                let about = |line: &&str| line.contains("log/steady/") && line.contains(reason);
                said.lines().filter(about).count()
            };
            count("LogWriteFailed") <= count("LogWriteRecovered")
        });
        let pid = uphold.main_pid("web");
        assert_eq!(ask(uphold, "POST /v1/units/web/restart"), Some(200), "{inject:?}: {}", shown());
        uphold.until_view("web", &format!("its restart after {inject:?}"), |view| {
            view["state"] == "running" && view["pid"] != pid
        });
        let (code, out, err) = uphold.ctl(&["daemon-reload"]);
        assert_eq!(code, 0, "{inject:?}: {out}{err}\n{}", shown());
        let steady = uphold.view("steady");
        assert_eq!(
            (&steady["pid"], &steady["state"]),
            (&self.steady.into(), &"running".into()),
            "{inject:?}"
        );
        if let Some(verb) = asked {
            let wanted = if verb == "stop" { "down" } else { "up" };
            assert_eq!(uphold.view("op")["wanted"], wanted, "{inject:?}: {}", shown());
        }
    }

    /// Each of these errors, at each of these times.
    fn bears_all(&self, call: &str, errors: &[&str], times: &[&str], said: Option<&str>) {
        self.bears_at(&[], call, errors, times, said);
    }

    fn bears_at(&self, paths: &[&str], call: &str, errors: &[&str], times: &[&str], said: Option<&str>) {
        for error in errors {
            for time in times {
                self.bears(&[format!("{call}:error={error}:when={time}")], paths, false, said);
            }
        }
    }

    /// What `steady` wrote is in its logs, in order; what is not is said to be lost.
    fn has_all_lines(mut self) {
        self.uphold.signal(Signal::SIGTERM);
        assert_eq!(self.uphold.exit().code(), Some(0), "{}", self.uphold.stderr());
        let dir = self.uphold.path("log/steady");
        let number =
            |name: &str| name.strip_prefix("stdout.log.").map_or(0, |rest| rest.parse::<u64>().unwrap());
        let mut files: Vec<(u64, PathBuf)> = fs::read_dir(dir)
            .unwrap()
            .flatten()
            .map(|entry| (number(&entry.file_name().into_string().unwrap()), entry.path()))
            .collect();
        files.sort();
        let text: String = files.iter().rev().map(|(_, path)| fs::read_to_string(path).unwrap()).collect();
        let (mut last, mut lost) = (0, 0);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("uphold: ") {
                lost += rest.split(' ').next().unwrap().parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
                continue;
            }
            let rest = line
                .strip_prefix("LINE ")
                .and_then(|rest| rest.strip_suffix(" 0123456789012345678901234567890123456789"));
            let number: u64 = rest.unwrap_or_else(|| panic!("torn: {line}")).parse().unwrap();
            assert_eq!(number, last + lost + 1, "lost or doubled, and not said\n{}", self.uphold.stderr());
            (last, lost) = (number, 0);
        }
        assert!(last > 10, "{text}");
    }
}

const TIMES: [&str; 3] = ["1", "2", "10"];

#[test]
fn clone_may_fail() {
    let Some(bench) = Bench::new() else { return };
    for error in ["EAGAIN", "ENOMEM"] {
        bench.bears_all("clone3", &[error], &["1", "2"], None);
        let text = if error == "EAGAIN" { "esource temporarily unavailable" } else { "out of memory" };
        bench.bears_all("clone3", &[error], &["1+"], Some(text));
    }
    // The older call does it then.
    bench.bears_all("clone3", &["ENOSYS", "EPERM", "EINVAL", "EBUSY", "EOPNOTSUPP", "EACCES"], &["1+"], None);
    for error in ["EAGAIN", "ENOMEM", "ENOSPC", "EPERM"] {
        let both = ["clone3:error=ENOSYS:when=1+".to_owned(), format!("clone:error={error}:when=1+")];
        bench.bears(&both, &[], false, Some("SpawnFailed"));
    }
    bench.has_all_lines();
}

#[test]
fn execve_may_fail() {
    let Some(bench) = Bench::new() else { return };
    for error in [
        "EACCES", "EAGAIN", "E2BIG", "EIO", "ELOOP", "EMFILE", "ENFILE", "ENOENT", "ENOEXEC", "ENOMEM",
        "EPERM", "ETXTBSY",
    ] {
        bench.bears(&[format!("execve:error={error}:when=1+")], &[], true, Some("SpawnFailed"));
    }
    bench.has_all_lines();
}

#[test]
fn openat_may_fail() {
    let Some(bench) = Bench::new() else { return };
    bench.bears_all("openat", &["EMFILE", "ENOMEM"], &TIMES, None);
    let errors = ["EMFILE", "ENFILE", "ENOMEM", "EACCES", "EIO", "ENOSPC", "EROFS", "EINTR"];
    bench.bears_all("openat", &errors, &["1+"], None);
    bench.has_all_lines();
}

#[test]
fn write_to_a_log_may_fail() {
    let Some(bench) = Bench::new() else { return };
    let errors = ["ENOSPC", "EIO", "EDQUOT", "EINTR", "EFBIG", "EPERM"];
    let log = ["log/steady/stdout.log"];
    bench.bears_at(&log, "write", &errors, &["1"], None);
    bench.bears_at(&log, "write", &["ENOSPC"], &["2", "10"], None);
    bench.bears_at(&log, "write", &["ENOSPC", "EIO", "EDQUOT"], &["1+"], Some("cannot write the log"));
    bench.has_all_lines();
}

#[test]
fn write_to_the_state_may_fail() {
    let Some(bench) = Bench::new() else { return };
    let errors = ["ENOSPC", "EIO", "EDQUOT", "EINTR", "EFBIG", "EPERM"];
    let state = ["run/private/state", "run/private/state.new"];
    bench.bears_at(&state, "write,pwrite64", &errors, &["1"], None);
    bench.bears_at(&state, "write,pwrite64", &["ENOSPC"], &["2", "10"], None);
    bench.bears_at(
        &state,
        "write,pwrite64",
        &["ENOSPC", "EIO", "EDQUOT"],
        &["1+"],
        Some("cannot record the state"),
    );
    bench.has_all_lines();
}

#[test]
fn write_to_its_own_log_may_fail() {
    let Some(bench) = Bench::new() else { return };
    bench.bears_at(&["stderr"], "write", &["ENOSPC", "EIO", "EPIPE", "EINTR"], &["1", "1+"], None);
    bench.has_all_lines();
}

#[test]
fn accept4_may_fail() {
    let Some(bench) = Bench::new() else { return };
    bench.bears_all("accept4", &["ECONNABORTED", "EMFILE", "EPROTO", "EPERM", "EINTR"], &["1"], None);
    bench.bears_all("accept4", &["EMFILE"], &["2", "10"], None);
    let errors = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];
    bench.bears_all("accept4", &errors, &["1+"], Some("cannot accept a client"));
    bench.has_all_lines();
}

#[test]
fn epoll_wait_may_fail() {
    let Some(bench) = Bench::new() else { return };
    bench.bears_all("epoll_wait,epoll_pwait", &["EINTR"], &TIMES, None);
    bench.has_all_lines();
}

#[test]
fn rename_may_fail() {
    let Some(bench) = Bench::new() else { return };
    let errors = ["EACCES", "EDQUOT", "EIO", "ENOMEM", "ENOSPC", "EPERM", "EROFS", "EXDEV"];
    bench.bears_all("rename", &errors, &["1"], None);
    bench.bears_all("rename", &["ENOSPC"], &["2", "10", "1+"], None);
    bench.has_all_lines();
}

#[test]
fn what_was_answered_while_the_state_could_not_be_written_is_on_record_once_it_can() {
    let Some(bench) = Bench::new() else { return };
    let mut uphold = bench.uphold;
    let inject = ["write,pwrite64:error=ENOSPC:when=1+".to_owned()];
    let fault = Fault::on(&uphold, &inject, &["run/private/state", "run/private/state.new"], false);
    assert_eq!(uphold.http("POST /v1/units/op/stop?wait=true").map(|(status, _)| status), Some(200));
    drop(fault);
    // Nothing else happens.
    uphold.eventually("it is on record", |uphold| uphold.stderr().contains("the state is recorded again"));
    uphold.kill().again();
    assert_eq!(uphold.view("op")["reason"], "StoppedByOperator");
    assert_eq!(uphold.state("op"), "inactive");
}

/// Started by strace, which stays a stranger to it.
fn again_with(uphold: Uphold, inject: &[&str], further: &[&str]) -> Uphold {
    let trace = uphold.path("trace").display().to_string();
    let calls: Vec<&str> = inject.iter().filter_map(|rule| rule.split(':').next()).collect();
    let mut words = vec!["strace".to_owned(), "-D".into(), "-qq".into(), "-o".into(), trace];
    words.push(format!("--trace={}", calls.join(",")));
    words.extend(inject.iter().map(|rule| format!("--inject={rule}")));
    let words = words.iter().map(String::as_str).chain(further.iter().copied());
    uphold.under(&words.collect::<Vec<&str>>())
}

#[test]
fn services_are_taken_over_without_pidfds() {
    for inject in ["pidfd_open:error=EMFILE:when=1", "pidfd_open:error=ENOSYS:when=1+"] {
        let Some(bench) = Bench::new() else { return };
        let Bench { mut uphold, steady } = bench;
        let web = uphold.main_pid("web");
        uphold.kill();
        let mut uphold = again_with(uphold, &[inject], &[]);
        uphold.again();
        assert_eq!((uphold.main_pid("steady"), uphold.main_pid("web")), (steady, web), "{inject}");
        uphold.kill_main("web", Signal::SIGKILL);
        uphold.until_view("web", "its restart", |view| view["state"] == "running" && view["restarts"] == 1);
        assert_eq!(uphold.ctl(&["stop", "steady"]).0, 0, "{inject}");
        assert!(!is_alive(steady), "{inject}");
    }
}

#[test]
fn a_state_that_cannot_be_begun_delays_starts_and_abandons_nothing() {
    let inject = "rename:error=ENOSPC:when=1..3";
    let Some(bench) = Bench::new() else { return };
    let Bench { mut uphold, steady } = bench;
    let web = uphold.main_pid("web");
    uphold.kill();
    kill(Pid::from_raw(web), Signal::SIGKILL).unwrap();
    uphold.eventually("it is gone", |_| !is_alive(web));
    let new = uphold.path("run/private/state.new").display().to_string();
    let mut uphold = again_with(uphold, &[inject], &["-P", &new]);
    uphold.again();
    uphold.eventually("it says so", |uphold| uphold.stderr().contains("cannot record the state"));
    uphold.eventually("it is over", |uphold| uphold.stderr().contains("the state is recorded again"));
    uphold.until("web", "running");
    uphold.until_view("web", "its restart", |view| view["restarts"] == 1 && view["state"] == "running");
    assert_eq!(uphold.main_pid("steady"), steady);
    uphold.kill().again();
    assert_eq!(uphold.main_pid("steady"), steady);
}

#[test]
fn a_take_over_in_which_an_open_fails_abandons_nothing() {
    let Some(bench) = Bench::new() else { return };
    let Bench { mut uphold, steady } = bench;
    uphold.kill();
    let private = fs::read_dir(uphold.path("run/private")).unwrap().flatten();
    let fifo = private.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("steady"));
    let stat = format!("/proc/{steady}/stat");
    let paths = ["units", "units/web.toml", "run/lock", "run/private/state", "run/private/state.new"]
        .into_iter()
        .chain(["run/private/runs", "run/private/crash", "log/steady/stdout.log", "/etc/passwd", &stat])
        .map(|path| uphold.path(path))
        .chain(fifo);
    for path in paths.collect::<Vec<PathBuf>>() {
        for when in ["1", "1..3", "1+"] {
            let case = format!("{} {when}", path.display());
            let inject = format!("openat:error=EMFILE:when={when}");
            let path = path.display().to_string();
            let mut traced = again_with(uphold, &[&inject], &["-P", &path]);
            traced.again_blind();
            let mut answers = false;
            let until = Instant::now() + PATIENCE;
            while !answers && !traced.has_ended() && Instant::now() < until {
                answers = traced.get("/v1/version").is_some();
                pause();
            }
            if answers {
                // What it knows it has taken over, or it is about to be wrong.
                let pid = traced.view("steady")["pid"].clone();
                assert_eq!(pid, steady, "{case}: {}", traced.stderr());
                traced.kill();
            } else {
                assert_ne!(traced.exit().code(), Some(0), "{case}: {}", traced.stderr());
            }
            uphold = traced.under(&[]);
            assert!(is_alive(steady), "{case}: {}", uphold.stderr());
        }
    }
    uphold.again();
    assert_eq!(uphold.main_pid("steady"), steady, "{}", uphold.stderr());
    assert_eq!(uphold.view("steady")["restarts"], 0);
}
