//! Somebody removes the runtime directory, or files in it, while uphold runs: what is needed is put back, and a
//! kill after that is survived.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::dsl::*;

/// Says each line that it is told by the FIFO `in`, and notes its pid in `runs`.
fn echoing(uphold: &Uphold) -> String {
    format!(
        "working_dir = \"{}\"
command = [\"sh\", \"-c\", \"exec 3<>in; echo $$ >> runs; while read -r line <&3; do echo \\\"$line\\\"; done\"]
",
        uphold.dir.path().display()
    )
}

const LATE: &str = "autostart = false\ncommand = [\"sleep\", \"600\"]\n";

fn started() -> Uphold {
    start(Uphold::new())
}

fn start(uphold: Uphold) -> Uphold {
    let made = Command::new("mkfifo").arg(uphold.path("in")).status().unwrap();
    assert!(made.success());
    let text = echoing(&uphold);
    let uphold = uphold.unit("web", &text).unit("late", LATE).start();
    uphold.until("web", "running");
    uphold.eventually("it listens", |uphold| uphold.path("runs").exists());
    tell(&uphold, "one");
    uphold.eventually("it has said it", |uphold| uphold.log("web") == ["one"]);
    uphold
}

fn tell(uphold: &Uphold, line: &str) {
    let mut fifo = fs::File::options().read(true).write(true).open(uphold.path("in")).unwrap();
    writeln!(fifo, "{line}").unwrap();
}

/// Removes it, whatever it is. Something may be put back meanwhile.
fn remove(uphold: &Uphold, what: &str) {
    let path = uphold.path("run").join(what);
    let path = if what.is_empty() { uphold.path("run") } else { path };
    if path.is_dir() { drop(fs::remove_dir_all(path)) } else { fs::remove_file(path).unwrap() }
}

/// uphold is killed, and the next one takes over what ran before and after the loss.
fn survives_a_kill(uphold: &mut Uphold, what: &str) {
    let web = uphold.main_pid("web");
    tell(uphold, "two");
    uphold.eventually("it has said more", |uphold| uphold.log("web") == ["one", "two"]);
    uphold.eventually("its FIFO or a mark is there", |uphold| uphold.path("run/private/web.1.out").exists());
    assert_eq!(uphold.ctl(&["start", "late"]).0, 0, "{what}: {}", uphold.stderr());
    let late = uphold.main_pid("late");
    uphold.kill();
    tell(uphold, "three");
    uphold.again();
    assert_eq!((uphold.main_pid("web"), uphold.main_pid("late")), (web, late), "{what}: {}", uphold.stderr());
    for unit in ["web", "late"] {
        assert_eq!(uphold.view(unit)["restarts"], 0, "{what}");
    }
    assert_eq!(fs::read_to_string(uphold.path("runs")).unwrap(), format!("{web}\n"), "{what}");
    tell(uphold, "four");
    uphold
        .eventually("it has said all", |uphold| uphold.log("web").last().is_some_and(|line| line == "four"));
    assert_eq!(uphold.log("web"), ["one", "two", "three", "four"], "{what}");
}

#[test]
fn what_is_removed_of_the_runtime_directory_is_put_back_and_a_kill_after_that_is_survived() {
    for what in [
        "",
        "private",
        "control.sock",
        "lock",
        "private/state",
        "private/runs",
        "private/pump",
        "private/crash",
    ] {
        let mut uphold = started();
        let events = Lines::of(uphold.ctl_command(&["events", "-f"]));
        events.until("Started");
        remove(&uphold, what);
        // Who is connected stays so, and who comes is let in again.
        events.until("RuntimeDirLost");
        uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
        assert!(uphold.path("run").join(what).exists(), "{what}");
        // Nobody else gets in.
        let output = uphold.run();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1), "{what}: {said}");
        assert!(said.contains(&format!("uphold with pid {} holds it", uphold.pid())), "{what}: {said}");
        survives_a_kill(&mut uphold, what);
    }
}

#[test]
fn an_emptied_or_a_moved_runtime_directory_is_put_back_each_time() {
    let mut uphold = started();
    for round in 1..=3 {
        let entries = fs::read_dir(uphold.path("run")).unwrap().flatten();
        let names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.iter().for_each(|name| remove(&uphold, name));
        uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
        uphold.eventually("it was said", |uphold| {
            // What is back late is not lost once more.
            let events =
                uphold.all_events().into_iter().filter(|(_, line, _)| line.contains("RuntimeDirLost"));
            events.map(|(_, _, count)| count).sum::<u64>() >= round
        });
    }
    fs::rename(uphold.path("run"), uphold.path("moved")).unwrap();
    uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    uphold.until_own_event("RuntimeDirLost somebody has removed the directory itself");
    uphold.eventually("proxies find it again", |uphold| uphold.path("run/endpoints/web.json").exists());
    survives_a_kill(&mut uphold, "moved");
}

