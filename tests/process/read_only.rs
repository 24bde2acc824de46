//! Nothing is writable where uphold would keep what the next one has to know: it is in memory, and an upgrade and a
//! crash are survived all the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dsl::*;
use crate::goes_on::until_image;

/// The directories of uphold's own, as root.
const READ_ONLY: &str = "for at in /run /var/log; do mount -t tmpfs -o ro none $at; done";

/// Writes numbered lines, each in two parts, until the file `enough` is there; then it sleeps.
fn counts(uphold: &Uphold) -> String {
    let script = "i=0; until [ -e ENOUGH ]; do i=$((i+1)); printf 'line '; sleep 0.002; echo $i; done; echo done $i; exec sleep 600";
    let script = script.replace("ENOUGH", &uphold.path("enough").display().to_string());
    format!("command = [\"sh\", \"-c\", \"echo started; {script}\"]\n[restart]\ndelay = \"10ms\"\n")
}

/// What `web` has written, as it came out of uphold.
fn written(uphold: &Uphold) -> Vec<String> {
    let lines = uphold.stdout();
    let lines: Vec<String> =
        lines.lines().filter_map(|line| Some(line.strip_prefix("web | ")?.to_owned())).collect();
    if lines.is_empty() { uphold.log("web") } else { lines }
}

fn has_gone_on(uphold: &Uphold, count: usize) -> bool {
    let said = uphold.stderr();
    ["Upgraded", "Crashed"]
        .map(|reason| said.matches(&format!("reason=\"{reason}\"")).count())
        .iter()
        .sum::<usize>()
        >= count
}

/// Each line is there once, and nothing else.
fn is_whole(mut lines: Vec<String>) {
    let count: usize = lines.pop().unwrap().strip_prefix("done ").unwrap().parse().unwrap();
    let wanted: Vec<String> = (1..=count).map(|number| format!("line {number}")).collect();
    assert_eq!(lines.remove(0), "started");
    let wrong = lines.iter().zip(&wanted).position(|(line, wanted)| line != wanted);
    assert_eq!((wrong, lines.len()), (None, count), "{:?}", wrong.map(|at| &lines[at.saturating_sub(2)..]));
}

/// uphold, which has this pid, is upgraded, panics, is upgraded and faults; then all that was written is there once,
/// by the same process.
fn goes_on(uphold: &Uphold, pid: i32) {
    uphold.until_said("there is no control socket until then");
    uphold.eventually("it writes", |uphold| written(uphold).len() > 10);
    let services = children_of(pid);
    assert_eq!(services.len(), 1, "{services:?}");
    let send = |signal| kill(Pid::from_raw(pid), signal).unwrap();
    for (number, fault) in (1..).zip(["", "recorded 1 panic", "", "recorded 1 segv", ""]) {
        let before = written(uphold).len();
        if fault.is_empty() {
            send(Signal::SIGUSR2);
        } else {
            uphold.fail(fault);
            send(Signal::SIGHUP);
        }
        uphold.eventually("the next image", |uphold| has_gone_on(uphold, number));
        uphold.eventually("it writes on", |uphold| written(uphold).len() > before + 10);
    }
    fs::write(uphold.path("enough"), "").unwrap();
    uphold
        .eventually("all is written", |uphold| written(uphold).iter().any(|line| line.starts_with("done ")));
    is_whole(written(uphold));
    // It is still its child, known, and restarted when it ends.
    assert_eq!(children_of(pid), services);
    kill(Pid::from_raw(services[0]), Signal::SIGKILL).unwrap();
    uphold.eventually("it is restarted", |uphold| {
        written(uphold).iter().filter(|line| *line == "started").count() == 2
    });
    assert!(uphold.stderr().contains("SIGKILL"), "{}", uphold.stderr());
    assert!(!uphold.stderr().contains("not upgraded"), "{}", uphold.stderr());
    send(Signal::SIGTERM);
}

