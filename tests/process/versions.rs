//! uphold is replaced by one of a later release, or of an earlier, that does not read all versions of the state
//! that it does. A build for debugging plays them: it reads the versions that a file has when its image begins.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::dsl::*;
use crate::goes_on::until_image;

/// Writes a line every few milliseconds.
const COUNTS: &str =
    "command = [\"sh\", \"-c\", \"i=0; while :; do i=$((i+1)); echo line $i; sleep 0.005; done\"]
[restart]
delay = \"10ms\"
";

fn state(uphold: &Uphold) -> String {
    fs::read_to_string(uphold.path("run/private/state")).unwrap()
}

/// The version that stands in the head of the state.
fn written(uphold: &Uphold) -> u64 {
    let state = state(uphold);
    let head: Value = serde_json::from_str(&state.lines().next().unwrap()[9..]).unwrap();
    head["state_version"].as_u64().unwrap()
}

#[track_caller]
fn upgrade(uphold: &Uphold, versions: &str) {
    let (code, out, err) = uphold.reads(versions).ctl(&["upgrade"]);
    assert_eq!(code, 0, "to what reads {versions}: {out}{err}\n{}", uphold.stderr());
}

#[test]
fn an_upgrade_and_a_downgrade_by_one_keep_pids_counters_lines_and_followers() {
    let uphold = Uphold::fallible().unit("web", COUNTS);
    uphold.reads("1");
    let mut uphold = uphold.start();
    uphold.until("web", "running").kill_main("web", Signal::SIGKILL);
    uphold.until_view("web", "its restart", |view| view["restarts"] == 1 && view["state"] == "running");
    let (own, before) = (uphold.pid(), uphold.view("web"));
    let mut logs = Lines::of(uphold.ctl_command(&["logs", "web", "-f", "-n", "100000"]));
    let mut events = Lines::of(uphold.ctl_command(&["-o", "json", "events", "-f"]));
    let mut seen = vec![logs.until("line ")];
    let mut image = 1;
    for (versions, newest) in [("1 2", 2), ("2 3", 3), ("1 2", 2), ("1", 1), ("1 2", 2), ("1", 1)] {
        upgrade(&uphold, versions);
        image += 1;
        until_image(&uphold, image);
        assert_eq!((written(&uphold), uphold.pid()), (newest, own), "{versions}");
        let after = uphold.view("web");
        for key in ["pid", "restarts", "state", "wanted", "ready", "since", "started_at", "exits"] {
            assert_eq!(before[key], after[key], "{key}");
        }
        seen.push(logs.until("line "));
    }
    // Killed, the last one is found by the first one's like.
    uphold.kill().again();
    assert_eq!((uphold.view("web")["pid"].clone(), written(&uphold)), (before["pid"].clone(), 1));
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
    let (rest, code) = logs.rest();
    assert_eq!(code, Some(0));
    let log = uphold.whole_log("web");
    let second = log.iter().rposition(|line| line == "line 1").unwrap();
    let counted: Vec<String> = (1..=log.len() - second).map(|number| format!("line {number}")).collect();
    assert_eq!(log[second..], counted);
    assert!(rest.last() == log.last() && rest.len() < log.len(), "{:?}", rest.last());
    let seqs = events.rest().0;
    let seqs: Vec<u64> = seqs
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

#[test]
fn a_binary_that_reads_none_of_our_versions_changes_nothing_and_the_error_names_them() {
    let uphold = Uphold::fallible().unit("web", COUNTS);
    uphold.reads("1 2");
    let uphold = uphold.start();
    let pid = uphold.until("web", "running").main_pid("web");
    for _ in 0..2 {
        let (code, _, err) = uphold.reads("7 8").ctl(&["upgrade"]);
        let said = "it reads state versions 7 and 8, and this uphold writes state versions 1 and 2";
        assert!(code == 1 && err.contains(said), "{code}: {err}");
        uphold.until_own_event("UpgradeFailed");
        let image = uphold.get("/v1/version").unwrap()["image"].clone();
        assert_eq!((image, uphold.main_pid("web"), written(&uphold)), (1.into(), pid, 2));
    }
    upgrade(&uphold, "1");
    assert_eq!((uphold.main_pid("web"), written(&uphold)), (pid, 1));
}

#[test]
fn what_was_written_for_an_older_binary_that_then_refuses_is_written_as_before() {
    let uphold = Uphold::fallible().unit("web", COUNTS).own_binary();
    uphold.reads("1 2");
    let mut uphold = uphold.start();
    let pid = uphold.until("web", "running").main_pid("web");
    let (new, saw) = (uphold.path("new"), uphold.path("saw"));
    let script = format!(
        "#!/bin/sh\nhead -n 1 \"$2/state\" >> {}\n\
         echo '{{\"release\":\"0.0.9\",\"state_versions\":[1],\"refuses\":\"not today\"}}'\n",
        saw.display()
    );
    fs::write(&new, script).unwrap();
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(&new, uphold.path("uphold")).unwrap();
    let (code, _, err) = uphold.ctl(&["upgrade"]);
    assert!(
        code == 1 && err.contains("is 0.0.9 and cannot go on from this state: not today"),
        "{code}: {err}"
    );
    // It was asked, and then it was given what it reads.
    let saw = fs::read_to_string(saw).unwrap();
    let heads: Vec<&str> = saw.lines().map(|line| &line[9..28]).collect();
    assert_eq!(heads, ["{\"state_version\":2,", "{\"state_version\":1,"]);
    assert_eq!(written(&uphold), 2);
    // What comes after that is in it, and found.
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    copy_binary(&new);
    fs::rename(&new, uphold.path("uphold")).unwrap();
    uphold.kill().again();
    assert_eq!((uphold.state("web").as_str(), is_alive(pid), written(&uphold)), ("inactive", false, 2));
}

#[test]
fn a_kill_or_a_crash_while_the_state_stands_in_an_older_version_is_survived() {
    for action in ["kill", "segv"] {
        let uphold = Uphold::fallible().unit("web", COUNTS);
        uphold.reads("1 2");
        let mut uphold = uphold.start();
        let pid = uphold.until("web", "running").main_pid("web");
        uphold.reads("1").fail(&format!("rewritten 1 {action}"));
        let _ = uphold.http("POST /v1/upgrade");
        if action == "kill" {
            uphold.exit();
            assert_eq!(written(&uphold), 1);
            uphold.again();
        } else {
            until_image(&uphold, 2);
        }
        assert_eq!((uphold.main_pid("web"), written(&uphold)), (pid, 1), "{action}");
    }
}

#[test]
fn an_uphold_that_does_not_read_the_state_of_what_lives_does_not_begin() {
    let uphold = Uphold::fallible().unit("web", COUNTS).unit("bare", "command = [\"sleep\", \"600\"]\n");
    uphold.reads("1 2");
    let mut uphold = uphold.start();
    let (web, bare) =
        (uphold.until("web", "running").main_pid("web"), uphold.until("bare", "running").main_pid("bare"));
    uphold.kill();
    let before = state(&uphold);
    uphold.reads("1");
    for _ in 0..2 {
        let code = uphold.again_blind().exit().code();
        let said = uphold.stderr();
        assert_eq!(code, Some(1), "{said}");
        let path = uphold.path("run/private/state");
        for part in [
            &format!("cannot go on from {}", path.display()),
            "it is of state version 2, and this uphold reads state version 1",
            "uphold 0.1.0 wrote it",
            "start that uphold again, or stop these processes, or remove the file",
            &web.to_string(),
            &bare.to_string(),
        ] {
            assert!(said.contains(part), "no `{part}`: {said}");
        }
        assert_eq!(state(&uphold), before);
    }
    assert!(is_alive(web) && is_alive(bare));
    // Who reads it goes on.
    uphold.reads("2 3");
    uphold.again();
    assert_eq!((uphold.main_pid("web"), uphold.main_pid("bare")), (web, bare));
    // Where nothing lives, nothing is lost.
    uphold.kill();
    for pid in marked(&token(&uphold)) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    uphold.eventually("all are gone", |uphold| marked(&token(uphold)).is_empty());
    uphold.reads("1");
    uphold.again();
    uphold.until_said("it is of state version 3, and this uphold reads state version 1; it is set aside");
    uphold.until("web", "running").until("bare", "running");
}

fn token(uphold: &Uphold) -> String {
    let state = state(uphold);
    let head: Value = serde_json::from_str(&state.lines().next().unwrap()[9..]).unwrap();
    head["token"].as_str().unwrap().to_owned()
}
