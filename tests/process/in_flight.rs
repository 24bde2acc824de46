//! uphold goes on as another image while a child of the one before is between clone and exec: it lies in a cgroup
//! in which nothing runs.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::dsl::*;
use crate::goes_on::until_image;

/// Where the cgroups of its runs are.
fn base(uphold: &Uphold) -> Option<String> {
    let state = fs::read_to_string(uphold.path("run/private/state")).unwrap();
    let head: Value = serde_json::from_str(&state.lines().next().unwrap()[9..]).unwrap();
    head["cgroups"].as_str().map(str::to_owned)
}

/// The child that still executes what uphold does.
fn hanging(uphold: &Uphold) -> Option<i32> {
    let exe = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    children_of(uphold.pid()).into_iter().find(|pid| exe(*pid) == exe(uphold.pid()))
}

/// A start of this command hangs, and another image has come.
fn replaced(command: &str, how: &str) -> Option<(Uphold, String, i32)> {
    if !is_root() {
        skip("only root can freeze a cgroup");
        return None;
    }
    let late = format!("autostart = false\n{command}\n[restart]\npolicy = \"never\"\n");
    let uphold =
        Uphold::fallible().unit("late", &late).unit("web", "command = [\"sleep\", \"600\"]\n").start();
    uphold.until("web", "running");
    let Some(base) = base(&uphold) else {
        skip("there is no cgroup of its own");
        return None;
    };
    fs::write(format!("{base}/cgroup.freeze"), "1").unwrap();
    assert_eq!(uphold.ctl(&["start", "--no-wait", "late"]).0, 0);
    uphold.eventually("a child hangs before its exec", |uphold| hanging(uphold).is_some());
    let child = hanging(&uphold).unwrap();
    if how == "upgrade" {
        uphold.signal(Signal::SIGUSR2);
    } else {
        uphold.fail(&format!("command 1 {how}"));
        let _ = uphold.http("POST /v1/units/web/start");
    }
    until_image(&uphold, 2);
    Some((uphold, base, child))
}

fn thaw(base: &str) {
    fs::write(format!("{base}/cgroup.freeze"), "0").unwrap();
}

#[test]
fn a_start_that_then_fails_is_a_failed_start_and_no_exit() {
    for (command, code, said) in [
        ("command = [\"/nowhere/late\"]", 127, "executing the command failed: /nowhere/late"),
        ("command = [\"true\"]\nworking_dir = \"/nowhere\"", 126, "entering the working directory failed"),
    ] {
        for how in ["upgrade", "segv"] {
            let Some((uphold, base, child)) = replaced(command, how) else { return };
            assert_eq!(uphold.state("late"), "starting");
            thaw(&base);
            uphold.until("late", "failed");
            let exit = &uphold.view("late")["last_exit"];
            assert_eq!(
                (&exit["reason"], &exit["code"]),
                (&"SpawnFailed".into(), &code.into()),
                "{how}: {exit}"
            );
            let events = uphold.events("late");
            assert!(events.iter().any(|(line, _)| line.contains(said)), "{how}: {events:#?}");
            assert!(!events.iter().any(|(line, _)| line.starts_with("Started ")), "{how}: {events:#?}");
            assert!(
                !is_alive(child)
                    && uphold
                        .path("run/private")
                        .read_dir()
                        .unwrap()
                        .flatten()
                        .all(|entry| !entry.file_name().to_string_lossy().starts_with("late."))
            );
        }
    }
}

#[test]
fn a_start_that_then_succeeds_is_the_one_that_was_begun() {
    for how in ["upgrade", "segv"] {
        let command = "command = [\"sh\", \"-c\", \"echo here; exec sleep 600\"]";
        let Some((mut uphold, base, child)) = replaced(command, how) else { return };
        assert_eq!(uphold.state("late"), "starting");
        thaw(&base);
        uphold.until("late", "running");
        assert_eq!(uphold.main_pid("late"), child, "{how}");
        uphold.eventually("it has said it", |uphold| uphold.log("late") == ["here"]);
        uphold.kill_main("late", Signal::SIGKILL).until("late", "failed");
        assert_eq!(uphold.view("late")["last_exit"]["signal"], "SIGKILL");
        uphold.signal(Signal::SIGTERM);
        assert_eq!(uphold.exit().code(), Some(0));
    }
}

#[test]
fn a_stop_of_what_hangs_over_an_upgrade_ends_it_once_it_goes_on() {
    let Some((uphold, base, child)) = replaced("command = [\"sleep\", \"600\"]", "upgrade") else { return };
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "late"]).0, 0);
    uphold.until("late", "stopping");
    thaw(&base);
    uphold.until("late", "inactive");
    assert!(!is_alive(child));
}
