use nix::sys::signal::Signal;

use crate::dsl::*;

#[test]
fn a_killed_service_comes_back_with_a_longer_delay_each_time() {
    let uphold =
        Uphold::with_unit("web", "command = [\"sleep\", \"600\"]\n[restart]\ndelay = \"20ms\"\njitter = 0.0");
    uphold.until("web", "running");
    for restarts in 1..=4 {
        let old = uphold.main_pid("web");
        uphold.kill_main("web", Signal::SIGKILL);
        uphold.until_view("web", "a new process", |view| {
            view["state"] == "running" && view["pid"].as_i64() != Some(old.into())
        });
        assert_eq!(uphold.view("web")["restarts"], restarts);
    }
    let last = &uphold.view("web")["last_exit"];
    assert_eq!((&last["reason"], &last["signal"]), (&"Killed".into(), &"SIGKILL".into()));
}

#[test]
fn every_exit_code_and_fatal_signal_is_seen_as_it_was() {
    let mut uphold = Uphold::new();
    for code in [0, 1, 2, 77, 126, 127, 128, 143, 255] {
        uphold = uphold.unit(
            &format!("code{code}"),
            &format!("command = [\"sh\", \"-c\", \"exit {code}\"]\n[restart]\npolicy = \"never\""),
        );
    }
    let signals = ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "SEGV", "PIPE", "TERM"];
    for signal in signals {
        uphold = uphold.unit(
            &format!("sig{signal}"),
            &format!("command = [\"sh\", \"-c\", \"kill -{signal} $$\"]\n[restart]\npolicy = \"never\"\n[limits]\ncore = 0"),
        );
    }
    let uphold = uphold.start();
    for code in [0, 1, 2, 77, 126, 127, 128, 143, 255] {
        let unit = format!("code{code}");
        uphold.until(&unit, if code == 0 { "completed" } else { "failed" });
        let last = uphold.view(&unit)["last_exit"].clone();
        assert_eq!((last["code"].as_i64(), last["signal"].as_str()), (Some(code), None), "{unit}");
    }
    for signal in signals {
        let unit = format!("sig{signal}");
        uphold.until(&unit, "failed");
        let last = uphold.view(&unit)["last_exit"].clone();
        let name = format!("SIG{signal}");
        assert_eq!((last["code"].as_i64(), last["signal"].as_str()), (None, Some(name.as_str())), "{unit}");
    }
}

#[test]
fn a_crash_loop_is_explained_by_status_and_start() {
    let uphold = Uphold::with_unit(
        "web",
        "command = [\"sh\", \"-c\", \"echo cannot bind >&2; exit 3\"]\nautostart = false\n[restart]\ndelay = \"10m\"",
    );
    let (code, _, err) = uphold.ctl(&["start", "web"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("exit 3") && err.contains("cannot bind"), "{err}");
    let view = uphold.until("web", "backoff").view("web");
    assert_eq!(view["reason"], "CrashLoopBackOff");
    assert!(view["message"].as_str().unwrap().ends_with(": cannot bind"), "{view:#}");
    let (code, out, _) = uphold.ctl(&["status"]);
    assert_eq!(code, 3);
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn a_limit_ends_in_failed_and_an_operator_starts_afresh() {
    let uphold = Uphold::with_unit("web", "command = [\"false\"]\n[restart]\ndelay = \"1ms\"\nlimit = 2");
    let view = uphold.until("web", "failed").view("web");
    assert_eq!((&view["reason"], &view["restarts"]), (&"RestartLimit".into(), &2.into()));
    assert_eq!(uphold.ctl(&["start", "web"]).0, 1);
    uphold.until_view("web", "four restarts", |view| view["state"] == "failed" && view["restarts"] == 4);
}

#[test]
fn twenty_concurrent_restarts_leave_one_process() {
    let uphold = Uphold::with_unit("web", "command = [\"sleep\", \"611\"]");
    uphold.until("web", "running");
    let asks: Vec<_> = (0..20).map(|_| uphold.ctl_command(&["restart", "web"]).spawn().unwrap()).collect();
    for mut ask in asks {
        ask.wait().unwrap();
    }
    uphold.until("web", "running");
    let children = children_of(uphold.pid());
    assert_eq!(children, [uphold.main_pid("web")], "more than one process");
    assert_eq!(uphold.view("web")["restarts"], 0);
}

#[test]
fn a_dependency_that_fails_for_good_is_why_its_dependent_waits() {
    let uphold = Uphold::new()
        .unit("db", "command = [\"false\"]\n[restart]\npolicy = \"never\"")
        .unit("web", "command = [\"sleep\", \"600\"]\nrequires = [\"db\"]\n")
        .start();
    uphold.until("db", "failed").until_view("web", "its reason", |view| view["reason"] == "DependencyFailed");
    let view = uphold.view("web");
    assert_eq!(view["state"], "waiting");
    assert!(view["message"].as_str().unwrap().contains("waits for db"), "{view:#}");
    let (code, _, err) = uphold.ctl(&["start", "web"]);
    assert_eq!(code, 1);
    assert!(err.contains("db"), "{err}");
}

#[test]
fn a_oneshot_runs_before_what_requires_it() {
    let uphold = Uphold::new();
    let file = uphold.path("made").display().to_string();
    let uphold = uphold
        .unit("init", &format!("type = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"echo x > {file}\"]"))
        .unit(
            "web",
            &format!("command = [\"sh\", \"-c\", \"cat {file} && exec sleep 600\"]\nrequires = [\"init\"]"),
        )
        .start();
    uphold.until("web", "running").until("init", "completed");
    uphold.eventually("the file is there", |uphold| uphold.log("web") == ["x"]);
}

#[test]
fn three_hundred_orphans_that_die_at_once_are_reaped() {
    let uphold = Uphold::with_unit(
        "web",
        "command = [\"sh\", \"-c\", \"for i in $(seq 300); do (sleep 600 &) ; done; echo all; exec sleep 600\"]",
    );
    uphold.until("web", "running").eventually("all run", |uphold| uphold.log("web") == ["all"]);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    uphold.eventually("no zombie is left", |uphold| {
        let zombies = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            rest.split(' ').nth(1) == Some(uphold.pid().to_string().as_str())
        });
        zombies.count() == 0
    });
}
