//! uphold is replaced, and nobody who asks it something need know.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::dsl::*;
use crate::goes_on::until_image;

/// Writes a line every few milliseconds, over many files.
const COUNTS: &str = "command = [\"sh\", \"-c\", \"i=0; while :; do i=$((i+1)); echo line $i; i=$((i+1)); echo line $i; sleep 0.005; done\"]\n\
                      [logs]\nmax_size = \"1KiB\"\nkeep = 1000\n";

/// Takes half a second to stop and half a second to come up, and keeps count of its starts.
fn slow(uphold: &Uphold) -> String {
    let line = "echo x >> STARTS; trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.05; done";
    let line = line.replace("STARTS", &uphold.path("starts").display().to_string());
    format!("command = [\"sh\", \"-c\", \"{line}\"]\nup_after = \"500ms\"\n")
}

fn starts(uphold: &Uphold) -> usize {
    std::fs::read_to_string(uphold.path("starts")).unwrap_or_default().lines().count()
}

fn kill_and_start(uphold: &mut Uphold) {
    uphold.kill().again();
}

#[test]
fn followers_miss_nothing_and_see_nothing_twice_over_upgrades_and_kills() {
    let mut uphold = Uphold::fallible().unit("web", COUNTS).start();
    uphold.until("web", "running");
    let mut logs = Lines::of(uphold.ctl_command(&["logs", "web", "-f"]));
    let mut events = Lines::of(uphold.ctl_command(&["-o", "json", "events", "-f"]));
    let mut web = Lines::of(uphold.ctl_command(&["-o", "json", "events", "web", "-f"]));
    let mut status = Lines::of(uphold.ctl_command(&["status", "-w"]));
    let mut seen = vec![logs.until("line 1")];
    let number = |line: &String| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
    let mut all: Vec<u64> = vec![number(&events.until("Started process web"))];
    for round in 0..25 {
        if round == 10 {
            uphold.fail("command 1 segv");
            let _ = uphold.http("POST /v1/units/web/start");
            until_image(&uphold, 2);
        } else if round % 5 == 4 {
            kill_and_start(&mut uphold);
        } else {
            let (code, out, err) = uphold.ctl(&["upgrade"]);
            assert_eq!(code, 0, "{out}{err}");
        }
    }
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    status.until("Inactive");
    let listed = uphold.http("GET /v1/events").unwrap().1;
    uphold.signal(Signal::SIGTERM);
    uphold.exit();
    let (rest, code) = logs.rest();
    seen.extend(rest);
    assert_eq!(code, Some(0));
    let written = uphold.whole_log("web");
    assert!(written.len() > 100, "{}", written.len());
    let first = seen.iter().zip(&written).position(|(seen, written)| seen != written);
    assert_eq!(
        (first, seen.len()),
        (None, written.len()),
        "{:?}",
        first.map(|at| (&seen[at..], &written[at..]))
    );
    let counted: Vec<String> = (1..=written.len()).map(|number| format!("line {number}")).collect();
    assert_eq!(counted.iter().zip(&written).find(|(counted, written)| counted != written), None);
    let (rest, code) = events.rest();
    assert_eq!(code, Some(0));
    all.extend(rest.iter().map(number));
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    let missing: Vec<&str> = listed
        .lines()
        .filter(|line| !all.contains(&number(&(*line).to_owned())) && number(&(*line).to_owned()) >= all[0])
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(web.rest().0.iter().map(number).collect::<Vec<_>>().is_sorted_by(|a, b| a < b));
    assert_eq!(status.exit(), Some(0));
}

#[test]
fn a_new_life_of_uphold_is_said_and_its_events_are_shown_from_their_beginning() {
    let mut uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]\n");
    let pid = uphold.until("web", "running").main_pid("web");
    let err = std::fs::File::create(uphold.path("events.err")).unwrap();
    let mut command = uphold.ctl_command(&["events", "-f"]);
    command.stderr(Stdio::from(err));
    let events = Lines::of(command);
    events.until("Started process web");
    uphold.kill();
    std::fs::remove_file(uphold.path("run/private/state")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    uphold.again();
    events.until("Started process web");
    let said = std::fs::read_to_string(uphold.path("events.err")).unwrap();
    assert!(said.contains("took nothing over"), "{said}");
}

