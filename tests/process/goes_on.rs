//! uphold crashes, or is upgraded, and goes on in the same process.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::dsl::*;

pub const SLEEP: &str = "command = [\"sleep\", \"600\"]\n[restart]\ndelay = \"10ms\"\n";

pub fn image(uphold: &Uphold) -> u64 {
    uphold.get("/v1/version").map_or(0, |version| version["image"].as_u64().unwrap())
}

pub fn until_image(uphold: &Uphold, image: u64) {
    uphold.eventually("the next image answers", |uphold| self::image(uphold) == image);
}

#[test]
fn each_crash_ends_in_an_exec_and_is_said_with_its_message() {
    let uphold = Uphold::fallible().unit("web", SLEEP).unit("down", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    let cases =
        [("panic", "the test wants a panic at command"), ("segv", "SIGSEGV at address 0x0000000000000008")];
    for (number, (action, text)) in (2..).zip(cases) {
        uphold.fail(&format!("command 1 {action}"));
        // The connection goes with the image.
        let _ = uphold.http("POST /v1/units/down/stop");
        until_image(&uphold, number);
        uphold.until_own_event("Crashed uphold crashed and goes on: ");
        uphold.until_own_event(text);
        assert_eq!((uphold.main_pid("web"), uphold.state("web").as_str()), (pid, "running"));
        if action == "segv" {
            is_where_the_test_wants_it(&uphold, " in thread uphold at uphold+0x");
        }
    }
    let (code, out, err) = uphold.ctl(&["events", "uphold"]);
    assert!(code == 0 && out.contains("Crashed") && !out.contains("Started process"), "{code} {out}{err}");
    // What is still its child is reaped with its status.
    uphold.kill_main("web", Signal::SIGKILL);
    uphold.until_view("web", "its restart", |view| view["restarts"] == 1 && view["state"] == "running");
    assert_eq!(uphold.view("web")["last_exit"]["signal"], "SIGKILL");
}

/// The last crash says which thread it was, and by an offset into the binary where.
fn is_where_the_test_wants_it(uphold: &Uphold, said: &str) {
    let crashes = uphold.all_events().into_iter().filter(|(_, text, _)| text.starts_with("Crashed "));
    let text = crashes.map(|(_, text, _)| text).next_back().unwrap();
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        assert!(text.contains(" in thread "), "{text}");
        return;
    }
    let (_, offset) = text.split_once(said).unwrap_or_else(|| panic!("`{text}` has no `{said}`"));
    assert!(u64::from_str_radix(offset, 16).is_ok_and(|offset| offset > 0), "{text}");
    if have("addr2line") {
        let mut command = std::process::Command::new("addr2line");
        let line = command.args(["-Cfie", binary(), offset]).output().unwrap();
        let line = String::from_utf8_lossy(&line.stdout).into_owned();
        assert!(line.contains("read_volatile"), "{text}: {line}");
    }
}

#[test]
fn a_crash_is_survived_where_nobody_reads_what_is_said_of_it() {
    let mut uphold = Uphold::fallible().unit("web", SLEEP);
    let (_unread, mut stderr) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&stderr, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    stderr.write_all(&[b'x'; 4096]).unwrap();
    let mut command = uphold.command();
    command.stdout(Stdio::null()).stderr(stderr);
    uphold.again_by(command);
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.fail("command 1 panic");
    let _ = uphold.http("POST /v1/units/web/stop");
    until_image(&uphold, 2);
    uphold.until_own_event("the test wants a panic at command");
    assert_eq!(uphold.main_pid("web"), pid);
}

#[test]
fn an_image_that_does_not_understand_the_one_before_leaves_nothing_of_it_open() {
    let uphold = Uphold::fallible().unit("down", &format!("autostart = false\n{SLEEP}")).start();
    // inotify, epoll, sockets and the like have no place where they would be opened anew.
    let open = |uphold: &Uphold| {
        let entries = fs::read_dir(format!("/proc/{}/fd", uphold.pid())).unwrap().flatten();
        let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy() == "anon_inode:inotify").count()
    };
    let before = open(&uphold);
    assert!(before > 0);
    fs::write(uphold.path("run/private/state"), "nothing that anybody wrote\n").unwrap();
    uphold.fail("command 1 panic");
    let _ = uphold.http("POST /v1/units/down/stop");
    uphold.until_said("the state of an uphold before is not taken over");
    uphold.eventually("it answers", |uphold| image(uphold) == 1);
    uphold.eventually("all of the one before is closed", |uphold| open(uphold) == before);
}

