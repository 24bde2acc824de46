//! A server before a daemon that is made up, spoken to over real sockets in hand-written HTTP.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, watch};

use super::server::Reads;
use super::{Call, Peer, Permissions, Reply, Request, Server};
use crate::api::{Health, Problem, UnitConfig, Version};
use crate::engine::view::{Probes, Wanted};
use crate::engine::{Changes, Done, DoneResult, Event, EventKind, StateName, View, Wall};
use crate::unit::Name;

const BOUND: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn view() -> View {
    let spec = "exec [check --token hunter2] delay=0s timeout=1s period=10s #success=1 #failure=3";
    let liveness = crate::engine::view::ProbeView {
        spec: spec.to_owned(),
        result: "success".to_owned(),
        consecutive: 1,
        message: String::new(),
        last_run_at: None,
    };
    View {
        name: name("web"),
        unit: name("web"),
        instance: None,
        description: String::new(),
        kind: "simple".to_owned(),
        state: StateName::Running,
        wanted: Wanted::Up,
        ready: Some(true),
        up: true,
        pid: Some(4711),
        since: Wall::from_nanos(0),
        started_at: None,
        uptime_seconds: None,
        restarts: 0,
        next_start_at: None,
        reason: None,
        message: None,
        last_exit: None,
        exits: Vec::new(),
        probes: Probes { liveness: Some(liveness), ..Probes::default() },
        changed_on_disk: false,
        restart_needed: false,
        removed: false,
        memory_bytes: None,
        cpu_seconds: None,
        tasks: None,
        unit_file: None,
        command: vec!["web".to_owned(), "--password=hunter2".to_owned()],
        output: vec!["a line".to_owned()],
        stops: Vec::new(),
        start_timeout_seconds: None,
        stop_timeout_seconds: 30.0,
    }
}

fn event(seq: u64, unit: &str) -> Event {
    Event {
        seq,
        unit: name(unit),
        kind: EventKind::Normal,
        reason: "Started".to_owned(),
        message: "started".to_owned(),
        count: 1,
        first_at: Wall::from_nanos(0),
        last_at: Wall::from_nanos(0),
    }
}

fn plain(call: &Call) -> Reply {
    match call {
        Call::List => Reply::List(vec![view()]),
        Call::Get(unit) if unit.as_str() == "nope" => Reply::Problem(Problem {
            kind: "no-such-unit".to_owned(),
            title: "No such unit".to_owned(),
            status: 404,
            detail: "cannot show nope: no such unit".to_owned(),
        }),
        Call::Get(_) => Reply::Unit(Box::new(view())),
        Call::Config(unit) => {
            Reply::Config(UnitConfig { name: unit.clone(), files: vec![], text: "hunter2".to_owned() })
        }
        Call::Command { unit, .. } => Reply::Done(Done {
            name: unit.clone(),
            result: DoneResult::Timeout,
            message: "not up".to_owned(),
            state: StateName::Starting,
            pid: None,
            also: vec![],
            output: vec![],
        }),
        Call::Logs { .. } => {
            let (lines, receiver) = mpsc::channel(2);
            for line in [r#"{"line":"a"}"#, r#"{"line":"b"}"#] {
                lines.try_send(line.to_owned()).unwrap();
            }
            Reply::Logs(receiver)
        }
        Call::Events { .. } => Reply::Events(vec![event(1, "web"), event(2, "db")], None),
        Call::Load { dry_run, .. } => Reply::Changes(Changes { dry_run: *dry_run, ..Changes::default() }),
        Call::Shutdown | Call::Upgrade => Reply::Accepted,
        Call::Version => {
            Reply::Version(Version { version: "1".to_owned(), pid: 1, image: 1, life: "0".to_owned() })
        }
        Call::Health { ready, .. } => Reply::Health(Health { healthy: !ready, units: vec![] }),
    }
}

/// A server and what its daemon was asked.
struct World {
    server: Server,
    calls: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new(answer: impl FnMut(&Call) -> Reply + Send + 'static) -> World {
        World::permitting(watch::channel(permissions()).1, answer)
    }

