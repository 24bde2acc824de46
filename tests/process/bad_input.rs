use std::os::unix::fs::PermissionsExt;

use crate::dsl::*;

#[test]
fn a_first_start_with_a_bad_file_starts_nothing_and_ends_with_78() {
    let uphold = Uphold::new();
    let mark = uphold.path("started").display().to_string();
    let uphold = uphold
        .unit("good", &format!("command = [\"touch\", \"{mark}\"]"))
        .unit("bad", "command = [\"true\"]\n[stop]\ntimeout = \"soon\"\n");
    let output = uphold.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("bad.toml:3:"), "{text}");
    assert!(!uphold.path("started").exists());
}

#[test]
fn a_unit_with_the_name_of_the_command_of_init_is_refused_not_forgotten() {
    let uphold = Uphold::new().unit("command", "command = [\"true\"]").mode(&["init", "--", "true"]);
    let output = uphold.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("command.toml") && text.contains("rename the file"), "{text}");
}

#[test]
fn lenient_starts_the_rest() {
    let uphold = Uphold::new()
        .unit("good", "command = [\"sleep\", \"600\"]")
        .unit("bad", "nonsense")
        .unit("needs", "command = [\"sleep\", \"600\"]\nrequires = [\"bad\"]")
        .mode(&["run", "--lenient"])
        .start();
    uphold.until("good", "running");
    assert_eq!(uphold.ctl(&["status", "bad"]).0, 4);
    uphold.until_said("bad.toml:1:");
}

fn check(uphold: &Uphold) -> (i32, String) {
    let output =
        std::process::Command::new(binary()).arg("check").arg("--units").arg(uphold.path("units")).output();
    let output = output.unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn check_prints_all_problems_of_all_files() {
    let uphold = Uphold::new()
        .unit("a", "comand = [\"x\"]\nliveness = 3\n")
        .unit("b", "command = [\"x\"]\nExecStart = \"y\"\n[restart]\ndelay = \"-1s\"\n")
        .unit("c", "command = [\"x\"]\nrequires = [\"d\"]\n")
        .unit("d", "command = [\"x\"]\nafter = [\"c\"]\n");
    let (code, text) = check(&uphold);
    assert_eq!(code, 1);
    for part in ["a.toml:1:1", "a.toml:2:", "b.toml:2:1", "b.toml:4:", "`command`", "wait for one another"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn what_comes_later_is_refused_by_name() {
    for (key, text) in [
        ("type", "type = \"notify\""),
        ("instances", "instances = 2"),
        ("restart_with", "restart_with = [\"a\"]"),
        ("reload", "[reload]\nsignal = \"SIGHUP\""),
        ("hooks", "[hooks]\npre_start = [\"x\"]"),
        ("cgroup", "[cgroup]\nmemory_max = \"1G\""),
        ("process", "[process]\nnice = 1"),
        ("sandbox", "[sandbox]\nprivate_tmp = true"),
        ("listen", "[[listen]]\nstream = \"80\""),
        ("grpc", "[liveness]\ngrpc = { port = 1 }"),
        ("watchdog", "watchdog = \"1s\""),
        ("when", "when = \"x\""),
    ] {
        let uphold = Uphold::new().unit("web", &format!("command = [\"x\"]\n{text}\n"));
        let (code, text) = check(&uphold);
        assert_eq!(code, 1, "{key} was taken");
        assert!(
            text.contains("not supported yet") && text.contains(key) && text.contains("web.toml:"),
            "{text}"
        );
    }
}

#[test]
fn a_file_that_others_can_write_is_refused_with_the_reason() {
    let uphold = Uphold::new().unit("web", "command = [\"true\"]");
    std::fs::set_permissions(uphold.path("units/web.toml"), PermissionsExt::from_mode(0o666)).unwrap();
    let (code, text) = check(&uphold);
    assert_eq!(code, 1);
    assert!(text.contains("web.toml") && text.contains("writ"), "{text}");
}

#[test]
fn the_shipped_examples_are_right() {
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/uphold/units");
    let output = std::process::Command::new(binary()).args(["check", "--units", units]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
