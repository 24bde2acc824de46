//! What uphold does without what it can do without: cgroups, root.

use std::fs;

use crate::dsl::*;

/// In a mount namespace in which there is nothing to make a cgroup in.
fn without_cgroups() -> Option<Uphold> {
    if !is_root() {
        skip("only root can mount");
        return None;
    }
    Some(Uphold::new().after_mounting(
        "for at in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do umount -l $at; done; ! grep -q cgroup2 /proc/mounts",
    ))
}

#[test]
fn without_cgroups_a_tree_that_ignores_sigterm_is_killed_at_its_timeout() {
    let Some(uphold) = without_cgroups() else { return };
    let uphold = uphold
        .unit(
            "web",
            "command = [\"sh\", \"-c\", \"trap '' TERM; (trap '' TERM; exec sleep 600) & echo $!; while :; do wait; done\"]\n[stop]\ntimeout = \"300ms\"",
        )
        .start();
    uphold.until_said("cgroup");
    uphold.eventually("it runs", |uphold| uphold.log("web").len() == 1);
    let (main, child) = (uphold.main_pid("web"), uphold.log("web")[0].parse().unwrap());
    assert!(is_alive(child));
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert!(!is_alive(main) && !is_alive(child));
}

#[test]
fn without_cgroups_a_setsided_grandchild_is_stopped_too() {
    let Some(uphold) = without_cgroups() else { return };
    let uphold = uphold
        .unit(
            "web",
            "command = [\"sh\", \"-c\", \"setsid sh -c 'echo $$; exec sleep 600' & exec sleep 600\"]",
        )
        .start();
    uphold.eventually("it runs", |uphold| uphold.log("web").len() == 1);
    let grandchild = uphold.log("web")[0].parse().unwrap();
    assert!(is_alive(grandchild));
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert!(!is_alive(grandchild));
}

#[test]
fn without_cgroups_a_daemon_is_found_by_its_marker_and_ended() {
    let Some(uphold) = without_cgroups() else { return };
    let mark = uphold.path("mark").display().to_string();
    // Forks twice with a new session: its parent is uphold, its session its own.
    let script = format!(
        "setsid sh -c '(echo $$; sleep 600 & echo $!; touch {mark}; exec sleep 600) & exit 0'; until [ -e {mark} ]; do sleep 0.02; done; exit 3"
    );
    let uphold = uphold
        .unit("web", &format!("command = [\"sh\", \"-c\", \"{script}\"]\n[restart]\npolicy = \"never\""))
        .start();
    uphold.until("web", "failed");
    assert_eq!(uphold.view("web")["last_exit"]["code"], 3);
    assert!(uphold.view("web")["message"].as_str().unwrap().contains("left "), "{:#}", uphold.view("web"));
    uphold.eventually("its output is read", |uphold| uphold.log("web").len() == 2);
    let daemon = uphold.log("web")[1].parse().unwrap();
    assert!(!is_alive(daemon));
}

#[test]
fn without_cgroups_too_what_no_record_tells_of_is_ended_before_another_is_started() {
    let Some(uphold) = without_cgroups() else { return };
    let mut uphold = uphold.unit("web", "command = [\"sleep\", \"600\"]\n").start();
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.kill();
    fs::remove_file(uphold.path("run/private/runs")).unwrap();
    uphold.again();
    uphold.until_view("web", "another process", |view| view["state"] == "running" && view["pid"] != pid);
    assert!(!is_alive(pid));
    assert_eq!(uphold.view("web")["last_exit"]["reason"], "Unknown");
}

#[test]
fn an_unprivileged_uphold_runs_units_and_refuses_what_needs_privilege() {
    if !is_root() {
        return skip("only root can become another user");
    }
    let uphold = Uphold::new()
        .run_by_uid(45_673, &[])
        .unit("web", "command = [\"sh\", \"-c\", \"id -u; exec sleep 600\"]")
        .unit("other", "command = [\"true\"]\nuser = \"www-data\"\n[restart]\npolicy = \"never\"")
        .start();
    uphold.until("web", "running").eventually("its uid", |uphold| uphold.log("web") == ["45673"]);
    let view = uphold.until("other", "failed").view("other");
    let message = view["message"].as_str().unwrap();
    assert!(message.contains("cannot start other: ") && message.contains("www-data"), "{message}");
    assert!(message.contains("permitted"), "{message}");
    // root and the daemon's own uid may do everything.
    let own = |words: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "45673", "--regid", "45673", "--clear-groups"]).arg(uphold.path("uphold"));
        command.args(["ctl", "--socket"]).arg(uphold.socket()).args(words);
        command.output().unwrap().status.code()
    };
    assert_eq!(own(&["status", "web"]), Some(0));
    assert_eq!(own(&["restart", "web"]), Some(0));
    assert_eq!(own(&["stop", "web"]), Some(0));
    assert_eq!(uphold.ctl(&["start", "web"]).0, 0);
    assert!(fs::metadata(uphold.path("run/private")).is_ok());
}
