//! An image that goes on from another one and cannot begin, or crashes before it has: it tries again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::dsl::*;
use crate::goes_on::{SLEEP, fallible_pid_1, image, until_image};

#[test]
fn an_image_that_cannot_begin_tries_again_until_it_can() {
    let text = "command = [\"sh\", \"-c\", \"env; echo all; exec sleep 600\"]\n";
    let uphold = Uphold::fallible().unit("web", text).start();
    uphold.eventually("it has said it", |uphold| uphold.log("web").last().is_some_and(|line| line == "all"));
    let pid = uphold.main_pid("web");
    let (runs, aside) = (uphold.path("run/private/runs"), uphold.path("runs.aside"));
    // What is replaced and not removed, nobody notices before the next upgrade.
    fs::hard_link(&runs, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, uphold.path("link")).unwrap();
    fs::rename(uphold.path("link"), &runs).unwrap();
    uphold.fail("recorded 1 panic").signal(Signal::SIGHUP);
    uphold.until_said("trying again in a second");
    // Whoever asks meanwhile waits to be let in.
    let mut asks = uphold.ctl_command(&["upgrade"]).spawn().unwrap();
    fs::rename(&aside, &runs).unwrap();
    uphold.eventually("it has begun", |uphold| image(uphold) >= 2);
    assert_eq!(uphold.main_pid("web"), pid);
    assert!(asks.wait().unwrap().success());
    // What tells an image that it goes on is not for services.
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    uphold.eventually("it has said it again", |uphold| {
        uphold.log("web").iter().filter(|line| *line == "all").count() == 2
    });
    assert!(!uphold.log("web").iter().any(|line| line.contains("UPHOLD_GOES_ON")));
}

#[test]
fn an_image_that_knows_of_nothing_starts_nothing_beside_what_the_one_before_has_started() {
    let uphold = Uphold::fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    fs::write(uphold.path("run/private/state"), "nothing that anybody wrote\n").unwrap();
    uphold.fail("recorded 1 panic").signal(Signal::SIGHUP);
    uphold.until_said(&format!("processes that uphold has started live (pid {pid})"));
    uphold.until_said("trying again in a second");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    uphold.eventually("it begins without them", |uphold| image(uphold) == 1);
    let next = uphold.until("web", "running").main_pid("web");
    assert!(next != pid && !is_alive(pid));
    assert_eq!(uphold.stderr().matches("Started process web").count(), 2, "{}", uphold.stderr());
}

#[test]
fn an_image_that_cannot_begin_leaves_nothing_more_open_with_each_attempt() {
    let uphold = Uphold::fallible().unit("web", SLEEP).start();
    let pid = uphold.until("web", "running").main_pid("web");
    let (runs, aside) = (uphold.path("run/private/runs"), uphold.path("runs.aside"));
    fs::hard_link(&runs, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, uphold.path("link")).unwrap();
    fs::rename(uphold.path("link"), &runs).unwrap();
    uphold.fail("recorded 1 panic").signal(Signal::SIGHUP);
    uphold.eventually("an attempt", |uphold| attempts(uphold) == 2);
    let before = open_until(&uphold, "the next one", |uphold| attempts(uphold) == 3);
    uphold.eventually("more attempts", |uphold| attempts(uphold) == 5);
    let after = open_until(&uphold, "the next one", |uphold| attempts(uphold) == 6);
    assert_eq!(after, before, "{}", uphold.stderr());
    fs::rename(&aside, &runs).unwrap();
    // What it has to say is said by the first that begins.
    uphold.until_own_event("Crashed uphold crashed and goes on: ");
    assert_eq!((image(&uphold), uphold.main_pid("web")), (2, pid));
}

/// How many descriptors it has open for most of the time until this is so: for a moment, as it begins, there are fewer
/// or more.
fn open_until(uphold: &Uphold, what: &str, is: impl Fn(&Uphold) -> bool) -> usize {
    let seen = RefCell::new(BTreeMap::new());
    uphold.eventually(what, |uphold| {
        let open = fs::read_dir(format!("/proc/{}/fd", uphold.pid())).unwrap().count();
        *seen.borrow_mut().entry(open).or_insert(0) += 1;
        is(uphold)
    });
    seen.into_inner().into_iter().max_by_key(|(_, times)| *times).unwrap().0
}

/// So many attempts to begin that have come to nothing were said.
fn attempts(uphold: &Uphold) -> usize {
    uphold.stderr().matches("trying again in a second").count()
}