#[test]
fn an_upgrade_and_a_crash_are_survived_where_no_directory_is_writable() {
    if !is_root() {
        return skip("only root can mount");
    }
    for without in [&["--runtime-dir", "--log-dir"][..], &["--runtime-dir"]] {
        let uphold = Uphold::new().without(without);
        let plan = format!("export UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
        let web = counts(&uphold);
        let mut uphold =
            uphold.after_mounting(&format!("{READ_ONLY}; {plan}")).unit("web", &web).start_blind();
        goes_on(&uphold, uphold.pid());
        assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
    }
}

#[test]
fn so_they_are_as_pid_1() {
    if !is_root() {
        return skip("only root can mount");
    }
    let uphold = Uphold::new().without(&["--runtime-dir", "--log-dir"]).mode(&["init"]);
    let plan = format!("export UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
    let line = format!("set -e; {READ_ONLY}; {plan}; exec \"$@\"");
    let web = counts(&uphold);
    let unshare =
        ["unshare", "-m", "--fork", "--pid", "--mount-proc", "--kill-child", "sh", "-c", &line, "sh"];
    let mut uphold = uphold.under(&unshare).unit("web", &web).start_blind();
    uphold.until_said("there is no control socket until then");
    let init = children_of(uphold.pid())[0];
    goes_on(&uphold, init);
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}

/// A file system that maps no file for writing, and knows no FIFOs: so strace makes it look.
fn without_maps(uphold: Uphold) -> Uphold {
    let mut words = vec!["env".to_owned(), format!("UPHOLD_FAILPOINTS={}", uphold.path("fail").display())];
    words.extend(
        ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "--trace=mmap,mknodat,mknod"].map(str::to_owned),
    );
    words.extend(["mmap:error=ENODEV", "mknodat,mknod:error=EPERM"].map(|rule| format!("--inject={rule}")));
    let fifos = (1..9).map(|run| format!("web.{run}.out"));
    for file in fifos.chain(["runs".to_owned(), "pump".to_owned()]) {
        words.extend(["-P".to_owned(), uphold.path(&format!("run/private/{file}")).display().to_string()]);
    }
    uphold.under(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn where_files_cannot_be_mapped_an_upgrade_and_a_crash_are_survived_and_a_kill_leaves_no_second_copy() {
    if !have("strace") {
        return skip("strace is not installed");
    }
    let uphold = Uphold::new();
    let web = counts(&uphold);
    let mut uphold = without_maps(uphold).unit("web", &web).start();
    let pid = uphold.until("web", "running").main_pid("web");
    for text in ["which process is whose is kept in memory", "notes of the log thread", "cannot make a FIFO"]
    {
        uphold.until_said(text);
    }
    for (image, fault) in (2..).zip(["", "command 1 panic", "command 1 segv", ""]) {
        let before = uphold.log("web").len();
        if fault.is_empty() {
            let (code, out, err) = uphold.ctl(&["upgrade"]);
            assert_eq!(code, 0, "{out}{err}");
        } else {
            uphold.fail(fault);
            let _ = uphold.http("POST /v1/units/web/start");
        }
        until_image(&uphold, image);
        uphold.eventually("it writes on", |uphold| uphold.log("web").len() > before + 10);
    }
    assert_eq!((uphold.main_pid("web"), uphold.view("web")["restarts"].clone()), (pid, 0.into()));
    fs::write(uphold.path("enough"), "").unwrap();
    uphold.eventually("all is written", |uphold| {
        uphold.log("web").iter().any(|line| line.starts_with("done "))
    });
    is_whole(uphold.log("web"));
    assert!(!uphold.path("run/private/web.1.out").exists());
    uphold.kill().again();
    uphold.until_view("web", "another process", |view| view["state"] == "running" && view["pid"] != pid);
    assert!(!is_alive(pid));
}

#[test]
fn where_no_socket_can_be_made_there_is_none_and_an_upgrade_is_survived() {
    if !have("strace") {
        return skip("strace is not installed");
    }
    let strace =
        ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "--trace=bind", "--inject=bind:error=EPERM"];
    let uphold = Uphold::new();
    let web = counts(&uphold);
    let mut uphold = uphold.under(&strace).unit("web", &web).start_blind();
    uphold.until_said("there is no control socket until then");
    uphold.eventually("it writes", |uphold| uphold.log("web").len() > 10);
    let services = children_of(uphold.pid());
    uphold.signal(Signal::SIGUSR2);
    uphold.eventually("the next image", |uphold| has_gone_on(uphold, 1));
    fs::write(uphold.path("enough"), "").unwrap();
    uphold.eventually("all is written", |uphold| {
        uphold.log("web").iter().any(|line| line.starts_with("done "))
    });
    is_whole(uphold.log("web"));
    assert_eq!(children_of(uphold.pid()), services);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}

#[test]
fn an_image_that_cannot_begin_hands_on_what_is_in_memory() {
    if !is_root() {
        return skip("only root can mount");
    }
    if !have("strace") {
        return skip("strace is not installed");
    }
    let uphold = Uphold::new().without(&["--runtime-dir"]);
    let web = counts(&uphold);
    let mut uphold = uphold.after_mounting(READ_ONLY).unit("web", &web).start_blind();
    uphold.eventually("it writes", |uphold| uphold.log("web").len() > 10);
    let services = children_of(uphold.pid());
    // The next image gets no epoll, which this one has.
    let mut strace = Command::new("strace")
        .args([
            "-qq",
            "-o",
            "/dev/null",
            "--trace=epoll_create1",
            "--inject=epoll_create1:error=EMFILE",
            "-p",
        ])
        .arg(uphold.pid().to_string())
        .spawn()
        .unwrap();
    uphold.eventually("it is traced", |uphold| {
        let status = fs::read_to_string(format!("/proc/{}/status", uphold.pid())).unwrap();
        !status.contains("TracerPid:\t0")
    });
    uphold.signal(Signal::SIGUSR2);
    uphold.until_said("cannot start its loop").until_said("trying again in a second, for its services run");
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    uphold.eventually("the next image", |uphold| has_gone_on(uphold, 1));
    fs::write(uphold.path("enough"), "").unwrap();
    uphold.eventually("all is written", |uphold| {
        uphold.log("web").iter().any(|line| line.starts_with("done "))
    });
    is_whole(uphold.log("web"));
    assert_eq!(children_of(uphold.pid()), services);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}

/// uphold is upgraded and crashes; its one service is what it was, and was not started again.
fn keeps_its_service(uphold: &Uphold) {
    uphold.eventually("it writes", |uphold| !written(uphold).is_empty());
    let services = children_of(uphold.pid());
    for (number, fault) in (1..).zip(["", "recorded 1 panic"]) {
        if fault.is_empty() {
            uphold.signal(Signal::SIGUSR2);
        } else {
            uphold.fail(fault).signal(Signal::SIGHUP);
        }
        uphold.eventually("the next image", |uphold| has_gone_on(uphold, number));
        assert_eq!(children_of(uphold.pid()), services, "{}", uphold.stderr());
    }
    assert_eq!(written(uphold), ["started"], "{}", uphold.stderr());
}

const STARTED: &str = "command = [\"sh\", \"-c\", \"echo started; exec sleep 600\"]\n";

#[test]
fn what_is_in_memory_stays_there_once_a_directory_is_writable() {
    if !is_root() {
        return skip("only root can mount");
    }
    let uphold = Uphold::new().without(&["--runtime-dir"]);
    let plan = format!("export UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
    let mut uphold =
        uphold.after_mounting(&format!("{READ_ONLY}; {plan}")).unit("web", STARTED).start_blind();
    uphold.until_said("there is no control socket until then");
    let pid = uphold.pid().to_string();
    let mounted =
        Command::new("nsenter").args(["-t", &pid, "-m", "mount", "-o", "remount,rw", "/run"]).status();
    assert!(mounted.unwrap().success());
    keeps_its_service(&uphold);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}

#[test]
fn a_users_runtime_directory_stays_where_it_is_whatever_there_is_by_now() {
    if !is_root() {
        return skip("only root can be another uid");
    }
    let uid = 100_000 + std::process::id();
    let own = format!("/tmp/uphold-{uid}");
    let uphold = Uphold::new().without(&["--runtime-dir"]);
    let plan = format!("UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
    let mount = "set -e; mount -t tmpfs none /run; exec \"$@\"";
    let words = [
        "unshare",
        "-m",
        "sh",
        "-c",
        mount,
        "sh",
        "env",
        "-u",
        "XDG_RUNTIME_DIR",
        "-u",
        "XDG_STATE_HOME",
        &plan,
    ];
    let mut uphold = uphold.run_by_uid(uid, &words).unit("web", STARTED).start_blind();
    uphold.eventually("it is there", |_| Path::new(&own).join("control.sock").exists());
    let run = format!("/proc/{}/root/run/user/{uid}", uphold.pid());
    fs::create_dir_all(&run).unwrap();
    std::os::unix::fs::chown(&run, Some(uid), Some(uid)).unwrap();
    keeps_its_service(&uphold);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
    fs::remove_dir_all(own).unwrap();
}
