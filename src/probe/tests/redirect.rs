//! Redirects: followed on the host of the first request, at most ten requests.

use super::*;

/// Says 200 at `/end`; sends all else to this Location.
async fn sending_to(location: impl Into<String>) -> Server {
    let location = location.into();
    Server::new(move |request| close(answer(request, &location))).await
}

fn answer(request: &str, location: &str) -> String {
    if request.starts_with("GET /end ") {
        return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
    }
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved")
}

fn stopped() -> Outcome {
    Outcome::Warning("Probe terminated redirects, Response body: moved".to_owned())
}

#[tokio::test]
async fn every_kind_of_redirect_is_followed_on_its_host() {
    for code in [301, 302, 303, 307, 308] {
        let server = Server::new(move |request| {
            close(answer(request, "/end").replace("302 Found", &format!("{code} Moved")))
        })
        .await;
        assert_eq!(attempt(server.check()).await, Outcome::Success, "{code}");
    }
}

#[tokio::test]
async fn another_port_of_the_host_is_followed() {
    let other = sending_to("/end").await;
    let server = sending_to(format!("http://127.0.0.1:{}/", other.port)).await;
    assert_eq!(attempt(server.check()).await, Outcome::Success);
}

#[tokio::test]
async fn another_host_is_not_asked() {
    let mut other = sending_to("/end").await;
    for location in [format!("http://localhost:{}/end", other.port), "ftp://other.example/".to_owned()] {
        let server = sending_to(location).await;
        assert_eq!(attempt(server.check()).await, stopped());
    }
    assert!(other.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_the_last_answer() {
    assert_eq!(attempt(sending_to("").await.check()).await, stopped());
}

#[tokio::test]
async fn a_location_that_leads_nowhere_fails() {
    let server = sending_to("http://[::1").await;
    let Outcome::Failure(text) = attempt(server.check()).await else { panic!("it is no URL") };
    assert!(text.contains("failed to parse Location header"), "{text}");
    let server = sending_to("ftp://127.0.0.1/x").await;
    let Outcome::Failure(text) = attempt(server.check()).await else { panic!("it is no http") };
    assert!(text.ends_with("unsupported protocol scheme \"ftp\""), "{text}");
}

#[tokio::test]
async fn the_tenth_redirect_fails() {
    let mut server = sending_to("/again").await;
    let outcome = attempt(server.check()).await;
    assert_eq!(outcome, failure("Get \"/again\": stopped after 10 redirects"));
    let mut requests = 0;
    while server.requests.try_recv().is_ok() {
        requests += 1;
    }
    assert_eq!(requests, 10);
}

#[tokio::test]
async fn the_timeout_covers_every_hop() {
    let server = Server::new(|request| {
        if request.starts_with("GET / ") { close(answer(request, "/x")) } else { (Vec::new(), Then::Hang) }
    })
    .await;
    let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let text = format!("Get \"http://127.0.0.1:{}/x\": {why}", server.port);
    assert_eq!(attempt_briefly(server.check()).await, failure(text));
}

#[tokio::test]
async fn headers_go_along_and_a_given_host_while_the_location_is_relative() {
    for (absolute, host) in [(false, true), (true, false)] {
        let mut server = Server::new(move |request| {
            let port = request.split_once("X-Port: ").unwrap().1.split_once('\r').unwrap().0;
            let start = if absolute { format!("http://127.0.0.1:{port}") } else { String::new() };
            close(answer(request, &format!("{start}/end")))
        })
        .await;
        let mut check = server.check();
        let headers = [("Host", "given.example".to_owned()), ("X-Port", server.port.to_string())];
        check.headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
        assert_eq!(attempt(check).await, Outcome::Success);
        assert!(server.request().await.contains("Host: given.example\r\n"));
        let second = server.request().await;
        assert_eq!(second.contains("Host: given.example\r\n"), host, "{second}");
    }
}

#[tokio::test]
async fn a_socket_keeps_redirects_to_itself_and_leaves_others() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("/end", Outcome::Success),
        ("http://localhost/end", Outcome::Success),
        ("http://localhost:8080/end", stopped()),
        ("https://localhost/end", stopped()),
        ("http://127.0.0.1/end", stopped()),
    ];
    for (number, (location, outcome)) in cases.into_iter().enumerate() {
        let path = dir.path().join(number.to_string());
        unix_server(&path, move |request| close(answer(request, location)));
        assert_eq!(attempt(http(Endpoint::Unix(path))).await, outcome, "{location}");
    }
}
