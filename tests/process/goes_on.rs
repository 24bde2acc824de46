//! uphold crashes, or is upgraded, and goes on in the same process.

use std::fs;

use nix::sys::signal::Signal;

use crate::dsl::*;

const SLEEP: &str = "command = [\"sleep\", \"600\"]\n[restart]\ndelay = \"10ms\"\n";

/// An uphold that fails as the file says, which may be written at any time.
pub fn fallible() -> Uphold {
    let uphold = Uphold::new();
    let plan = format!("UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
    uphold.under(&["env", &plan])
}

pub fn fail(uphold: &Uphold, line: &str) {
    fs::write(uphold.path("fail"), format!("{line}\n")).unwrap();
}

fn image(uphold: &Uphold) -> u64 {
    uphold.get("/v1/version").map_or(0, |version| version["image"].as_u64().unwrap())
}

pub fn until_image(uphold: &Uphold, image: u64) {
    uphold.eventually("the next image answers", |uphold| self::image(uphold) == image);
}

#[test]
fn each_crash_ends_in_an_exec_and_is_said_with_its_message() {
    let uphold = fallible().unit("web", SLEEP).unit("down", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    let cases =
        [("panic", "the test wants a panic at command"), ("segv", "SIGSEGV at address 0x0000000000000008")];
    for (number, (action, text)) in (2..).zip(cases) {
        fail(&uphold, &format!("command 1 {action}"));
        // The connection goes with the image.
        let _ = uphold.http("POST /v1/units/down/stop");
        until_image(&uphold, number);
        uphold.until_own_event("Crashed uphold crashed and goes on: ");
        uphold.until_own_event(text);
        assert_eq!((uphold.main_pid("web"), uphold.state("web").as_str()), (pid, "running"));
    }
    let (code, out, err) = uphold.ctl(&["events", "uphold"]);
    assert!(code == 0 && out.contains("Crashed") && !out.contains("Started process"), "{code} {out}{err}");
    // What is still its child is reaped with its status.
    uphold.kill_main("web", Signal::SIGKILL);
    uphold.until_view("web", "its restart", |view| view["restarts"] == 1 && view["state"] == "running");
    assert_eq!(uphold.view("web")["last_exit"]["signal"], "SIGKILL");
}

#[test]
fn an_abort_is_a_crash_like_any_other() {
    let uphold = fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    fail(&uphold, "recorded 1 abort");
    let _ = uphold.http("POST /v1/units/web/start");
    uphold.kill_main("web", Signal::SIGKILL);
    until_image(&uphold, 2);
    uphold.until_own_event("SIGABRT");
    uphold.until_view("web", "another process", |view| view["state"] == "running" && view["pid"] != pid);
    assert_eq!(uphold.view("web")["last_exit"]["signal"], "SIGKILL");
}

#[test]
fn what_has_crashed_uphold_twice_is_dropped() {
    let uphold = fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    for number in 2..=3 {
        fail(&uphold, "command 1 panic");
        let _ = uphold.http("POST /v1/units/web/stop");
        until_image(&uphold, number);
    }
    let _ = uphold.http("POST /v1/units/web/stop");
    uphold.until_own_event("InputDropped dropped what has crashed uphold twice");
    assert_eq!((image(&uphold), uphold.main_pid("web")), (3, pid));
}

#[test]
fn three_crashes_within_a_minute_leave_what_is_needed_to_keep_services_up() {
    let probed = format!("{SLEEP}[readiness]\nexec = {{ command = [\"true\"] }}\nperiod = \"100ms\"\n");
    let mut uphold = fallible().unit("web", SLEEP).unit("probed", &probed).start();
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.until_view("probed", "ready", |view| view["ready"] == true);
    for (number, verb) in [(2, "start"), (3, "reset"), (4, "restart")] {
        fail(&uphold, "command 1 panic");
        let _ = uphold.http(&format!("POST /v1/units/web/{verb}"));
        if number < 4 {
            until_image(&uphold, number);
        }
    }
    uphold.eventually("it says so", |uphold| {
        uphold.stderr().contains("without probes and without the control API")
    });
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
fn a_binary_that_cannot_take_over_changes_nothing() {
    for (content, why) in [
        ("#!/bin/sh\necho hello\n", "it says `hello`"),
        ("#!/bin/sh\nexit 3\n", "is no uphold that can take over"),
        ("no program", "cannot run"),
        (
            "#!/bin/sh\necho '{\"release\":\"9\",\"state_versions\":[9],\"refuses\":\"too old\"}'\n",
            "is 9 and cannot go on from this state: too old",
        ),
    ] {
        let mut uphold = Uphold::new().unit("web", SLEEP).own_binary().start();
        let pid = uphold.until("web", "running").main_pid("web");
        let new = uphold.path("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
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
    fail(&uphold, "command 1 panic");
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
fn as_pid_1_it_survives_crash_and_upgrade() {
    if !is_root() {
        return skip("a pid namespace needs root");
    }
    let uphold = Uphold::new();
    let plan = format!("UPHOLD_FAILPOINTS={}", uphold.path("fail").display());
    let words = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "env", &plan];
    let uphold = uphold.mode(&["init"]).under(&words).unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!((image(&uphold), uphold.main_pid("web")), (2, pid));
    fail(&uphold, "command 1 segv");
    let _ = uphold.http("POST /v1/units/web/start");
    until_image(&uphold, 3);
    assert_eq!(uphold.main_pid("web"), pid);
    // A signal that the kernel itself would not give to PID 1, and that somebody sent.
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    uphold.until("web", "running");
}
