//! System calls that fail, as strace makes them: in an uphold that runs, or from its first instruction on.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::dsl::*;

/// How long it may take to let go of all that it traces.
const LETS_GO: Duration = Duration::from_secs(1);
/// What a process is called that is none of uphold's threads.
pub(super) const CHILD: &str = "a child";

/// strace, attached to every thread of uphold: the calls of these fail. When it goes, so does the fault.
pub(super) struct Fault {
    strace: Child,
    trace: PathBuf,
    /// Where the threads of uphold are.
    tasks: PathBuf,
    /// Those that it has, by their numbers.
    threads: HashMap<String, String>,
}

impl Fault {
    /// `inject`: as strace has it; it counts the calls of each thread apart. `paths`: only calls on these files, if
    /// any is named. `follow`: those of what is begun later, too, children as well as threads.
    pub(super) fn on(uphold: &Uphold, inject: &[String], paths: &[PathBuf], follow: bool) -> Fault {
        let until = Instant::now() + PATIENCE;
        loop {
            // A thread that has ended since it was named ends strace, too.
            if let Some(fault) = Fault::attach(uphold, inject, paths, follow) {
                return fault;
            }
            let said = || format!("strace does not get all threads of uphold: {}", uphold.stderr());
            assert!(is_alive(uphold.pid()) && Instant::now() < until, "{}", said());
        }
    }

    fn attach(uphold: &Uphold, inject: &[String], paths: &[PathBuf], follow: bool) -> Option<Fault> {
        let trace = uphold.path("trace");
        let _ = fs::remove_file(&trace);
        let mut command = Command::new("strace");
        command.arg("-qq").arg("-o").arg(&trace).arg(format!("--trace={}", calls(inject).join(",")));
        command.args(inject.iter().map(|rule| format!("--inject={rule}")));
        for path in paths {
            command.arg("-P").arg(path);
        }
        if follow {
            command.arg("-f");
        }
        let tasks = PathBuf::from(format!("/proc/{}/task", uphold.pid()));
        let mut threads = HashMap::new();
        for task in fs::read_dir(&tasks).unwrap().flatten() {
            let number = task.file_name().into_string().unwrap();
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            command.arg("-p").arg(&number);
            threads.insert(number, name.trim_end().to_owned());
        }
        let command = command.process_group(0);
        let strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut fault = Fault { strace, trace, tasks, threads };
        let status = |fault: &Fault, number: &String| {
            fs::read_to_string(fault.tasks.join(number).join("status")).unwrap_or_default()
        };
        let is_traced =
            |text: String| text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
        while !fault.threads.keys().all(|number| is_traced(status(&fault, number))) {
            let gone = fault.threads.keys().any(|number| !fault.tasks.join(number).exists());
            if gone || !matches!(fault.strace.try_wait(), Ok(None)) {
                return None;
            }
            pause();
        }
        Some(fault)
    }

    /// A thread of this name is under it. One that was not there when it came is not, nor is one that has ended.
    pub(super) fn has(&self, name: &str) -> bool {
        let theirs = |(number, other): (&String, &String)| other == name && self.tasks.join(number).exists();
        name == CHILD || self.threads.iter().any(theirs)
    }

    /// How many calls of this name it has let fail, of threads of this name or of what is [`CHILD`].
    pub(super) fn failed(&self, call: &str, name: &str) -> usize {
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        let theirs = |number: &str| self.threads.get(number).map_or(CHILD, String::as_str) == name;
        text.lines()
            .filter(|line| line.ends_with("(INJECTED)"))
            .filter_map(|line| line.split_once(' '))
            .filter(|(number, rest)| {
                theirs(number) && rest.trim_start().split(['(', ' ']).any(|word| word == call)
            })
            .count()
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets go of uphold, and ends; but for one that waits for a thread to stop which waits for the exec of its
        // child, that has stopped.
        let group = Pid::from_raw(self.strace.id() as i32);
        let _ = kill(group, Signal::SIGINT);
        let until = Instant::now() + LETS_GO;
        while matches!(self.strace.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                let _ = self.strace.kill();
            }
            pause();
        }
        // One that ends as it begins leaves the process behind on which it tries what the kernel can do.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// The calls that these rules are about.
fn calls(inject: &[String]) -> Vec<&str> {
    inject.iter().filter_map(|rule| rule.split(':').next()).collect()
}

/// The next uphold in this place is started by strace, which stays a stranger to it.
pub(super) fn again_with(uphold: Uphold, inject: &[String], paths: &[PathBuf]) -> Uphold {
    let trace = uphold.path("trace").display().to_string();
    let mut words = vec!["strace".to_owned(), "-D".into(), "-qq".into(), "-o".into(), trace];
    words.push(format!("--trace={}", calls(inject).join(",")));
    words.extend(inject.iter().map(|rule| format!("--inject={rule}")));
    for path in paths {
        words.extend(["-P".to_owned(), path.display().to_string()]);
    }
    uphold.under(&words.iter().map(String::as_str).collect::<Vec<&str>>())
}
