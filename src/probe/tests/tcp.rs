//! tcp probes.

use tokio::net::{TcpListener, UnixListener};

use super::*;

#[tokio::test]
async fn a_port_that_is_listened_on_passes_though_nobody_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(attempt(port(listener.local_addr().unwrap().port())).await, Outcome::Success);
}

#[tokio::test]
async fn a_refused_port_fails_as_in_go() {
    let free = closed_port().await;
    let text = format!("dial tcp 127.0.0.1:{free}: connect: connection refused");
    assert_eq!(attempt(port(free)).await, failure(text));
}

#[tokio::test]
async fn a_name_is_tried_at_all_its_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let number = listener.local_addr().unwrap().port();
    assert_eq!(attempt(at("localhost", number)).await, Outcome::Success);
    drop(listener);
    let Outcome::Failure(text) = attempt(at("localhost", number)).await else { panic!("it is closed") };
    assert!(text.ends_with(": connect: connection refused"), "{text}");
}

#[tokio::test]
async fn an_address_may_stand_in_brackets() {
    let free = closed_port().await;
    let Outcome::Failure(text) = attempt(at("[::1]", free)).await else { panic!("it is closed") };
    assert!(text.starts_with(&format!("dial tcp [::1]:{free}: connect: ")), "{text}");
}

#[tokio::test]
async fn a_socket_passes_while_it_is_listened_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let shown = path.display();
    let missing = format!("dial unix {shown}: connect: no such file or directory");
    assert_eq!(attempt(Endpoint::Unix(path.clone())).await, failure(missing));
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(attempt(Endpoint::Unix(path.clone())).await, Outcome::Success);
    drop(listener);
    let refused = format!("dial unix {shown}: connect: connection refused");
    assert_eq!(attempt(Endpoint::Unix(path.clone())).await, failure(refused));
}

#[tokio::test]
async fn a_listener_whose_queue_is_full_fails_at_the_timeout() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let patience = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 1000, "the queue has no end");
    }
    assert_eq!(
        attempt_briefly(port(address.port())).await,
        failure(format!("dial tcp {address}: i/o timeout"))
    );
    let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(attempt_briefly(http(port(address.port()))).await, get_failure(address.port(), why));
}

#[test]
fn want_of_descriptors_or_memory_is_not_the_services_fault() {
    use super::super::Fault;
    for errno in [12, 23, 24, 105] {
        let error = std::io::Error::from_raw_os_error(errno);
        assert!(matches!(Fault::from_io(&error, String::new()).outcome(), Outcome::Error(_)));
    }
    let refused = std::io::Error::from_raw_os_error(111);
    assert!(matches!(Fault::from_io(&refused, String::new()).outcome(), Outcome::Failure(_)));
}
