//! https probes.

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

/// Self-signed, for another name (`wrong.example`), and valid for one day of 2026.
const CERTIFICATE: &[u8] = include_bytes!("cert.der");
const KEY: &[u8] = include_bytes!("key.der");

/// An https server on a port of its own; the connection ends without TLS's goodbye.
async fn server(answer: &'static str) -> u16 {
    let certificate = CertificateDer::from_slice(CERTIFICATE);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (log, _) = unbounded_channel();
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let (stream, _) = converse(stream, |_| close(answer), &log).await;
            let (mut tcp, _) = stream.into_inner();
            let _ = tcp.shutdown().await;
        }
    });
    port
}

fn https(port_number: u16) -> Http {
    Http { tls: true, ..http(port(port_number)) }
}

#[tokio::test]
async fn a_certificate_is_not_looked_at() {
    let port = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(attempt(https(port)).await, Outcome::Success);
    let port = server("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(attempt(https(port)).await, failure("HTTP probe failed with statuscode: 503"));
}

#[tokio::test]
async fn a_body_may_end_without_tls_saying_so() {
    let port = server("HTTP/1.0 200 OK\r\n\r\nto the end").await;
    assert_eq!(attempt(https(port)).await, Outcome::Success);
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        drop(stream.read_u8().await);
        drop(stream.read(&mut [0; 4096]).await);
    });
    let text = "tls: first record does not look like a TLS handshake";
    assert_eq!(attempt(https(port)).await, failure(format!("Get \"https://127.0.0.1:{port}/\": {text}")));
}

#[tokio::test]
async fn a_handshake_that_stalls_fails_at_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let text = format!("Get \"https://127.0.0.1:{port}/\": {why}");
    assert_eq!(attempt_briefly(https(port)).await, failure(text));
}
