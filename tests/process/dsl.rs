//! One daemon in a directory of its own, and words to wait for what it does. Everything is bounded by
//! [`PATIENCE`]; nothing sleeps: it waits for the event stream, and looks again after each event.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_uphold")
}

/// A daemon and its directory. Ends with it, and all that it started.
pub struct Uphold {
    pub dir: TempDir,
    child: Option<Child>,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    program: PathBuf,
    /// Flags for directories of its own that are not given.
    without: Vec<&'static str>,
}

impl Uphold {
    /// Not started yet.
    pub fn new() -> Uphold {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("units")).unwrap();
        let (arguments, wrapper, without) = (vec!["run".into()], vec![], vec![]);
        Uphold { dir, child: None, arguments, wrapper, program: binary().into(), without }
    }

    /// Not started yet; it will fail as [`fail`](Uphold::fail) says, and read what [`reads`](Uphold::reads) says.
    pub fn fallible() -> Uphold {
        let uphold = Uphold::new();
        let named = |variable: &str, file: &str| format!("{variable}={}", uphold.path(file).display());
        let plan = named("UPHOLD_FAILPOINTS", "fail");
        let versions = named("UPHOLD_STATE_VERSIONS", "versions");
        uphold.under(&["env", &plan, &versions])
    }

    /// Every image that begins from here on reads these versions of the state (src/daemon/versions.rs).
    pub fn reads(&self, versions: &str) -> &Uphold {
        fs::write(self.path("versions"), versions).unwrap();
        self
    }

    /// `POINT COUNT ACTION`, one a line: what becomes of uphold where (src/failpoint.rs).
    pub fn fail(&self, plan: &str) -> &Uphold {
        let new = self.path("fail.made");
        fs::write(&new, format!("{plan}\n")).unwrap();
        fs::rename(new, self.path("fail")).unwrap();
        self
    }

    /// Started with one unit.
    pub fn with_unit(name: &str, text: &str) -> Uphold {
        Uphold::new().unit(name, text).start()
    }

    pub fn unit(self, name: &str, text: &str) -> Uphold {
        self.write_unit(name, text);
        self
    }

    pub fn write_unit(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(format!("units/{name}.toml")), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `init` or `run`, with what else stands on the command line.
    pub fn mode(mut self, arguments: &[&str]) -> Uphold {
        self.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// These flags are left out, and so is the directory that it would have.
    pub fn without(mut self, flags: &[&'static str]) -> Uphold {
        self.without.extend(flags);
        self
    }

    /// Run by this command, as `unshare`.
    pub fn under(mut self, wrapper: &[&str]) -> Uphold {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Run by this command, which is run by the one of before.
    pub fn further_under(mut self, wrapper: &[&str]) -> Uphold {
        self.wrapper.extend(wrapper.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Run by a shell line that comes before it, in a mount namespace of its own.
    pub fn after_mounting(self, line: &str) -> Uphold {
        self.under(&["unshare", "-m", "sh", "-c", &format!("set -e; {line}; exec \"$@\""), "sh"])
    }

    /// Owned and run by this uid, with a copy of the binary that it can reach.
    pub fn run_by_uid(mut self, uid: u32, further: &[&str]) -> Uphold {
        self.program = self.reachable_binary();
        for path in [self.dir.path().to_owned(), self.path("units")] {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        }
        let (uid, home) = (uid.to_string(), format!("HOME={}", self.dir.path().display()));
        let words = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "env", &home];
        self.under(&[further, &words].concat())
    }

    /// The binary may stand where another user cannot go: a copy in the daemon's directory, which is opened.
    pub fn reachable_binary(&self) -> PathBuf {
        fs::set_permissions(self.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let copy = self.path("uphold");
        if !copy.exists() {
            copy_binary(&copy);
        }
        copy
    }

    /// Run from a copy of the binary in the daemon's directory, that a test may replace.
    pub fn own_binary(mut self) -> Uphold {
        self.program = self.reachable_binary();
        self
    }

    pub fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(self.program.display().to_string());
        let split = self.arguments.iter().position(|word| word == "--").unwrap_or(self.arguments.len());
        words.extend_from_slice(&self.arguments[..split]);
        for (flag, path) in [("--units", "units"), ("--runtime-dir", "run"), ("--log-dir", "log")] {
            if self.without.contains(&flag) {
                continue;
            }
            words.extend([flag.to_owned(), self.path(path).display().to_string()]);
        }
        words.extend_from_slice(&self.arguments[split..]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.env_remove("NOTIFY_SOCKET");
        command
    }

    pub fn start(mut self) -> Uphold {
        let out = fs::File::create(self.path("stdout")).unwrap();
        let err = fs::File::create(self.path("stderr")).unwrap();
        self.child = Some(self.command().stdout(out).stderr(err).spawn().unwrap());
        self.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
        self
    }

    /// uphold is killed with -9, and is gone.
    pub fn kill(&mut self) -> &mut Uphold {
        self.signal(Signal::SIGKILL);
        self.exit();
        self
    }

    /// uphold is started again, with what else stands on the command line, and not expected to answer; what it
    /// says is added to stderr.
    pub fn again_blind(&mut self) -> &mut Uphold {
        let append = |name: &str| fs::File::options().append(true).open(self.path(name)).unwrap();
        let mut command = self.command();
        command.stdout(append("stdout")).stderr(append("stderr"));
        self.child = Some(command.spawn().unwrap());
        self
    }

    /// uphold is started again, as above, and answers.
    pub fn again(&mut self) -> &mut Uphold {
        self.again_blind().until_it_answers()
    }

    /// uphold is started again by this command, which becomes it.
    pub fn again_by(&mut self, mut command: Command) -> &mut Uphold {
        self.child = Some(command.spawn().unwrap());
        self.until_it_answers()
    }

    fn until_it_answers(&mut self) -> &mut Uphold {
        self.eventually("the control API answers again", |uphold| uphold.get("/v1/version").is_some());
        self
    }

    /// Started, and not expected to answer.
    pub fn start_blind(mut self) -> Uphold {
        let out = fs::File::create(self.path("stdout")).unwrap();
        let err = fs::File::create(self.path("stderr")).unwrap();
        self.child = Some(self.command().stdout(out).stderr(err).spawn().unwrap());
        self
    }

    /// Run to its end.
    pub fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id().try_into().unwrap()
    }

    /// A signal to uphold itself.
    pub fn signal(&self, signal: Signal) -> &Uphold {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
        self
    }

    /// It has ended; [`exit`](Uphold::exit) says how.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.as_mut().unwrap().try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn exit(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            // It stays in its place until it has ended: a test that fails still ends it.
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < until, "uphold does not end: {}", self.stderr());
            pause();
        }
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Waits until uphold's own log says this: it has a thread of its own, and may lag behind the API.
    pub fn until_said(&self, text: &str) -> &Uphold {
        self.eventually(text, |uphold| uphold.stderr().contains(text))
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.path("stdout")).unwrap_or_default()
    }

    /// A log as it stands in its file, without stamps.
    pub fn log(&self, unit: &str) -> Vec<String> {
        let text = fs::read(self.path(&format!("log/{unit}/stdout.log"))).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned())
            .collect()
    }

    /// The same over all its files, oldest first.
    pub fn whole_log(&self, unit: &str) -> Vec<String> {
        let path = |number: u32| match number {
            0 => self.path(&format!("log/{unit}/stdout.log")),
            number => self.path(&format!("log/{unit}/stdout.log.{number}")),
        };
        let last = (0..).find(|number| !path(*number).exists()).unwrap();
        let texts = (0..last).rev().map(|number| fs::read_to_string(path(number)).unwrap());
        texts
            .collect::<String>()
            .lines()
            .map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned())
            .collect()
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    /// One request by hand: status and body.
    pub fn http(&self, request: &str) -> Option<(u16, String)> {
        self.asked(request).ok()
    }

    /// The answer, or where it failed.
    pub fn asked(&self, request: &str) -> Result<(u16, String), String> {
        let at = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        let mut stream = UnixStream::connect(self.socket()).map_err(at("to connect"))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head =
            format!("{request} HTTP/1.1\r\nHost: uphold\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(at("to ask"))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(at("to read"))?;
        let parts =
            || Some((text.split(' ').nth(1)?.parse().ok()?, text.split_once("\r\n\r\n")?.1.to_owned()));
        parts().ok_or_else(|| format!("no answer: `{text}`"))
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        let (_, body) = self.http(&format!("GET {path}"))?;
        serde_json::from_str(&body).ok()
    }

    pub fn view(&self, unit: &str) -> Value {
        self.get(&format!("/v1/units/{unit}"))
            .unwrap_or_else(|| panic!("no view of {unit}: {}", self.stderr()))
    }

    pub fn state(&self, unit: &str) -> String {
        self.view(unit)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The main process, once there is one: what it does can be seen before uphold has heard of it.
    pub fn main_pid(&self, unit: &str) -> i32 {
        let pid = |uphold: &Uphold| uphold.view(unit)["pid"].as_i64();
        self.eventually(&format!("{unit} has a main process"), |uphold| pid(uphold).is_some());
        pid(self).unwrap() as i32
    }

    /// Waits until a unit is in this state.
    pub fn until(&self, unit: &str, state: &str) -> &Uphold {
        self.until_view(unit, state, |view| view["state"] == state)
    }

    /// Waits until the view of a unit is so.
    pub fn until_view(&self, unit: &str, what: &str, is: impl Fn(&Value) -> bool) -> &Uphold {
        let mut last = Value::Null;
        let came = self.watch(|| {
            last = self.view(unit);
            is(&last)
        });
        assert!(came, "{unit} does not come to {what}: {last:#}\n{}", self.stderr());
        self
    }

    /// Waits for an event of a unit whose line (reason, blank, message) contains this text; its count.
    pub fn until_event(&self, unit: &str, text: &str) -> u64 {
        let mut found = None;
        let mut all = Vec::new();
        let came = self.watch(|| {
            all = self.events(unit);
            found = all.iter().find(|(line, _)| line.contains(text)).map(|(_, count)| *count);
            found.is_some()
        });
        assert!(came, "{unit} has no event `{text}`: {all:#?}\n{}", self.stderr());
        found.unwrap()
    }

    /// Waits for an event of uphold itself whose line contains this text.
    pub fn until_own_event(&self, text: &str) -> &Uphold {
        let mut all = Vec::new();
        let came = self.watch(|| {
            all = self.all_events().into_iter().filter(|(unit, ..)| unit == "uphold").collect();
            all.iter().any(|(_, line, _)| line.contains(text))
        });
        assert!(came, "uphold has no event `{text}`: {all:#?}\n{}", self.stderr());
        self
    }

    /// All events: whose, reason and message, and how often.
    pub fn all_events(&self) -> Vec<(String, String, u64)> {
        let (_, body) = self.http("GET /v1/events").unwrap_or_default();
        let line = |event: Value| {
            let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            (
                word("unit"),
                format!("{} {}", word("reason"), word("message")),
                event["count"].as_u64().unwrap(),
            )
        };
        body.lines().filter_map(|text| serde_json::from_str(text).ok()).map(line).collect()
    }

    /// The events of a unit: reason and message, and how often.
    pub fn events(&self, unit: &str) -> Vec<(String, u64)> {
        let (_, body) = self.http(&format!("GET /v1/events?unit={unit}")).unwrap();
        let line = |event: Value| {
            let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            (format!("{} {}", word("reason"), word("message")), event["count"].as_u64().unwrap())
        };
        body.lines().filter_map(|text| serde_json::from_str(text).ok()).map(line).collect()
    }

    /// Looks after each event, and again now and then: not every change of a view is an event.
    fn watch(&self, mut is: impl FnMut() -> bool) -> bool {
        let until = Instant::now() + PATIENCE;
        // It may be about to be put back.
        let stream = loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() >= until => return false,
                Err(_) => pause(),
            }
        };
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let head = "GET /v1/events?follow=true HTTP/1.1\r\nHost: uphold\r\n\r\n";
        (&stream).write_all(head.as_bytes()).unwrap();
        let mut events = BufReader::new(stream);
        while Instant::now() < until {
            if is() {
                return true;
            }
            let mut line = Vec::new();
            let _ = events.read_until(b'\n', &mut line);
        }
        false
    }

    /// Waits for anything else.
    pub fn eventually(&self, what: &str, is: impl Fn(&Uphold) -> bool) -> &Uphold {
        let until = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(Instant::now() < until, "never: {what}\n{}", self.stderr());
            pause();
        }
        self
    }

    /// `uphold ctl`: exit code, stdout, stderr.
    pub fn ctl(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.ctl_command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("ctl").arg("--socket").arg(self.socket()).args(arguments);
        command
    }

    /// A signal to the main process of a unit.
    pub fn kill_main(&self, unit: &str, signal: Signal) -> &Uphold {
        kill(Pid::from_raw(self.main_pid(unit)), signal).unwrap();
        self
    }
}

