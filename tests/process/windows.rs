//! uphold is killed where what it has done and what it has on record differ, and is started again: nothing is
//! done twice, nothing is forgotten, and what nobody asked for stays as it was.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dsl::*;

/// What the one unit of which a test is about is called.
const SUBJECT: &str = "web";

/// Each main process holds a lock for as long as it lives: a second one beside it says so in `two`. All note
/// their pids in `runs`.
fn noting(uphold: &Uphold) -> String {
    format!(
        "working_dir = \"{}\"
command = [\"sh\", \"-c\", \"exec 9>>lock; flock -n 9 || echo $$ >> two; echo $$ >> runs; exec sleep 600\"]
[restart]
delay = \"250ms\"
jitter = 0
[stop]
timeout = \"1s\"
",
        uphold.dir.path().display()
    )
}

/// Main processes of the subject so far.
fn runs(uphold: &Uphold) -> Vec<i32> {
    let text = fs::read_to_string(uphold.path("runs")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// A subject, and two by which nobody is to be touched.
struct Scene {
    uphold: Uphold,
    subject: i32,
    steady: i32,
}

fn units(uphold: Uphold) -> Uphold {
    let text = noting(&uphold);
    let sleep = "command = [\"sleep\", \"600\"]\n";
    uphold.unit(SUBJECT, &text).unit("steady", sleep).unit("down", sleep)
}

impl Scene {
    fn new() -> Scene {
        let uphold = units(Uphold::fallible()).start();
        for unit in [SUBJECT, "steady", "down"] {
            uphold.until(unit, "running");
        }
        uphold.eventually("it has noted its start", |uphold| runs(uphold).len() == 1);
        assert_eq!(uphold.ctl(&["stop", "down"]).0, 0);
        let (subject, steady) = (uphold.main_pid(SUBJECT), uphold.main_pid("steady"));
        Scene { uphold, subject, steady }
    }

    /// Does it, and uphold is killed as the plan says; then it is started again.
    fn killed_at(&mut self, plan: &str, act: impl FnOnce(&Uphold)) {
        self.uphold.fail(plan);
        act(&self.uphold);
        self.until_killed(plan);
        self.uphold.again();
    }

    fn until_killed(&mut self, plan: &str) {
        let end = self.uphold.exit();
        let signal = std::os::unix::process::ExitStatusExt::signal(&end);
        assert_eq!(signal, Some(9), "{plan}: {}", self.uphold.stderr());
    }

    /// What holds in any case, once the subject has had so many main processes.
    fn holds(&self, plan: &str, count: usize) {
        let uphold = &self.uphold;
        uphold.eventually(&format!("{plan}: {count} main processes of {SUBJECT}"), |uphold| {
            runs(uphold).len() >= count
        });
        let runs = runs(uphold);
        assert_eq!(runs.len(), count, "{plan}: {runs:?}\n{}", uphold.stderr());
        assert!(!uphold.path("two").exists(), "{plan}: two main processes at once\n{}", uphold.stderr());
        let alive: Vec<i32> = runs.into_iter().filter(|pid| is_alive(*pid)).collect();
        let pid = uphold.view(SUBJECT)["pid"].as_i64().map(|pid| pid as i32);
        assert_eq!(alive, pid.into_iter().collect::<Vec<i32>>(), "{plan}: {}", uphold.stderr());
        let steady = uphold.view("steady");
        assert_eq!((&steady["pid"], &steady["restarts"]), (&self.steady.into(), &0.into()), "{plan}");
        let down = uphold.view("down");
        assert_eq!((&down["state"], &down["reason"]), (&"inactive".into(), &"StoppedByOperator".into()));
    }

    fn until_replaced(&self, plan: &str, restarts: u64) {
        self.uphold.until_view(SUBJECT, &format!("another process after {plan}"), |view| {
            view["state"] == "running" && view["pid"] != self.subject
        });
        assert_eq!(self.uphold.view(SUBJECT)["restarts"], restarts, "{plan}: {}", self.uphold.stderr());
    }
}

fn crash(uphold: &Uphold) {
    uphold.kill_main(SUBJECT, Signal::SIGKILL);
}

#[test]
fn a_crash_of_a_service_counts_once_wherever_uphold_is_killed_on_the_way_to_its_restart() {
    for plan in [
        "exit-recorded 1 kill",
        "reaped 1 kill",
        "exited 1 kill",
        "decided 1 kill",
        "recorded 1 kill",
        "emptied 1 kill",
        "recorded 2 kill",
        "releasing 1 kill",
        "tick 1 kill",
        "decided 3 kill",
        "recorded 3 kill",
        "cloning 1 kill",
        "cloned 1 kill",
        "born 1 kill",
        "spawned 1 kill",
        "recorded 4 kill",
    ] {
        let mut scene = Scene::new();
        scene.killed_at(plan, crash);
        scene.until_replaced(plan, 1);
        scene.holds(plan, 2);
        // From the first of these points on, how it ended is on record.
        assert_eq!(scene.uphold.view(SUBJECT)["last_exit"]["signal"], "SIGKILL", "{plan}");
    }
}

#[test]
fn a_recovery_that_is_killed_itself_is_gone_on_with() {
    for first in ["exited 1 kill", "recorded 3 kill", "cloned 1 kill", "spawned 1 kill"] {
        for second in [
            "locked 1 kill",
            "journal-written 1 kill",
            "journal-begun 1 kill",
            "adopting 2 kill",
            "adopted 1 kill",
            "load 1 kill",
            "recorded 1 kill",
            "recorded 2 kill",
        ] {
            let plan = format!("{first}, {second}");
            let mut scene = Scene::new();
            scene.uphold.fail(first);
            crash(&scene.uphold);
            scene.until_killed(&plan);
            scene.uphold.fail(second);
            scene.uphold.again_blind();
            scene.until_killed(&plan);
            scene.uphold.again();
            scene.until_replaced(&plan, 1);
            scene.holds(&plan, 2);
            assert_eq!(scene.uphold.view(SUBJECT)["last_exit"]["signal"], "SIGKILL", "{plan}");
        }
    }
}

#[test]
fn a_stop_that_is_on_record_is_done_and_one_that_is_not_was_never_answered() {
    for plan in ["command 1 kill", "decided 1 kill"] {
        let mut scene = Scene::new();
        let mut answer = None;
        scene.killed_at(plan, |uphold| answer = uphold.http("POST /v1/units/web/stop"));
        assert_eq!(answer, None, "{plan}");
        scene.holds(plan, 1);
        let view = scene.uphold.view(SUBJECT);
        assert_eq!((&view["pid"], &view["wanted"]), (&scene.subject.into(), &"up".into()), "{plan}");
    }
    for plan in [
        "recorded 1 kill",
        "telling 1 kill",
        "exit-recorded 1 kill",
        "reaped 1 kill",
        "exited 1 kill",
        "decided 2 kill",
        "recorded 2 kill",
        "emptied 1 kill",
        "recorded 3 kill",
        "releasing 1 kill",
    ] {
        let mut scene = Scene::new();
        scene.killed_at(plan, |uphold| drop(uphold.http("POST /v1/units/web/stop")));
        scene.uphold.until(SUBJECT, "inactive");
        scene.holds(plan, 1);
        let view = scene.uphold.view(SUBJECT);
        assert_eq!((&view["reason"], &view["restarts"]), (&"StoppedByOperator".into(), &0.into()), "{plan}");
        // The operator's next word holds.
        assert_eq!(scene.uphold.ctl(&["start", "--no-wait", SUBJECT]).0, 0, "{plan}");
        scene.uphold.until(SUBJECT, "running");
        scene.holds(plan, 2);
    }
}

#[test]
fn a_restart_by_the_operator_is_done_once_and_counts_as_none() {
    for (plan, count) in [
        ("command 1 kill", 1),
        ("decided 1 kill", 1),
        ("recorded 1 kill", 2),
        ("telling 1 kill", 2),
        ("exit-recorded 1 kill", 2),
        ("exited 1 kill", 2),
        ("emptied 1 kill", 2),
        ("releasing 1 kill", 2),
        ("cloning 1 kill", 2),
        ("cloned 1 kill", 2),
        ("born 1 kill", 2),
        ("spawned 1 kill", 2),
    ] {
        let mut scene = Scene::new();
        scene.killed_at(plan, |uphold| drop(uphold.http("POST /v1/units/web/restart")));
        if count == 2 {
            scene.until_replaced(plan, 0);
        }
        scene.holds(plan, count);
    }
}

#[test]
fn a_start_by_the_operator_is_done_once() {
    for (plan, count) in [
        ("command 1 kill", 1),
        ("decided 1 kill", 1),
        ("recorded 1 kill", 2),
        ("cloning 1 kill", 2),
        ("cloned 1 kill", 2),
        ("spawned 1 kill", 2),
    ] {
        let mut scene = Scene::new();
        assert_eq!(scene.uphold.ctl(&["stop", SUBJECT]).0, 0);
        scene.killed_at(plan, |uphold| drop(uphold.http("POST /v1/units/web/start")));
        scene.uphold.until(SUBJECT, if count == 2 { "running" } else { "inactive" });
        scene.holds(plan, count);
        assert_eq!(scene.uphold.view(SUBJECT)["restarts"], 0, "{plan}");
    }
}

#[test]
fn a_first_start_that_is_killed_is_made_good_without_a_second_copy() {
    for plan in [
        "locked 1 kill",
        "journal-written 1 kill",
        "journal-begun 1 kill",
        "adopted 1 kill",
        "load 1 kill",
        "decided 1 kill",
        "recorded 1 kill",
        "cloning 1 kill",
        "cloning 3 kill",
        "cloned 1 kill",
        "cloned 3 kill",
        "born 2 kill",
        "spawned 1 kill",
        "spawned 3 kill",
    ] {
        let uphold = units(Uphold::fallible());
        uphold.fail(plan);
        let mut scene = Scene { uphold: uphold.start_blind(), subject: 0, steady: 0 };
        scene.until_killed(plan);
        scene.uphold.again();
        for unit in [SUBJECT, "steady", "down"] {
            scene.uphold.until(unit, "running");
            assert_eq!(scene.uphold.view(unit)["restarts"], 0, "{plan}");
        }
        assert_eq!(scene.uphold.ctl(&["stop", "down"]).0, 0);
        scene.steady = scene.uphold.main_pid("steady");
        scene.holds(plan, 1);
    }
}

#[test]
fn a_reload_that_is_killed_is_made_good_by_the_next_reading_of_the_files() {
    for plan in [
        "reloading 1 kill",
        "configure 1 kill",
        "load 1 kill",
        "decided 2 kill",
        "recorded 2 kill",
        "cloning 1 kill",
        "cloned 1 kill",
    ] {
        let mut scene = Scene::new();
        let sleep = "command = [\"sleep\", \"600\"]\n";
        scene.uphold.write_unit("new", sleep);
        scene.uphold.write_unit(SUBJECT, &format!("description = \"changed\"\n{}", noting(&scene.uphold)));
        scene.killed_at(plan, |uphold| drop(uphold.http("POST /v1/daemon-reload")));
        scene.uphold.until("new", "running");
        scene.holds(plan, 1);
        let view = scene.uphold.view(SUBJECT);
        assert_eq!(
            (&view["pid"], &view["description"]),
            (&scene.subject.into(), &"changed".into()),
            "{plan}"
        );
    }
}

#[test]
fn an_update_that_is_killed_restarts_what_changed_once_or_says_that_it_is_to_be() {
    for (plan, count) in [
        ("reloading 1 kill", 1),
        ("load 1 kill", 1),
        ("decided 2 kill", 1),
        // The first is of what uphold.toml says.
        ("recorded 2 kill", 2),
        ("exited 1 kill", 2),
        ("cloned 1 kill", 2),
    ] {
        let mut scene = Scene::new();
        let changed = format!("{}\n[limits]\ncore = 0\n", noting(&scene.uphold));
        scene.uphold.write_unit(SUBJECT, &changed);
        scene.killed_at(plan, |uphold| drop(uphold.http("POST /v1/update")));
        if count == 2 {
            scene.until_replaced(plan, 0);
        }
        scene.holds(plan, count);
        let needed = scene.uphold.view(SUBJECT)["restart_needed"].clone();
        assert_eq!(needed, count == 1, "{plan}");
    }
}

#[test]
fn a_shutdown_that_is_killed_is_over_once_uphold_is_started_again() {
    for plan in [
        "shutdown 1 kill",
        "decided 1 kill",
        "recorded 1 kill",
        "telling 1 kill",
        "exited 1 kill",
        "exited 2 kill",
    ] {
        let mut scene = Scene::new();
        scene.killed_at(plan, |uphold| {
            uphold.signal(Signal::SIGTERM);
        });
        for unit in [SUBJECT, "steady"] {
            scene.uphold.until(unit, "running");
            assert_eq!(scene.uphold.view(unit)["restarts"], 0, "{plan}");
        }
        scene.steady = scene.uphold.main_pid("steady");
        let count = if scene.uphold.main_pid(SUBJECT) == scene.subject { 1 } else { 2 };
        scene.holds(plan, count);
    }
}

#[test]
fn an_upgrade_that_is_killed_at_its_exec_changes_nothing() {
    let mut scene = Scene::new();
    let plan = "executing 1 kill";
    scene.killed_at(plan, |uphold| drop(uphold.http("POST /v1/upgrade")));
    scene.holds(plan, 1);
    // Nor does the kill of an image that an exec has made, on its way to take over.
    for plan in ["locked 1 kill", "adopting 1 kill", "adopted 1 kill", "journal-written 1 kill"] {
        scene.killed_at(plan, |uphold| drop(uphold.http("POST /v1/upgrade")));
        scene.holds(plan, 1);
    }
}

/// A unit whose probe notes its pid, and does not end.
fn probed(uphold: Uphold) -> Uphold {
    let text = format!(
        "working_dir = \"{}\"\ncommand = [\"sleep\", \"600\"]\n[readiness]\ntimeout = \"600s\"\n\
         period = \"1s\"\nexec = {{ command = [\"sh\", \"-c\", \"echo $$ >> probes; exec sleep 600\"] }}\n",
        uphold.dir.path().display()
    );
    uphold.unit(SUBJECT, &text)
}

/// The probes so far, once there is one.
fn probes(uphold: &Uphold) -> Vec<i32> {
    let text = fs::read_to_string(uphold.path("probes")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn the_next_probe_is_alone(uphold: &mut Uphold, first: i32) {
    assert!(is_alive(first));
    uphold.again();
    uphold.eventually("the next probe is in flight, alone", |uphold| {
        probes(uphold).len() == 2 && !is_alive(first)
    });
}

#[test]
fn a_probe_in_flight_is_ended_by_the_uphold_that_comes_after_a_kill() {
    let mut uphold = probed(Uphold::new()).start();
    uphold.eventually("a probe is in flight", |uphold| probes(uphold).len() == 1);
    let first = probes(&uphold)[0];
    uphold.kill();
    the_next_probe_is_alone(&mut uphold, first);
}

/// Nothing of it is on record but its pid.
#[test]
fn a_probe_that_uphold_did_not_live_to_look_at_is_ended_too() {
    let uphold = probed(Uphold::fallible());
    uphold.fail("probe-cloned 1 kill");
    let mut uphold = uphold.start_blind();
    uphold.eventually("a probe is in flight", |uphold| probes(uphold).len() == 1);
    uphold.exit();
    let first = probes(&uphold)[0];
    the_next_probe_is_alone(&mut uphold, first);
}

/// A child that is frozen between clone and exec: it lies in a cgroup in which nothing runs.
#[test]
fn a_child_that_hangs_before_its_exec_is_ended_by_who_comes_after_uphold_and_started_again() {
    if !is_root() {
        return skip("only root can freeze a cgroup");
    }
    let mut scene = Scene::new();
    let state = fs::read_to_string(scene.uphold.path("run/private/state")).unwrap();
    let head: serde_json::Value = serde_json::from_str(&state.lines().next().unwrap()[9..]).unwrap();
    let Some(base) = head["cgroups"].as_str() else { return skip("there is no cgroup of its own") };
    let freeze = |word: &str| fs::write(format!("{base}/cgroup.freeze"), word).unwrap();
    // What is frozen still dies of SIGKILL.
    freeze("1");
    crash(&scene.uphold);
    let own = fs::read_link(format!("/proc/{}/exe", scene.uphold.pid())).unwrap();
    let hanging = |uphold: &Uphold| {
        let children = children_of(uphold.pid());
        children.into_iter().find(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own))
    };
    scene.uphold.eventually("a child hangs before its exec", |uphold| hanging(uphold).is_some());
    let child = hanging(&scene.uphold).unwrap();
    kill(Pid::from_raw(scene.uphold.pid()), Signal::SIGKILL).unwrap();
    scene.uphold.exit();
    assert!(is_alive(child), "it went with uphold");
    scene.uphold.again_blind();
    scene.uphold.eventually("the child is ended", |_| !is_alive(child));
    freeze("0");
    scene.uphold.eventually("the control API answers", |uphold| uphold.get("/v1/version").is_some());
    let plan = "frozen";
    scene.until_replaced(plan, 1);
    scene.holds(plan, 2);
}

#[test]
fn a_rotation_that_is_killed_between_two_steps_loses_no_file() {
    for step in 1..=3 {
        let plan = format!("rotating {step} kill");
        let uphold = Uphold::fallible();
        let text = "command = [\"sh\", \"-c\", \"i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo LINE $i 0123456789012345678901234567890123456789; done; exec sleep 600\"]
[logs]
max_size = \"4KiB\"
keep = 100
";
        let mut uphold = uphold.unit(SUBJECT, text);
        uphold.fail(&plan);
        uphold = uphold.start_blind();
        let end = uphold.exit();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&end), Some(9), "{}", uphold.stderr());
        uphold.again();
        let lines = |uphold: &Uphold| -> Vec<String> {
            let entries = fs::read_dir(uphold.path("log/web")).unwrap().flatten();
            // One that is being rotated has another name by then: the next look finds it.
            let text: String = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
            text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
        };
        uphold.eventually("the last line is there", |uphold| {
            lines(uphold).iter().any(|line| line.starts_with("LINE 400 "))
        });
        let lines = lines(&uphold);
        for number in 1..=400 {
            let wanted = format!("LINE {number} 0123456789012345678901234567890123456789");
            let count = lines.iter().filter(|line| **line == wanted).count();
            assert_eq!(count, 1, "{plan}: line {number}\n{lines:#?}");
        }
    }
}

#[test]
fn uphold_reaps_on_after_it_has_crashed_twice_while_reaping() {
    let scene = Scene::new();
    let uphold = &scene.uphold;
    let image = |uphold: &Uphold| uphold.get("/v1/version").and_then(|version| version["image"].as_u64());
    for number in 2..=3 {
        uphold.fail("reaped 1 segv");
        kill(Pid::from_raw(*runs(uphold).last().unwrap()), Signal::SIGKILL).unwrap();
        uphold.eventually("the next image answers", |uphold| image(uphold) == Some(number));
        uphold.until_view(SUBJECT, "its restart", |view| {
            view["restarts"] == number - 1 && view["state"] == "running"
        });
        uphold.eventually("it has noted its start", |uphold| runs(uphold).len() as u64 == number);
    }
    uphold.kill_main(SUBJECT, Signal::SIGKILL);
    uphold
        .until_view(SUBJECT, "its third restart", |view| view["restarts"] == 3 && view["state"] == "running");
    scene.holds("two crashes while reaping", 4);
}
