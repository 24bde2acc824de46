//! Round trips against a server that answers from a script, and what the tests of this module share.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use clap::Parser;

use super::http::Client;
use super::out::Out;
use super::*;
use crate::engine::view::{ProbeView, Probes};
use crate::engine::{Event, EventKind, ExitReason, LastExit, StateName, View, Wanted};
use crate::unit::Name;

/// So many seconds after 1970.
pub(super) fn at(seconds: i64) -> Wall {
    Wall::from_nanos(i128::from(seconds) * 1_000_000_000)
}

/// A service that runs and is up.
pub(super) fn view(name: &str) -> View {
    View {
        name: Name::new(name).unwrap(),
        unit: Name::new(name).unwrap(),
        instance: None,
        description: String::new(),
        kind: "simple".to_owned(),
        state: StateName::Running,
        wanted: Wanted::Up,
        ready: Some(true),
        up: true,
        pid: Some(4711),
        since: at(0),
        started_at: Some(at(0)),
        uptime_seconds: Some(71.2),
        restarts: 0,
        next_start_at: None,
        reason: None,
        message: None,
        last_exit: None,
        exits: Vec::new(),
        probes: Probes::default(),
        changed_on_disk: false,
        restart_needed: false,
        removed: false,
        memory_bytes: None,
        cpu_seconds: None,
        tasks: None,
        unit_file: None,
        command: Vec::new(),
        output: Vec::new(),
        stops: Vec::new(),
        start_timeout_seconds: Some(90.0),
        stop_timeout_seconds: 30.0,
    }
}

/// An exit with 1 after a second.
pub(super) fn exit(reason: ExitReason, finished: i64) -> LastExit {
    LastExit {
        code: Some(1),
        signal: None,
        reason,
        started_at: Some(at(finished - 1)),
        finished_at: at(finished),
    }
}

pub(super) fn probe(spec: &str) -> Option<ProbeView> {
    Some(ProbeView {
        spec: spec.to_owned(),
        result: "success".to_owned(),
        consecutive: 1,
        message: String::new(),
        last_run_at: None,
    })
}

