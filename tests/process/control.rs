use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use serde_json::Value;

use crate::dsl::*;

const SLEEP: &str = "command = [\"sleep\", \"600\"]\n";

#[test]
fn a_client_that_says_nothing_and_one_that_talks_rubbish_disturb_nobody() {
    let uphold = Uphold::with_unit("web", SLEEP);
    let silent: Vec<_> = (0..50).map(|_| UnixStream::connect(uphold.socket()).unwrap()).collect();
    let mut rubbish = UnixStream::connect(uphold.socket()).unwrap();
    rubbish.write_all(&[0xff; 300]).unwrap();
    let mut answer = Vec::new();
    let _ = rubbish.read_to_end(&mut answer);
    uphold.until("web", "running");
    let body = "x".repeat(100_000);
    let mut large = UnixStream::connect(uphold.socket()).unwrap();
    let head =
        format!("POST /v1/shutdown HTTP/1.1\r\nHost: u\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = large.write_all(head.as_bytes());
    let mut answer = String::new();
    let _ = large.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(uphold.state("web"), "running");
    drop(silent);
}

#[test]
fn another_uid_is_refused_with_what_would_do() {
    if !is_root() {
        return skip("only root can be another uid");
    }
    let uphold = Uphold::with_unit("web", SLEEP);
    let dir = uphold.dir.path().to_owned();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // The binary may stand where another user cannot go.
    let copy = dir.join("uphold");
    copy_binary(&copy);
    let mut command = std::process::Command::new(&copy);
    command.args(["ctl", "--socket"]).arg(uphold.socket()).args(["stop", "web"]).uid(12345).gid(12345);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("12345") && text.contains("admin_groups"), "{text}");
    assert_eq!(uphold.state("web"), "running");
}

#[test]
fn the_exit_codes_of_ctl_say_what_was_wrong() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    assert_eq!(uphold.ctl(&["status"]).0, 0);
    assert_eq!(uphold.ctl(&["status", "wbe"]).0, 4);
    assert_eq!(uphold.ctl(&["start", "web"]).0, 0);
    assert_eq!(uphold.ctl(&["nonsense"]).0, 2);
    assert_eq!(uphold.ctl(&["wait", "web", "--for", "stopped", "--timeout", "50ms"]).0, 124);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    assert_eq!(uphold.ctl(&["status", "web"]).0, 3);
    assert_eq!(uphold.ctl(&["signal", "USR1", "web"]).0, 1);
    let gone =
        std::process::Command::new(binary()).args(["ctl", "--socket", "/nonexistent/s", "status"]).output();
    assert_eq!(gone.unwrap().status.code(), Some(5));
}

#[test]
fn a_reload_with_one_bad_file_changes_nothing_and_says_why() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let pid = uphold.main_pid("web");
    uphold.write_unit("new", SLEEP);
    uphold.write_unit("bad", "comand = \"x\"\n");
    let (code, _, err) = uphold.ctl(&["daemon-reload"]);
    assert_eq!(code, 1);
    assert!(err.contains("bad.toml:1:1") && err.contains("comand"), "{err}");
    assert_eq!(uphold.ctl(&["status", "new"]).0, 4);
    std::fs::remove_file(uphold.path("units/bad.toml")).unwrap();
    let (code, out, _) = uphold.ctl(&["daemon-reload", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(out.contains("new"), "{out}");
    assert_eq!(uphold.ctl(&["status", "new"]).0, 4);
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    uphold.until("new", "running");
    assert_eq!(uphold.main_pid("web"), pid);
}

#[test]
fn an_update_restarts_what_changed_and_only_that() {
    let uphold = Uphold::new().unit("web", SLEEP).unit("same", SLEEP).unit("old", SLEEP).start();
    for unit in ["web", "same", "old"] {
        uphold.until(unit, "running");
    }
    let (web, same, old) = (uphold.main_pid("web"), uphold.main_pid("same"), uphold.main_pid("old"));
    uphold.write_unit("web", "command = [\"sleep\", \"601\"]\n");
    std::fs::remove_file(uphold.path("units/old.toml")).unwrap();
    uphold.until_view("web", "changed_on_disk", |view| view["changed_on_disk"] == true);
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    assert!(uphold.view("web")["restart_needed"] == true && uphold.view("old")["removed"] == true);
    assert!(is_alive(old) && uphold.main_pid("web") == web);
    assert_eq!(uphold.ctl(&["update"]).0, 0);
    uphold.until_view("web", "a new process", |view| {
        view["state"] == "running" && view["pid"].as_i64() != Some(web.into())
    });
    uphold.eventually("old is gone", |uphold| uphold.ctl(&["status", "old"]).0 == 4);
    assert_eq!(uphold.main_pid("same"), same);
    assert!(!is_alive(old));
}

#[test]
fn cat_names_where_each_value_came_from() {
    let uphold = Uphold::new().unit("web", SLEEP);
    std::fs::create_dir(uphold.path("units/web.toml.d")).unwrap();
    std::fs::write(uphold.path("units/web.toml.d/10-more.toml"), "description = \"more\"\n").unwrap();
    let uphold = uphold.start();
    let (code, out, _) = uphold.ctl(&["cat", "web"]);
    assert_eq!(code, 0);
    assert!(out.contains("web.toml:1") && out.contains("10-more.toml:1"), "{out}");
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused_and_names_the_first() {
    let uphold = Uphold::with_unit("web", SLEEP);
    let output = uphold.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&uphold.pid().to_string()), "{text}");
    uphold.until("web", "running");
}

#[test]
fn describe_prints_what_kubectl_would() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let (code, out, _) = uphold.ctl(&["describe", "web"]);
    assert_eq!(code, 0);
    for line in ["Name:       web", "Status:     Running", "  Restart Count:  0", "  Ready    True"] {
        assert!(out.lines().any(|have| have == line), "`{line}` is not in:\n{out}");
    }
    assert!(out.contains("Normal  Started  "), "{out}");
}

#[test]
fn every_answer_is_json_and_every_error_a_problem() {
    let uphold = Uphold::with_unit("web", SLEEP);
    let (status, body) = uphold.http("GET /v1/units").unwrap();
    let value: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &value["units"][0]["name"]), (200, &"web".into()));
    for (request, status, kind) in [
        ("GET /v1/units/none", 404, "no-such-unit"),
        ("GET /nowhere", 404, "no-such-route"),
        ("POST /v1/units/web/reload", 409, "not-supported"),
        ("GET /v1/units/web/logs?lines=x", 400, "bad-request"),
    ] {
        let (got, body) = uphold.http(request).unwrap();
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((got, &problem["type"]), (status, &kind.into()), "{request}: {body}");
        assert_eq!(problem["status"], status);
    }
}
