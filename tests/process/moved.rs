//! Somebody moves a directory above the runtime directory while uphold runs.

use std::fs;

use crate::dsl::*;

#[test]
fn a_runtime_directory_that_went_with_one_above_it_is_put_back_and_nobody_else_gets_in() {
    let sleep = "command = [\"sleep\", \"600\"]\n";
    let uphold = Uphold::new().unit("web", sleep).unit("late", &format!("autostart = false\n{sleep}"));
    fs::create_dir_all(uphold.path("top/above/run")).unwrap();
    std::os::unix::fs::symlink("top/above/run", uphold.path("run")).unwrap();
    let mut uphold = uphold.start();
    let web = uphold.until("web", "running").main_pid("web");
    for (round, above) in ["top/above", "top", "top/above"].into_iter().enumerate() {
        fs::rename(uphold.path(above), uphold.path(&format!("moved.{round}"))).unwrap();
        // Whoever comes first makes it anew.
        fs::create_dir_all(uphold.path("top/above")).unwrap();
        uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
        uphold.until_own_event("RuntimeDirLost");
        let output = uphold.run();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{above}: {said}");
        assert!(said.contains(&format!("uphold with pid {} holds it", uphold.pid())), "{above}: {said}");
    }
    assert_eq!(uphold.ctl(&["start", "late"]).0, 0, "{}", uphold.stderr());
    let late = uphold.main_pid("late");
    uphold.kill().again();
    assert_eq!((uphold.main_pid("web"), uphold.main_pid("late")), (web, late), "{}", uphold.stderr());
}

#[test]
fn a_directory_above_that_comes_back_is_no_loss() {
    let uphold = Uphold::new().unit("web", "command = [\"sleep\", \"600\"]\n");
    fs::create_dir_all(uphold.path("above/run")).unwrap();
    std::os::unix::fs::symlink("above/run", uphold.path("run")).unwrap();
    let uphold = uphold.start();
    uphold.until("web", "running");
    let (above, moved) = (uphold.path("above"), uphold.path("moved"));
    fs::rename(&above, &moved).unwrap();
    fs::rename(&moved, &above).unwrap();
    // What comes after it is heard after it.
    fs::remove_file(uphold.path("run/private/pump")).unwrap();
    uphold.until_own_event("RuntimeDirLost somebody has removed private/pump");
    let events = uphold.all_events().into_iter().filter(|(_, line, _)| line.contains("RuntimeDirLost"));
    assert_eq!(events.map(|(.., count)| count).collect::<Vec<_>>(), [1]);
}