pub(super) fn event(
    seq: u64,
    kind: EventKind,
    reason: &str,
    message: &str,
    count: u64,
    first_at: Wall,
    last_at: Wall,
) -> Event {
    Event {
        seq,
        unit: Name::new("web").unwrap(),
        kind,
        reason: reason.to_owned(),
        message: message.to_owned(),
        count,
        first_at,
        last_at,
    }
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A daemon that knows a fixed answer to each request, and what it was asked.
struct Daemon {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Answers `METHOD TARGET` with that status, kind and body; anything else with 404. Its thread lives as
    /// long as the test's process.
    fn new(answers: &[(&str, u16, &str, &str)]) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let answers: BTreeMap<String, String> = answers
            .iter()
            .map(|(request, status, kind, body)| {
                let head = format!("HTTP/1.1 {status} x\r\ncontent-type: application/{kind}\r\n");
                let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                // That kind is no answer, but the end of the connection.
                let answer = if *kind == "cut" { String::new() } else { answer };
                ((*request).to_owned(), answer)
            })
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &answers, &log);
            }
        });
        Daemon { dir, asked }
    }

    fn ctl(&self, line: &str) -> u8 {
        let words = ["ctl"].into_iter().chain(line.split(' '));
        let args = Cli::try_parse_from(words).unwrap().args;
        let context = Context {
            client: Client::new(self.dir.path().join("control.sock")),
            out: Out::new(None),
            json: matches!(args.output, Output::Json),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(dispatch(&context, args.command)) {
            Ok(code) => code.number(),
            Err(failure) => failure.code().number(),
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Reads a request with its body, and answers it.
fn answer(mut stream: UnixStream, answers: &BTreeMap<String, String>, log: &Mutex<Vec<String>>) {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let (head, body) = loop {
        let n = stream.read(&mut chunk).unwrap_or(0);
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if n == 0 {
                return;
            }
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |text| text.parse().unwrap()) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let request = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
    log.lock().unwrap().push(format!("{request} {body}").trim_end().to_owned());
    let missing = "HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n".to_owned();
    let _ = stream.write_all(answers.get(request).unwrap_or(&missing).as_bytes());
}

fn units(views: &[View]) -> String {
    serde_json::to_string(&crate::api::Units { units: views.to_vec() }).unwrap()
}

fn done(name: &str, result: &str) -> String {
    format!(
        r#"{{"name":"{name}","result":"{result}","message":"x","state":"running","pid":1,"also":[],"output":[]}}"#
    )
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
    assert!(Cli::try_parse_from(["ctl", "signal", "NOSUCH", "web"]).is_err());
    assert!(Cli::try_parse_from(["ctl", "ps", "-o", "json", "--socket", "/x"]).is_ok());
    assert!(Cli::try_parse_from(["ctl", "logs", "web", "-f", "-n", "5", "--since", "1m30s", "-p"]).is_ok());
}

#[test]
fn of_several_outcomes_the_first_in_the_list_is_the_status() {
    let of = |codes: &[Code]| codes.iter().min().unwrap().number();
    assert_eq!(of(&[Code::NotUp, Code::Failed, Code::TimedOut]), 124);
    assert_eq!(of(&[Code::NoSuchUnit, Code::TimedOut]), 4);
    assert_eq!(of(&[Code::NoSuchUnit, Code::NotPermitted, Code::NoDaemon]), 5);
    assert_eq!(of(&[Code::Fine, Code::NotUp]), 3);
}

#[test]
fn without_a_daemon_the_status_is_5_and_the_message_names_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let args = Cli::try_parse_from(["ctl", "status", "--socket", path.to_str().unwrap()]).unwrap().args;
    assert_eq!(format!("{:?}", run(args, None)), format!("{:?}", ExitCode::from(5)));
    let text = Failure::NoDaemon { path: path.clone(), why: "there is no socket".to_owned(), gone: true };
    assert_eq!(
        text.text().unwrap(),
        format!(
            "cannot reach uphold at {}: there is no socket; start it with `uphold run`, or name its socket \
             with --socket or UPHOLD_SOCKET",
            path.display()
        )
    );
}

#[test]
fn a_start_of_several_asks_for_each_and_ends_with_the_worst() {
    let list = units(&[view("db"), view("web")]);
    let daemon = Daemon::new(&[
        ("GET /v1/units", 200, "json", &list),
        ("POST /v1/units/db/start?wait=true&timeout=5s", 200, "json", &done("db", "ok")),
        ("POST /v1/units/web/start?wait=true&timeout=5s", 200, "json", &done("web", "timeout")),
        ("POST /v1/units/web/start?wait=false", 409, "json", &done("web", "failed")),
    ]);
    assert_eq!(daemon.ctl("start --timeout 5s db"), 0);
    assert_eq!(daemon.ctl("start --timeout 5s all"), 124);
    assert_eq!(daemon.ctl("start --no-wait web"), 1);
    assert_eq!(daemon.ctl("start --timeout 5s db wbe"), 4);
    assert_eq!(daemon.asked().iter().filter(|request| request.starts_with("POST")).count(), 5);
}

#[test]
fn status_health_and_refusals_end_as_the_design_says() {
    let mut down = view("db");
    down.up = false;
    down.state = StateName::Failed;
    let list = units(&[down, view("web")]);
    let refused = r#"{"type":"not-permitted","title":"no","status":403,"detail":"cannot stop web: not you"}"#;
    let unwell = r#"{"healthy":false,"units":[{"name":"db","state":"failed","message":"exit 1"}]}"#;
    let daemon = Daemon::new(&[
        ("GET /v1/units", 200, "json", &list),
        ("POST /v1/units/web/stop?wait=true", 403, "problem+json", refused),
        ("GET /readyz", 503, "json", unwell),
        ("GET /readyz?unit=web", 200, "json", r#"{"healthy":true,"units":[]}"#),
        ("POST /v1/units/web/signal", 200, "json", &done("web", "ok")),
    ]);
    assert_eq!(daemon.ctl("status"), 3);
    assert_eq!(daemon.ctl("status web -o json"), 0);
    assert_eq!(daemon.ctl("status web nosuch"), 4);
    assert_eq!(daemon.ctl("stop web"), 6);
    assert_eq!(daemon.ctl("health"), 1);
    assert_eq!(daemon.ctl("health web"), 0);
    daemon.asked();
    assert_eq!(daemon.ctl("signal usr1 web"), 0);
    assert_eq!(daemon.asked()[1], r#"POST /v1/units/web/signal {"signal":"SIGUSR1"}"#);
}

#[test]
fn streams_are_read_line_by_line_to_their_end() {
    let list = units(&[view("web")]);
    let one = event(7, EventKind::Normal, "Started", "Started process web", 1, at(0), at(1));
    let events =
        format!("{}\n\n{}", serde_json::to_string(&one).unwrap(), serde_json::to_string(&one).unwrap());
    let log = "{\"at\":null,\"stream\":\"stdout\",\"line\":\"hello\"}\n";
    let whole = serde_json::to_string(&view("web")).unwrap();
    let daemon = Daemon::new(&[
        ("GET /v1/units", 200, "json", &list),
        ("GET /v1/units/web", 200, "json", &whole),
        ("GET /v1/events?follow=false", 200, "json", &events),
        ("GET /v1/events?follow=false&unit=web", 200, "json", &events),
        ("GET /v1/version", 200, "json", r#"{"version":"1","pid":1,"image":1,"life":"x"}"#),
        ("GET /v1/events?follow=true&since=7", 200, "json", &events),
        ("GET /v1/units/web/logs?follow=false&positions=true&lines=5", 200, "json", log),
    ]);
    assert_eq!(daemon.ctl("events"), 0);
    assert_eq!(daemon.ctl("describe web"), 0);
    assert_eq!(daemon.ctl("logs web -n 5"), 0);
    daemon.asked();
    assert_eq!(daemon.ctl("status -w"), 0);
    let lists = daemon.asked().iter().filter(|request| *request == "GET /v1/units").count();
    assert_eq!(lists, 3, "once at first and once an event");
}

#[test]
fn what_was_sent_is_not_sent_again_where_the_connection_breaks() {
    let mut stopped = view("db");
    (stopped.wanted, stopped.state) = (Wanted::Down, StateName::Stopping);
    let list = units(&[view("web"), stopped.clone()]);
    let of = |view: &View| serde_json::to_string(view).unwrap();
    let daemon = Daemon::new(&[
        ("GET /v1/units", 200, "json", &list),
        ("GET /v1/units/web", 200, "json", &of(&view("web"))),
        ("GET /v1/units/db", 200, "json", &of(&stopped)),
        ("POST /v1/units/web/restart?wait=true", 0, "cut", ""),
        ("POST /v1/units/web/stop?wait=true", 0, "cut", ""),
        ("POST /v1/units/web/reset?wait=true", 0, "cut", ""),
        ("POST /v1/units/web/start?wait=true", 0, "cut", ""),
        ("POST /v1/units/db/stop?wait=true", 0, "cut", ""),
        ("GET /v1/units/db/wait?for=stopped", 200, "json", &done("db", "ok")),
        ("POST /v1/units/db/stop?wait=false", 0, "cut", ""),
        ("POST /v1/daemon-reload?dry_run=false", 0, "cut", ""),
        ("POST /v1/shutdown", 0, "cut", ""),
    ]);
    for (line, code) in [
        // Nothing has changed: they were not taken.
        ("restart web", 1),
        ("stop web", 1),
        // They may have been.
        ("reset web", 1),
        ("daemon-reload", 1),
        ("shutdown", 1),
        // They were.
        ("stop db", 0),
        ("stop --no-wait db", 0),
    ] {
        assert_eq!(daemon.ctl(line), code, "{line}");
        let posts = daemon.asked().iter().filter(|request| request.starts_with("POST")).count();
        assert_eq!(posts, 1, "{line}");
    }
    // What is left of its time is asked for, to the millisecond.
    assert_eq!(daemon.ctl("start web"), 1);
    let asked = daemon.asked();
    let wait = asked.iter().find(|request| request.contains("/wait?for=up&timeout=")).unwrap();
    assert!(wait.ends_with("ms"), "{wait}");
}