#[test]
fn an_image_that_crashes_before_it_can_begin_tries_again() {
    let text = "command = [\"sh\", \"-c\", \"i=0; while echo $((i += 1)); do sleep 0.01; done\"]\n";
    for (point, action, said) in [
        ("locked", "panic", "the test wants a panic at locked"),
        ("locked", "segv", "uphold: SIGSEGV at address 0x0000000000000008 in thread "),
        ("locked", "abort", "uphold: SIGABRT in thread "),
        ("assembled", "panic", "the test wants a panic at assembled"),
    ] {
        let uphold = Uphold::fallible().unit("web", text).start();
        uphold.eventually("it has said something", |uphold| !uphold.log("web").is_empty());
        let pid = uphold.main_pid("web");
        uphold.fail(&[1, 2].map(|count| format!("{point} {count} {action}")).join("\n"));
        uphold.signal(Signal::SIGUSR2).eventually("an attempt", |uphold| attempts(uphold) == 1);
        // Nobody else gets in between.
        let output = uphold.run();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let before = open_until(&uphold, "one more", |uphold| attempts(uphold) == 2);
        assert_eq!(uphold.stderr().matches(said).count(), 2, "{}", uphold.stderr());
        let after =
            open_until(&uphold, "it begins", |uphold| uphold.stderr().contains("Took over process web"));
        assert_eq!(after, before, "{}", uphold.stderr());
        uphold.eventually("it has begun", |uphold| image(uphold) >= 2);
        assert_eq!((uphold.main_pid("web"), attempts(&uphold)), (pid, 2));
        let lines = uphold.log("web").len();
        uphold.eventually("more lines", |uphold| uphold.log("web").len() > lines);
        let lines = uphold.log("web");
        assert!(lines.iter().zip(1..).all(|(line, number)| *line == number.to_string()), "{lines:?}");
    }
}

#[test]
fn an_image_that_crashes_each_time_it_takes_over_does_so_at_leisure() {
    let uphold = Uphold::fallible().unit("web", SLEEP).start();
    let main = uphold.until("web", "running").main_pid("web");
    let plan: Vec<String> = (1..=1000).map(|count| format!("adopting {count} panic")).collect();
    uphold.fail(&plan.join("\n")).signal(Signal::SIGUSR2);
    let crashes = |uphold: &Uphold| uphold.stderr().matches("the test wants a panic at adopting").count();
    uphold.eventually("it crashes", |uphold| crashes(uphold) >= 4);
    let (begun, before) = (Instant::now(), crashes(&uphold));
    uphold.eventually("it crashes on", |uphold| crashes(uphold) > before + 1);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{}", uphold.stderr());
    uphold.fail("");
    uphold.until_said("uphold crashed three times within a minute");
    assert!(is_alive(main));
}

#[test]
fn an_image_that_tries_again_says_what_ends_it() {
    let mut uphold = Uphold::fallible().unit("web", SLEEP).start();
    let main = uphold.until("web", "running").main_pid("web");
    uphold.fail("locked 1 panic\nlocked 2 panic").signal(Signal::SIGUSR2);
    uphold.until_said(&format!(
        "; only `kill -9 {}` ends it, and leaves them to the next uphold",
        uphold.pid()
    ));
    uphold.kill();
    uphold.fail("");
    uphold.again();
    assert_eq!((image(&uphold), uphold.main_pid("web")), (1, main));
}

#[test]
fn an_image_that_can_neither_begin_nor_execute_itself_tries_again() {
    let uphold = Uphold::fallible().own_binary().unit("web", SLEEP).start();
    let main = uphold.until("web", "running").main_pid("web");
    let mode = |mode| fs::set_permissions(uphold.path("uphold"), PermissionsExt::from_mode(mode)).unwrap();
    let plan: Vec<String> = (1..30).map(|count| format!("locked {count} panic")).collect();
    uphold.fail(&plan.join("\n")).signal(Signal::SIGUSR2);
    uphold.eventually("an attempt", |uphold| attempts(uphold) > 0);
    mode(0o600);
    uphold.until_said("uphold: cannot execute itself: Permission denied\n");
    uphold.fail("");
    mode(0o755);
    until_image(&uphold, 2);
    assert_eq!(uphold.main_pid("web"), main);
}

#[test]
fn a_first_start_that_crashes_ends_and_says_so() {
    let uphold = Uphold::fallible().unit("web", SLEEP);
    let output = uphold.fail("locked 1 panic").run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{said}");
    assert!(said.contains("uphold: panic in thread main: ") && !said.contains("again"), "{said}");
}

#[test]
fn as_pid_1_an_image_that_cannot_tell_which_process_is_whose_starts_none() {
    if !is_root() {
        return skip("a pid namespace needs root");
    }
    let uphold = fallible_pid_1();
    let pid = uphold.until("web", "running").main_pid("web");
    let (runs, aside) = (uphold.path("run/private/runs"), uphold.path("runs.aside"));
    fs::hard_link(&runs, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, uphold.path("link")).unwrap();
    fs::rename(uphold.path("link"), &runs).unwrap();
    uphold.fail("command 1 panic");
    // Its connection stays open until an image begins.
    let mut asks = uphold.ctl_command(&["start", "web"]).spawn().unwrap();
    uphold.until_said("trying again in a second");
    fs::rename(&aside, &runs).unwrap();
    until_image(&uphold, 2);
    asks.wait().unwrap();
    assert_eq!((uphold.main_pid("web"), uphold.view("web")["restarts"].clone()), (pid, 0.into()));
}

#[test]
fn as_pid_1_an_image_that_crashes_before_it_can_begin_tries_again() {
    if !is_root() {
        return skip("a pid namespace needs root");
    }
    let uphold = fallible_pid_1();
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.fail("locked 1 panic\nlocked 2 segv");
    let mut asks = uphold.ctl_command(&["upgrade"]).spawn().unwrap();
    until_image(&uphold, 2);
    assert!(asks.wait().unwrap().success());
    assert_eq!((uphold.main_pid("web"), attempts(&uphold)), (pid, 2));
    // Nothing ends PID 1.
    assert!(!uphold.stderr().contains("kill -9"), "{}", uphold.stderr());
}
