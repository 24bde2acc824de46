//! What a long life or a hostile start must not do to uphold.

use std::fs;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use crate::dsl::*;

/// Descriptors, FIFOs and what is kept beside them, inotify watches and threads of uphold.
fn held(uphold: &Uphold) -> [usize; 4] {
    let entries = |dir: &str| fs::read_dir(dir).map_or(0, Iterator::count);
    let pid = uphold.pid();
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let watches = infos
        .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default())
        .map(|info| info.lines().filter(|line| line.starts_with("inotify wd")).count())
        .sum();
    [
        entries(&format!("/proc/{pid}/fd")),
        fs::read_dir(uphold.path("run/private")).unwrap().flatten().filter(of_a_run).count(),
        watches,
        entries(&format!("/proc/{pid}/task")),
    ]
}

/// A FIFO, or what is kept beside one of an unfinished line.
fn of_a_run(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name().into_string().unwrap();
    [".out", ".err", ".part"].iter().any(|end| name.ends_with(end))
}

#[test]
fn two_hundred_restarts_leave_nothing_behind() {
    let loop_ = "[restart]\ndelay = \"1ms\"\nfactor = 1.0\nmax_delay = \"1ms\"";
    let uphold = Uphold::with_unit("web", &format!("command = [\"true\"]\n{loop_}"));
    uphold.until_view("web", "200 restarts", |view| view["restarts"].as_u64() >= Some(200));
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    uphold.eventually("nothing of 200 runs is held", |uphold| {
        let [files, fifos, watches, threads] = held(uphold);
        // Its runtime directory, all above it, and the private one below it are watched all the time.
        let watched = uphold.path("run").ancestors().count() + 1;
        files < 40 && fifos == 0 && watches == watched && threads < 12
    });
}

#[test]
fn signals_that_were_blocked_when_uphold_was_started_are_heard() {
    // A mask is inherited through the exec, and belongs to the thread that starts uphold.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGCHLD);
    blocked.add(Signal::SIGTERM);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).unwrap();
    let mut uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]");
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked), None).unwrap();
    uphold.until("web", "running").kill_main("web", Signal::SIGKILL);
    uphold.until_view("web", "its restart", |view| view["restarts"] == 1);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
}

#[test]
fn a_service_manager_that_does_not_read_stalls_nothing() {
    let uphold = Uphold::new().unit("web", "command = [\"sleep\", \"600\"]");
    let path = uphold.path("notify").display().to_string();
    let _mute = UnixDatagram::bind(&path).unwrap();
    // A watchdog is fed every millisecond; the queue of a datagram socket holds some ten or hundred.
    let socket = format!("NOTIFY_SOCKET={path}");
    let mut uphold = uphold.under(&["env", &socket, "WATCHDOG_USEC=2000"]).start();
    uphold.until("web", "running");
    for restarts in 1..=5 {
        uphold.kill_main("web", Signal::SIGKILL);
        uphold.until_view("web", "its restart", |view| {
            view["restarts"] == restarts && view["state"] == "running"
        });
    }
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
}