#[test]
fn a_fifo_that_is_removed_alone_is_said_and_found_again_through_the_process() {
    let mut uphold = started();
    remove(&uphold, "private/web.1.out");
    uphold.until_event("web", "FifoRemoved");
    survives_a_kill(&mut uphold, "FIFO");
    // It ends as any other: nothing of it is left.
    uphold.kill_main("web", Signal::SIGKILL);
    uphold.eventually("its mark is gone", |uphold| !uphold.path("run/private/web.1.out").exists());
    assert!(!uphold.events("web").iter().any(|(line, _)| line.contains("LogUnread")), "{}", uphold.stderr());
}

#[test]
fn what_nobody_can_find_again_is_said_to_be_lost() {
    // The main process has its output under another number.
    let text = "command = [\"sh\", \"-c\", \"exec 5>&1 >/dev/null 2>&1; echo here >&5; exec sleep 600\"]\n";
    let mut uphold = Uphold::with_unit("web", text);
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.eventually("it has said it", |uphold| uphold.log("web") == ["here"]);
    remove(&uphold, "private");
    uphold.until_own_event("RuntimeDirLost");
    // What was put back for the logs follows in their own thread.
    uphold.eventually("the mark is there", |uphold| uphold.path("run/private/web.1.out").exists());
    uphold.kill().again();
    assert_eq!(uphold.main_pid("web"), pid);
    uphold.until_event("web", "LogReadFailed its FIFO was removed while uphold ran");
    uphold.eventually("its log says so", |uphold| uphold.log("web").iter().any(|line| line.contains("lost")));
}

#[test]
fn what_cannot_be_put_back_is_said_and_put_back_once_it_can() {
    let mut uphold = started();
    fs::remove_dir_all(uphold.path("run")).unwrap();
    fs::write(uphold.path("run"), "in the way").unwrap();
    uphold.until_said("and they cannot be put back: cannot make the directory");
    fs::remove_file(uphold.path("run")).unwrap();
    uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    uphold.until_own_event("RuntimeDirRestored");
    survives_a_kill(&mut uphold, "in the way");
}

#[test]
fn an_upgrade_right_after_the_loss_takes_over_what_runs() {
    let mut uphold = started();
    let pid = uphold.main_pid("web");
    remove(&uphold, "");
    uphold.signal(Signal::SIGUSR2);
    uphold.eventually("the next image answers", |uphold| {
        uphold.get("/v1/version").is_some_and(|version| version["image"] == 2)
    });
    assert_eq!(uphold.main_pid("web"), pid);
    survives_a_kill(&mut uphold, "upgrade");
}

