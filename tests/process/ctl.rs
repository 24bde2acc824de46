//! What the client shows.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::dsl::*;

const SLEEP: &str = "command = [\"sleep\", \"600\"]\n";

#[test]
fn followed_events_and_a_watched_status_show_what_comes() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let events = Lines::of(uphold.ctl_command(&["events", "web", "-f"]));
    let status = Lines::of(uphold.ctl_command(&["status", "-w"]));
    let json = Lines::of(uphold.ctl_command(&["-o", "json", "events", "-f"]));
    events.until("Started");
    status.until("Running");
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    events.until("Stopping process web");
    status.until("Inactive");
    let line = json.until("Stopping process web");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["unit"], &event["type"]), (&"web".into(), &"Normal".into()));
}

#[test]
fn what_is_followed_ends_well_with_an_orderly_shutdown_and_badly_with_a_kill() {
    const TALK: &str =
        "command = [\"sh\", \"-c\", \"trap 'echo bye; exit' TERM; echo hello; while :; do sleep 0.1; done\"]";
    let followers: [&[&str]; 3] = [&["events", "-f"], &["logs", "web", "-f"], &["status", "-w"]];
    for (signal, code) in [(Signal::SIGTERM, 0), (Signal::SIGKILL, 5)] {
        let mut uphold = Uphold::with_unit("web", TALK);
        uphold.eventually("it talks", |uphold| uphold.log("web") == ["hello"]);
        let main = uphold.main_pid("web");
        let started = ["Started", "hello", "web"];
        let mut lines: Vec<Lines> =
            followers.iter().map(|words| Lines::of(uphold.ctl_command(words))).collect();
        lines.iter().zip(started).for_each(|(lines, text)| drop(lines.until(text)));
        // Nothing was asked for on this one: it keeps nobody.
        let idle = std::os::unix::net::UnixStream::connect(uphold.socket()).unwrap();
        uphold.signal(signal);
        uphold.exit();
        drop(idle);
        if signal == Signal::SIGTERM {
            lines[0].until("Stopped process web");
            lines[1].until("bye");
        } else {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(main), Signal::SIGKILL).unwrap();
        }
        let codes: Vec<_> = lines.iter_mut().map(Lines::exit).collect();
        assert_eq!(codes, [Some(code); 3], "{signal}");
    }
}

#[test]
fn waiting_for_ready_ends_when_it_is_and_health_says_what_is_not() {
    let uphold = Uphold::new();
    let ready = uphold.path("ready");
    let uphold = uphold
        .unit(
            "web",
            &format!(
                "{SLEEP}[readiness]\nexec = {{ command = [\"test\", \"-e\", \"{}\"] }}\nperiod = \"50ms\"\nfailure_threshold = 1",
                ready.display()
            ),
        )
        .unit("side", SLEEP)
        .start();
    uphold.until("web", "starting").until("side", "running");
    let (code, out, _) = uphold.ctl(&["health"]);
    assert_eq!(code, 1);
    assert!(out.contains("web: ") && !out.contains("side"), "{out}");
    assert_eq!(uphold.ctl(&["health", "side"]), (0, "ok\n".into(), String::new()));
    let mut wait =
        uphold.ctl_command(&["wait", "web", "--for", "ready", "--timeout", "30s"]).spawn().unwrap();
    std::fs::write(&ready, "").unwrap();
    assert_eq!(wait.wait().unwrap().code(), Some(0));
    assert_eq!(uphold.view("web")["ready"], true);
    assert_eq!(uphold.ctl(&["health"]).0, 0);
    // What is stopped will not become ready.
    assert_eq!(uphold.ctl(&["stop", "side"]).0, 0);
    assert_eq!(uphold.ctl(&["wait", "side", "--for", "ready"]).0, 1);
}

#[test]
fn json_is_what_the_api_says() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let (code, out, _) = uphold.ctl(&["-o", "json", "status"]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &value["units"][0]["name"]), (0, &"web".into()));
    let unit = value["units"][0].as_object().unwrap();
    for key in [
        "name",
        "unit",
        "instance",
        "description",
        "type",
        "state",
        "wanted",
        "ready",
        "pid",
        "since",
        "started_at",
        "uptime_seconds",
        "restarts",
        "next_start_at",
        "reason",
        "message",
        "last_exit",
        "exits",
        "probes",
        "changed_on_disk",
        "restart_needed",
        "memory_bytes",
        "cpu_seconds",
        "tasks",
    ] {
        assert!(unit.contains_key(key), "no `{key}` in {out}");
    }
    let (_, out, _) = uphold.ctl(&["health", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["healthy"], true);
}

#[test]
fn logs_of_the_run_before_and_of_the_last_seconds() {
    let uphold = Uphold::new();
    let count = uphold.path("count").display().to_string();
    let uphold = uphold
        .unit("web", &format!("command = [\"sh\", \"-c\", \"echo x >> {count}; echo run $(wc -l < {count}); exec sleep 600\"]"))
        .start();
    uphold.eventually("the first run", |uphold| uphold.log("web") == ["run 1"]);
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    uphold.eventually("the second run", |uphold| uphold.log("web") == ["run 1", "run 2"]);
    assert_eq!(uphold.ctl(&["logs", "web", "-p"]), (0, "run 1\n".into(), String::new()));
    assert_eq!(uphold.ctl(&["logs", "web", "--since", "10m"]).1, "run 1\nrun 2\n");
    uphold.eventually("they are old", |uphold| uphold.ctl(&["logs", "web", "--since", "1s"]).1.is_empty());
}

#[test]
fn a_restart_names_what_it_restarts_too_and_globs_name_many() {
    let uphold = Uphold::new()
        .unit("db", SLEEP)
        .unit("web-a", &format!("{SLEEP}requires = [\"db\"]"))
        .unit("web-b", SLEEP)
        .start();
    uphold.until("web-a", "running").until("web-b", "running");
    let (code, out, err) = uphold.ctl(&["restart", "db"]);
    assert_eq!(code, 0, "{out}{err}");
    let before = out.find("db: first stops web-a, which requires it\n");
    assert!(before.is_some() && before < out.find("; also restarted: web-a"), "{out}");
    assert!(out.contains("also restarted: web-a") && !out.contains("web-b"), "{out}");
    uphold.until("web-a", "running");
    let (code, out, _) = uphold.ctl(&["stop", "web-*"]);
    assert_eq!(code, 0);
    assert!(out.contains("web-a: ") && out.contains("web-b: ") && !out.contains("db: "), "{out}");
    assert_eq!((uphold.state("web-a"), uphold.state("web-b")), ("inactive".into(), "inactive".into()));
    assert_eq!(uphold.state("db"), "running");
    assert_eq!(uphold.ctl(&["start", "all"]).0, 0);
    assert_eq!(uphold.ctl(&["status", "nothing-*"]).0, 4);
}
