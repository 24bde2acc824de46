//! Where units come from: directories, drop-ins, masks, defaults, and who may have written them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::dsl::*;

/// A daemon with a directory `low` before its own, and these units in it.
fn with_low(units: &[(&str, &str)]) -> Uphold {
    let uphold = Uphold::new();
    let low = uphold.path("low");
    fs::create_dir(&low).unwrap();
    for (name, text) in units {
        fs::write(low.join(format!("{name}.toml")), text).unwrap();
    }
    let low = low.display().to_string();
    uphold.mode(&["run", "--units", &low])
}

#[test]
fn of_two_directories_the_later_wins_whole_file_and_drop_ins_of_both_are_merged() {
    let uphold = with_low(&[
        ("web", "command = [\"false\"]\ndescription = \"low\"\nworking_dir = \"/usr\""),
        ("only", "command = [\"sleep\", \"600\"]\ndescription = \"low\""),
    ]);
    let uphold = uphold.unit("web", "command = [\"sh\", \"-c\", \"pwd; echo $A $B; exec sleep 600\"]");
    for (dir, file, text) in [
        ("low", "20-b.toml", "[environment]\nB = \"20\"\n"),
        ("units", "10-a.toml", "[environment]\nA = \"10\"\nB = \"10\"\n"),
    ] {
        fs::create_dir(uphold.path(&format!("{dir}/web.toml.d"))).unwrap();
        fs::write(uphold.path(&format!("{dir}/web.toml.d/{file}")), text).unwrap();
    }
    let uphold = uphold.start();
    uphold.until("web", "running").until("only", "running");
    uphold.eventually("both lines", |uphold| uphold.log("web").len() == 2);
    assert_eq!(uphold.log("web"), ["/", "10 20"]);
    assert_eq!(uphold.view("web")["description"], "");
    assert_eq!(uphold.view("only")["description"], "low");
}

#[test]
fn a_symlink_to_dev_null_masks_the_unit_of_that_name() {
    let uphold =
        with_low(&[("web", "command = [\"sleep\", \"600\"]")]).unit("on", "command = [\"sleep\", \"600\"]");
    symlink("/dev/null", uphold.path("units/web.toml")).unwrap();
    let uphold = uphold.start();
    uphold.until("on", "running");
    let view = uphold.view("web");
    assert_eq!(
        (view["state"].as_str(), view["reason"].as_str()),
        (Some("inactive"), Some("Masked")),
        "{view:#}"
    );
    let (code, _, err) = uphold.ctl(&["start", "web"]);
    assert_eq!(code, 1);
    assert!(err.contains("masked") && err.contains("/dev/null"), "{err}");
}

#[test]
fn defaults_of_the_config_lie_under_every_unit() {
    let uphold = Uphold::new();
    let config = uphold.path("uphold.toml");
    fs::write(
        &config,
        "[defaults]\nworking_dir = \"/usr\"\n[defaults.environment]\nA = \"config\"\nB = \"config\"\n",
    )
    .unwrap();
    let config = config.display().to_string();
    let uphold = uphold
        .unit(
            "web",
            "command = [\"sh\", \"-c\", \"pwd; echo $A $B; exec sleep 600\"]\nenvironment = { B = \"unit\" }",
        )
        .mode(&["run", "--config", &config])
        .start();
    uphold.eventually("both lines", |uphold| uphold.log("web").len() == 2);
    assert_eq!(uphold.log("web"), ["/usr", "config unit"]);
    let (_, out, _) = uphold.ctl(&["cat", "web"]);
    assert!(out.contains("uphold.toml:2"), "{out}");
}

#[test]
fn an_environment_file_that_others_can_write_is_refused_with_the_reason() {
    let uphold = Uphold::new();
    let file = uphold.path("env");
    fs::write(&file, "A=1\n").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    let text = format!(
        "command = [\"sh\", \"-c\", \"echo $A; exec sleep 600\"]\nenvironment_files = [\"{}\"]\n[restart]\ndelay = \"50ms\"\nmax_delay = \"50ms\"",
        file.display()
    );
    let uphold = uphold.unit("web", &text).start();
    uphold.until_event("web", "SpawnFailed");
    let view = uphold.until("web", "backoff").view("web");
    let message = view["message"].as_str().unwrap();
    assert!(message.contains("env") && message.contains("can be written by everybody"), "{message}");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    uphold.until("web", "running").eventually("its line", |uphold| uphold.log("web") == ["1"]);
}