/// Asks for an upgrade to a binary that removes this from the runtime directory once it was tried.
fn upgrade_that_removes(uphold: &Uphold, what: &str) {
    let own = uphold.path("uphold");
    let (real, new) = (uphold.path("real"), uphold.path("new"));
    fs::rename(&own, &real).unwrap();
    let (real, what) = (real.display(), uphold.path("run").join(what));
    let text = format!(
        "#!/bin/sh
[ \"$1\" = try-state ] || exec {real} \"$@\"
{real} \"$@\" && rm -r {}
",
        what.display()
    );
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(&new, &own).unwrap();
    uphold.signal(Signal::SIGUSR2);
}

#[test]
fn what_is_removed_while_the_new_binary_is_tried_is_put_back_before_it_is_executed() {
    for (what, said) in [("", "the directory itself"), ("private/state", "private/state")] {
        let mut uphold = start(Uphold::new().own_binary());
        let pid = uphold.main_pid("web");
        upgrade_that_removes(&uphold, what);
        // Said right before the exec.
        uphold.until_said(&format!("somebody has removed {said}"));
        goes_on_with(&mut uphold, pid, "while it is tried");
    }
}

#[test]
fn what_was_said_right_before_a_crash_is_in_the_log() {
    for how in ["segv", "panic"] {
        let mut uphold = start(Uphold::fallible().own_binary());
        uphold.fail(&format!("executing 1 {how}"));
        let pid = uphold.main_pid("web");
        upgrade_that_removes(&uphold, "private/state");
        uphold.until_said("somebody has removed private/state");
        goes_on_with(&mut uphold, pid, how);
        uphold.until_own_event("Crashed");
    }
}

/// uphold panics at once.
fn crash(uphold: &Uphold) {
    uphold.fail("recorded 1 panic").signal(Signal::SIGHUP);
}

fn goes_on_with(uphold: &mut Uphold, pid: i32, what: &str) {
    uphold.eventually("the next image answers", |uphold| {
        uphold.get("/v1/version").is_some_and(|version| version["image"] == 2)
    });
    assert_eq!(uphold.main_pid("web"), pid, "{what}: {}", uphold.stderr());
    survives_a_kill(uphold, what);
}

#[test]
fn a_crash_right_after_the_loss_takes_over_what_runs() {
    for what in ["", "private/state", "private/runs"] {
        let mut uphold = start(Uphold::fallible());
        let pid = uphold.main_pid("web");
        remove(&uphold, what);
        crash(&uphold);
        goes_on_with(&mut uphold, pid, what);
    }
}

#[test]
fn a_crash_while_nothing_can_be_put_back_takes_over_what_runs_once_it_can() {
    let mut uphold = start(Uphold::fallible());
    let pid = uphold.main_pid("web");
    fs::create_dir(uphold.path("run/private/state.new")).unwrap();
    remove(&uphold, "private/state");
    uphold.until_said("and they cannot be put back: private/state");
    crash(&uphold);
    uphold.until_said("trying again in a second, for its services run");
    // Nobody else gets in between.
    let output = uphold.run();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_alive(pid));
    fs::remove_dir(uphold.path("run/private/state.new")).unwrap();
    goes_on_with(&mut uphold, pid, "in the way");
}

/// Another uphold that has come to the runtime directory since somebody removed it, and runs `web`; the first one
/// has heard nothing of that.
fn taken_by_another(uphold: &Uphold) -> Uphold {
    uphold.signal(Signal::SIGSTOP);
    remove(uphold, "");
    let run = uphold.path("run").display().to_string();
    let other = Uphold::new().without(&["--runtime-dir"]).mode(&["run", "--runtime-dir", &run]);
    let other = other.unit("web", "command = [\"sleep\", \"600\"]\n").start_blind();
    uphold
        .eventually("it answers in the place of the first one", |uphold| uphold.get("/v1/version").is_some());
    uphold.until("web", "running");
    other
}

