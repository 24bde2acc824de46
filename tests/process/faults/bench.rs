//! An uphold of which calls are to fail, what is asked of it meanwhile, and what has to be true after it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use super::strace::Fault;
use crate::dsl::*;

/// How long a fault is provoked at most.
const PROVOKED: Duration = Duration::from_secs(20);
/// How long an answer is waited for that may not come.
const ANSWERED: Duration = Duration::from_millis(200);
/// Lines at once.
const LINES: usize = 3;
/// How often it is looked whether a start or a stop is over, or a log is written again.
const LOOKS: usize = 20;
/// Services that log. One that lost a line is left alone for a second by its log; meanwhile another one's fails.
const LOGGERS: usize = 10;
/// What a line ends with: no two of them have a place in one file of a log.
const REST: &str = "0123456789012345678901234567890123456789";

/// A call that fails.
pub(super) struct Case<'a> {
    /// strace's name of it.
    pub(super) call: &'a str,
    /// What fails beside it, as strace has it.
    pub(super) beside: &'a [&'a str],
    /// How it fails.
    pub(super) errno: &'a str,
    /// At which call, as strace has it.
    pub(super) when: &'a str,
    /// Only on these files, if any is named: `LOG` is that of the service which logs.
    pub(super) files: &'a [&'a str],
    /// Each of these threads has to make such a call.
    pub(super) threads: &'a [&'a str],
    /// uphold's own log says each of these of it,
    pub(super) said: &'a [&'a str],
    /// and none of these.
    pub(super) unsaid: &'a [&'a str],
    /// What else is asked of uphold meanwhile.
    pub(super) further: &'a [&'a str],
    /// What is begun later fails, too.
    pub(super) follow: bool,
    /// The service that logs does so on uphold's own stdout.
    pub(super) console: bool,
}

/// A service that logs a line when it is told to.
struct Logger {
    name: String,
    orders: File,
    sent: u64,
    pid: i32,
}

/// An uphold of which calls are to fail.
pub(super) struct Bench {
    pub(super) uphold: Uphold,
    loggers: Vec<Logger>,
    turn: usize,
    /// What was answered last, unless something was asked since that was not.
    wanted: Option<&'static str>,
    verb: &'static str,
}

impl Logger {
    fn line(&mut self) {
        self.sent += 1;
        writeln!(self.orders, "{}", self.sent).unwrap();
    }
}

fn logger(uphold: &Uphold, name: &str, keys: &str) -> File {
    let fifo = uphold.path(&format!("{name}.orders"));
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let echo = format!("exec 3<>{}; while read -r i <&3; do echo LINE $i {REST}; done", fifo.display());
    uphold.write_unit(name, &format!("command = ['sh', '-c', '{echo}']\n[logs]\ntimestamps = false\n{keys}"));
    File::options().read(true).write(true).open(fifo).unwrap()
}

