//! The figures that uphold is held to, measured on a real daemon: `cargo bench --bench numbers`.
//!
//! Each stands beside a floor that was measured in the same run where a floor exists, since machines differ.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may fail, and prints")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uphold::engine::Run;
use uphold::host::Inherited;
use uphold::{logs, unit};

const BINARY: &str = env!("CARGO_BIN_EXE_uphold");

struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start(units: usize, text: &str) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("units")).unwrap();
        for n in 0..units {
            std::fs::write(dir.path().join(format!("units/u{n:04}.toml")), text).unwrap();
        }
        let child = Daemon::launch(dir.path());
        Daemon { child, dir }
    }

    fn launch(dir: &Path) -> Child {
        let mut command = Command::new(BINARY);
        command.arg("run");
        for (flag, name) in [("--units", "units"), ("--runtime-dir", "run"), ("--log-dir", "log")] {
            command.arg(flag).arg(dir.join(name));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Killed with -9 and started again: how long until it answers.
    fn killed_and_started(&mut self) -> Duration {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let begun = Instant::now();
        self.child = Daemon::launch(self.dir.path());
        while self.get("/v1/version").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    }

    fn connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.dir.path().join("run/control.sock")).ok()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = self.connect()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: u\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text.split_once("\r\n\r\n")?.1.to_owned())
    }

    fn views(&self) -> Vec<serde_json::Value> {
        let body = self.get("/v1/units").unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        value["units"].as_array().cloned().unwrap_or_default()
    }

    /// Looks seldom: to show a thousand units, with what changed on disk, is work that would be measured too.
    fn until_running(&self, units: usize) -> Vec<serde_json::Value> {
        while self.get("/v1/version").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if units > 1 {
            std::thread::sleep(Duration::from_secs(5));
        }
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let views = self.views();
            if views.len() == units && views.iter().all(|view| view["state"] == "running") {
                return views;
            }
            assert!(Instant::now() < until, "not all run");
            std::thread::sleep(Duration::from_millis(if units > 1 { 1000 } else { 1 }));
        }
    }

    fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    fn rss_kib(&self) -> u64 {
        field(&self.proc("status"), "VmRSS:")
    }

    fn switches(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .flatten()
            .map(|task| std::fs::read_to_string(task.path().join("status")).unwrap())
            .map(|status| field(&status, "voluntary_ctxt_switches:"))
            .sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn sleep() -> Child {
    Command::new("sleep").arg("6000").stdin(Stdio::null()).spawn().unwrap()
}

/// From SIGKILL to the next exec where nobody decides anything, and nothing is written.
fn bare_restart() -> f64 {
    let mut child = sleep();
    let times = (0..200).map(|_| {
        let begun = Instant::now();
        child.kill().unwrap();
        child.wait().unwrap();
        child = sleep();
        begun.elapsed().as_secs_f64() * 1e3
    });
    let floor = median(times.collect());
    child.kill().unwrap();
    child.wait().unwrap();
    floor
}

/// From SIGKILL to the event that says that the next exec has succeeded.
fn restart() {
    let floor = bare_restart();
    let daemon = Daemon::start(1, "command = [\"sleep\", \"6000\"]\n[restart]\ndelay = \"0s\"\n");
    daemon.until_running(1);
    let mut times = Vec::new();
    let stream = daemon.connect().unwrap();
    write!(&stream, "GET /v1/events?follow=true HTTP/1.1\r\nHost: u\r\n\r\n").unwrap();
    let mut events = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"Started\"") {
        line.clear();
        events.read_line(&mut line).unwrap();
    }
    for _ in 0..200 {
        let pid = daemon.until_running(1)[0]["pid"].as_i64().unwrap();
        let begun = Instant::now();
        kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
        line.clear();
        while !line.contains("\"Started\"") {
            line.clear();
            events.read_line(&mut line).unwrap();
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let median = median(times);
    println!(
        "restart after SIGKILL, to the Started event: median {median:.2} ms (target: under 2 ms); bare kill, wait and exec {floor:.2} ms"
    );
}

/// A thousand services, against a bare loop that starts as many.
fn thousand() {
    let begun = Instant::now();
    let mut bare: Vec<Child> = (0..1000).map(|_| sleep()).collect();
    let floor = begun.elapsed();
    for child in &mut bare {
        let _ = child.kill();
    }
    for child in &mut bare {
        let _ = child.wait();
    }
    let begun = jiff::Timestamp::now();
    let daemon = Daemon::start(1000, "command = [\"sleep\", \"6000\"]\n");
    let launched = jiff::Timestamp::now();
    while daemon.get("/v1/version").is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_secs(5));
    let rss = daemon.rss_kib();
    let views = daemon.until_running(1000);
    let started =
        |view: &serde_json::Value| view["started_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let first = views.iter().map(started).min().unwrap();
    let last = views.iter().map(started).max().unwrap();
    let seconds = |from: jiff::Timestamp, to: jiff::Timestamp| to.duration_since(from).as_secs_f64();
    let (span, whole) = (seconds(first, last), seconds(launched, last));
    println!(
        "1,000 units: bare loop {:.3} s; first to last start {span:.3} s (ratio {:.2}); from uphold's own start {whole:.3} s (ratio {:.2}, target: 1.5); writing the files took {:.3} s",
        floor.as_secs_f64(),
        span / floor.as_secs_f64(),
        whole / floor.as_secs_f64(),
        seconds(begun, launched)
    );
    println!("RSS with 1,000 units: {:.1} MiB (target: under 16)", rss as f64 / 1024.0);
}

fn idle() {
    let daemon = Daemon::start(100, "command = [\"sleep\", \"6000\"]\n");
    daemon.until_running(100);
    std::thread::sleep(Duration::from_secs(3));
    let before = daemon.switches();
    std::thread::sleep(Duration::from_secs(10));
    println!("idle with 100 units: {} wakeups in 10 s (target: 0)", daemon.switches() - before);
    let none = Daemon::start(0, "");
    none.until_running(0);
    println!("RSS with no unit: {:.1} MiB (target: under 8)", none.rss_kib() as f64 / 1024.0);
}

fn pids(views: &[serde_json::Value]) -> Vec<i64> {
    views.iter().map(|view| view["pid"].as_i64().unwrap()).collect()
}

/// A thousand units taken over after a kill -9, to an API that answers.
fn recovery() {
    let mut daemon = Daemon::start(1000, "command = [\"sleep\", \"6000\"]\n");
    let before = pids(&daemon.until_running(1000));
    let times = (0..9).map(|_| daemon.killed_and_started().as_secs_f64() * 1e3).collect();
    assert_eq!(before, pids(&daemon.until_running(1000)));
    println!(
        "taking over 1,000 units after kill -9, from exec to an answer: median of 9 {:.0} ms (target: under 300 ms)",
        median(times)
    );
}

/// An upgrade of 100 units with probes, as a client sees it who asks all the time.
fn upgrade() {
    let text = "command = [\"sleep\", \"6000\"]\n[readiness]\nexec = { command = [\"true\"] }\nperiod = \"1s\"\n\
                [liveness]\nexec = { command = [\"true\"] }\nperiod = \"1s\"\n";
    let daemon = Daemon::start(100, text);
    let before = pids(&daemon.until_running(100));
    let image = || -> u64 {
        let body: serde_json::Value =
            serde_json::from_str(&daemon.get("/v1/version").unwrap_or_default()).unwrap_or_default();
        body["image"].as_u64().unwrap_or(0)
    };
    let (mut times, mut refused) = (Vec::new(), 0);
    for wanted in 2..=11 {
        let mut stream = daemon.connect().unwrap();
        write!(
            stream,
            "POST /v1/upgrade HTTP/1.1\r\nHost: u\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let _ = stream.read_to_string(&mut String::new());
        // From the answer that it begins to the first answer of the new image.
        let begun = Instant::now();
        while image() != wanted {
            refused += u32::from(daemon.connect().is_none());
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(before, pids(&daemon.until_running(100)));
    let events = daemon.get("/v1/events").unwrap();
    let failed = events.lines().filter(|line| line.contains("\"Unhealthy\"")).count();
    println!(
        "upgrade of 100 units with two probes each, from its begin to an answer of the new image: median of 10 {:.0} ms (target: under 100 ms); {refused} connections refused, {failed} probes failed (target: 0 and 0)",
        median(times)
    );
}

/// A gigabyte of 100-byte lines through one stream into a rotated file, against a bare read and write.
fn pump() {
    let dir = tempfile::tempdir().unwrap();
    let block = [&[b'x'; 99][..], b"\n"].concat().repeat(600);
    let total = 1_usize << 30;
    let feed = |mut writer: std::io::PipeWriter| {
        let block = block.clone();
        std::thread::spawn(move || {
            (0..total / block.len()).for_each(|_| writer.write_all(&block).unwrap());
        })
    };
    let (mut reader, writer) = std::io::pipe().unwrap();
    let begun = Instant::now();
    let feeder = feed(writer);
    let (mut file, mut buffer) = (std::fs::File::create(dir.path().join("bare")).unwrap(), vec![0; 65_536]);
    loop {
        let length = reader.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        file.write_all(&buffer[..length]).unwrap();
    }
    feeder.join().unwrap();
    let floor = begun.elapsed().as_secs_f64();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    runtime.block_on(async {
        let settings = logs::Settings { dir: Some(dir.path().to_owned()), default: unit::Output::File };
        let (notices, _kept) = tokio::sync::mpsc::unbounded_channel();
        let region = Box::new(Inherited::default().notes(Some(dir.path()), logs::REGION).unwrap().0);
        let lasting = logs::Lasting { dir: Some(dir.path().to_owned()), region, memory: None, gate: None };
        let pump = logs::Logs::start(settings, Some(lasting), notices).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        pump.open(logs::Source {
            instance: unit::Name::new("web").unwrap(),
            run: Run(1),
            stderr: false,
            pipe: reader.into(),
            path: Some(dir.path().join("web.1.out")),
            logs: unit::Logs { max_size: 100 << 20, keep: 1, ..unit::Logs::default() },
            begins: logs::Begins::Anew,
            room: None,
        });
        feed(writer).join().unwrap();
        pump.finish(Duration::from_secs(60)).await;
    });
    let ours = begun.elapsed().as_secs_f64();
    let rate = |seconds: f64| total as f64 / seconds / 1e6;
    println!(
        "log pump, 100-byte lines: {:.0} MB/s with stamps and rotation; bare read and write {:.0} MB/s (ratio {:.2})",
        rate(ours),
        rate(floor),
        ours / floor
    );
}

fn main() {
    let size = std::fs::metadata(Path::new(BINARY)).unwrap().len() as f64 / 1e6;
    println!("binary: {size:.2} MB (target: under 6 MB, the static one too)");
    // `cargo bench --bench numbers -- pump` measures only that.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let measures: [(&str, fn()); 6] = [
        ("restart", restart),
        ("thousand", thousand),
        ("idle", idle),
        ("recovery", recovery),
        ("upgrade", upgrade),
        ("pump", pump),
    ];
    for (name, measure) in measures {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
        }
    }
}