impl Drop for Uphold {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(child.id().try_into().unwrap());
            // The second one kills at once; `unshare --fork` ignores both, and its child goes with it.
            let _ = kill(pid, Signal::SIGTERM);
            let _ = kill(pid, Signal::SIGTERM);
            let forks = self.wrapper.iter().any(|word| word == "--fork");
            let patience = if forks { Duration::ZERO } else { Duration::from_secs(20) };
            let until = Instant::now() + patience;
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() >= until {
                    let _ = child.kill();
                }
                pause();
            }
        }
        self.end_left_behind();
    }
}

impl Uphold {
    /// Ends the services of an uphold that was killed and not started again: the state that it has left tells
    /// the mark that they carry.
    fn end_left_behind(&self) {
        let state = fs::read_to_string(self.path("run/private/state")).unwrap_or_default();
        let head = state.lines().next().and_then(|line| serde_json::from_str::<Value>(line.get(9..)?).ok());
        let Some(token) = head.as_ref().and_then(|head| head["token"].as_str()) else { return };
        for pid in marked(token) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The living processes that a line of upholds has started, as their UPHOLD_RUN says.
pub fn marked(token: &str) -> Vec<i32> {
    let end = format!(":{token}");
    let is_marked = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut entries = environ.split(|byte| *byte == 0);
        entries.any(|entry| entry.starts_with(b"UPHOLD_RUN=") && entry.ends_with(end.as_bytes()))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_marked).collect()
}

/// Gives way while waiting for something that no event tells of.
pub fn pause() {
    let mut nothing = [0];
    let (mut a, _b) = UnixStream::pair().unwrap();
    a.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let _ = a.read(&mut nothing);
}

/// A process that writes lines for as long as the test reads them; it is killed and reaped at the end.
pub struct Lines {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Lines {
    pub fn of(mut command: Command) -> Lines {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Lines { child, lines }
    }