fn end(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn a_directory_is_taken_back_from_an_uphold_that_was_killed_once_nothing_of_that_one_lives() {
    let mut uphold = start(Uphold::new());
    let mut other = taken_by_another(&uphold);
    let theirs = uphold.main_pid("web");
    let state = || fs::read_to_string(uphold.path("run/private/state")).unwrap();
    other.kill();
    let before = state();
    uphold.signal(Signal::SIGCONT);
    uphold.until_said(&format!("is no more, and processes of it live (pid {theirs}): stop these"));
    assert!(is_alive(theirs) && state() == before);
    end(theirs);
    uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    uphold.until_own_event("RuntimeDirRestored");
    survives_a_kill(&mut uphold, "taken back");
}

#[test]
fn an_image_that_finds_the_state_of_another_uphold_starts_nothing_beside_what_it_has_started() {
    let uphold = start(Uphold::fallible());
    let pid = uphold.main_pid("web");
    let mut other = taken_by_another(&uphold);
    let theirs = uphold.main_pid("web");
    other.kill();
    crash(&uphold);
    uphold.signal(Signal::SIGCONT);
    uphold.until_said(&format!("processes that uphold has started live (pid {pid})"));
    assert!(is_alive(pid) && is_alive(theirs));
    end(pid);
    uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    assert_eq!(uphold.main_pid("web"), theirs, "{}", uphold.stderr());
}

#[test]
fn who_has_lost_the_directory_to_another_uphold_leaves_it_what_it_has() {
    let mut uphold = start(Uphold::new());
    let other = taken_by_another(&uphold);
    let (pid, is_there) = (uphold.main_pid("web"), |what: &str| uphold.path("run").join(what).exists());
    let all = ["control.sock", "lock", "private/state", "private/web.1.out", "endpoints/web.json"];
    uphold.eventually("all is there", |_| all.iter().all(|what| is_there(what)));
    let others = format!("\"pid\":{}", other.pid());
    let is_others = || fs::read_to_string(uphold.path("run/private/state")).unwrap().contains(&others);
    assert!(is_others());
    uphold.signal(Signal::SIGCONT);
    uphold.until_said(&format!("uphold with pid {} holds it", other.pid()));
    assert!(is_others());
    uphold.signal(Signal::SIGTERM);
    uphold.until_said("shutting down");
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
    let gone: Vec<&str> = all.into_iter().filter(|what| !uphold.path("run").join(what).exists()).collect();
    assert!(gone.is_empty() && uphold.main_pid("web") == pid, "{gone:?}");
    assert!(fs::read_to_string(uphold.path("run/private/state")).unwrap().contains(&others));
}

#[test]
fn without_its_control_socket_uphold_stays_what_it_is_until_that_is_back() {
    let mut uphold = start(Uphold::new());
    let pid = uphold.main_pid("web");
    fs::create_dir(uphold.path("run/aside")).unwrap();
    // Another may be there before the directory is.
    let [aside, socket] = ["run/aside", "run/control.sock"].map(|path| uphold.path(path));
    while fs::rename(&aside, &socket).is_err() {
        fs::remove_file(&socket).unwrap();
    }
    uphold.signal(Signal::SIGUSR2);
    uphold.until_said("not upgraded: control.sock cannot be put back at the moment");
    fs::remove_dir(socket).unwrap();
    uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    uphold.until_own_event("UpgradeFailed").signal(Signal::SIGUSR2);
    goes_on_with(&mut uphold, pid, "control.sock");
}

#[test]
fn a_crash_while_the_control_socket_cannot_be_put_back_is_no_end_of_trying() {
    let mut uphold = start(Uphold::fallible());
    let pid = uphold.main_pid("web");
    let [aside, socket] = ["run/aside", "run/control.sock"].map(|path| uphold.path(path));
    fs::create_dir(&aside).unwrap();
    // Another may be there before the directory is.
    while fs::rename(&aside, &socket).is_err() {
        fs::remove_file(&socket).unwrap();
    }
    uphold.until_said("cannot be put back: control.sock");
    crash(&uphold);
    uphold.eventually("the next image says it, too", |uphold| {
        uphold.stderr().matches("cannot be put back: control.sock").count() == 2
    });
    fs::remove_dir(&socket).unwrap();
    goes_on_with(&mut uphold, pid, "control.sock");
}

#[test]
fn what_uphold_can_do_without_does_not_keep_what_the_next_one_needs_from_being_put_back() {
    let mut uphold = started();
    // A new page for crashes cannot be made there.
    std::os::unix::fs::symlink("/nowhere/crash", uphold.path("run/private/link")).unwrap();
    fs::rename(uphold.path("run/private/link"), uphold.path("run/private/crash")).unwrap();
    remove(&uphold, "private/state");
    uphold.until_said("cannot be put back: private/crash");
    uphold.until_own_event("the next uphold takes over what runs as before");
    assert!(uphold.path("run/private/state").exists());
    survives_a_kill(&mut uphold, "crash");
}

#[test]
fn a_look_that_has_crashed_uphold_twice_does_not_keep_it_from_answering() {
    let uphold = start(Uphold::fallible());
    let pid = uphold.main_pid("web");
    for image in 2..=3 {
        uphold.fail("putting-back 1 panic");
        remove(&uphold, "private/pump");
        crate::goes_on::until_image(&uphold, image);
    }
    remove(&uphold, "private/pump");
    uphold.until_said("dropped what has crashed uphold twice: a look at the runtime directory");
    // Another binary may do better.
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert!(uphold.path("run/private/pump").exists());
    assert_eq!(uphold.main_pid("web"), pid);
}

#[test]
fn a_directory_that_nothing_lies_in_is_put_back_too() {
    let uphold = Uphold::with_unit("all", "type = \"group\"\n");
    uphold.until("all", "running");
    remove(&uphold, "");
    uphold.eventually("it is there again", |uphold| uphold.path("run/endpoints").is_dir());
}

#[test]
fn what_is_removed_while_uphold_begins_is_put_back() {
    if !have("strace") {
        return skip("strace is not installed");
    }
    let strace = "strace -D -f -qq -o /dev/null --trace=inotify_init1 --inject=inotify_init1:delay_enter=1s";
    let uphold = Uphold::new().under(&strace.split(' ').collect::<Vec<_>>());
    let mut uphold = uphold.unit("web", "command = [\"sleep\", \"600\"]\n").start_blind();
    let mode = |socket: PathBuf| fs::metadata(socket).map_or(0, |found| found.permissions().mode() & 0o777);
    uphold.eventually("it listens", |uphold| mode(uphold.socket()) == 0o666);
    remove(&uphold, "");
    uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    uphold.until_own_event("RuntimeDirLost");
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.kill().again();
    assert_eq!(uphold.main_pid("web"), pid);
}

/// Does what it is told by the FIFO `in`, and has its output under a number that nobody looks for.
const OBEYS: &str = "exec 3<>in 5>&1 >listens 2>&1; while read -r line <&3; do eval \"$line\" >&5; done\n";

/// A unit of which the command is this line for a shell, which may run `obeys`.
fn obeying(uphold: &Uphold, line: &str) -> String {
    fs::write(uphold.path("obeys"), OBEYS).unwrap();
    assert!(Command::new("mkfifo").arg(uphold.path("in")).status().unwrap().success());
    let dir = uphold.dir.path().display();
    format!("working_dir = \"{dir}\"\ncommand = [\"sh\", \"-c\", \"{line}\"]\n")
}

/// It has said these numbers, each once and in its order; `half` stands before those that end a line that was begun
/// before.
fn has_said_all(uphold: &Uphold, unit: &str, last: u32, halves: &[u32]) {
    uphold.eventually("it has said all", |uphold| {
        uphold.whole_log(unit).last().is_some_and(|line| *line == last.to_string())
    });
    let wanted = (1..=last)
        .map(|number| if halves.contains(&number) { format!("half{number}") } else { number.to_string() });
    let said = uphold.whole_log(unit);
    let wrong = wanted.zip(&said).find(|(wanted, said)| wanted != *said);
    assert_eq!((wrong, said.len()), (None, last as usize), "{}", uphold.stderr());
}

fn until_it_listens(uphold: &Uphold) {
    uphold.until("web", "running");
    uphold.eventually("it listens", |uphold| uphold.path("listens").exists());
}

fn upgrade(uphold: &Uphold) {
    let (code, out, err) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{out}{err}{}", uphold.stderr());
}

#[test]
fn a_fifo_that_is_removed_is_read_on_by_each_image_of_the_process_that_has_it_open() {
    let uphold = Uphold::fallible();
    let text = obeying(&uphold, "exec sh obeys") + "[logs]\nmax_size = 0\n";
    let uphold = uphold.unit("web", &text).start();
    until_it_listens(&uphold);
    let pid = uphold.main_pid("web");
    let there = |what: &str| uphold.path("run/private").join(what).exists();
    let [mark, part] = ["web.1.out", "web.1.out.part"];
    tell(&uphold, "seq 1 10; printf half");
    uphold.eventually("half a line is kept", |_| there(part));
    remove(&uphold, "private");
    uphold.until_own_event("RuntimeDirLost");
    uphold.eventually("the mark is there", |_| there(mark) && there(part));
    upgrade(&uphold);
    // More than a pipe holds.
    tell(&uphold, "seq 11 30000; printf half");
    has_said_all(&uphold, "web", 30_000, &[11]);
    uphold.eventually("half a line is kept", |_| there(part));
    // Nothing is put back before the next image begins.
    remove(&uphold, "private");
    crash(&uphold);
    crate::goes_on::until_image(&uphold, 3);
    tell(&uphold, "seq 30001 60000");
    has_said_all(&uphold, "web", 60_000, &[11, 30_001]);
    // While it writes.
    let length = || fs::metadata(uphold.path("log/web/stdout.log")).unwrap().len();
    for (image, first, last) in [(4, 60_001, 200_000), (5, 200_001, 400_000), (6, 400_001, 600_000)] {
        let before = length();
        tell(&uphold, &format!("seq {first} {last}"));
        uphold.eventually("it has begun", |_| length() > before);
        remove(&uphold, "private");
        if image == 5 {
            crash(&uphold)
        } else {
            upgrade(&uphold)
        }
        crate::goes_on::until_image(&uphold, image);
    }
    has_said_all(&uphold, "web", 600_000, &[11, 30_001]);
    let events = uphold.events("web");
    assert!(!events.iter().any(|(line, _)| line.starts_with("Log")), "{events:#?}");
    assert_eq!(uphold.main_pid("web"), pid);
    // It ends as any other: nothing of it is left.
    uphold.kill_main("web", Signal::SIGKILL);
    uphold.eventually("nothing of the run is left", |_| !there(mark) && !there(part));
    assert!(!uphold.events("web").iter().any(|(line, _)| line.contains("LogUnread")), "{}", uphold.stderr());
}

#[test]
fn a_removed_fifo_of_what_a_run_has_left_is_read_on_too() {
    let uphold = Uphold::fallible();
    let text = obeying(&uphold, "setsid sh obeys & exec sleep 600") + "[stop]\nleave = true\n";
    let uphold = uphold.unit("web", &text).start();
    until_it_listens(&uphold);
    tell(&uphold, "seq 1 10");
    uphold.eventually("it has said it", |uphold| uphold.log("web").len() == 10);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    remove(&uphold, "private");
    uphold.until_own_event("RuntimeDirLost");
    uphold.eventually("the mark is there", |uphold| uphold.path("run/private/web.1.out").exists());
    upgrade(&uphold);
    tell(&uphold, "seq 11 30000");
    has_said_all(&uphold, "web", 30_000, &[]);
    remove(&uphold, "private");
    crash(&uphold);
    crate::goes_on::until_image(&uphold, 3);
    tell(&uphold, "seq 30001 60000; exit");
    has_said_all(&uphold, "web", 60_000, &[]);
    uphold.eventually("its mark is gone", |uphold| !uphold.path("run/private/web.1.out").exists());
}

#[test]
fn an_image_goes_on_without_what_it_can_do_without_and_says_so() {
    for what in ["pump", "crash"] {
        let mut uphold = start(Uphold::fallible());
        let pid = uphold.main_pid("web");
        // Nothing can be copied there.
        fs::create_dir(uphold.path(&format!("run/private/{what}.new"))).unwrap();
        remove(&uphold, &format!("private/{what}"));
        crash(&uphold);
        uphold.until_said(&format!("private/{what}: "));
        assert!(!uphold.stderr().contains("trying again"), "{}", uphold.stderr());
        goes_on_with(&mut uphold, pid, what);
    }
}

#[test]
fn who_has_lost_the_directory_for_a_while_finds_its_own_services_again_and_not_those_of_the_other() {
    let mut uphold = start(Uphold::fallible());
    let pid = uphold.main_pid("web");
    uphold.signal(Signal::SIGSTOP);
    remove(&uphold, "");
    let run = uphold.path("run").display().to_string();
    let other = Uphold::new().without(&["--runtime-dir"]).mode(&["run", "--runtime-dir", &run]);
    let mut other = other.unit("web", "command = [\"sleep\", \"600\"]\n").start_blind();
    uphold
        .eventually("it answers in the place of the first one", |uphold| uphold.get("/v1/version").is_some());
    uphold.until("web", "running");
    uphold.signal(Signal::SIGCONT);
    let held = format!("uphold with pid {} holds it", other.pid());
    uphold.until_said(&held);
    crash(&uphold);
    uphold.until_said("trying again in a second, for its services run");
    other.signal(Signal::SIGTERM);
    assert_eq!(other.exit().code(), Some(0), "{}", other.stderr());
    let left = ["runs", "crash", "pump"].map(|what| uphold.path("run/private").join(what).exists());
    assert_eq!(left, [true; 3]);
    goes_on_with(&mut uphold, pid, "another");
}

#[test]
fn a_batch_that_is_in_flight_while_its_notes_are_put_back_is_neither_lost_nor_doubled() {
    let uphold = Uphold::new().own_binary();
    let text = obeying(&uphold, "exec sh obeys") + "[logs]\nmax_size = 0\n";
    let uphold = uphold.unit("web", &text).start();
    until_it_listens(&uphold);
    // Where that is kept cannot be made while there is no directory.
    tell(&uphold, "printf half");
    uphold.eventually("half a line is kept", |uphold| uphold.path("run/private/web.1.out.part").exists());
    // What is removed is put back right before the exec.
    let [own, real, new] = ["uphold", "real", "new"].map(|path| uphold.path(path));
    fs::rename(&own, &real).unwrap();
    let (shown, private) = (real.display(), uphold.path("run/private"));
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = try-state ] || exec {shown} \"$@\"\n{shown} \"$@\" && rm -r {}\n",
        private.display()
    );
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(&new, &own).unwrap();
    for round in 0..10_u32 {
        let first = round * 200_000 + 1;
        tell(&uphold, &format!("seq {first} {}", first + 199_999));
        uphold.signal(Signal::SIGUSR2);
        crate::goes_on::until_image(&uphold, u64::from(round) + 2);
    }
    has_said_all(&uphold, "web", 2_000_000, &[1]);
}