/// A request whose answer may not come: its status and body, if that comes soon.
fn ask(uphold: &Uphold, request: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(uphold.socket()).ok()?;
    stream.set_read_timeout(Some(ANSWERED)).unwrap();
    let head =
        format!("{request} HTTP/1.1\r\nHost: uphold\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some((answer.split(' ').nth(1)?.parse().ok()?, answer))
}

impl Bench {
    /// `None`: there is no strace here.
    pub(super) fn new() -> Option<Bench> {
        if !have("strace") {
            skip("strace is not installed");
            return None;
        }
        let uphold = Uphold::new();
        let keys = "max_size = \"60\"\nkeep = 10000\n";
        let mut orders: Vec<(String, File)> = (0..LOGGERS)
            .map(|number| format!("log{number}"))
            .map(|name| (name.clone(), logger(&uphold, &name, keys)))
            .collect();
        orders.push(("console".into(), logger(&uphold, "console", "stdout = \"inherit\"\nprefix = false\n")));
        // Where a strace goes with a SIGTERM in its hands, that is lost, and the stop takes its whole timeout.
        let stop = "[restart]\nmax_delay = \"100ms\"\n[stop]\nsignal = \"SIGKILL\"\n";
        let path = (1..=10).map(|number| program(&uphold, number)).collect::<Vec<String>>().join(":");
        let uphold = uphold
            .unit("op", &format!("command = [\"/bin/sleep\", \"600\"]\n{stop}"))
            .unit("once", "command = [\"/bin/true\"]\ntype = \"oneshot\"\nautostart = false\n")
            .unit("tenth", &format!("command = [\"tenth\", \"600\"]\nautostart = false\nenvironment = {{ PATH = \"{path}\" }}\n{stop}"))
            .start();
        let ready = |(name, orders): (String, File)| {
            let pid = uphold.until(&name, "running").main_pid(&name);
            Logger { name, orders, sent: 0, pid }
        };
        let loggers = orders.into_iter().map(ready).collect();
        uphold.until("op", "running");
        Some(Bench { uphold, loggers, turn: 0, wanted: None, verb: "start" })
    }

    /// The fault comes, is provoked, and goes; then all is as it was.
    pub(super) fn bears(&mut self, case: &Case<'_>) {
        let what = format!("{} with {} at {}", case.call, case.errno, case.when);
        eprintln!("{what}");
        let logger = self.next_logger(case.console);
        let before = self.uphold.stderr().len();
        let mut inject = vec![format!("{}:error={}:when={}", case.call, case.errno, case.when)];
        inject.extend(case.beside.iter().map(|rule| (*rule).to_owned()));
        let paths: Vec<PathBuf> = case
            .files
            .iter()
            .map(|file| self.uphold.path(&file.replace("LOG", &self.loggers[logger].name)))
            .collect();
        let wanted = match (case.when.split_once(".."), case.when.ends_with('+')) {
            (Some((_, last)), _) => last.parse().unwrap(),
            (None, true) => 2,
            (None, false) => 1,
        };
        let begin = |uphold: &Uphold| Fault::on(uphold, &inject, &paths, case.follow);
        let mut fault = begin(&self.uphold);
        let until = Instant::now() + PROVOKED;
        while let Some(thread) = case.threads.iter().find(|name| fault.failed(case.call, name) < wanted) {
            let said = || format!("{what}: {thread} makes no such call: {}", self.uphold.stderr());
            assert!(Instant::now() < until, "{}", said());
            if !fault.has(thread) {
                drop(fault);
                fault = begin(&self.uphold);
            }
            self.provoke(logger, case);
        }
        drop(fault);
        for said in case.said {
            self.uphold.eventually(&format!("it says `{said}` of {what}"), |uphold| {
                uphold.stderr().get(before..).unwrap_or_default().contains(said)
            });
        }
        self.is_well(&what);
        // What it says by now comes after all that it had to say before.
        let text = self.uphold.stderr();
        let text = text.get(before..).unwrap_or_default();
        assert!(!case.unsaid.iter().any(|unsaid| text.contains(unsaid)), "{what}: {text}");
    }

    /// The next one, once its lines go where they belong.
    fn next_logger(&mut self, console: bool) -> usize {
        self.turn = (self.turn + 1) % LOGGERS;
        let logger = if console { LOGGERS } else { self.turn };
        self.logs(logger);
        logger
    }

    /// A line of this service is where it belongs, and so is that others before are lost, if they are. Its log
    /// is rotated, too: there is nothing else in the file.
    fn logs(&mut self, logger: usize) {
        let path = match logger {
            LOGGERS => self.uphold.path("stdout"),
            _ => self.uphold.path(&format!("log/{}/stdout.log", self.loggers[logger].name)),
        };
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.loggers[logger].line();
            let line = format!("LINE {} {REST}\n", self.loggers[logger].sent);
            // One that refused lines takes none for a second.
            for _ in 0..LOOKS {
                let text = fs::read_to_string(&path).unwrap_or_default();
                if text == line || (logger == LOGGERS && text.ends_with(&line)) {
                    return;
                }
                pause();
            }
        }
        panic!("{} is not written and rotated again: {}", path.display(), self.uphold.stderr());
    }

    /// Something of everything that uphold does; one start after the other, so that one thread makes them all.
    fn provoke(&mut self, logger: usize, case: &Case<'_>) {
        (0..LINES).for_each(|_| self.loggers[logger].line());
        ask(&self.uphold, "POST /v1/units/once/start?wait=true");
        self.verb = if self.verb == "start" { "stop" } else { "start" };
        let answer = ask(&self.uphold, &format!("POST /v1/units/op/{}", self.verb));
        self.wanted = answer.is_some_and(|(status, _)| status == 200).then_some(self.verb);
        for _ in 0..LOOKS {
            let Some((_, view)) = ask(&self.uphold, "GET /v1/units/op") else { break };
            if !["starting", "stopping"].iter().any(|state| view.contains(&format!("\"state\":\"{state}\"")))
            {
                break;
            }
            pause();
        }
        for further in case.further {
            ask(&self.uphold, further);
        }
    }

    /// uphold lives and is the same; what it has answered is so; it starts what it could not.
    fn is_well(&self, what: &str) {
        let uphold = &self.uphold;
        assert!(is_alive(uphold.pid()), "{what}: {}", uphold.stderr());
        let version = uphold.get("/v1/version").unwrap_or_default();
        assert_eq!(version["image"], 1, "{what}: {}", uphold.stderr());
        let said = uphold.stderr().len();
        let once = uphold.http("POST /v1/units/once/start?wait=true").unwrap_or_default();
        assert!(once.0 == 200 && once.1.contains("\"ok\""), "{what}: {once:?} {}", uphold.stderr());
        uphold.eventually(&format!("it says what it does after {what}"), |uphold| {
            uphold.stderr().get(said..).is_some_and(|text| text.contains("Process once completed"))
        });
        self.op_is_as_answered(what);
    }

    fn op_is_as_answered(&self, what: &str) {
        let Some(verb) = self.wanted else { return };
        let (wanted, state) = if verb == "stop" { ("down", "inactive") } else { ("up", "running") };
        self.uphold.eventually(&format!("op is {state}, as was answered: {what}"), |uphold| {
            let op = uphold.view("op");
            op["wanted"] == wanted && op["state"] == state
        });
    }

    /// What was answered outlives uphold: it is killed, and the next one goes on.
    pub(super) fn outlives_it(&mut self, what: &str) {
        // How many lines are lost is known by who lost them.
        (0..=LOGGERS).for_each(|logger| self.logs(logger));
        if self.wanted.is_none() {
            assert_eq!(
                self.uphold.http("POST /v1/units/op/start").map(|(status, _)| status),
                Some(200),
                "{what}"
            );
            self.wanted = Some("start");
        }
        self.op_is_as_answered(what);
        let op = self.uphold.view("op")["pid"].clone();
        self.uphold.kill().again();
        self.op_is_as_answered(what);
        assert_eq!(self.uphold.view("op")["pid"], op, "{what}: {}", self.uphold.stderr());
        // It has the thread that starts services once there was a start.
        self.is_well(what);
        self.next_logger(false);
    }

    /// No service that logs was ever touched, and what they wrote is in their logs, once, in order; what is not is
    /// said to be lost.
    pub(super) fn has_all_lines(mut self) {
        for logger in &self.loggers {
            let view = self.uphold.view(&logger.name);
            assert_eq!((&view["pid"], &view["restarts"]), (&logger.pid.into(), &0.into()), "{view}");
        }
        (0..=LOGGERS).for_each(|logger| self.logs(logger));
        self.uphold.signal(Signal::SIGTERM);
        assert_eq!(self.uphold.exit().code(), Some(0), "{}", self.uphold.stderr());
        for logger in &self.loggers[..LOGGERS] {
            check_lines(&logger.name, &self.text(&logger.name), logger.sent);
        }
        check_lines("console", &self.uphold.stdout(), self.loggers[LOGGERS].sent);
    }

    /// All files of a log, the oldest first.
    fn text(&self, name: &str) -> String {
        let number =
            |file: &str| file.strip_prefix("stdout.log.").map_or(0, |rest| rest.parse::<u64>().unwrap());
        let mut files: Vec<(u64, PathBuf)> = fs::read_dir(self.uphold.path(&format!("log/{name}")))
            .unwrap()
            .flatten()
            .map(|entry| (number(&entry.file_name().into_string().unwrap()), entry.path()))
            .collect();
        files.sort();
        files.iter().rev().map(|(_, path)| fs::read_to_string(path).unwrap()).collect()
    }
}