#[test]
fn a_restart_goes_on_over_an_upgrade_and_a_kill_and_restarts_once() {
    for kill in [false, true] {
        let uphold = Uphold::new();
        let text = slow(&uphold);
        let mut uphold = uphold.unit("web", &text).start();
        uphold.until("web", "running");
        let restart = uphold
            .ctl_command(&["restart", "web"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        uphold.until("web", "stopping");
        let mut replace =
            || if kill { kill_and_start(&mut uphold) } else { assert_eq!(uphold.ctl(&["upgrade"]).0, 0) };
        replace();
        replace();
        let output = restart.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(0), 1), "{said}");
        assert!(said.contains("uphold was replaced meanwhile"), "{said}");
        assert_eq!((uphold.state("web").as_str(), starts(&uphold)), ("running", 2));
        let stop =
            uphold.ctl_command(&["stop", "web"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let wait = uphold
            .ctl_command(&["wait", "web", "--for", "stopped", "--timeout", "20s"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        uphold.until("web", "stopping");
        if kill {
            kill_and_start(&mut uphold)
        } else {
            assert_eq!(uphold.ctl(&["upgrade"]).0, 0)
        };
        for mut child in [stop, wait] {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        let start = uphold
            .ctl_command(&["start", "web"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        uphold.until("web", "starting");
        if kill {
            kill_and_start(&mut uphold)
        } else {
            assert_eq!(uphold.ctl(&["upgrade"]).0, 0)
        };
        assert_eq!({ start }.wait().unwrap().code(), Some(0));
        assert_eq!(starts(&uphold), 3);
    }
}

#[test]
fn a_service_that_ends_as_soon_as_it_is_up_is_a_failed_start_after_an_upgrade_too() {
    let text = "autostart = false\nup_after = \"1s\"\ncommand = [\"sh\", \"-c\", \"sleep 1.5; echo last words; exit 3\"]\n[restart]\ndelay = \"1m\"\n";
    let uphold = Uphold::with_unit("web", text);
    let start = uphold.ctl_command(&["start", "web"]).stderr(Stdio::piped()).spawn().unwrap();
    uphold.until("web", "starting");
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    let output = start.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("exit 3") && said.contains("last words"), "{said}");
}

#[test]
fn what_a_crash_has_left_undone_is_said_and_what_was_recorded_is_done_once() {
    for (place, code, starts, said) in [
        ("command 1 panic", 1, 1, "the restart was not done: uphold crashed, and"),
        ("recorded 1 panic", 0, 2, "replaced meanwhile"),
    ] {
        let uphold = Uphold::fallible();
        let text = slow(&uphold);
        let uphold = uphold.unit("web", &text).start();
        uphold.until("web", "running");
        uphold.fail(place);
        let (got, out, err) = uphold.ctl(&["restart", "web"]);
        assert!(got == code && err.contains(said), "{place}: {got}: {out}{err}");
        uphold.until("web", "running");
        assert_eq!(self::starts(&uphold), starts, "{place}");
        let (code, out, err) = uphold.ctl(&["restart", "web"]);
        assert_eq!((code, err.as_str(), self::starts(&uphold)), (0, "", starts + 1), "{out}");
    }
}

/// However slow it is, or its machine.
#[test]
fn a_client_that_is_in_and_has_not_asked_yet_is_answered_by_the_image_that_follows() {
    let uphold = Uphold::fallible().unit("web", "command = [\"sleep\", \"600\"]\n").start();
    let mut client = UnixStream::connect(uphold.socket()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // It was let in: those are let in in order.
    uphold.until("web", "running");
    let (code, out, err) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{out}{err}");
    uphold.fail("command 1 segv");
    let _ = uphold.http("POST /v1/units/web/start");
    until_image(&uphold, 3);
    client.write_all(b"GET /v1/units/web HTTP/1.1\r\nHost: uphold\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// Sets it in the end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks on a connection that is kept for the next request, and gives the answer.
fn ask_on(client: &mut UnixStream, request: &str) -> std::io::Result<String> {
    client.write_all(format!("{request} HTTP/1.1\r\nHost: uphold\r\n\r\n").as_bytes())?;
    let (mut answer, mut length) = (String::new(), None);
    while length.is_none_or(|length| answer.len() < length) {
        let mut part = [0; 1 << 16];
        let count = client.read(&mut part)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.push_str(std::str::from_utf8(&part[..count]).unwrap());
        length = answer.find("\r\n\r\n").map(|end| {
            let header = answer.split("content-length: ").nth(1).unwrap();
            end + 4 + header.split("\r\n").next().unwrap().parse::<usize>().unwrap()
        });
    }
    Ok(answer)
}

#[test]
fn a_connection_that_is_kept_between_requests_outlives_upgrades_and_a_crash() {
    let uphold = Uphold::fallible().unit("web", "command = [\"sleep\", \"600\"]\n").start();
    uphold.until("web", "running");
    let connect = || {
        let client = UnixStream::connect(uphold.socket()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    };
    let fine = |client: &mut UnixStream| {
        let answer = ask_on(client, "GET /v1/units/web").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("}\n"), "{answer}");
    };
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = connect();
                while !over.load(Ordering::Relaxed) {
                    fine(&mut client);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Also where what follows fails.
        let _over = Over(&over);
        for image in 2..22 {
            // One that asks for the upgrade itself rests, too.
            let [mut rests, mut asks] = [connect(), connect()];
            fine(&mut rests);
            let before = asked.load(Ordering::Relaxed);
            let answer = ask_on(&mut asks, "POST /v1/upgrade").unwrap();
            assert!(answer.starts_with("HTTP/1.1 202 Accepted"), "{answer}");
            until_image(&uphold, image);
            fine(&mut rests);
            fine(&mut asks);
            uphold.eventually("all are answered", |_| asked.load(Ordering::Relaxed) > before + 4);
        }
    });
    let mut rests = connect();
    fine(&mut rests);
    uphold.fail("command 1 segv");
    let _ = uphold.http("POST /v1/units/web/start");
    until_image(&uphold, 22);
    fine(&mut rests);
}

#[test]
fn fifty_clients_are_answered_during_twenty_upgrades() {
    let uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]\n");
    uphold.until("web", "running");
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (uphold, over, asked) = (&uphold, &over, &asked);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if number < 5 {
                        let (code, out, err) = uphold.ctl(&["status"]);
                        assert_eq!(code, 0, "{out}{err}");
                    } else {
                        let (status, body) = uphold.asked("GET /v1/units").unwrap();
                        assert!(
                            status == 200 && serde_json::from_str::<Value>(&body).is_ok(),
                            "{status}: {body}"
                        );
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    pause();
                }
            });
        }
        for _ in 0..20 {
            let (code, out, err) = uphold.ctl(&["upgrade"]);
            if code != 0 {
                over.store(true, Ordering::Relaxed);
            }
            assert_eq!(code, 0, "{out}{err}");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 1000, "{asked:?}");
}

#[test]
fn a_storm_of_signals_and_whoever_asks_meanwhile_get_one_upgrade() {
    let uphold = Uphold::new().unit("web", "command = [\"sleep\", \"600\"]\n").own_binary().start();
    let pid = uphold.until("web", "running").main_pid("web");
    let (trials, gate) = (uphold.path("trials"), uphold.path("gate"));
    let tried = || std::fs::read_to_string(&trials).unwrap_or_default().lines().count();
    // One that takes its time to say whether it reads the state.
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = try-state ]; then echo x >> {}; until [ -e {} ]; do sleep 0.01; done; fi\n\
         exec {} \"$@\"\n",
        trials.display(),
        gate.display(),
        binary()
    );
    let new = uphold.path("new");
    std::fs::write(&new, script).unwrap();
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&new, uphold.path("uphold")).unwrap();
    uphold.signal(Signal::SIGUSR2);
    uphold.eventually("it is tried", |_| tried() == 1);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| uphold.http("POST /v1/upgrade").map(|(status, _)| status));
        for _ in 0..100 {
            // Each is heard for itself.
            uphold.signal(Signal::SIGUSR2).get("/v1/version").unwrap();
        }
        std::fs::write(&gate, "").unwrap();
        assert_eq!(asks.join().unwrap(), Some(202));
    });
    until_image(&uphold, 2);
    assert_eq!((tried(), uphold.main_pid("web")), (1, pid));
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    until_image(&uphold, 3);
    let own: Vec<(String, u64)> = uphold
        .all_events()
        .into_iter()
        .filter(|(unit, line, _)| unit == "uphold" && line.starts_with("Upgrade"))
        .map(|(_, line, count)| (line.split(' ').next().unwrap().to_owned(), count))
        .collect();
    assert_eq!(own, [("Upgraded".to_owned(), 2)]);
}

