//! uphold is killed with -9 and started again: it takes over what runs.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use crate::dsl::*;

const SLEEP: &str = "command = [\"sleep\", \"600\"]\n[restart]\ndelay = \"10ms\"\n";

#[test]
fn a_service_is_taken_over_with_its_pid_its_counters_and_its_events() {
    let mut uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running").kill_main("web", Signal::SIGKILL);
    uphold.until_view("web", "its first restart", |view| view["restarts"] == 1 && view["state"] == "running");
    let before = uphold.view("web");
    uphold.kill().again();
    let after = uphold.view("web");
    for key in ["pid", "restarts", "state", "wanted", "ready", "since", "started_at", "exits"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    uphold.until_event("web", "Adopted Took over process web");
    assert_eq!(uphold.until_event("web", "Started"), 2);
    uphold.kill_main("web", Signal::SIGKILL);
    uphold
        .until_view("web", "its second restart", |view| view["restarts"] == 2 && view["state"] == "running");
    let killed = &uphold.view("web")["last_exit"];
    // PIDFD_GET_INFO tells it from Linux 6.15 on.
    assert!(killed["reason"] == "Unknown" || killed["signal"] == "SIGKILL", "{killed}");
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
}

#[test]
fn a_service_that_ended_while_no_uphold_ran_is_started_again() {
    let mut uphold = Uphold::with_unit("web", SLEEP);
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.kill();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    uphold.eventually("it is gone", |_| !is_alive(pid));
    uphold.again();
    uphold.until_view("web", "a new process", |view| view["state"] == "running" && view["pid"] != pid);
    let view = uphold.view("web");
    assert_eq!((&view["last_exit"]["reason"], &view["restarts"]), (&"Unknown".into(), &1.into()));
}

#[test]
fn a_stop_that_had_begun_is_ended_and_what_was_stopped_stays_so() {
    let mut uphold = Uphold::new()
        .unit("slow", "command = [\"sh\", \"-c\", \"trap '' TERM; while :; do sleep 1; done\"]\n[stop]\ntimeout = \"2s\"\n")
        .unit("down", SLEEP)
        .start();
    uphold.until("slow", "running").until("down", "running");
    let pid = uphold.main_pid("slow");
    assert_eq!(uphold.ctl(&["stop", "down"]).0, 0);
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "slow"]).0, 0);
    uphold.until("slow", "stopping");
    uphold.kill().again();
    assert_eq!(
        (uphold.state("down").as_str(), &uphold.view("down")["reason"]),
        ("inactive", &"StoppedByOperator".into())
    );
    uphold.until("slow", "inactive");
    assert!(!is_alive(pid));
    assert_eq!(uphold.view("slow")["reason"], "StoppedByOperator");
}

#[test]
fn a_oneshot_whose_end_nobody_saw_is_not_run_again() {
    let text = "type = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"echo run >> runs; sleep 600\"]\n[restart]\npolicy = \"on-failure\"\n";
    let uphold = Uphold::new();
    let text = format!("working_dir = \"{}\"\n{text}", uphold.dir.path().display());
    let mut uphold = uphold.unit("once", &text).start();
    uphold.eventually("it runs", |uphold| uphold.path("runs").exists());
    let pid = uphold.until("once", "starting").main_pid("once");
    uphold.kill();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    uphold.eventually("it is gone", |_| !is_alive(pid));
    uphold.again().until("once", "failed");
    assert_eq!(uphold.view("once")["last_exit"]["reason"], "Unknown");
    assert_eq!(fs::read_to_string(uphold.path("runs")).unwrap(), "run\n");
}

#[test]
fn bad_files_are_no_reason_to_abandon_what_runs() {
    let mut uphold = Uphold::with_unit("web", SLEEP);
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.kill();
    uphold.write_unit("web", "commnad = 3\n");
    uphold.again();
    assert_eq!((uphold.state("web").as_str(), uphold.main_pid("web")), ("running", pid));
    uphold.until_said("the files have errors: going on with the units that ran before, as they were: ");
    uphold.until_said(
        "web.toml:1:1: unknown key `commnad`, and 1 more; correct them, then `uphold ctl daemon-reload`",
    );
    let file = uphold.path("units/web.toml").display().to_string();
    let view = uphold.view("web");
    assert_eq!((&view["changed_on_disk"], &view["unit_file"]), (&true.into(), &file.clone().into()));
    let (_, cat, _) = uphold.ctl(&["cat", "web"]);
    assert!(cat.starts_with("# not from its file, but as it was"), "{cat}");
    assert!(cat.contains("\n# command = [\"sleep\",\"600\"]\n") && !cat.contains("umask"), "{cat}");
    uphold.write_unit("web", SLEEP);
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    assert_eq!((uphold.state("web").as_str(), uphold.main_pid("web")), ("running", pid));
    // One that is bad says nothing of the others.
    uphold.write_unit("other", &format!("commnad = 3\n{SLEEP}"));
    uphold.kill().again();
    uphold.until_said("other.toml:1:1: unknown key `commnad`; correct it, then");
    let view = uphold.view("web");
    assert_eq!((&view["changed_on_disk"], &view["unit_file"]), (&false.into(), &file.into()));
    assert!(uphold.ctl(&["cat", "web"]).1.contains("units/web.toml:1"));
}

