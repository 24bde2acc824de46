//! `ctl upgrade` where the binary stands behind a symbolic link that is switched, as `/opt/uphold/current`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::dsl::*;
use crate::goes_on::until_image;

const SLEEP: &str = "command = [\"sleep\", \"600\"]\n";

fn executed(uphold: &Uphold) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", uphold.pid())).unwrap()
}

/// `current` leads to this release from here on.
fn switch(uphold: &Uphold, release: &str) {
    symlink(release, uphold.path("next")).unwrap();
    fs::rename(uphold.path("next"), uphold.path("current")).unwrap();
}

/// Started by this path, relative to the daemon's directory or absolute.
fn started(by: &str) -> Uphold {
    let uphold = Uphold::fallible().unit("web", SLEEP);
    for release in ["v1", "v2"] {
        fs::create_dir(uphold.path(release)).unwrap();
        copy_binary(&uphold.path(&format!("{release}/uphold")));
    }
    switch(&uphold, "v1");
    let dir = uphold.dir.path().display();
    let line = format!("cd {dir}; shift; exec {} \"$@\"", by.replace("DIR", &dir.to_string()));
    let uphold = uphold.further_under(&["sh", "-c", &line, "sh"]).start();
    uphold.until("web", "running");
    assert_eq!(executed(&uphold), uphold.path("v1/uphold"));
    uphold
}

#[test]
fn an_upgrade_executes_what_stands_where_uphold_was_started() {
    for by in ["DIR/current/uphold", "./current/uphold", "current/uphold"] {
        let uphold = started(by);
        let pid = uphold.main_pid("web");
        for (image, release) in [(2, "v2"), (3, "v1")] {
            switch(&uphold, release);
            assert_eq!(uphold.ctl(&["upgrade"]).0, 0, "{by}");
            until_image(&uphold, image);
            assert_eq!(executed(&uphold), uphold.path(&format!("{release}/uphold")), "{by}");
        }
        assert_eq!(uphold.main_pid("web"), pid);
    }
}

#[test]
fn a_crash_after_the_switch_goes_on_with_the_old_binary_and_an_upgrade_after_that_with_the_new_one() {
    let uphold = started("current/uphold");
    let pid = uphold.main_pid("web");
    switch(&uphold, "v2");
    uphold.fail("command 1 panic");
    let _ = uphold.http("POST /v1/units/web/start");
    until_image(&uphold, 2);
    assert_eq!(executed(&uphold), uphold.path("v1/uphold"));
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    until_image(&uphold, 3);
    assert_eq!(executed(&uphold), uphold.path("v2/uphold"));
    assert_eq!(uphold.main_pid("web"), pid);
}

#[test]
fn a_path_that_is_a_descriptor_is_none_to_upgrade_by() {
    for by in ["/dev/fd/9 9<current/uphold", "/proc/self/fd/9 9<current/uphold"] {
        let uphold = started(by);
        let new = uphold.path("v1/new");
        copy_binary(&new);
        fs::rename(&new, uphold.path("v1/uphold")).unwrap();
        assert_eq!(uphold.ctl(&["upgrade"]).0, 0, "{by}");
        until_image(&uphold, 2);
        // The other one is deleted.
        assert_eq!(executed(&uphold), uphold.path("v1/uphold"), "{by}");
    }
}

#[test]
fn an_upgrade_is_tried_and_done_where_uphold_is_called_init() {
    let uphold = Uphold::new().unit("web", SLEEP).mode(&[]);
    symlink(binary(), uphold.path("init")).unwrap();
    let line = format!("shift; exec {} \"$@\"", uphold.path("init").display());
    let uphold = uphold.under(&["sh", "-c", &line, "sh"]).start();
    let pid = uphold.until("web", "running").main_pid("web");
    let (code, _, said) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{said}");
    until_image(&uphold, 2);
    assert_eq!(uphold.main_pid("web"), pid);
}