#[test]
fn an_unfinished_line_that_goes_to_no_file_is_shown_once_by_every_image() {
    let text =
        "command = [\"sh\", \"-c\", \"printf login:; exec sleep 600\"]\n[logs]\nstdout = \"inherit\"\n";
    let uphold = Uphold::with_unit("web", text);
    let shown = |uphold: &Uphold| uphold.view("web")["output"] == serde_json::json!(["login:"]);
    uphold.eventually("it is shown", shown);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert!(shown(&uphold), "{}", uphold.view("web")["output"]);
}

#[test]
fn an_upgrade_that_a_kill_and_a_start_come_before_is_said_to_be_that() {
    // The second time images are counted from 1 on while it was the second one before.
    for upgrades in 0..2 {
        let mut uphold = Uphold::fallible().unit("web", "command = [\"sleep\", \"600\"]\n").start();
        uphold.until("web", "running");
        for _ in 0..upgrades {
            assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
        }
        uphold.fail("executing 1 kill");
        let asks = uphold.ctl_command(&["upgrade"]).stderr(Stdio::piped()).spawn().unwrap();
        uphold.exit();
        uphold.again();
        let output = asks.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let is =
            format!("started anew meanwhile, and is {} now, pid {}", env!("CARGO_PKG_VERSION"), uphold.pid());
        assert!(output.status.code() == Some(1) && said.contains(&is), "{said}");
    }
}
