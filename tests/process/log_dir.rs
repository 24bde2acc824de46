//! A log directory that refuses files, or does not answer, while services run: they come first.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::dsl::*;
use crate::goes_on::until_image;

const TICKS: &str = "command = [\"sh\", \"-c\", \"while :; do echo tick; sleep 0.02; done\"]\n";
const LATE: &str = "autostart = false\ncommand = [\"sh\", \"-c\", \"echo late; exec sleep 600\"]\n";
const KEPT: &str = "as log directory: ";

/// In a mount namespace in which this is mounted as the log directory.
fn mounted(options: &str) -> Option<Uphold> {
    if !is_root() {
        skip("only root can mount");
        return None;
    }
    let uphold = Uphold::new();
    fs::create_dir(uphold.path("log")).unwrap();
    let mount = format!("mount -t tmpfs -o {options} none {}", uphold.path("log").display());
    Some(uphold.after_mounting(&mount).unit("web", TICKS).unit("late", LATE))
}

/// A path as this process, in the mount namespace of uphold, has it.
fn inside(pid: i32, path: &str) -> PathBuf {
    format!("/proc/{pid}/root{path}").into()
}

/// Makes files there until none can be made.
fn fill(dir: &std::path::Path) -> Vec<PathBuf> {
    let files = (0..).map(|number| dir.join(format!("filler{number}")));
    files.take_while(|file| fs::File::create(file).is_ok()).collect()
}

/// Has the log of `web` grow by ten lines.
fn writes_on(uphold: &Uphold, log: &std::path::Path) {
    let lines = || fs::read_to_string(log).unwrap_or_default().lines().count();
    let before = lines();
    uphold.eventually("it is written on", |_| lines() > before + 10);
}

/// In the mount namespace of a process.
fn within(pid: i32, words: &[&str]) {
    let status = Command::new("nsenter").args(["-t", &pid.to_string(), "-m"]).args(words).status();
    assert!(status.unwrap().success(), "{words:?}");
}

#[test]
fn a_log_directory_that_takes_no_file_any_more_keeps_nobody_from_an_upgrade_or_from_taking_over() {
    let Some(uphold) = mounted("nr_inodes=12") else { return };
    let mut uphold = uphold.start();
    let web = uphold.until("web", "running").main_pid("web");
    let log = inside(web, &uphold.path("log").display().to_string());
    let file = log.join("web/stdout.log");
    writes_on(&uphold, &file);
    let fillers = fill(&log);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    until_image(&uphold, 2);
    assert_eq!((uphold.main_pid("web"), uphold.view("web")["restarts"].clone()), (web, 0.into()));
    writes_on(&uphold, &file);
    uphold.kill();
    uphold = uphold.under(&["nsenter", "-t", &web.to_string(), "-m"]);
    uphold.again();
    assert_eq!((uphold.main_pid("web"), uphold.view("web")["restarts"].clone()), (web, 0.into()));
    writes_on(&uphold, &file);
    // What is made anew there is lost, and said, until it can be.
    assert_eq!(uphold.ctl(&["start", "late"]).0, 0);
    uphold.until_event("late", "LogWriteFailed");
    fillers.iter().for_each(|file| fs::remove_file(file).unwrap());
    assert_eq!(uphold.ctl(&["restart", "late"]).0, 0);
    let late = log.join("late/stdout.log");
    uphold.eventually("it is logged", |_| {
        fs::read_to_string(&late).is_ok_and(|text| text.ends_with(" late\n"))
    });
}

#[test]
fn services_are_taken_over_where_the_log_directory_has_become_read_only() {
    let Some(uphold) = mounted("mode=755") else { return };
    let mut uphold = uphold.start();
    let web = uphold.until("web", "running").main_pid("web");
    let log = uphold.path("log").display().to_string();
    let file = inside(web, &log).join("web/stdout.log");
    writes_on(&uphold, &file);
    uphold.kill();
    within(web, &["mount", "-o", "remount,ro", &log]);
    uphold = uphold.under(&["nsenter", "-t", &web.to_string(), "-m"]);
    uphold.again();
    assert_eq!((uphold.main_pid("web"), uphold.view("web")["restarts"].clone()), (web, 0.into()));
    uphold.until_event("web", "LogWriteFailed");
    within(web, &["mount", "-o", "remount,rw", &log]);
    uphold.until_event("web", "LogWriteRecovered");
    writes_on(&uphold, &file);
}