/// The directory of the command `tenth`, of which only the tenth can be executed: the other ones name an
/// interpreter that is no program.
fn program(uphold: &Uphold, number: usize) -> String {
    let dir = uphold.path(&format!("path{number}"));
    fs::create_dir(&dir).unwrap();
    if number == 10 {
        symlink("/bin/sleep", dir.join("tenth")).unwrap();
    } else {
        fs::write(dir.join("tenth"), "#!/dev/null\n").unwrap();
        fs::set_permissions(dir.join("tenth"), PermissionsExt::from_mode(0o755)).unwrap();
    }
    dir.display().to_string()
}

fn check_lines(name: &str, text: &str, sent: u64) {
    let (mut last, mut lost) = (0, 0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("uphold: ") {
            lost +=
                rest.split(' ').next().unwrap().parse::<u64>().unwrap_or_else(|_| panic!("{name}: {line}"));
            continue;
        }
        let number = line.strip_prefix("LINE ").and_then(|rest| rest.strip_suffix(REST));
        let number: u64 =
            number.unwrap_or_else(|| panic!("{name} has a torn line: {line}")).trim().parse().unwrap();
        assert_eq!(number, last + lost + 1, "{name}: lost or doubled, and not said\n{text}");
        (last, lost) = (number, 0);
    }
    assert_eq!(last + lost, sent, "{name}: lost at its end, and not said\n{text}");
}