    fn permitting(
        permissions: watch::Receiver<Permissions>,
        mut answer: impl FnMut(&Call) -> Reply + Send + 'static,
    ) -> World {
        let (requests, mut receiver) = mpsc::channel::<Request>(8);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = calls.clone();
        tokio::spawn(async move {
            while let Some(Request { call, reply, .. }) = receiver.recv().await {
                seen.lock().unwrap().push(format!("{call:?}"));
                let _ = reply.send(answer(&call));
            }
        });
        World { server: Server::new(permissions, requests, |_| Ok(()), |_| {}), calls }
    }

    fn connect(&self, peer: Peer) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.server.serve(theirs, peer);
        ours
    }

    async fn ask(&self, peer: Peer, request: &str) -> Answer {
        let mut stream = self.connect(peer);
        send(&mut stream, request, "").await;
        read(&mut stream).await
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

fn permissions() -> Permissions {
    Permissions { uid: 500, admin: vec![10], read: vec![20] }
}

fn root() -> Peer {
    Peer { pid: Some(1), uid: 0, gids: vec![0] }
}

fn reader() -> Peer {
    Peer { pid: None, uid: 1000, gids: vec![1000, 20] }
}

fn stranger() -> Peer {
    Peer { pid: None, uid: 1001, gids: vec![1001] }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn problem(&self) -> Problem {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem: Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem
    }
}

/// Sends a request and says that it is the last.
async fn send(stream: &mut UnixStream, request: &str, body: &str) {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{request} HTTP/1.1\r\nHost: uphold\r\nConnection: close\r\n{length}\r\n{body}");
    // A server that refuses may close before all is written.
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Reads until the server closes.
async fn read(stream: &mut UnixStream) -> Answer {
    let mut bytes = Vec::new();
    // The end is a reset where the server left something unread.
    let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    Answer::parse(&String::from_utf8_lossy(&bytes))
}

/// Reads until this text has come, and gives all that came.
async fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let mut got = String::new();
    while !got.contains(text) {
        let mut buffer = [0; 4096];
        let n = tokio::time::timeout(BOUND, stream.read(&mut buffer)).await.expect("it comes").unwrap();
        assert!(n > 0, "the server closed after {got:?}");
        got.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    got
}

#[tokio::test]
async fn each_call_is_answered_with_its_json() {
    let world = World::new(plain);
    for (request, status, part) in [
        ("GET /v1/units", 200, r#"{"units":[{"name":"web""#),
        ("GET /v1/units/web", 200, r#""command":["web","--password=hunter2"]"#),
        ("GET /v1/units/web/config", 200, r#""text":"hunter2""#),
        ("POST /v1/units/web/start?wait=true", 200, r#""result":"timeout""#),
        ("GET /v1/units/web/wait?for=up", 200, r#""result":"timeout""#),
        ("GET /v1/units/web/logs", 200, "{\"line\":\"a\"}\n{\"line\":\"b\"}\n"),
        ("GET /v1/events", 200, r#"{"seq":1,"unit":"web""#),
        ("POST /v1/update?dry_run=true", 200, r#""dry_run":true"#),
        ("POST /v1/daemon-reload", 200, r#""dry_run":false"#),
        ("POST /v1/shutdown", 202, "{}"),
        ("GET /v1/version", 200, r#"{"version":"1","pid":1,"image":1,"life":"0"}"#),
        ("GET /healthz", 200, r#""healthy":true"#),
        ("GET /readyz", 503, r#""healthy":false"#),
    ] {
        let answer = world.ask(root(), request).await;
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.body.contains(part), "{request}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/json\r\n"), "{request}: {}", answer.head);
    }
    assert_eq!(world.calls().len(), 13);
}

#[tokio::test]
async fn a_signal_comes_in_the_body_and_reaches_the_daemon() {
    let world = World::new(plain);
    let mut stream = world.connect(root());
    send(&mut stream, "POST /v1/units/web/signal", r#"{"signal":"SIGUSR1"}"#).await;
    assert_eq!(read(&mut stream).await.status, 200);
    assert!(world.calls()[0].contains("Signal(SIGUSR1)"));
}

#[tokio::test]
async fn errors_are_problems() {
    let world = World::new(plain);
    for (request, status, kind) in [
        ("GET /v1/units?x=1", 400, "bad-request"),
        ("GET /nowhere", 404, "no-such-route"),
        ("GET /v1/units/nope", 404, "no-such-unit"),
        ("POST /v1/units", 405, "method-not-allowed"),
        ("POST /v1/units/web/reload", 409, "not-supported"),
        ("GET /metrics", 501, "not-supported"),
    ] {
        let answer = world.ask(root(), request).await;
        assert_eq!((answer.status, answer.problem().kind.as_str()), (status, kind), "{request}");
    }
    assert!(world.ask(root(), "POST /v1/units").await.head.contains("allow: get, head"));
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let world = World::new(plain);
    for request in ["HEAD /v1/units", "HEAD /v1/units/web/logs?follow=true", "HEAD /v1/events?follow=true"] {
        let answer = world.ask(root(), request).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{request}");
    }
}

#[tokio::test]
async fn a_reader_sees_units_without_command_and_no_configuration() {
    let world = World::new(plain);
    for request in ["GET /v1/units", "GET /v1/units/web"] {
        let answer = world.ask(reader(), request).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(r#""command":[]"#) && answer.body.contains("a line"), "{}", answer.body);
        assert!(answer.body.contains("exec [...] delay=0s timeout=1s"), "{}", answer.body);
        assert!(!answer.body.contains("hunter2"), "{}", answer.body);
    }
    let may = ["GET /v1/events", "GET /v1/units/web/logs", "GET /healthz", "GET /v1/units/web/wait?for=up"];
    for request in may {
        assert_eq!(world.ask(reader(), request).await.status, 200, "{request}");
    }
    let asked = world.calls().len();
    for request in ["GET /v1/units/web/config", "POST /v1/units/web/stop", "POST /v1/shutdown"] {
        let problem = world.ask(reader(), request).await.problem();
        assert_eq!((problem.status, problem.kind.as_str()), (403, "not-permitted"), "{request}");
        assert!(problem.detail.contains("uid 1000"), "{}", problem.detail);
    }
    assert_eq!(world.calls().len(), asked, "the daemon was asked for what is not permitted");
}

#[tokio::test]
async fn a_stranger_gets_403_whatever_it_asks_for() {
    let world = World::new(plain);
    let nobody = Peer { pid: None, uid: world.server.overflow_uid, gids: vec![10, 20] };
    for peer in [stranger(), nobody] {
        for request in ["GET /v1/units", "GET /healthz", "POST /v1/units/web/stop", "GET /nowhere"] {
            let problem = world.ask(peer.clone(), request).await.problem();
            assert_eq!((problem.status, problem.kind.as_str()), (403, "not-permitted"), "{request}");
            assert!(problem.detail.contains(&format!("uid {}", peer.uid)), "{}", problem.detail);
        }
    }
    assert!(world.calls().is_empty());
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_with_and_without_its_length() {
    let world = World::new(plain);
    let mut stream = world.connect(root());
    send(&mut stream, "POST /v1/units/web/signal", &"x".repeat((64 << 10) + 1)).await;
    let answer = read(&mut stream).await;
    assert_eq!((answer.status, answer.problem().kind.as_str()), (413, "too-large"));
    assert!(answer.head.contains("connection: close"));

    let mut stream = world.connect(root());
    let head = "POST /v1/units/web/signal HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("11000\r\n{}\r\n", "x".repeat(0x11000));
    let _ = stream.write_all(format!("{head}{chunk}").as_bytes()).await;
    assert_eq!(read(&mut stream).await.status, 413);
    assert!(world.calls().is_empty());
}

#[tokio::test]
async fn half_a_request_and_silence_are_closed_after_the_time_out() {
    let mut world = World::new(plain);
    world.server.timeout = Duration::from_millis(50);
    for said in ["", "GET /v1/uni", "GET /v1/units HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = world.connect(root());
        stream.write_all(said.as_bytes()).await.unwrap();
        let answer = read(&mut stream).await;
        assert!(matches!(answer.status, 0 | 408), "{said:?}: {}", answer.status);
    }
    let mut stream = world.connect(root());
    let head = "POST /v1/units/web/signal HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read(&mut stream).await.problem().kind, "too-slow");
    assert!(world.calls().is_empty());
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request_and_closed_when_it_idles() {
    let mut world = World::new(plain);
    world.server.timeout = Duration::from_millis(300);
    let mut stream = world.connect(root());
    for _ in 0..2 {
        stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_until(&mut stream, "\"pid\":1,\"image\":1,\"life\":\"0\"}\n").await;
    }
    let rest = read(&mut stream).await;
    assert!(matches!(rest.status, 0 | 408));
    assert_eq!(world.calls().len(), 2);
}

#[tokio::test]
async fn a_connection_rests_where_nothing_of_a_next_request_is_read() {
    static RESTED: AtomicUsize = AtomicUsize::new(0);
    let (requests, mut receiver) = mpsc::channel::<Request>(8);
    let server = Server::new(
        watch::channel(permissions()).1,
        requests,
        |_| Ok(()),
        |_| _ = RESTED.fetch_add(1, Ordering::SeqCst),
    );
    let world = World { server, calls: Arc::default() };
    tokio::spawn(async move {
        while let Some(request) = receiver.recv().await {
            let _ = request.reply.send(plain(&request.call));
        }
    });
    let request = "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut stream = world.connect(root());
    for cut in 0..request.len() {
        let before = RESTED.load(Ordering::SeqCst);
        let (begin, rest) = request.split_at(cut);
        // All of it is there before the server runs.
        for (sent, answers) in [(format!("{request}{request}{begin}"), 2), (format!("{rest}{request}"), 2)] {
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut got = String::new();
            while got.matches("\"life\":\"0\"}\n").count() < answers {
                got += &read_until(&mut stream, "\n").await;
            }
            assert_eq!(got.matches("HTTP/1.1 200 OK").count(), answers, "{cut}: {got}");
        }
        assert_eq!(RESTED.load(Ordering::SeqCst) - before, 1 + usize::from(cut == 0), "{cut}");
    }
}

#[tokio::test]
async fn an_answer_that_a_client_is_slow_to_read_is_waited_for_before_a_replacement() {
    let long = "long ".repeat(1 << 20);
    let text = long.clone();
    let world = World::new(move |_| {
        Reply::Config(UnitConfig { name: name("web"), files: vec![], text: text.clone() })
    });
    let mut stream = world.connect(root());
    stream.write_all(b"GET /v1/units/web/config HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    world.server.hold();
    let (begun, short) = (std::time::Instant::now(), Duration::from_millis(50));
    world.server.answered(short).await;
    assert!(begun.elapsed() >= short);
    let ((), rest) = tokio::join!(world.server.answered(BOUND), read_until(&mut stream, "\n"));
    assert!(rest.len() > long.len() / 2 && begun.elapsed() < BOUND);
    // The next one is heard once that may be.
    stream.write_all(b"GET /v1/units/web/config HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    world.server.answered(BOUND).await;
    assert_eq!(world.calls().len(), 1);
    world.server.resume();
    read_until(&mut stream, "\n").await;
    assert_eq!(world.calls().len(), 2);
}

#[tokio::test]
async fn the_seventeenth_connection_of_a_uid_gets_503_and_root_does_not() {
    let world = World::new(plain);
    let mut held: Vec<UnixStream> = (0..16).map(|_| world.connect(reader())).collect();
    let answer = world.ask(reader(), "GET /v1/units").await;
    assert_eq!((answer.status, answer.problem().kind.as_str()), (503, "too-many-connections"));
    assert!(answer.head.contains("connection: close"));
    assert_eq!(world.ask(root(), "GET /v1/units").await.status, 200);

    send(&mut held[0], "GET /v1/units", "").await;
    assert_eq!(read(&mut held[0]).await.status, 200);
    let again = tokio::time::timeout(BOUND, async {
        while world.ask(reader(), "GET /v1/units").await.status != 200 {
            tokio::task::yield_now().await;
        }
    });
    again.await.expect("the place of a connection that ended is free again");
}

#[tokio::test]
async fn events_are_followed_through_a_lag_without_loss_or_repetition() {
    let (sender, _) = broadcast::channel(2);
    let source = sender.clone();
    let world = World::new(move |call| {
        let Call::Events { since, follow: true, .. } = call else { return plain(call) };
        let receiver = source.subscribe();
        if *since == 0 {
            // More than the channel holds comes before anyone reads it: the first is in the list too.
            for seq in 1..=9 {
                let _ = source.send(event(seq, if seq % 3 == 0 { "db" } else { "web" }));
            }
            return Reply::Events(vec![event(1, "web")], Some(receiver));
        }
        // What came between the subscription and the list is in both.
        let _ = source.send(event(8, "web"));
        let missed = (since + 1..=9).filter(|seq| seq % 3 != 0).map(|seq| event(seq, "web"));
        Reply::Events(missed.collect(), Some(receiver))
    });
    let mut stream = world.connect(root());
    send(&mut stream, "GET /v1/events?unit=web&since=0&follow=true", "").await;
    let mut got = read_until(&mut stream, r#"{"seq":8,"#).await;
    sender.send(event(10, "db")).unwrap();
    sender.send(event(11, "web")).unwrap();
    got += &read_until(&mut stream, r#"{"seq":11,"#).await;
    let seen: Vec<&str> =
        got.split(r#"{"seq":"#).skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
    assert_eq!(seen, ["1", "2", "4", "5", "7", "8", "11"]);
    assert_eq!(world.calls()[1], r#"Events { unit: Some("web"), since: 1, follow: true }"#);
}

#[tokio::test]
async fn what_is_followed_ends_with_the_daemon_or_with_the_client() {
    let (sender, _) = broadcast::channel(4);
    let hold = Arc::new(Mutex::new(Some(sender)));
    let source = hold.clone();
    let (logs, receiver) = mpsc::channel(2);
    let mut receiver = Some(receiver);
    let world = World::new(move |call| match call {
        Call::Logs { .. } => Reply::Logs(receiver.take().unwrap()),
        _ => Reply::Events(vec![], source.lock().unwrap().as_ref().map(|sender| sender.subscribe())),
    });

    let mut stream = world.connect(root());
    send(&mut stream, "GET /v1/units/web/logs?follow=true", "").await;
    logs.send("{}".to_owned()).await.unwrap();
    read_until(&mut stream, "{}\n").await;
    drop(stream);
    tokio::time::timeout(BOUND, logs.closed()).await.expect("the client's end closes the stream");

    let mut stream = world.connect(root());
    send(&mut stream, "GET /v1/events?follow=true", "").await;
    read_until(&mut stream, "\r\n\r\n").await;
    drop(hold.lock().unwrap().take());
    assert!(tokio::time::timeout(BOUND, stream.read_to_end(&mut Vec::new())).await.unwrap().is_ok());

    let (sender, _) = broadcast::channel(4);
    *hold.lock().unwrap() = Some(sender.clone());
    let mut stream = world.connect(root());
    send(&mut stream, "GET /v1/events?follow=true", "").await;
    read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(sender.receiver_count(), 1);
    drop(stream);
    let gone = async {
        while sender.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, gone).await.expect("a client that went away is not followed for");
}

#[tokio::test]
async fn before_a_replacement_what_is_answered_at_once_is_waited_for_and_what_takes_long_is_not() {
    static SAID: AtomicBool = AtomicBool::new(false);
    let reads: Reads = |_| match SAID.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(std::io::ErrorKind::WouldBlock.into()),
    };
    let (requests, mut receiver) = mpsc::channel::<Request>(1);
    let permitted = watch::channel(permissions()).1;
    let world = World { server: Server::new(permitted, requests, reads, |_| {}), calls: Arc::default() };
    let holds = async |limit: Duration| {
        let begun = std::time::Instant::now();
        world.server.answered(limit).await;
        begun.elapsed() >= limit
    };
    let short = Duration::from_millis(50);
    world.server.hold();
    assert!(!holds(BOUND).await, "nobody is in");
    assert!(*world.server.held().borrow());
    let mut stream = world.connect(root());
    assert!(!holds(BOUND).await, "who has come in and says nothing goes over");
    SAID.store(true, Ordering::SeqCst);
    stream.write_all(b"GET ").await.unwrap();
    assert!(!holds(BOUND).await, "nor is heard who begins to ask by now");
    world.server.resume();
    let asking = async { while !holds(short).await {} };
    tokio::time::timeout(BOUND, asking).await.expect("who is asking is waited for");
    send(&mut stream, "/v1/units/web/wait?for=up", "").await;
    let waits = receiver.recv().await.unwrap();
    assert!(!holds(BOUND).await, "it may wait for ever");
    let mut events = world.connect(root());
    send(&mut events, "GET /v1/events?follow=true", "").await;
    let (_sender, coming) = broadcast::channel(1);
    let _ = receiver.recv().await.unwrap().reply.send(Reply::Events(vec![], Some(coming)));
    read_until(&mut events, "\r\n\r\n").await;
    assert!(!holds(BOUND).await, "it never ends");
    let mut list = world.connect(root());
    send(&mut list, "GET /v1/units", "").await;
    let request = receiver.recv().await.unwrap();
    assert!(holds(short).await);
    let (late, answer) = tokio::join!(holds(BOUND), async {
        let _ = request.reply.send(Reply::List(vec![view()]));
        read(&mut list).await
    });
    assert!(!late && answer.status == 200 && answer.body.ends_with("}\n"));
    drop(waits);
    world.server.hold();
    world.server.resume();
    assert!(!*world.server.held().borrow());
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_is_waited_for_no_longer() {
    let (requests, mut receiver) = mpsc::channel::<Request>(1);
    let permitted = watch::channel(permissions()).1;
    let world = World { server: Server::new(permitted, requests, |_| Ok(()), |_| {}), calls: Arc::default() };
    for request in ["GET /v1/units/web/wait?for=failed", "POST /v1/units/web/stop?wait=true"] {
        let mut stream = world.connect(root());
        send(&mut stream, request, "").await;
        let Request { mut reply, .. } = tokio::time::timeout(BOUND, receiver.recv()).await.unwrap().unwrap();
        assert!(!reply.is_closed());
        drop(stream);
        tokio::time::timeout(BOUND, reply.closed()).await.expect("nobody holds the other end");
    }
}

#[tokio::test]
async fn what_a_client_asked_for_before_it_went_away_reaches_the_daemon() {
    let world = World::new(plain);
    for n in 1..=50 {
        let mut stream = world.connect(root());
        send(&mut stream, "POST /v1/units/web/stop", "").await;
        drop(stream);
        let heard = async {
            while world.calls().len() < n {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), heard).await.expect("it is asked for");
    }
}

#[tokio::test]
async fn new_permissions_count_from_the_next_request_on_an_open_connection_too() {
    let (new, permitted) = watch::channel(permissions());
    let world = World::permitting(permitted, plain);
    let admin = Peer { pid: None, uid: 1000, gids: vec![10] };
    let mut stream = world.connect(admin.clone());
    let request = b"GET /v1/units/web/config HTTP/1.1\r\nHost: uphold\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let got = read_until(&mut stream, "hunter2").await;
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    new.send_replace(Permissions { admin: vec![11], ..permissions() });
    stream.write_all(request).await.unwrap();
    let got = read_until(&mut stream, "not-permitted").await;
    assert!(got.contains("HTTP/1.1 403") && !got.contains("hunter2"), "{got}");
    assert_eq!(world.ask(admin, "GET /v1/version").await.status, 403);
    assert_eq!(world.ask(Peer { pid: None, uid: 1000, gids: vec![11] }, "GET /v1/version").await.status, 200);
}

#[tokio::test]
async fn a_daemon_that_ends_or_drops_a_request_is_said_so() {
    let (requests, receiver) = mpsc::channel(1);
    drop(receiver);
    let world = World {
        server: Server::new(watch::channel(permissions()).1, requests, |_| Ok(()), |_| {}),
        calls: Arc::default(),
    };
    let problem = world.ask(root(), "GET /v1/units").await.problem();
    assert_eq!((problem.status, problem.kind.as_str()), (503, "shutting-down"));

    let (requests, mut receiver) = mpsc::channel::<Request>(1);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let world = World {
        server: Server::new(watch::channel(permissions()).1, requests, |_| Ok(()), |_| {}),
        calls: Arc::default(),
    };
    assert_eq!(world.ask(root(), "GET /v1/units").await.problem().kind, "internal");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_on_a_connection_harms_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(plain);
            world.server.timeout = Duration::from_millis(20);
            for start in ["", "GET /", "POST /v1/units/web/signal HTTP/1.1\r\n"] {
                let mut stream = world.connect(root());
                let _ = stream.write_all(start.as_bytes()).await;
                let _ = stream.write_all(&bytes).await;
                read(&mut stream).await;
            }
            assert_eq!(world.ask(root(), "GET /v1/version").await.status, 200);
        });
    }
}