#[test]
fn an_image_that_goes_on_does_so_whatever_has_become_of_its_log_directory() {
    let mut uphold = Uphold::with_unit("web", TICKS);
    let web = uphold.until("web", "running").main_pid("web");
    writes_on(&uphold, &uphold.path("log/web/stdout.log"));
    fs::rename(uphold.path("log"), uphold.path("moved")).unwrap();
    fs::write(uphold.path("log"), "").unwrap();
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    until_image(&uphold, 2);
    uphold.until_said(KEPT).until_event("web", "LogWriteFailed");
    // An uphold that finds a state goes on, too.
    uphold.kill().again();
    assert_eq!((uphold.main_pid("web"), uphold.view("web")["restarts"].clone()), (web, 0.into()));
    fs::remove_file(uphold.path("log")).unwrap();
    fs::rename(uphold.path("moved"), uphold.path("log")).unwrap();
    uphold.until_event("web", "LogWriteRecovered");
    writes_on(&uphold, &uphold.path("log/web/stdout.log"));
}

#[test]
fn a_first_start_begins_with_a_full_log_directory_and_refuses_one_that_is_a_mistake() {
    let Some(uphold) = mounted("nr_inodes=1") else { return };
    let uphold = uphold.start();
    uphold.until("web", "running");
    uphold.until_said(KEPT).until_event("web", "LogWriteFailed");
    let uphold = Uphold::new().unit("web", TICKS);
    fs::write(uphold.path("log"), "").unwrap();
    let output = uphold.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("name another with --log-dir"), "{said}");
}

#[test]
fn a_default_log_directory_that_was_used_stays_in_use_and_one_that_never_was_does_not() {
    if !is_root() {
        return skip("only root can mount");
    }
    let mounts = [
        "mount -t tmpfs -o nr_inodes=12 none /var/log",
        "mount -t tmpfs none /var/log; mkdir /var/log/uphold; mount -o remount,ro /var/log",
    ];
    let start =
        |mount: &str| Uphold::new().without(&["--log-dir"]).after_mounting(mount).unit("web", TICKS).start();
    let uphold = start(mounts[0]);
    let log = inside(uphold.until("web", "running").main_pid("web"), "/var/log");
    writes_on(&uphold, &log.join("uphold/web/stdout.log"));
    fill(&log);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    until_image(&uphold, 2);
    writes_on(&uphold, &log.join("uphold/web/stdout.log"));
    assert_eq!(uphold.stdout(), "");
    let uphold = start(mounts[1]);
    for image in 2..4 {
        writes_on(&uphold, &uphold.path("stdout"));
        assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
        until_image(&uphold, image);
    }
    writes_on(&uphold, &uphold.path("stdout"));
    let mark = uphold.path("run/private/no-log-directory");
    fs::remove_file(&mark).unwrap();
    uphold.eventually("it says again that there was none", |_| mark.exists());
    // What lies in its place is as good, and is neither waited for nor written to.
    fs::remove_file(&mark).unwrap();
    nix::unistd::mkfifo(&mark, nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::remove_file(uphold.path("run/private/crash")).unwrap();
    uphold.until_own_event("RuntimeDirLost");
    assert_eq!(uphold.state("web"), "running");
    let web = uphold.main_pid("web");
    let mut uphold = uphold;
    uphold.kill();
    uphold = uphold.under(&["nsenter", "-t", &web.to_string(), "-m"]);
    uphold.again();
    assert_eq!(uphold.main_pid("web"), web);
    writes_on(&uphold, &uphold.path("stdout"));
    assert!(uphold.events("web").iter().all(|(line, _)| !line.contains("LogWriteFailed")));
}

#[test]
fn a_log_directory_that_does_not_answer_is_said_and_keeps_nobody_waiting() {
    if !have("strace") {
        return skip("strace is not installed");
    }
    let uphold = Uphold::new();
    let log = uphold.path("log").display().to_string();
    let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", &log, "--trace=?mkdir,mkdirat"];
    // An end of uphold waits for strace, which ends with what it delays.
    let delay = ["--inject=?mkdir,mkdirat:delay_enter=12000000"];
    let before = Instant::now();
    let mut uphold = uphold
        .under(&[&strace[..], &delay].concat())
        .unit("web", "command = [\"sleep\", \"600\"]\n[logs]\nstdout = \"null\"\n")
        .start();
    uphold.until_said("it does not answer").until("web", "running");
    uphold.signal(Signal::SIGTERM).until_said("Stopped process web");
    assert!(before.elapsed() < Duration::from_secs(12));
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}
