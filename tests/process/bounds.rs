//! What clients may take, and what an idle uphold does: nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use crate::dsl::*;

const SLEEP: &str = "command = [\"sleep\", \"600\"]\n";

#[test]
fn a_flood_of_rubbish_does_not_keep_another_client_from_its_work() {
    let uphold = Uphold::with_unit("web", SLEEP);
    uphold.until("web", "running");
    let socket = uphold.socket();
    let flood: Vec<_> = (0u8..200)
        .map(|n| {
            let socket = socket.clone();
            std::thread::spawn(move || {
                let mut stream = UnixStream::connect(socket).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let rubbish: &[u8] = match n % 4 {
                    0 => &[0xff; 4096],
                    1 => b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
                    2 => b"GET /v1/units HTTP/1.1\r\nHost: u\r\nContent-Length: -1\r\n\r\n",
                    _ => b"\r\n\0\0\0 / / /\r\n\r\n",
                };
                let _ = stream.write_all(rubbish);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            })
        })
        .collect();
    let pid = uphold.main_pid("web");
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    assert_ne!(uphold.main_pid("web"), pid);
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(uphold.state("web"), "running");
}

#[test]
fn a_reader_may_look_but_not_touch_and_has_sixteen_connections() {
    if !is_root() {
        return skip("only root can be another uid");
    }
    let uphold = Uphold::new();
    let config = uphold.path("uphold.toml");
    std::fs::write(&config, "[control]\nread_groups = [\"45672\"]\n").unwrap();
    let config = config.display().to_string();
    let program = uphold.reachable_binary();
    let uphold = uphold.unit("web", SLEEP).mode(&["run", "--config", &config]).start();
    uphold.until("web", "running");
    let reader = |words: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(["ctl", "--socket"]).arg(uphold.socket()).args(words).uid(45_672).gid(45_672);
        command
    };
    let run = |words: &[&str]| {
        let output = reader(words).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["status", "web"]).0, Some(0));
    assert_eq!(run(&["stop", "web"]).0, Some(6));
    assert_eq!(run(&["cat", "web"]).0, Some(6));
    let mut held: Vec<_> = (0..16).map(|_| Lines::of(reader(&["events", "-f"]))).collect();
    held.iter().for_each(|lines| drop(lines.until("Started")));
    let (code, text) = run(&["status"]);
    assert_ne!(code, Some(0));
    assert!(text.contains("45672") && text.contains("16 connections"), "{text}");
    assert_eq!(uphold.ctl(&["status"]).0, 0, "the administrator is not bound by it");
    held.pop();
    uphold.eventually("there is room again", |_| run(&["status"]).0 == Some(0));
}

#[test]
fn a_client_that_goes_away_while_it_waits_is_forgotten_and_its_stop_goes_on() {
    let uphold = Uphold::new();
    let config = uphold.path("uphold.toml");
    std::fs::write(&config, "[log]\nlevel = \"debug\"\n").unwrap();
    let config = config.display().to_string();
    let stubborn = "command = [\"sh\", \"-c\", \"trap '' TERM; echo on; while :; do sleep 1; done\"]\n[stop]\ntimeout = \"1s\"";
    let uphold = uphold.unit("web", stubborn).mode(&["run", "--config", &config]).start();
    uphold.eventually("it runs", |uphold| uphold.log("web").len() == 1);
    let gone = |uphold: &Uphold| uphold.stderr().matches("a client is gone before its answer").count();
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(uphold.socket()).unwrap();
        let head = format!("{request} HTTP/1.1\r\nHost: u\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    for n in 1..=20 {
        let wait = ask("GET /v1/units/web/wait?for=stopped");
        uphold.eventually("it is asked for", |uphold| uphold.stderr().matches("Wait(Stopped)").count() == n);
        drop(wait);
        uphold.eventually("it is forgotten", |uphold| gone(uphold) == n);
    }
    let stop = ask("POST /v1/units/web/stop?wait=true");
    uphold.until("web", "stopping");
    drop(stop);
    uphold.eventually("it is forgotten", |uphold| gone(uphold) == 21).until("web", "inactive");
}

#[test]
fn a_client_that_does_not_read_does_not_keep_uphold_from_its_end() {
    let text = "command = [\"sh\", \"-c\", \"yes a line of a log | head -c 4000000; exec sleep 600\"]";
    let mut uphold = Uphold::with_unit("web", text);
    let log = uphold.path("log/web/stdout.log");
    uphold.eventually("it has written", |_| std::fs::metadata(&log).is_ok_and(|file| file.len() > 4_000_000));
    let mut stream = UnixStream::connect(uphold.socket()).unwrap();
    stream.write_all(b"GET /v1/units/web/logs?follow=true HTTP/1.1\r\nHost: u\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    let begun = Instant::now();
    uphold.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(stream);
}

/// How often a process's threads have gone to sleep.
fn sleeps(pid: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let status = tasks.map(|task| std::fs::read_to_string(task.path().join("status")).unwrap_or_default());
    let count = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    status.map(count).sum()
}

/// Lets this much time pass: the claim is about time in which nothing happens.
fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        pause();
    }
}

#[test]
fn an_idle_uphold_does_not_wake_up() {
    let mut uphold = Uphold::new();
    for n in 0..20 {
        uphold = uphold.unit(&format!("u{n}"), SLEEP);
    }
    let uphold = uphold.start();
    for n in 0..20 {
        uphold.until(&format!("u{n}"), "running");
    }
    uphold.eventually("it has come to rest", |uphold| {
        let before = sleeps(uphold.pid());
        // Longer than anything that is set once at a start and then done with (the host looks after a second
        // whether a start has stalled).
        pass(Duration::from_millis(1500));
        sleeps(uphold.pid()) == before
    });
    let before = sleeps(uphold.pid());
    pass(Duration::from_secs(5));
    assert_eq!(sleeps(uphold.pid()), before);
}
