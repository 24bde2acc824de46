//! http probes: what is sent, and what an answer means.

use super::*;

fn status(code: u16) -> String {
    format!("HTTP/1.1 {code} Word\r\nContent-Length: 2\r\n\r\nok")
}

async fn says(bytes: impl Into<Vec<u8>>) -> Outcome {
    attempt(Server::saying(bytes).await.check()).await
}

/// The text of a failed request for `/`, without its URL.
async fn fails(bytes: impl Into<Vec<u8>>, then: Then) -> String {
    let server = Server::ending(bytes, then).await;
    let outcome = attempt(server.check()).await;
    let Outcome::Failure(text) = outcome else { panic!("{outcome:?}") };
    let start = format!("Get \"http://127.0.0.1:{}/\": ", server.port);
    text.strip_prefix(&start).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn the_status_is_the_verdict() {
    for code in [200, 201, 299] {
        assert_eq!(says(status(code)).await, Outcome::Success, "{code}");
    }
    for code in [300, 304, 305, 399] {
        let outcome = says(status(code)).await;
        let Outcome::Warning(text) = outcome else { panic!("{code}: {outcome:?}") };
        assert!(text.starts_with("Probe terminated redirects, Response body: "), "{text}");
    }
    for code in [101, 400, 403, 500, 503, 600, 999] {
        let text = format!("HTTP probe failed with statuscode: {code}");
        assert_eq!(says(status(code)).await, failure(text));
    }
}

#[tokio::test]
async fn a_request_says_what_a_kubelets_says() {
    let mut server = Server::saying(status(200)).await;
    assert_eq!(attempt(server.check()).await, Outcome::Success);
    let (port, version) = (server.port, env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap().0);
    let expected = format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: uphold-probe/{version}\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(server.request().await, expected);
}

#[tokio::test]
async fn headers_of_the_unit_are_added_replace_and_remove() {
    let mut server = Server::saying(status(200)).await;
    let mut check = server.check();
    let headers = [("host", "x.example"), ("user-agent", "me"), ("ACCEPT", ""), ("X-A", "1"), ("x-a", "2")];
    check.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    check.path = "a b?c=%zz#d".to_owned();
    assert_eq!(attempt(check).await, Outcome::Success);
    let request = server.request().await;
    let mut lines: Vec<&str> = request.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "GET /a%20b?c=%zz HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(lines, ["Connection: close", "Host: x.example", "User-Agent: me", "X-A: 1", "X-A: 2"]);
}

#[tokio::test]
async fn answers_of_old_and_careless_servers_are_read() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(32 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200));
    let answers = [
        "HTTP/1.0 200\r\n\r\nbody to the end",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nX: folded\r\n  on\r\nContent-Length: 2\r\n\r\nok and more",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        &long,
        &many,
    ];
    for answer in answers {
        let start = &answer[..answer.len().min(40)];
        assert_eq!(says(answer).await, Outcome::Success, "{start:?}");
    }
}

#[tokio::test]
async fn a_head_that_is_no_http_fails_and_is_shown() {
    let cases = [
        ("SSH-2.0-OpenSSH_9.6\r\n", "malformed HTTP response \"SSH-2.0-OpenSSH_9.6\""),
        ("\x1b[2Jrubbish\r\n\r\n", "malformed HTTP response \"\\x1b[2Jrubbish\""),
    ];
    for (answer, text) in cases {
        assert_eq!(fails(answer, Then::Close).await, text);
    }
    for answer in [
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ] {
        let text = fails(answer, Then::Close).await;
        assert!(text.starts_with("malformed HTTP response: "), "{text}");
    }
    let unknown = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n";
    assert_eq!(fails(unknown, Then::Close).await, "unsupported transfer encoding: \"gzip\"");
}

#[tokio::test]
async fn a_head_without_end_is_given_up_on() {
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(200_000));
    let text = fails(endless, Then::Hang).await;
    assert!(text.starts_with("net/http: server response headers exceeded"), "{text}");
}

#[tokio::test]
async fn a_connection_that_ends_early_fails() {
    assert_eq!(fails("", Then::Close).await, "EOF");
    assert_eq!(fails("", Then::Reset).await, "read: connection reset by peer");
    assert_eq!(fails("HTTP/1.1 200 OK\r\nX: y", Then::Close).await, "unexpected EOF");
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok";
    assert_eq!(fails(cut, Then::Close).await, "unexpected EOF");
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nrubbish\r\n";
    let text = fails(chunks, Then::Close).await;
    assert!(text.starts_with("malformed chunked encoding"), "{text}");
}

#[tokio::test]
async fn a_refused_port_fails_as_in_go() {
    let free = closed_port().await;
    let text = format!("dial tcp 127.0.0.1:{free}: connect: connection refused");
    assert_eq!(attempt(http(port(free))).await, get_failure(free, &text));
}

#[tokio::test]
async fn an_answer_that_stalls_fails_at_the_timeout() {
    let head = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let body = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    let cases = [
        ("", head),
        ("HTTP/1.1 200 OK\r\n", head),
        ("HTTP/1.1 100 Continue\r\n\r\n", head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", body),
    ];
    for (answer, why) in cases {
        let server = Server::ending(answer, Then::Hang).await;
        assert_eq!(attempt_briefly(server.check()).await, get_failure(server.port, why), "{answer:?}");
    }
}

#[tokio::test]
async fn ten_kibibytes_of_a_body_are_enough() {
    let body = "x".repeat(10 << 10);
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
    let server = Server::ending(endless, Then::Hang).await;
    assert_eq!(attempt(server.check()).await, Outcome::Success);
}

#[tokio::test]
async fn a_failing_status_needs_no_body() {
    let server = Server::ending("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n", Then::Hang).await;
    assert_eq!(attempt(server.check()).await, failure("HTTP probe failed with statuscode: 503"));
}

#[tokio::test]
async fn a_socket_is_asked_as_localhost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let check = http(Endpoint::Unix(path.clone()));
    let missing = format!("dial unix {}: connect: no such file or directory", path.display());
    assert_eq!(attempt(check.clone()).await, failure(format!("Get \"http://localhost/\": {missing}")));
    unix_server(&path, |request| {
        close(status(if request.contains("\r\nHost: localhost\r\n") { 200 } else { 400 }))
    });
    assert_eq!(attempt(check).await, Outcome::Success);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_after_the_request() {
    use super::super::exchange::Exchange;
    for (banner, passes) in [("SSH-2.0-x\r\n", false), ("HTTP/1.1 200 OK\r\n\r\n", true)] {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(banner.as_bytes()).await.unwrap();
        match Exchange::open(Box::new(near), hyper::Request::default()).await {
            Ok(exchange) => assert!(passes && exchange.status() == 200),
            Err(fault) => assert_eq!(fault.to_string(), "malformed HTTP response \"SSH-2.0-x\""),
        }
    }
}
