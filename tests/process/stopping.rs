use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dsl::*;

const STUBBORN: &str = r#"
command = ["sh", "-c", "trap '' TERM; (trap '' TERM; echo $$; while :; do sleep 600; done) & echo on; while :; do wait; done"]
[stop]
timeout = "300ms"
"#;

#[test]
fn a_tree_that_ignores_sigterm_is_killed_at_its_timeout() {
    let uphold = Uphold::with_unit("web", STUBBORN);
    uphold.eventually("it runs", |uphold| uphold.log("web").len() == 2);
    let pid = uphold.main_pid("web");
    let begun = Instant::now();
    let (code, out, err) = uphold.ctl(&["stop", "web"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(begun.elapsed().as_millis() >= 300);
    assert!(!is_alive(pid));
    assert_eq!(uphold.state("web"), "inactive");
    assert_eq!(uphold.view("web")["reason"], "StoppedByOperator");
}

#[test]
fn a_setsided_grandchild_that_holds_stdout_is_stopped_and_delays_no_exit() {
    let text = "command = [\"sh\", \"-c\", \"setsid sh -c 'echo $$; exec sleep 600' & sleep 0.2; exit 7\"]\n[restart]\npolicy = \"never\"";
    let uphold = Uphold::with_unit("web", text);
    uphold.until("web", "failed");
    let view = uphold.view("web");
    assert_eq!(view["last_exit"]["code"], 7);
    assert!(view["message"].as_str().unwrap().contains("left 1 process"), "{view:#}");
    uphold.eventually("its output is read", |uphold| uphold.log("web").len() == 1);
    let grandchild: i32 = uphold.log("web")[0].parse().unwrap();
    assert!(!is_alive(grandchild));
}

#[test]
fn an_exit_is_shown_while_what_it_left_behind_still_has_its_time() {
    let text = "command = [\"sh\", \"-c\", \"trap '' TERM; sleep 600 & echo $!; exit 7\"]\n[restart]\npolicy = \"never\"\n[stop]\ntimeout = \"10m\"";
    let uphold = Uphold::with_unit("web", text);
    uphold.until_view("web", "its exit", |view| view["last_exit"]["code"] == 7);
    let view = uphold.view("web");
    assert_eq!((&view["state"], &view["pid"]), (&"stopping".into(), &serde_json::Value::Null), "{view:#}");
    uphold.eventually("its output is read", |uphold| uphold.log("web").len() == 1);
    let left: i32 = uphold.log("web")[0].parse().unwrap();
    kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    uphold.until("web", "failed");
    assert_eq!(uphold.view("web")["exits"].as_array().unwrap().len(), 1);
}

#[test]
fn a_stopped_service_is_continued_so_that_it_can_end() {
    let uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]\n[stop]\ntimeout = \"60s\"");
    uphold.until("web", "running").kill_main("web", Signal::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert!(begun.elapsed().as_secs() < 30);
    assert_eq!(uphold.view("web")["last_exit"]["signal"], "SIGTERM");
}

#[test]
fn a_stop_during_backoff_ends_at_once() {
    let uphold = Uphold::with_unit("web", "command = [\"false\"]\n[restart]\ndelay = \"10m\"");
    uphold.until("web", "backoff");
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert_eq!(uphold.state("web"), "inactive");
}

#[test]
fn a_stop_during_a_start_ends_the_start() {
    // Not by itself: that it starts says that the request has arrived.
    let uphold = Uphold::with_unit(
        "web",
        "command = [\"sleep\", \"600\"]\nautostart = false\n[readiness]\nexec = { command = [\"false\"] }",
    );
    let mut start =
        uphold.ctl_command(&["start", "web"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    uphold.until_view("web", "a pid", |view| view["pid"].is_i64());
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert_eq!(start.wait().unwrap().code(), Some(1));
    assert_eq!(uphold.state("web"), "inactive");
}

#[test]
fn a_stop_during_a_stop_waits_for_the_same_end() {
    let uphold = Uphold::with_unit("web", STUBBORN);
    uphold.eventually("it runs", |uphold| uphold.log("web").len() == 2);
    let asks: Vec<_> = (0..3).map(|_| uphold.ctl_command(&["stop", "web"]).spawn().unwrap()).collect();
    for mut ask in asks {
        assert_eq!(ask.wait().unwrap().code(), Some(0));
    }
    assert_eq!(uphold.state("web"), "inactive");
}

#[test]
fn a_shutdown_stops_what_depends_before_what_it_depends_on() {
    let uphold = Uphold::new();
    let order = uphold.path("order").display().to_string();
    let unit = |name: &str, requires: &str| {
        format!(
            "command = [\"sh\", \"-c\", \"trap 'echo {name} >> {order}; exit 0' TERM; echo on; while :; do sleep 0.05; done\"]\nrequires = {requires}\n[readiness]\nexec = {{ command = [\"true\"] }}\nperiod = \"50ms\""
        )
    };
    let mut uphold = uphold
        .unit("a", &unit("a", "[]"))
        .unit("b", &unit("b", "[\"a\"]"))
        .unit("c", &unit("c", "[\"b\"]"))
        .start();
    uphold.until("c", "running");
    uphold.eventually("traps are set", |uphold| {
        ["a", "b", "c"].iter().all(|unit| !uphold.log(unit).is_empty())
    });
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
    assert_eq!(std::fs::read_to_string(uphold.path("order")).unwrap(), "c\nb\na\n");
}

#[test]
fn a_second_sigterm_kills_at_once() {
    let mut uphold = Uphold::with_unit("web", &STUBBORN.replace("300ms", "10m"));
    uphold.eventually("it runs", |uphold| uphold.log("web").len() == 2);
    let pid = uphold.main_pid("web");
    uphold.signal(Signal::SIGTERM).until("web", "stopping").signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn the_end_of_the_main_unit_is_the_end_of_uphold_with_its_status() {
    let mut uphold = Uphold::new()
        .unit("job", "command = [\"sh\", \"-c\", \"sleep 0.2; exit 42\"]")
        .unit("web", "command = [\"sleep\", \"600\"]")
        .mode(&["run", "--main", "job"])
        .start_blind();
    assert_eq!(uphold.exit().code(), Some(42), "{}", uphold.stderr());
}

#[test]
fn a_unit_whose_end_is_the_end_of_all_gives_its_status() {
    for (command, status) in [("exit 0", 0), ("exit 9", 9), ("kill -KILL $$", 137)] {
        let unit = format!("command = [\"sh\", \"-c\", \"sleep 0.1; {command}\"]\non_end = \"shutdown\"");
        let mut uphold =
            Uphold::new().unit("job", &unit).unit("web", "command = [\"sleep\", \"600\"]").start_blind();
        assert_eq!(uphold.exit().code(), Some(status), "{command}: {}", uphold.stderr());
    }
}

#[test]
fn the_main_unit_ends_uphold_only_after_its_last_restart() {
    let uphold = Uphold::new();
    let runs = uphold.path("runs").display().to_string();
    let unit = format!(
        "command = [\"sh\", \"-c\", \"echo x >> {runs}; exit 4\"]\n[restart]\npolicy = \"always\"\ndelay = \"10ms\"\nlimit = 2"
    );
    let mut uphold = uphold.unit("job", &unit).mode(&["run", "--main", "job"]).start_blind();
    assert_eq!(uphold.exit().code(), Some(4), "{}", uphold.stderr());
    assert_eq!(std::fs::read_to_string(runs).unwrap().lines().count(), 3);
}