#[test]
fn an_abort_is_a_crash_like_any_other() {
    let uphold = Uphold::fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.fail("recorded 1 abort");
    let _ = uphold.http("POST /v1/units/web/start");
    uphold.kill_main("web", Signal::SIGKILL);
    until_image(&uphold, 2);
    uphold.until_own_event("SIGABRT");
    // It has none: in its place stands the pid of the sender.
    assert!(!uphold.all_events().iter().any(|(_, line, _)| line.contains("address")), "{}", uphold.stderr());
    uphold.until_view("web", "another process", |view| view["state"] == "running" && view["pid"] != pid);
    assert_eq!(uphold.view("web")["last_exit"]["signal"], "SIGKILL");
}

#[test]
fn a_signal_that_reports_a_fault_and_that_somebody_has_sent_is_said_to_be_ignored() {
    let uphold = Uphold::with_unit("web", SLEEP);
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.signal(Signal::SIGSEGV).until_said("SIGSEGV was sent to uphold by somebody, and is ignored");
    assert_eq!((image(&uphold), uphold.main_pid("web")), (1, pid));
}

#[test]
fn what_has_crashed_uphold_twice_is_dropped() {
    let uphold = Uphold::fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    for number in 2..=3 {
        uphold.fail("command 1 panic");
        let _ = uphold.http("POST /v1/units/web/stop");
        until_image(&uphold, number);
    }
    let _ = uphold.http("POST /v1/units/web/stop");
    let said =
        "InputDropped dropped what has crashed uphold twice: the stop of web, until `uphold ctl upgrade`";
    uphold.until_own_event(said);
    assert_eq!((image(&uphold), uphold.main_pid("web")), (3, pid));
}

