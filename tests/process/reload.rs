//! What uphold.toml says of uphold itself comes into effect at a reload, as what it says of units does.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::sys::signal::Signal;

use crate::dsl::*;

const SLEEP: &str = "command = [\"sleep\", \"600\"]\n";

/// Not started yet, with this daemon config.
fn with_config(text: &str) -> Uphold {
    let uphold = Uphold::new();
    let config = uphold.path("uphold.toml");
    fs::write(&config, text).unwrap();
    uphold.mode(&["run", "--config", &config.display().to_string()])
}

fn write_config(uphold: &Uphold, text: &str) {
    fs::write(uphold.path("uphold.toml"), text).unwrap();
}

#[test]
fn a_reload_lets_other_groups_in_and_those_of_before_out() {
    if !is_root() {
        return skip("only root can be another uid");
    }
    let uphold = with_config("[control]\nadmin_groups = [\"45675\"]\n").unit("web", SLEEP);
    let program = uphold.reachable_binary();
    let uphold = uphold.start();
    let status = |gid: u32| {
        let mut command = std::process::Command::new(&program);
        command.args(["ctl", "--socket"]).arg(uphold.socket()).args(["cat", "web"]).uid(45_674).gid(gid);
        command.output().unwrap().status.code()
    };
    assert_eq!((status(45_675), status(45_676)), (Some(0), Some(6)));
    write_config(&uphold, "[control]\nadmin_groups = [\"45676\"]\nread_groups = [\"no-such-group\"]\n");
    let keys = "uphold.toml: control.admin_groups, control.read_groups: applied\n";
    let (code, out, err) = uphold.ctl(&["daemon-reload", "--dry-run"]);
    assert_eq!((code, out), (0, format!("{keys}a dry run: nothing was done\n")), "{err}");
    assert!(err.contains("uphold.toml:3:16") && err.contains("no-such-group"), "{err}");
    assert_eq!((status(45_675), status(45_676)), (Some(0), Some(6)));
    let (code, out, err) = uphold.ctl(&["daemon-reload"]);
    assert_eq!((code, out.as_str()), (0, keys), "{err}");
    assert_eq!((status(45_675), status(45_676)), (Some(6), Some(0)));
}

#[test]
fn a_reload_gives_uphold_s_own_log_another_level_and_form() {
    let uphold = with_config("").unit("web", SLEEP).start();
    uphold.until("web", "running");
    assert!(!uphold.stderr().contains("DEBUG"), "{}", uphold.stderr());
    write_config(&uphold, "[log]\nlevel = \"debug\"\nformat = \"json\"\n");
    assert_eq!(uphold.ctl(&["update"]).1, "uphold.toml: log.level, log.format: applied\n");
    assert_eq!(uphold.ctl(&["reset", "web"]).0, 0);
    uphold.eventually("a line of the new level in the new form", |uphold| {
        let lines = uphold.stderr();
        let objects = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        objects.into_iter().any(|line| line["level"] == "DEBUG" && line["fields"]["unit"] == "web")
    });
    write_config(&uphold, "[log]\nlevel = \"warn\"\n[control]\nread_groups = [\"no-such-group\"]\n");
    uphold.signal(Signal::SIGHUP);
    uphold.eventually("SIGHUP was heard, and its warning is in the log", |uphold| {
        uphold.stderr().contains("no group `no-such-group`")
    });
    let before = uphold.stderr().len();
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    assert_eq!(&uphold.stderr()[before..], "");
}

#[test]
fn a_reload_caps_a_shutdown_anew_and_names_another_main_unit() {
    let stubborn = "command = [\"sh\", \"-c\", \"trap '' TERM; echo set; while :; do sleep 600; done\"]\nstop.timeout = \"10m\"\n";
    let mut uphold = with_config("main = \"web\"\nshutdown_timeout = \"20m\"\n")
        .unit("web", SLEEP)
        .unit("stubborn", stubborn)
        .unit("job", "command = [\"sh\", \"-c\", \"trap 'exit 42' USR1; echo set; sleep 600 & wait\"]\n")
        .start();
    for unit in ["stubborn", "job"] {
        uphold.eventually("its trap is set", |uphold| uphold.log(unit) == ["set"]);
    }
    write_config(&uphold, "main = \"nope\"\n");
    let (code, _, err) = uphold.ctl(&["daemon-reload"]);
    assert!(code == 1 && err.contains("uphold.toml:1:8") && err.contains("`nope`"), "{code}: {err}");
    write_config(&uphold, "main = \"job\"\nshutdown_timeout = \"200ms\"\n");
    let (code, out, err) = uphold.ctl(&["daemon-reload"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("uphold.toml: shutdown_timeout, main: applied\n"), "{out}");
    uphold.kill_main("job", Signal::SIGUSR1);
    assert_eq!(uphold.exit().code(), Some(42), "{}", uphold.stderr());
}

#[test]
fn a_reload_with_one_bad_file_leaves_uphold_s_own_settings_too() {
    let uphold = with_config("[log]\nlevel = \"warn\"\n").unit("web", SLEEP).start();
    write_config(&uphold, "[log]\nlevel = \"info\"\n");
    uphold.write_unit("web", "nonsense = 1\n");
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 1);
    // With the new level this would be said.
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    uphold.write_unit("web", SLEEP);
    let (_, out, _) = uphold.ctl(&["daemon-reload", "--dry-run"]);
    assert_eq!(out, "uphold.toml: log.level: applied\na dry run: nothing was done\n");
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    uphold.until_said("the files were read again");
    assert!(!uphold.stderr().contains("Started process web"), "{}", uphold.stderr());
    uphold.write_unit("web", SLEEP);
    write_config(&uphold, "[log]\nlevel = \"loud\"\n");
    let (code, _, err) = uphold.ctl(&["daemon-reload"]);
    assert!(code == 1 && err.contains("uphold.toml:2:9"), "{err}");
}

#[test]
fn the_null_device_as_config_is_an_empty_one() {
    let uphold = Uphold::new().unit("web", SLEEP).mode(&["run", "--config", "/dev/null"]).start();
    uphold.until("web", "running");
    assert_eq!(uphold.ctl(&["daemon-reload"]).1, "nothing changed\n");
}
