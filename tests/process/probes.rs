use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use crate::dsl::*;

#[test]
fn a_liveness_probe_on_a_file_kills_and_restarts_once_the_file_is_gone() {
    let uphold = Uphold::new();
    let file = uphold.path("healthy").display().to_string();
    let uphold = uphold
        .unit(
            "web",
            &format!(
                "command = [\"sh\", \"-c\", \"touch {file}; exec sleep 600\"]
[liveness]
exec = {{ command = [\"cat\", \"{file}\"] }}
period = \"50ms\"
initial_delay = \"200ms\""
            ),
        )
        .start();
    uphold.until_view("web", "a passed probe", |view| {
        view["probes"]["liveness"]["consecutive"].as_u64() > Some(0)
    });
    std::fs::remove_file(uphold.path("healthy")).unwrap();
    uphold.until_view("web", "one restart", |view| view["restarts"] == 1 && view["state"] == "running");
    assert_eq!(uphold.view("web")["last_exit"]["reason"], "LivenessFailed");
    let events = uphold.events("web");
    let unhealthy =
        events.iter().find(|(line, _)| line.starts_with("Unhealthy Liveness probe failed: cat: ")).unwrap();
    assert_eq!(unhealthy.1, 3, "{events:?}");
    assert!(
        events.iter().any(|(line, _)| line == "Killing Process web failed liveness probe, will be restarted")
    );
}

/// Words for `sleep` that are those of no other test, and whether a process with them is left.
fn mark(seconds: u32) -> String {
    format!("{seconds}.{}", std::process::id())
}

fn is_left(mark: &str) -> bool {
    let cmdline = format!("sleep\0{mark}\0");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default() == cmdline.as_bytes())
}

#[test]
fn a_probe_that_hangs_is_killed_at_its_timeout_with_all_that_it_started() {
    let mark = mark(612);
    let uphold = Uphold::with_unit(
        "web",
        &format!(
            "command = [\"sleep\", \"600\"]
[readiness]
exec = {{ command = [\"sh\", \"-c\", \"sleep {mark} & sleep {mark}\"] }}
period = \"100ms\"
timeout = \"100ms\""
        ),
    );
    uphold.until_event("web", "Readiness probe failed: command timed out: \"sh ...\" timed out after 100ms");
    assert_eq!(uphold.view("web")["restarts"], 0);
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
    uphold.eventually("no sleep of the probe is left", |_| !is_left(&mark));
}

#[test]
fn the_end_of_uphold_is_the_end_of_every_probe_in_flight() {
    let mark = mark(613);
    for _ in 0..5 {
        let mut uphold = Uphold::new();
        for n in 0..10 {
            let text = format!(
                "command = [\"sleep\", \"600\"]
[readiness]
exec = {{ command = [\"sh\", \"-c\", \"sleep {mark} & sleep {mark}\"] }}
period = \"10ms\"
timeout = \"10ms\""
            );
            uphold = uphold.unit(&format!("u{n}"), &text);
        }
        let mut uphold = uphold.start();
        uphold.until_event("u9", "Readiness probe failed");
        uphold.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(uphold.exit().code(), Some(0));
        uphold.eventually("no process of a probe is left", |_| !is_left(&mark));
    }
}

fn answer(mut stream: impl Read + Write, status: &str) {
    let mut head = [0; 1024];
    let _ = stream.read(&mut head);
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
}

#[test]
fn http_over_tcp_and_over_a_unix_socket_decide_readiness() {
    let uphold = Uphold::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = uphold.path("app.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let good = flag.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2000).flatten() {
            answer(
                stream,
                if good.load(std::sync::atomic::Ordering::SeqCst) { "200 OK" } else { "503 Sorry" },
            );
        }
    });
    std::thread::spawn(move || {
        unix.incoming().take(2000).flatten().for_each(|stream| answer(stream, "204 None"))
    });
    let uphold = uphold
        .unit(
            "tcp",
            &format!("command = [\"sleep\", \"600\"]\nports = {{ http = {port} }}\n[readiness]\nhttp = {{ port = \"http\", path = \"/ready\" }}\nperiod = \"50ms\"\nfailure_threshold = 1"),
        )
        .unit(
            "unix",
            &format!("command = [\"sleep\", \"600\"]\n[readiness]\nhttp = {{ unix = \"{}\" }}\nperiod = \"50ms\"", path.display()),
        )
        .unit("port", &format!("command = [\"sleep\", \"600\"]\n[readiness]\ntcp = {{ port = {port} }}\nperiod = \"50ms\""))
        .start();
    for unit in ["tcp", "unix", "port"] {
        uphold.until_view(unit, "ready", |view| view["ready"] == true);
    }
    flag.store(false, std::sync::atomic::Ordering::SeqCst);
    uphold.until_view("tcp", "unready", |view| view["ready"] == false && view["state"] == "running");
    uphold.until_event("tcp", "Readiness probe failed: HTTP probe failed with statuscode: 503");
    flag.store(true, std::sync::atomic::Ordering::SeqCst);
    uphold.until_view("tcp", "ready again", |view| view["ready"] == true);
    assert_eq!(uphold.view("tcp")["restarts"], 0);
}

#[test]
fn until_startup_succeeds_liveness_is_not_tried() {
    let uphold = Uphold::new();
    let file = uphold.path("started").display().to_string();
    let uphold = uphold
        .unit(
            "web",
            &format!(
                "command = [\"sleep\", \"600\"]
[startup]
exec = {{ command = [\"test\", \"-e\", \"{file}\"] }}
period = \"50ms\"
failure_threshold = 1000
[liveness]
exec = {{ command = [\"true\"] }}
period = \"50ms\""
            ),
        )
        .start();
    uphold.until_event("web", "Unhealthy Startup probe failed");
    assert_eq!(uphold.state("web"), "starting");
    assert!(uphold.view("web")["probes"]["liveness"]["last_run_at"].is_null());
    std::fs::write(uphold.path("started"), "").unwrap();
    uphold.until("web", "running");
    uphold.until_view("web", "liveness", |view| view["probes"]["liveness"]["consecutive"].as_u64() > Some(1));
}

#[test]
fn https_with_a_certificate_that_nobody_signed_and_tcp_over_a_unix_socket_pass() {
    if !have("openssl") {
        return skip("openssl is not installed");
    }
    let uphold = Uphold::new();
    let (key, cert) = (uphold.path("key.pem"), uphold.path("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=nobody", "-days", "1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = uphold.path("app.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let uphold = uphold
        .unit(
            "tls",
            &format!(
                "command = [\"openssl\", \"s_server\", \"-accept\", \"127.0.0.1:{port}\", \"-key\", \"{}\", \"-cert\", \"{}\", \"-www\", \"-quiet\"]
[readiness]
http = {{ port = {port}, scheme = \"https\" }}
period = \"100ms\"
timeout = \"5s\"",
                key.display(),
                cert.display()
            ),
        )
        .unit(
            "unix",
            &format!(
                "command = [\"sleep\", \"600\"]\n[readiness]\ntcp = {{ unix = \"{}\" }}\nperiod = \"50ms\"\nfailure_threshold = 1",
                path.display()
            ),
        )
        .start();
    for unit in ["tls", "unix"] {
        uphold.until_view(unit, "ready", |view| view["ready"] == true);
    }
    drop(unix);
    uphold.until_view("unix", "unready", |view| view["ready"] == false);
    uphold.until_event("unix", "Unhealthy Readiness probe failed");
}