#[test]
fn a_unit_whose_timers_have_crashed_uphold_twice_says_what_is_off() {
    let probed = "command = [\"sleep\", \"600\"]
[restart]
delay = \"600s\"
max_delay = \"600s\"
[readiness]
exec = { command = [\"true\"] }
period = \"20ms\"
";
    let uphold = Uphold::fallible().unit("web", probed).start();
    uphold.until_view("web", "ready", |view| view["ready"] == true);
    for number in 2..=3 {
        uphold.fail("tick 1 panic");
        until_image(&uphold, number);
    }
    let off = "its probes, restarts after backoff and timeouts are off until `uphold ctl upgrade`";
    uphold
        .until_event("web", &format!("InputDropped uphold has crashed twice on a timer of this unit: {off}"));
    let says_off =
        |view: &serde_json::Value| view["message"].as_str().is_some_and(|text| text.starts_with(off));
    let view = uphold.view("web");
    assert!(says_off(&view) && view["reason"].is_null(), "{view:#}");
    // Nor will a restart come that is due only later, and none is promised.
    uphold.kill_main("web", Signal::SIGKILL).until("web", "backoff");
    let view = uphold.view("web");
    let promised = |view: &serde_json::Value| view["message"].to_string().contains("next in");
    assert!(says_off(&view) && !promised(&view) && view["next_start_at"].is_null(), "{view:#}");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    let view = uphold.view("web");
    assert!(!says_off(&view) && promised(&view) && view["next_start_at"].is_string(), "{view:#}");
    assert_eq!(uphold.ctl(&["start", "web"]).0, 0);
    uphold.until_view("web", "it is probed again", |view| view["ready"] == true && view["message"].is_null());
}

#[test]
fn an_upgrade_forgives_what_has_crashed_the_binary_before() {
    let uphold = Uphold::fallible().unit("web", SLEEP).start();
    uphold.until("web", "running");
    for number in 2..=3 {
        uphold.fail("command 1 panic");
        let _ = uphold.http("POST /v1/units/web/stop");
        until_image(&uphold, number);
    }
    let (status, body) = uphold.http("POST /v1/units/web/stop").unwrap();
    let said = "the stop of web has crashed uphold twice and is dropped until `uphold ctl upgrade`";
    assert!(status == 500 && body.contains(said), "{status}: {body}");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    uphold.until("web", "inactive");
}

#[test]
fn a_crash_of_another_thread_is_not_the_fault_of_what_is_asked_meanwhile() {
    let noisy = "command = [\"sh\", \"-c\", \"while :; do echo 0123456789012345678901234567890123456789; sleep 0.01; done\"]
[logs]
max_size = \"1KiB\"
";
    let uphold = Uphold::fallible().unit("web", noisy).start();
    for number in 2..=3 {
        uphold.fail("rotating 1 segv");
        // Asked all the time, until the next image answers.
        until_image(&uphold, number);
        uphold.until_own_event("SIGSEGV at address 0x0000000000000008");
        is_where_the_test_wants_it(&uphold, " in thread logs at uphold+0x");
    }
    assert_eq!(image(&uphold), 3);
    assert!(!uphold.stderr().contains("InputDropped"), "{}", uphold.stderr());
}

#[test]
fn a_fault_of_the_thread_that_starts_processes_is_survived_with_what_it_has_just_started() {
    for point in ["cloning", "cloned", "born"] {
        let uphold = Uphold::fallible().unit("web", SLEEP).start();
        let pid = uphold.until("web", "running").main_pid("web");
        for (number, action) in [(2, "segv"), (3, "abort")] {
            uphold.fail(&format!("{point} 1 {action}"));
            let _ = uphold.http("POST /v1/units/web/restart");
            until_image(&uphold, number);
            uphold.until_view("web", &format!("its restart after {action} at {point}"), |view| {
                view["state"] == "running" && view["pid"] != pid
            });
            assert_eq!((uphold.view("web")["restarts"].clone(), is_alive(pid)), (0.into(), false), "{point}");
        }
    }
}

#[test]
fn what_the_thread_that_starts_processes_has_started_does_not_outlive_a_panic_of_it() {
    for point in ["cloned", "born"] {
        let uphold = Uphold::fallible();
        let pids = uphold.path("pids");
        let command = format!(
            "command = [\"sh\", \"-c\", \"echo $$ >> {}; exec sleep 600\"]\n[restart]\ndelay = \"10ms\"\n",
            pids.display()
        );
        let uphold = uphold.unit("web", &command).start();
        let first = uphold.until("web", "running").main_pid("web");
        let _ = uphold.fail(&format!("{point} 1 panic")).http("POST /v1/units/web/restart");
        uphold.until_event(
            "web",
            "SpawnFailed cannot start web: preparing the command failed: uphold itself has failed",
        );
        uphold
            .until_view("web", "another process", |view| view["state"] == "running" && view["pid"] != first);
        let last = uphold.main_pid("web");
        uphold.eventually("only the last one lives", |_| {
            let started: Vec<i32> =
                fs::read_to_string(&pids).unwrap().lines().filter_map(|line| line.parse().ok()).collect();
            started.contains(&last) && started.iter().all(|pid| *pid == last || !is_alive(*pid))
        });
        assert_eq!(image(&uphold), 1);
    }
}

#[test]
fn three_crashes_within_a_minute_leave_what_is_needed_to_keep_services_up() {
    let probed = format!("{SLEEP}[readiness]\nexec = {{ command = [\"true\"] }}\nperiod = \"100ms\"\n");
    let mut uphold = Uphold::fallible().unit("web", SLEEP).unit("probed", &probed).start();
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.until_view("probed", "ready", |view| view["ready"] == true);
    for (number, verb) in [(2, "start"), (3, "reset"), (4, "restart")] {
        uphold.fail("command 1 panic");
        let _ = uphold.http(&format!("POST /v1/units/web/{verb}"));
        if number < 4 {
            until_image(&uphold, number);
        }
    }
    uphold.eventually("it says so", |uphold| {
        uphold.stderr().contains("without probes and without the control API")
    });
    let (code, _, err) = uphold.ctl(&["status"]);
    let lives = format!("uphold (pid {}) lives", uphold.pid());
    assert!(code == 5 && err.contains(&lives) && !err.contains("uphold run"), "{code}: {err}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    uphold.eventually("it restarts what ended", |uphold| {
        uphold.stderr().matches("Started process web").count() == 2
    });
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn an_upgrade_keeps_pids_counters_and_exit_statuses() {
    let mut uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running").kill_main("web", Signal::SIGKILL);
    uphold.until_view("web", "its first restart", |view| view["restarts"] == 1 && view["state"] == "running");
    let (own, before) = (uphold.pid(), uphold.view("web"));
    for number in 2..=4 {
        let (code, out, err) = uphold.ctl(&["upgrade"]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains("upgraded from 0.1.0 to 0.1.0"), "{out}");
        assert_eq!((image(&uphold), uphold.pid()), (number, own));
    }
    uphold.until_own_event("Upgraded");
    let after = uphold.view("web");
    for key in ["pid", "restarts", "state", "wanted", "ready", "since", "started_at", "exits"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    uphold.kill_main("web", Signal::SIGABRT);
    uphold
        .until_view("web", "its second restart", |view| view["restarts"] == 2 && view["state"] == "running");
    assert_eq!(uphold.view("web")["last_exit"]["signal"], "SIGABRT");
    uphold.signal(Signal::SIGUSR2);
    until_image(&uphold, 5);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
}

#[test]
fn what_a_service_said_last_is_shown_over_an_upgrade_and_a_kill() {
    let text = "command = [\"sh\", \"-c\", \"for i in $(seq 12); do echo line $i; done; exec sleep 600\"]\n";
    let mut uphold = Uphold::new().unit("web", text).unit("idle", &format!("autostart = false\n{SLEEP}"));
    // Of a life before: no run of this one has said it.
    fs::create_dir_all(uphold.path("log/idle")).unwrap();
    fs::write(uphold.path("log/idle/stdout.log"), "2020-01-01T00:00:00.000000Z long ago\n").unwrap();
    uphold = uphold.start();
    let wanted: Vec<_> = (3..=12).map(|number| format!("line {number}")).collect();
    let output = |uphold: &Uphold, unit: &str| serde_json::to_string(&uphold.view(unit)["output"]).unwrap();
    let wanted = serde_json::to_string(&wanted).unwrap();
    uphold.eventually("it has said it", |uphold| output(uphold, "web") == wanted);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!(output(&uphold, "web"), wanted);
    uphold.kill().again();
    assert_eq!(output(&uphold, "web"), wanted);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    uphold.kill().again();
    assert_eq!((output(&uphold, "web"), output(&uphold, "idle")), (wanted, "[]".to_owned()));
}

#[test]
fn a_binary_that_cannot_take_over_changes_nothing() {
    for (content, why) in [
        ("#!/bin/sh\necho hello\n", "it says `hello` (exit 0)"),
        ("#!/bin/sh\nexit 3\n", "is no uphold that can take over: it says nothing (exit 3)"),
        ("#!/bin/sh\nexit 0\n", "it says nothing (exit 0)"),
        ("#!/bin/sh\necho oops >&2; exit 1\n", "it says `oops` (exit 1)"),
        ("#!/bin/sh\nkill -SEGV $$\n", "it says nothing (killed by SIGSEGV)"),
        ("no program", "first line like #!/bin/sh, a binary is cut short or of another machine"),
        (
            "#!/bin/sh\necho '{\"release\":\"9\",\"state_versions\":[1,9],\"refuses\":\"too old\"}'\n",
            "is 9 and cannot go on from this state: too old",
        ),
    ] {
        let mut uphold = Uphold::new().unit("web", SLEEP).own_binary().start();
        let pid = uphold.until("web", "running").main_pid("web");
        let new = uphold.path("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
        fs::rename(&new, uphold.path("uphold")).unwrap();
        let (code, _, err) = uphold.ctl(&["upgrade"]);
        assert!(code == 1 && err.contains(why), "{code}: {err}");
        assert_eq!((image(&uphold), uphold.main_pid("web")), (1, pid));
        uphold.until_own_event("UpgradeFailed");
        uphold.signal(Signal::SIGTERM);
        assert_eq!(uphold.exit().code(), Some(0));
    }
}

#[test]
fn a_deleted_binary_survives_a_crash() {
    let plan = Uphold::new();
    let words = format!("UPHOLD_FAILPOINTS={}", plan.path("fail").display());
    let uphold = plan.under(&["env", &words]).unit("web", SLEEP).own_binary().start();
    let pid = uphold.until("web", "running").main_pid("web");
    fs::remove_file(uphold.path("uphold")).unwrap();
    uphold.fail("command 1 panic");
    let _ = uphold.http("POST /v1/units/web/start");
    until_image(&uphold, 2);
    assert_eq!(uphold.main_pid("web"), pid);
}

#[test]
fn children_get_the_limits_and_masks_that_the_first_image_found() {
    let text = "command = [\"sh\", \"-c\", \"ulimit -Sn; grep -E 'Sig(Blk|Ign)' /proc/self/status; exec sleep 600\"]\n";
    let uphold = Uphold::with_unit("web", text);
    uphold.eventually("it has said it", |uphold| uphold.log("web").len() == 3);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    uphold.eventually("it has said it again", |uphold| uphold.log("web").len() == 6);
    let lines = uphold.log("web");
    assert_eq!(lines[..3], lines[3..]);
}

#[test]
fn nothing_is_left_open_by_a_row_of_images() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let open = |uphold: &Uphold| fs::read_dir(format!("/proc/{}/fd", uphold.pid())).unwrap().count();
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    uphold.eventually("it has settled", |uphold| image(uphold) == 2);
    let before = open(&uphold);
    for _ in 0..10 {
        assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    }
    // A few are opened when they are first needed; what each image leaves would be ten.
    uphold.eventually("as many descriptors as before", |uphold| open(uphold) < before + 5);
}

#[test]
fn a_lock_that_does_not_say_who_has_it_is_still_that_of_the_image_before() {
    let mut uphold = Uphold::fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    // As where the disk had no room for it.
    fs::write(uphold.path("run/lock"), "").unwrap();
    uphold.signal(Signal::SIGUSR2);
    until_image(&uphold, 2);
    fs::write(uphold.path("run/lock"), "").unwrap();
    uphold.fail("recorded 1 panic").signal(Signal::SIGHUP);
    until_image(&uphold, 3);
    assert_eq!(uphold.main_pid("web"), pid);
    uphold.kill().again();
    assert_eq!(uphold.main_pid("web"), pid);
}

#[test]
fn files_that_somebody_cuts_short_while_they_are_mapped_are_faults_that_are_survived() {
    for file in ["crash", "runs", "pump"] {
        let uphold = Uphold::with_unit("web", SLEEP);
        let pid = uphold.until("web", "running").main_pid("web");
        fs::File::options()
            .write(true)
            .open(uphold.path("run/private").join(file))
            .unwrap()
            .set_len(0)
            .unwrap();
        let _ = uphold.http("POST /v1/units/web/restart");
        until_image(&uphold, 2);
        uphold.until_view("web", &format!("its restart, or none, without {file}"), |view| {
            view["state"] == "running"
        });
        let restarts = uphold.view("web")["restarts"].clone();
        assert!(
            restarts == 0 && (uphold.main_pid("web") == pid) == is_alive(pid),
            "{file}: {}",
            uphold.stderr()
        );
    }
}

#[test]
fn an_exec_that_has_crashed_uphold_twice_is_said_to_be_dropped_and_keeps_nobody_out() {
    let uphold = Uphold::fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    for number in 2..=3 {
        uphold.fail("executing 1 panic").signal(Signal::SIGUSR2);
        until_image(&uphold, number);
    }
    uphold.signal(Signal::SIGUSR2);
    uphold.until_own_event("UpgradeFailed not upgraded: the exec was dropped");
    assert_eq!((image(&uphold), uphold.main_pid("web")), (3, pid));
}

/// PID 1 of a namespace, with a service, which will fail as [`Uphold::fail`] says.
pub fn fallible_pid_1() -> Uphold {
    let uphold = Uphold::new();
    let plan = format!("UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
    let words = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "env", &plan];
    uphold.mode(&["init"]).under(&words).unit("web", SLEEP).start()
}

#[test]
fn as_pid_1_it_survives_crash_and_upgrade() {
    if !is_root() {
        return skip("a pid namespace needs root");
    }
    let uphold = fallible_pid_1();
    let pid = uphold.until("web", "running").main_pid("web");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!((image(&uphold), uphold.main_pid("web")), (2, pid));
    uphold.fail("command 1 segv");
    let _ = uphold.http("POST /v1/units/web/start");
    until_image(&uphold, 3);
    assert_eq!(uphold.main_pid("web"), pid);
    // A signal that the kernel itself would not give to PID 1, and that somebody sent.
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    uphold.until("web", "running");
}

#[test]
fn what_is_not_on_record_is_not_handed_over() {
    if !have("prlimit") {
        return skip("prlimit is not installed");
    }
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let (pid, main) = (uphold.pid().to_string(), uphold.main_pid("web"));
    let limit = |limit: &str| {
        let limit = format!("--fsize={limit}:unlimited");
        let limited = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(limited.unwrap().success());
    };
    limit("1");
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    let (code, _, err) = uphold.ctl(&["upgrade"]);
    assert!(code == 1 && err.contains("the state cannot be recorded"), "{code}: {err}");
    limit("unlimited");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!((uphold.state("web").as_str(), is_alive(main)), ("inactive", false));
}

#[test]
fn signals_wait_for_who_decides_and_so_for_the_next_image() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let hear = Signal::SIGTERM as u64 - 1;
    for number in 1..=3 {
        until_image(&uphold, number);
        let threads = fs::read_dir(format!("/proc/{}/task", uphold.pid())).unwrap();
        for thread in threads.map(|thread| thread.unwrap().path()) {
            // One that ends meanwhile takes nothing.
            let Ok(status) = fs::read_to_string(thread.join("status")) else { continue };
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            assert_eq!(u64::from_str_radix(blocked.trim(), 16).unwrap() >> hear & 1, 1, "{status}");
        }
        uphold.signal(Signal::SIGUSR2);
    }
}

#[test]
fn what_uphold_itself_gets_for_a_write_is_not_forwarded_to_command() {
    let uphold = Uphold::new();
    let pipe = uphold.path("pipe").display().to_string();
    // A pipe that nobody reads any more.
    let script = format!("mkfifo {pipe}; exec 4<>{pipe} 5>{pipe}; exec 1>&5 4<&- 5>&-; exec \"$@\"");
    let mut uphold = uphold
        .under(&["sh", "-c", &script, "sh"])
        .unit(
            "chat",
            "command = [\"sh\", \"-c\", \"echo hello; exec sleep 600\"]\n[logs]\nstdout = \"inherit\"\n",
        )
        .mode(&["init", "--", "sleep", "600"])
        .start();
    uphold
        .eventually("it cannot write", |uphold| uphold.stderr().contains("cannot write uphold's own stdout"));
    uphold.until("command", "running");
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(143));
}

#[test]
fn a_signal_that_comes_while_it_crashes_is_not_lost() {
    let mut uphold = Uphold::fallible().unit("web", SLEEP).start();
    uphold.until("web", "running");
    uphold.fail("decided 1 panic");
    // Both are there at once, and the first one is that of the crash.
    uphold.signal(Signal::SIGSTOP).signal(Signal::SIGUSR2).signal(Signal::SIGTERM).signal(Signal::SIGCONT);
    assert_eq!(uphold.exit().code(), Some(0));
    assert!(uphold.stderr().contains("the test wants a panic at decided"), "{}", uphold.stderr());
}

#[test]
fn a_control_socket_that_somebody_has_removed_is_made_anew_by_an_upgrade() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    fs::remove_file(uphold.socket()).unwrap();
    uphold.signal(Signal::SIGUSR2);
    until_image(&uphold, 2);
}