    /// Waits for a line that contains this text.
    pub fn until(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with `{text}`: {seen:#?}");
    }

    /// Waits for its end: what it still wrote, and its exit code.
    pub fn rest(&mut self) -> (Vec<String>, Option<i32>) {
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            rest.push(line);
        }
        (rest, self.exit())
    }

    /// Waits for its end.
    pub fn exit(&mut self) -> Option<i32> {
        // They end with the process.
        let mut end = self.lines.recv_timeout(PATIENCE);
        while end.is_ok() {
            end = self.lines.recv_timeout(PATIENCE);
        }
        assert_eq!(end, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "it does not end");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The children of a process that are no zombies.
pub fn children_of(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut children: Vec<i32> = tasks
        .flatten()
        .flat_map(|task| {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()
        })
        .filter(|pid| is_alive(*pid))
        .collect();
    children.sort_unstable();
    children
}

/// Copies the binary by a process of its own: a child that another test starts meanwhile would inherit the
/// descriptor that writes here, and until its exec the copy could not be executed (ETXTBSY).
pub fn copy_binary(to: &Path) {
    let status = Command::new("cp").arg(binary()).arg(to).status().unwrap();
    assert!(status.success(), "cannot copy the binary");
}

/// It exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !matches!(stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]), None | Some(b'Z' | b'X'))
}

/// PIDFD_GET_INFO tells how a process ended from 6.15 on.
pub fn the_kernel_tells_of_the_dead() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// In CI nothing may be skipped; elsewhere it is said why.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
    eprintln!("skipped: {why}");
}

pub fn have(program: &str) -> bool {
    std::env::var("PATH")
        .unwrap_or_default()
        .split(':')
        .chain(["/usr/sbin"])
        .any(|dir| Path::new(dir).join(program).exists())
}
