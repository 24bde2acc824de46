//! What those see who may look, and not at units' configuration: arguments and environment files hold secrets.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::dsl::*;

/// Stands in every command, probe and environment file.
const SECRET: &str = "hunter2";

#[test]
fn nothing_that_a_reader_gets_has_an_argument_or_an_environment_file_in_it() {
    if !is_root() {
        return skip("only root can be another uid");
    }
    let uphold = Uphold::new();
    let config = uphold.path("uphold.toml").display().to_string();
    std::fs::write(&config, "[control]\nread_groups = [\"45673\"]\n").unwrap();
    std::fs::write(uphold.path("line.env"), format!("A=1\n{SECRET} and more\n")).unwrap();
    std::fs::write(uphold.path("name.env"), format!("{SECRET}/+=\n")).unwrap();
    let program = uphold.reachable_binary();
    let sleep = format!("command = [\"sh\", \"-c\", \"exec sleep 600 # {SECRET}\"]\n");
    let fast = "period = \"100ms\"\ntimeout = \"100ms\"\nfailure_threshold = 1\n";
    let late = format!("exec = {{ command = [\"sh\", \"-c\", \"exec sleep 600 # {SECRET}\"] }}\n{fast}");
    let missing = format!("exec = {{ command = [\"/nonexistent/check\", \"{SECRET}\"] }}\n{fast}");
    let environment =
        |file: &str| format!("{sleep}environment_files = [\"{}\"]", uphold.path(file).display());
    let units = [
        ("late", format!("{sleep}[readiness]\n{late}")),
        ("killed", format!("{sleep}[restart]\npolicy = \"never\"\n[liveness]\n{late}")),
        ("missing", format!("{sleep}[restart]\ndelay = \"1m\"\n[startup]\n{missing}")),
        ("bad", format!("command = [\"/nonexistent/program\", \"{SECRET}\"]\n")),
        ("line", environment("line.env")),
        ("name", environment("name.env")),
        ("waits", format!("requires = [\"late\"]\n{sleep}")),
    ];
    let command = format!("exec sleep 600 # {SECRET}");
    let mut uphold = uphold.mode(&["init", "--config", &config, "--", "sh", "-c", &command]);
    for (name, text) in &units {
        uphold = uphold.unit(name, text);
    }
    let uphold = uphold.start();
    let reader = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["ctl", "--socket"]).arg(uphold.socket()).args(words).uid(45_673).gid(45_673);
        command
    };
    let follow = Lines::of(reader(&["events", "-f"]));
    uphold.until_event(
        "late",
        "Unhealthy Readiness probe failed: command timed out: \"sh ...\" timed out after 100ms",
    );
    uphold.until_event("missing", "Unhealthy Startup probe failed: cannot run \"/nonexistent/check ...\": ");
    uphold.until("killed", "failed").until("missing", "backoff");
    for unit in ["bad", "line", "name"] {
        uphold.until_event(unit, "SpawnFailed");
    }
    let mut got = vec![follow.until("Readiness probe failed"), follow.until("Readiness probe failed")];
    for words in [
        &["-o", "json", "status"][..],
        &["status"],
        &["describe", "late", "killed", "missing", "bad", "line", "name", "waits", "command"],
        &["events"],
        &["health"],
        &["health", "late"],
        &["wait", "late", "--for", "ready", "--timeout", "100ms"],
        &["wait", "killed", "--for", "up"],
        &["wait", "waits", "--for", "up", "--timeout", "100ms"],
    ] {
        let output = reader(words).output().unwrap();
        got.extend([output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()));
    }
    for (unit, _) in &units {
        let output = reader(&["-o", "json", "describe", unit]).output().unwrap();
        got.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    for text in &got {
        assert!(!text.contains(SECRET), "{text}");
    }
    let all = got.concat();
    for part in
        ["timed out after 100ms", "/nonexistent/check", "/nonexistent/program", "line.env:2", "name.env:1"]
    {
        assert!(all.contains(part), "`{part}` is not in:\n{all}");
    }
    assert!(uphold.ctl(&["describe", "late"]).1.contains(SECRET), "who may see it does");
}
