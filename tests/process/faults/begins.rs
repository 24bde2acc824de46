//! Calls of an uphold that takes over fail: nothing that runs is abandoned, and nothing is started twice.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::strace::again_with;
use crate::dsl::*;

/// pidfd_open(2), and what comes of each: `None`, or why it cannot come.
const PIDFD_OPEN: [(&str, Option<&str>); 7] = [
    ("EINVAL", Some("the pid is positive, and there are no flags")),
    ("EMFILE", None),
    ("ENFILE", None),
    ("ENODEV", None),
    ("ENOMEM", None),
    // Before Linux 5.3, and of filters.
    ("ENOSYS", None),
    ("ESRCH", Some("it is the truth about a process that is gone, and is taken for it")),
];

/// Services, more than ten.
const SERVICES: usize = 12;

fn service(number: usize) -> String {
    format!("service{number}")
}

/// `None`: there is no strace here.
fn bench() -> Option<Uphold> {
    if !have("strace") {
        skip("strace is not installed");
        return None;
    }
    let unit = "command = [\"/bin/sleep\", \"600\"]\n[restart]\ndelay = \"20ms\"\n";
    let uphold =
        (0..SERVICES).fold(Uphold::new(), |uphold, number| uphold.unit(&service(number), unit)).start();
    for number in 0..SERVICES {
        uphold.until(&service(number), "running");
    }
    Some(uphold)
}

fn pids(uphold: &Uphold) -> Vec<i32> {
    (0..SERVICES).map(|number| uphold.main_pid(&service(number))).collect()
}

#[test]
fn pidfd_open_may_fail() {
    let Some(mut uphold) = bench() else { return };
    let (mut pids_before, mut restarts) = (pids(&uphold), 0);
    for (errno, never) in PIDFD_OPEN {
        if let Some(why) = never {
            eprintln!("pidfd_open with {errno} is not provoked: {why}");
            continue;
        }
        for when in ["1", "2", "10", "1+"] {
            let case = format!("{errno} at {when}");
            uphold.kill();
            uphold = again_with(uphold, &[format!("pidfd_open:error={errno}:when={when}")], &[]);
            uphold.again();
            assert_eq!(pids(&uphold), pids_before, "{case}: {}", uphold.stderr());
            let trace = fs::read_to_string(uphold.path("trace")).unwrap();
            assert!(trace.contains("(INJECTED)"), "{case}: {trace}");
        }
        // For good: its end is seen all the same, and so is that of one that is stopped.
        let first = service(0);
        restarts += 1;
        uphold.kill_main(&first, Signal::SIGKILL).until_view(&first, "its restart", |view| {
            view["state"] == "running" && view["restarts"] == restarts
        });
        assert_eq!(uphold.ctl(&["stop", "service1"]).0, 0, "{errno}: {}", uphold.stderr());
        assert!(!is_alive(pids_before[1]), "{errno}");
        assert_eq!(uphold.ctl(&["start", "service1"]).0, 0, "{errno}: {}", uphold.stderr());
        uphold = uphold.under(&[]);
        pids_before = pids(&uphold);
    }
    uphold.kill().again();
    assert_eq!(pids(&uphold), pids_before);
}

#[test]
fn a_state_that_cannot_be_begun_delays_starts_and_abandons_nothing() {
    let Some(mut uphold) = bench() else { return };
    let mut before = pids(&uphold);
    uphold.kill();
    kill(Pid::from_raw(before[0]), Signal::SIGKILL).unwrap();
    uphold.eventually("it is gone", |_| !is_alive(before[0]));
    let new = uphold.path("run/private/state.new");
    let mut uphold = again_with(uphold, &["rename:error=ENOSPC:when=1..3".to_owned()], &[new]);
    uphold.again();
    uphold.until_said("cannot record the state").until_said("the state is recorded again");
    uphold.until_view("service0", "its restart", |view| view["restarts"] == 1 && view["state"] == "running");
    before[0] = uphold.main_pid("service0");
    assert_eq!(pids(&uphold), before);
    uphold.kill().again();
    assert_eq!(pids(&uphold), before);
}

#[test]
fn a_take_over_in_which_an_open_fails_abandons_nothing() {
    let Some(mut uphold) = bench() else { return };
    let pid = uphold.main_pid("service0");
    uphold.kill();
    let private = fs::read_dir(uphold.path("run/private")).unwrap().flatten();
    let fifo = private.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("service0."));
    let stat = format!("/proc/{pid}/stat");
    let paths = ["units", "units/service1.toml", "run/lock", "run/private/state", "run/private/state.new"]
        .into_iter()
        .chain(["run/private/runs", "run/private/crash", "log/service0/stdout.log", "/etc/passwd", &stat])
        .map(|path| uphold.path(path))
        .chain(fifo);
    for path in paths.collect::<Vec<PathBuf>>() {
        for when in ["1", "1..3", "1+"] {
            let case = format!("{} {when}", path.display());
            let inject = format!("openat:error=EMFILE:when={when}");
            let mut traced = again_with(uphold, &[inject], std::slice::from_ref(&path));
            traced.again_blind();
            let mut answers = false;
            let until = Instant::now() + PATIENCE;
            while !answers && !traced.has_ended() && Instant::now() < until {
                answers = traced.get("/v1/version").is_some();
                pause();
            }
            if answers {
                // What it knows it has taken over, or it is about to be wrong.
                assert_eq!(traced.view("service0")["pid"], pid, "{case}: {}", traced.stderr());
                traced.kill();
            } else {
                assert_ne!(traced.exit().code(), Some(0), "{case}: {}", traced.stderr());
            }
            uphold = traced.under(&[]);
            assert!(is_alive(pid), "{case}: {}", uphold.stderr());
        }
    }
    uphold.again();
    assert_eq!(uphold.main_pid("service0"), pid, "{}", uphold.stderr());
    assert_eq!(uphold.view("service0")["restarts"], 0);
}