#[test]
fn a_state_that_is_foreign_or_corrupt_is_set_aside_nobody_gets_a_signal_and_what_lives_is_named() {
    for damage in ["boot", "cut", "all but the head", "middle", "removed"] {
        let mut uphold = Uphold::with_unit("web", SLEEP);
        let pid = uphold.until("web", "running").main_pid("web");
        uphold.kill();
        let path = uphold.path("run/private/state");
        let text = fs::read_to_string(&path).unwrap();
        let text = match damage {
            "boot" => {
                let line = text.lines().next().unwrap();
                let json = line[9..].replace(
                    &fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned(),
                    "other",
                );
                format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
            }
            "cut" => text[..20].to_owned(),
            "all but the head" => {
                let (head, rest) = text.split_once('\n').unwrap();
                format!("{head}\n{}", &rest[..20])
            }
            _ => text.replacen("\"core\"", "\"cors\"", 1),
        };
        fs::write(&path, text).unwrap();
        let (reason, aside) =
            if damage == "removed" { ("StateLost", false) } else { ("StateNotTakenOver", true) };
        if !aside {
            fs::remove_file(&path).unwrap();
        }
        uphold.again();
        uphold.until_own_event(&format!("live (pid {pid}): nobody supervises them"));
        uphold.until_own_event(reason);
        assert_eq!(uphold.path("run/private/state.aside").exists(), aside);
        uphold.until("web", "running");
        assert!(uphold.main_pid("web") != pid && is_alive(pid), "{damage}");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn what_is_no_regular_file_where_one_is_to_be_is_set_aside_and_nothing_waits_for_it() {
    let fifo = |uphold: &Uphold, name: &str| {
        nix::unistd::mkfifo(&uphold.path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    for name in ["state", "state.new", "runs", "crash", "pump", "no-log-directory"] {
        let mut uphold = Uphold::new().unit("web", SLEEP);
        let private = uphold.path("run/private");
        fs::create_dir_all(&private).unwrap();
        fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fifo(&uphold, &format!("run/private/{name}"));
        uphold = uphold.start();
        uphold.until_own_event(&format!("{name} is no regular file; it is set aside as "));
        let pid = uphold.until("web", "running").main_pid("web");
        uphold.kill().again();
        assert_eq!((uphold.main_pid("web"), uphold.state("web").as_str()), (pid, "running"), "{name}");
    }
    let mut uphold = Uphold::with_unit("web", SLEEP);
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.kill();
    fs::remove_file(uphold.path("run/private/state")).unwrap();
    fifo(&uphold, "run/private/state");
    uphold.again();
    uphold.until_own_event(&format!("live (pid {pid}): nobody supervises them"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn a_lock_that_is_no_regular_file_is_refused() {
    let uphold = Uphold::new().unit("web", SLEEP);
    fs::create_dir_all(uphold.path("run")).unwrap();
    nix::unistd::mkfifo(&uphold.path("run/lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = uphold.run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("it is no regular file; remove it"), "{said}");
}

#[test]
fn no_run_of_a_first_state_meets_what_is_left_of_runs_that_no_state_tells_of() {
    let mut uphold = Uphold::new();
    let units: Vec<String> = (0..10).map(|number| format!("unit{number}")).collect();
    for unit in &units {
        uphold = uphold.unit(unit, SLEEP);
    }
    let mut uphold = uphold.start();
    let pids: Vec<i32> = units.iter().map(|unit| uphold.until(unit, "running").main_pid(unit)).collect();
    uphold.kill();
    // As a container does that is killed and started again.
    for pid in pids {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        uphold.eventually("it is gone", |_| !is_alive(pid));
    }
    fs::remove_file(uphold.path("run/private/state")).unwrap();
    uphold.again();
    for (at, unit) in units.iter().enumerate() {
        uphold.until(unit, "running");
        uphold.until_event(unit, "LogUnread");
        uphold.eventually("it has a FIFO of its own", |uphold| {
            let own = |number: usize| uphold.path(&format!("run/private/{unit}.{number}.out"));
            !own(at + 1).exists() && (11..=20).any(|number| own(number).exists())
        });
    }
    assert!(!uphold.stderr().contains("somebody has removed"), "{}", uphold.stderr());
}

#[test]
fn what_lives_and_a_state_that_was_cut_short_does_not_tell_of_is_named_and_gets_no_signal() {
    let mut uphold = Uphold::with_unit("web", SLEEP);
    let first = uphold.until("web", "running").main_pid("web");
    let path = uphold.path("run/private/state");
    let before = fs::read(&path).unwrap();
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    let pid = uphold.until("web", "running").main_pid("web");
    assert_ne!(pid, first);
    uphold.kill();
    fs::write(&path, before).unwrap();
    uphold.again();
    uphold.until_own_event(&format!(
        "StateLost the state does not tell of processes of an uphold before that live (pid {pid})"
    ));
    uphold.until_view("web", "another", |view| view["state"] == "running" && view["pid"] != pid);
    assert!(is_alive(pid));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn a_record_of_processes_that_is_lost_is_said() {
    for damage in ["removed", "zeroes", "FIFO"] {
        let mut uphold = Uphold::with_unit("web", SLEEP);
        let pid = uphold.until("web", "running").main_pid("web");
        uphold.kill();
        let path = uphold.path("run/private/runs");
        let length = fs::metadata(&path).unwrap().len();
        fs::remove_file(&path).unwrap();
        match damage {
            "zeroes" => fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap(),
            "FIFO" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => {}
        }
        uphold.again();
        uphold.until_own_event("RunsLost private/runs in the runtime directory is gone or of no use: ");
        uphold.until_view("web", damage, |view| view["state"] == "running" && view["pid"] != pid);
        uphold.eventually("it is ended", |_| !is_alive(pid));
    }
}

#[test]
fn a_line_that_was_being_written_is_cut() {
    let mut uphold = Uphold::with_unit("web", SLEEP);
    let pid = uphold.until("web", "running").main_pid("web");
    let before = uphold.pid();
    uphold.kill();
    let path = uphold.path("run/private/state");
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("0badc0de {\"core\"");
    fs::write(&path, text).unwrap();
    uphold.again();
    assert_eq!(uphold.main_pid("web"), pid);
    uphold.until_own_event(&format!(
        "TookOver uphold was started anew, for the one with pid {before} has ended"
    ));
}

#[test]
fn an_orderly_end_leaves_nothing_to_take_over() {
    let mut uphold = Uphold::with_unit("web", SLEEP);
    let pid = uphold.until("web", "running").main_pid("web");
    uphold.signal(Signal::SIGTERM);
    assert!(uphold.exit().success());
    assert!(!is_alive(pid) && !uphold.path("run/private/state").exists());
    uphold.again().until("web", "running");
    assert_eq!(uphold.view("web")["restarts"], 0);
}

#[test]
fn many_kills_in_a_row_change_nothing() {
    let mut uphold = Uphold::new();
    for number in 0..20 {
        uphold = uphold.unit(&format!("u{number}"), SLEEP);
    }
    let mut uphold = uphold.start();
    for number in 0..20 {
        uphold.until(&format!("u{number}"), "running");
    }
    let pids: Vec<i32> = (0..20).map(|number| uphold.main_pid(&format!("u{number}"))).collect();
    for _ in 0..10 {
        uphold.kill().again();
    }
    let after: Vec<i32> = (0..20).map(|number| uphold.main_pid(&format!("u{number}"))).collect();
    assert_eq!(pids, after);
    assert!(!uphold.stderr().contains("does not tell of") && !uphold.stderr().contains("of no use"));
}

/// Lines of a log over all its files, oldest first, without stamps.
fn whole_log(uphold: &Uphold, unit: &str) -> Vec<String> {
    let path = uphold.path(&format!("log/{unit}/stdout.log"));
    let number =
        |number: u32| if number == 0 { path.clone() } else { path.with_extension(format!("log.{number}")) };
    let texts = (0..200).rev().filter_map(|at| fs::read_to_string(number(at)).ok());
    texts
        .flat_map(|text| {
            text.lines()
                .map(|line| line.split_once(' ').map_or(line, |(_, rest)| rest).to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn no_line_of_a_living_service_is_lost_or_doubled_over_kills_upgrades_and_rotations() {
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done; echo all; exec sleep 600";
    let text =
        format!("command = [\"sh\", \"-c\", \"{script}\"]\n[logs]\nmax_size = \"20KiB\"\nkeep = 150\n");
    let mut uphold = Uphold::with_unit("web", &text);
    let pid = uphold.until("web", "running").main_pid("web");
    for round in 0..12 {
        if round % 3 == 2 {
            let (code, _, err) = uphold.ctl(&["upgrade"]);
            assert_eq!(code, 0, "{err}");
        } else {
            uphold.kill().again();
        }
    }
    uphold.eventually("all is written", |uphold| {
        whole_log(uphold, "web").last().is_some_and(|line| line == "all")
    });
    let wanted: Vec<String> = (1..=20_000).map(|i| format!("line {i}")).chain(["all".to_owned()]).collect();
    let got = whole_log(&uphold, "web");
    let differs = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
    assert!(got == wanted, "{} lines, the first that differs is {differs:?}", got.len());
    assert_eq!(uphold.main_pid("web"), pid);
}

#[test]
fn what_a_run_had_written_that_ended_while_no_uphold_ran_is_said_to_be_lost() {
    // Also where the uphold that takes over crashes before it has.
    for crash in ["", "adopting 1 panic", "journal-begun 1 segv"] {
        let text = "command = [\"sh\", \"-c\", \"echo first; exec sleep 600\"]\n";
        let mut uphold = Uphold::fallible().unit("web", text).start();
        let pid = uphold.until("web", "running").main_pid("web");
        uphold.eventually("it has said it", |uphold| uphold.log("web") == ["first"]);
        uphold.kill();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        uphold.eventually("it is gone", |_| !is_alive(pid));
        uphold.fail(crash);
        uphold.again();
        let said = "uphold: run 1 ended while no uphold ran: what it had written and nobody had read is lost";
        uphold.eventually("it is said", |uphold| uphold.log("web").iter().any(|line| line == said));
        uphold.eventually("the next run writes on", |uphold| {
            uphold.log("web").last().is_some_and(|line| line == "first")
        });
    }
}

#[test]
fn a_living_uphold_without_its_lock_file_is_left_alone() {
    let uphold = Uphold::with_unit("web", SLEEP);
    let main = uphold.until("web", "running").main_pid("web");
    fs::remove_file(uphold.path("run/lock")).unwrap();
    let mut command = uphold.command();
    command.stderr(fs::File::create(uphold.path("second")).unwrap());
    let mut second = Lines::of(command);
    assert_eq!(second.exit(), Some(1));
    let text = fs::read_to_string(uphold.path("second")).unwrap();
    assert!(text.contains(&format!("uphold with pid {} holds it", uphold.pid())), "{text}");
    assert_eq!((uphold.state("web").as_str(), uphold.main_pid("web")), ("running", main));
}

#[test]
fn a_command_of_init_that_is_another_one_takes_the_place_of_the_one_before() {
    let uphold = Uphold::new();
    let old = format!(
        "cd {}; trap 'echo told >> told; exit 3' TERM; echo $$ >> runs; while :; do sleep 600 & wait; done",
        uphold.dir.path().display()
    );
    let mut uphold = uphold.mode(&["init", "--", "sh", "-c", &old]).start();
    let pid = uphold.until("command", "running").main_pid("command");
    uphold.eventually("it listens", |uphold| uphold.path("runs").exists());
    // The same one is taken over.
    uphold.kill().again();
    assert_eq!((uphold.main_pid("command"), uphold.state("command").as_str()), (pid, "running"));
    uphold.kill();
    let new = format!("[ -e {} ] && exit 7", uphold.path("told").display());
    uphold = uphold.mode(&["init", "--", "sh", "-c", &new]);
    uphold.again_blind();
    assert_eq!(uphold.exit().code(), Some(7), "{}", uphold.stderr());
    assert!(!is_alive(pid) && uphold.stderr().contains("Replaced"), "{}", uphold.stderr());
    assert_eq!(fs::read_to_string(uphold.path("runs")).unwrap().lines().count(), 1);
}

#[test]
fn what_is_masked_stays_so_where_a_file_is_bad_at_a_kill_or_an_upgrade() {
    let uphold = Uphold::new().unit("web", SLEEP).unit("other", SLEEP);
    symlink("/dev/null", uphold.path("units/never.toml")).unwrap();
    let mut uphold = uphold.start();
    let other = uphold.until("web", "running").until("other", "running").main_pid("other");
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    fs::remove_file(uphold.path("units/web.toml")).unwrap();
    symlink("/dev/null", uphold.path("units/web.toml")).unwrap();
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    uphold.write_unit("bad", "comand = 1\n");
    let are_masked = |uphold: &Uphold| {
        for unit in ["web", "never"] {
            let view = uphold.view(unit);
            assert_eq!((&view["state"], &view["reason"]), (&"inactive".into(), &"Masked".into()), "{view:#}");
        }
        assert_eq!((uphold.state("other").as_str(), uphold.main_pid("other")), ("running", other));
    };
    uphold.kill().again();
    are_masked(&uphold);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    are_masked(&uphold);
    // What is remembered is judged once the files are right again.
    fs::remove_file(uphold.path("units/bad.toml")).unwrap();
    fs::remove_file(uphold.path("units/web.toml")).unwrap();
    uphold.write_unit("web", SLEEP);
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    uphold.until("web", "running");
    assert_eq!(uphold.view("never")["reason"], "Masked");
}

#[test]
fn a_bad_unit_file_takes_nothing_of_the_daemon_config_away() {
    let uphold = Uphold::new();
    let config = uphold.path("uphold.toml");
    fs::write(&config, "main = \"web\"\nshutdown_timeout = \"200ms\"\n[log]\nlevel = \"debug\"\n").unwrap();
    let mut uphold = uphold
        .unit("web", "command = [\"sh\", \"-c\", \"trap 'exit 7' TERM; echo set; sleep 600 & wait\"]\n")
        .unit("stubborn", "command = [\"sh\", \"-c\", \"trap '' TERM; echo set; while :; do sleep 600; done\"]\nstop.timeout = \"10m\"\n")
        .mode(&["run", "--config", &config.display().to_string()])
        .start();
    for unit in ["web", "stubborn"] {
        uphold.eventually("its trap is set", |uphold| uphold.log(unit) == ["set"]);
    }
    uphold.write_unit("bad", "comand = 1\n");
    uphold.kill();
    let said = uphold.stderr().len();
    uphold.again();
    // How one ends that is no child of its own, not every kernel tells.
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    uphold.eventually("its trap is set", |uphold| uphold.log("web") == ["set", "set"]);
    assert!(uphold.stderr()[said..].contains("DEBUG"), "{}", uphold.stderr());
    fs::remove_file(uphold.path("units/bad.toml")).unwrap();
    assert_eq!(uphold.ctl(&["daemon-reload", "--dry-run"]).1, "nothing changed\n");
    uphold.write_unit("bad", "comand = 1\n");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    uphold.signal(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(7), "{}", uphold.stderr());
}

const ONCE: &str = "type = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"echo run >> runs\"]\n";

/// A lenient uphold with a oneshot that has completed, a service that was stopped, and one that requires another.
fn lenient() -> Uphold {
    let uphold = Uphold::new().mode(&["run", "--lenient"]);
    let once = format!("working_dir = \"{}\"\n{ONCE}", uphold.dir.path().display());
    let told = format!(
        "cd {}; trap 'echo $0 >> told; exit' TERM; echo set; sleep 600 & wait",
        uphold.dir.path().display()
    );
    let uphold = uphold
        .unit("once", &once)
        .unit("down", SLEEP)
        .unit("db", &format!("command = [\"sh\", \"-c\", \"{told}\", \"db\"]\n"))
        .unit("web", &format!("requires = [\"db\"]\ncommand = [\"sh\", \"-c\", \"{told}\", \"web\"]\n"))
        .start();
    symlink("/dev/null", uphold.path("units/never.toml")).unwrap();
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    uphold.until("once", "completed").until("down", "running");
    assert_eq!(uphold.ctl(&["stop", "down"]).0, 0);
    for unit in ["db", "web"] {
        uphold.eventually("its trap is set", |uphold| uphold.log(unit) == ["set"]);
    }
    uphold
}

fn spoil(uphold: &Uphold, unit: &str) {
    let path = uphold.path(&format!("units/{unit}.toml"));
    fs::write(&path, format!("comand = 1\n{}", fs::read_to_string(&path).unwrap())).unwrap();
}

fn mend(uphold: &Uphold, unit: &str) {
    let path = uphold.path(&format!("units/{unit}.toml"));
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("comand = 1\n", "")).unwrap();
}

#[test]
fn a_lenient_start_takes_no_bad_file_for_one_that_is_gone() {
    let mut uphold = lenient();
    let pids = |uphold: &Uphold| (uphold.main_pid("db"), uphold.main_pid("web"));
    let before = pids(&uphold);
    ["once", "down", "db"].iter().for_each(|unit| spoil(&uphold, unit));
    fs::remove_file(uphold.path("units/never.toml")).unwrap();
    uphold.write_unit("never", "comand = 1\n");
    uphold.write_unit("new", SLEEP);
    uphold.kill().again();
    uphold.until_said("going on with those that ran before and cannot be loaded, as they were");
    // What is right is loaded.
    uphold.until("new", "running");
    assert_eq!(pids(&uphold), before);
    assert_eq!((uphold.state("once").as_str(), uphold.state("down").as_str()), ("completed", "inactive"));
    for (unit, changed) in [("once", true), ("down", true), ("db", true), ("never", true), ("web", false)] {
        let view = uphold.view(unit);
        assert_eq!(
            (&view["removed"], &view["changed_on_disk"]),
            (&false.into(), &changed.into()),
            "{view:#}"
        );
    }
    assert_eq!(uphold.view("down")["reason"], "StoppedByOperator");
    assert_eq!(uphold.view("never")["reason"], "Masked");
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 1);
    fs::remove_file(uphold.path("units/never.toml")).unwrap();
    symlink("/dev/null", uphold.path("units/never.toml")).unwrap();
    ["once", "down", "db"].iter().for_each(|unit| mend(&uphold, unit));
    assert_eq!(uphold.ctl(&["daemon-reload"]), (0, "nothing changed\n".to_owned(), String::new()));
    assert_eq!((uphold.state("once").as_str(), uphold.state("down").as_str()), ("completed", "inactive"));
    assert_eq!(fs::read_to_string(uphold.path("runs")).unwrap(), "run\n");
}

#[test]
fn a_lenient_upgrade_with_a_bad_file_keeps_the_order_of_the_stop() {
    let mut uphold = lenient();
    spoil(&uphold, "db");
    let (code, _, err) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{err}");
    uphold.until_event("db", "Adopted");
    uphold.signal(Signal::SIGTERM);
    assert!(uphold.exit().success());
    assert_eq!(fs::read_to_string(uphold.path("told")).unwrap(), "web\ndb\n");
}

#[test]
fn a_lenient_start_keeps_all_as_it_was_where_a_good_file_has_no_place_beside_what_is_remembered() {
    let mut uphold = lenient();
    let pids = |uphold: &Uphold| (uphold.main_pid("db"), uphold.main_pid("web"));
    let before = pids(&uphold);
    // web as it was requires db, and by its file, which is right, db requires web.
    spoil(&uphold, "web");
    uphold.write_unit("db", "requires = [\"web\"]\ncommand = [\"sleep\", \"600\"]\n");
    uphold.kill().again();
    assert_eq!(pids(&uphold), before);
    // A file that is gone, and what requires it.
    fs::remove_file(uphold.path("units/db.toml")).unwrap();
    mend(&uphold, "web");
    uphold.kill().again();
    assert_eq!(pids(&uphold), before);
    for unit in ["db", "web"] {
        assert_eq!(uphold.view(unit)["removed"], false, "{unit}");
    }
}

#[test]
fn a_directory_that_cannot_be_read_takes_no_unit_away_from_a_lenient_start() {
    let uphold = Uphold::new();
    let other = uphold.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("far.toml"), SLEEP).unwrap();
    let mut uphold = uphold
        .unit("web", SLEEP)
        .mode(&["run", "--lenient", "--units", &other.display().to_string()])
        .start();
    let pid = uphold.until("far", "running").main_pid("far");
    uphold.kill();
    fs::rename(&other, uphold.path("away")).unwrap();
    uphold.write_unit("new", SLEEP);
    uphold.again().until("new", "running");
    assert_eq!((uphold.main_pid("far"), &uphold.view("far")["removed"]), (pid, &false.into()));
}

#[test]
fn an_uphold_without_units_is_upgraded_also_beside_a_bad_file() {
    let uphold = Uphold::new().start();
    uphold.write_unit("bad", "comand = 1\n");
    let (code, _, err) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{err}");
    fs::remove_file(uphold.path("units/bad.toml")).unwrap();
    uphold.write_unit("web", SLEEP);
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    uphold.until("web", "running");
}
