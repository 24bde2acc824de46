//! What is said to whom, where something cannot be done: each was once unclear or said twice.

use crate::dsl::*;

fn stderr_of(uphold: &Uphold) -> (Option<i32>, String) {
    let output = uphold.run();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_runtime_directory_that_is_taken_is_named_once_with_the_pid_that_holds_it() {
    let uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]");
    let (code, text) = stderr_of(&uphold);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("uphold with pid {} holds it", uphold.pid())), "{text}");
    assert_eq!(text.matches("cannot use").count(), 1, "{text}");
    assert!(
        text.contains("`uphold ctl upgrade` replaces it") && text.contains("stops its services"),
        "{text}"
    );
}

#[test]
fn a_socket_path_that_is_too_long_says_how_long_it_may_be() {
    let uphold = Uphold::new();
    let dir = uphold.path(&"n".repeat(120)).display().to_string();
    let output = std::process::Command::new(binary())
        .args(["run", "--runtime-dir", &dir, "--units"])
        .arg(uphold.path("units"))
        .arg("--log-dir")
        .arg(uphold.path("log"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("a socket may have 107") && text.contains("--runtime-dir"), "{text}");
}

#[test]
fn a_daemon_without_units_says_where_it_looked() {
    let uphold = Uphold::new().start();
    let units = uphold.path("units").display().to_string();
    uphold.until_said(&format!("there are no units in {units}"));
}

#[test]
fn a_silent_probe_that_fails_is_not_said_to_succeed() {
    let uphold = Uphold::with_unit(
        "web",
        "command = [\"sleep\", \"600\"]\n[readiness]\nexec = { command = [\"false\"] }\nperiod = \"100ms\"\n",
    );
    uphold.until_view("web", "a failed probe", |view| {
        view["message"].as_str().is_some_and(|text| text.contains("no output"))
    });
    let (_, out, _) = uphold.ctl(&["status"]);
    assert!(!out.contains("successes"), "{out}");
}

#[test]
fn a_wait_that_is_over_says_what_did_not_come() {
    let uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]");
    uphold.until("web", "running");
    let (code, _, text) = uphold.ctl(&["wait", "web", "--for", "stopped", "--timeout", "100ms"]);
    assert_eq!((code, text.trim()), (124, "web: not stopped in time: running"));
}

#[test]
fn a_start_that_cannot_be_names_its_unit_once_and_status_says_what_is_missing() {
    let uphold = Uphold::new().unit("web", "command = [\"/nonexistent/server\"]\nautostart = false").start();
    let (code, _, text) = uphold.ctl(&["start", "web"]);
    assert_eq!((code, text.trim()), (1, "web: /nonexistent/server: no such file or directory"));
    let (_, out, _) = uphold.ctl(&["status", "web"]);
    assert!(out.contains("  /nonexistent/server: no such"), "{out}");
}

#[test]
fn a_refused_reload_ends_with_what_came_of_it() {
    let uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]");
    uphold.write_unit("web", "comand = 3");
    let (code, _, text) = uphold.ctl(&["daemon-reload"]);
    assert_eq!(code, 1);
    assert!(text.ends_with("nothing was changed: the files have errors\n"), "{text}");
}

#[test]
fn logs_of_a_unit_that_never_ran_are_not_just_silence() {
    let uphold = Uphold::new().unit("web", "command = [\"true\"]\nautostart = false").start();
    let (code, out, text) = uphold.ctl(&["logs", "web"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(text.contains("ctl describe web"), "{text}");
}

#[test]
fn check_of_a_directory_says_how_to_check_it() {
    let uphold = Uphold::new().unit("web", "command = [\"x\"]\ncommand = [\"y\"]\n");
    let output =
        std::process::Command::new(binary()).arg("check").arg(uphold.path("units")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("uphold check --units"), "{text}");
    let output = std::process::Command::new(binary())
        .arg("check")
        .arg(uphold.path("units/web.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("keep one") && !text.contains("this is TOML"), "{text}");
}

#[test]
fn check_without_units_says_where_it_looked() {
    let uphold = Uphold::new();
    let units = uphold.path("units");
    let output =
        std::process::Command::new(binary()).arg("check").arg("--units").arg(&units).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains(&format!("there are no units in {}", units.display())), "{text}");
}

#[test]
fn a_user_without_home_is_told_so() {
    if !is_root() {
        return skip("only root can be another user");
    }
    use std::os::unix::process::CommandExt;
    let dir = tempfile::Builder::new().prefix("uphold").tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65533), Some(65533)).unwrap();
    // Where uid 65533 can reach it.
    let copy = dir.path().join("uphold");
    copy_binary(&copy);
    let output =
        std::process::Command::new(&copy).arg("check").env_clear().uid(65533).gid(65533).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("neither HOME nor XDG_CONFIG_HOME is set"), "{text}");
}
