//! `uphold check`, and a main unit that cannot be one.

use std::fs;
use std::process::Command;

use crate::dsl::*;

/// `uphold check`, from the daemon's directory: exit code, stdout, stderr.
fn check(uphold: &Uphold, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    let output = command.arg("check").args(arguments).current_dir(uphold.dir.path()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_file_that_is_checked_by_itself_finds_what_it_requires_and_has_its_drop_ins() {
    let uphold = Uphold::new().unit("db", "command = [\"true\"]\nup_after = 1\ntype = \"oneshot\"");
    let alone = "command = [\"true\"]\nrequires = [\"db\"]\n";
    fs::write(uphold.path("web.toml"), alone).unwrap();
    let (code, out, err) = check(&uphold, &["./web.toml"]);
    assert_eq!((code, out.as_str()), (Some(1), "1 error, 0 warnings\n"), "{err}");
    assert!(err.contains("web.toml:2:13") && err.contains("no unit has that name"), "{err}");
    for file in ["./web.toml", "web.toml"] {
        let (code, out, err) = check(&uphold, &["--units", "units", file]);
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "1 unit, 0 errors, 0 warnings\n", ""));
    }
    fs::create_dir(uphold.path("web.toml.d")).unwrap();
    fs::write(uphold.path("web.toml.d/a.toml"), "umask = 7\n").unwrap();
    let (code, _, err) = check(&uphold, &["--units", "units", "web.toml"]);
    assert!(code == Some(1) && err.contains("error: web.toml.d/a.toml:1:9"), "{err}");
    let (code, _, err) = check(&uphold, &["--units", "nowhere", "web.toml"]);
    assert!(code == Some(1) && err.contains("nowhere: cannot read the directory"), "{err}");
}

#[test]
fn a_user_that_this_machine_does_not_know_is_a_warning_with_its_place() {
    let uphold = Uphold::new()
        .unit("web", "command = [\"true\"]\nuser = \"wwww-data\"\n")
        .unit("db", "command = [\"true\"]\nuser = 4711\ngroup = \"no-such-group\"\n")
        .unit("ok", "command = [\"true\"]\nuser = \"root\"\ngroup = \"root\"\n");
    let (code, out, err) = check(&uphold, &["--units", "units"]);
    assert_eq!((code, out.as_str()), (Some(0), "3 units, 0 errors, 2 warnings\n"), "{err}");
    assert!(err.contains("warning: units/web.toml:2:1: /etc/passwd has no user `wwww-data`"), "{err}");
    assert!(err.contains("warning: units/db.toml:3:1: /etc/group has no group `no-such-group`"), "{err}");
}

#[test]
fn a_main_unit_that_cannot_be_one_is_said_where_it_was_named() {
    for (unit, why) in [("nope", "no unit has that name"), ("infra", "it is a group")] {
        let uphold = Uphold::new()
            .unit("web", "command = [\"sleep\", \"600\"]")
            .unit("infra", "type = \"group\"\nrequires = [\"web\"]")
            .mode(&["run", "--main", unit]);
        let output = uphold.run();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.starts_with(&format!("error: cannot run with --main {unit}: {why}")), "{text}");
        let config = uphold.path("uphold.toml");
        fs::write(&config, format!("\nmain = \"{unit}\"\n")).unwrap();
        let output = uphold.mode(&["run", "--config", &config.display().to_string()]).run();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("uphold.toml:2:8: `") && text.contains(why), "{text}");
    }
}

#[test]
fn a_masked_main_unit_is_warned_of_and_the_rest_runs() {
    let uphold = Uphold::new().unit("web", "command = [\"sleep\", \"600\"]").mode(&["run", "--main", "db"]);
    std::os::unix::fs::symlink("/dev/null", uphold.path("units/db.toml")).unwrap();
    let uphold = uphold.start();
    uphold.until("web", "running");
    uphold.until_said("cannot run with --main db: it is masked");
}

#[test]
fn all_that_is_wrong_is_said_at_once_whatever_else_is() {
    let uphold = Uphold::new()
        .unit("web", "command = [\"true\"]\nnonsense = 1\nrequires = [\"nobody\"]\n")
        .unit("app", "command = [\"true\"]\nrequires = [\"web\"]\n[liveness]\nperiod = 3\n");
    let (code, out, err) = check(&uphold, &["--units", "units"]);
    assert_eq!((code, out.as_str()), (Some(1), "3 errors, 0 warnings\n"), "{err}");
    for said in ["`nonsense`", "requires `nobody`, and no unit has that name", "must specify a handler"] {
        assert!(err.contains(said), "{said}: {err}");
    }
    // Nothing that the config would say is missed in a unit where it cannot be read.
    let config = uphold.path("uphold.toml");
    fs::write(&config, "[log]\nlevel = \"loud\"\n[defaults.liveness]\ntcp.port = 80\n").unwrap();
    let output = uphold.mode(&["run", "--config", &config.display().to_string()]).run();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{err}");
    for said in ["uphold.toml:2:9: `log.level`", "`nonsense`", "requires `nobody`"] {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(!err.contains("handler"), "{err}");
}

#[test]
fn where_no_unit_is_right_it_is_not_said_that_there_is_none() {
    let uphold = Uphold::new().unit("web", "nonsense = 1\n").mode(&["run", "--lenient"]).start();
    uphold.until_said("no unit is left: none that there is can be loaded");
    assert!(!uphold.stderr().contains("there are no units"), "{}", uphold.stderr());
}
