//! TLS to a service whose certificate is nobody's business: a kubelet verifies none of it, for a probe
//! asks whether the service answers, not who it is.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, InvalidMessage, SignatureScheme};

use super::Fault;
use super::dial::Duplex;
use super::text::errno;

/// The client's configuration, made at the first https probe.
#[derive(Default)]
pub(super) struct Tls {
    config: OnceLock<Result<Arc<ClientConfig>, Error>>,
}

impl Tls {
    /// The handshake. The caller bounds its time.
    pub(super) async fn handshake<S: Duplex>(&self, host: &str, stream: S) -> Result<TlsStream<S>, Fault> {
        let config = match self.config.get_or_init(|| configured().map(Arc::new)) {
            Ok(config) => Arc::clone(config),
            Err(error) => return Err(Fault::Ours(format!("cannot set up TLS: {error}"))),
        };
        // A name that no certificate could bear is left unsaid, as an address is.
        let name = ServerName::try_from(host.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(Ipv4Addr::LOCALHOST.into()));
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| Fault::from_io(&error, words(&error)))
    }
}

/// HTTP/1.1 only (PROBES.md, D13), no client certificate.
fn configured() -> Result<ClientConfig, Error> {
    let provider = Arc::new(default_provider());
    let anyone = Anyone(provider.signature_verification_algorithms.supported_schemes());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Why a handshake failed, as Go words it where it has words.
fn words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (inner, error.kind()) {
        (Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)), _) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        (Some(error), _) => format!("tls: {error}"),
        (None, io::ErrorKind::UnexpectedEof) => "EOF".to_owned(),
        (None, _) => format!("read: {}", errno(error)),
    }
}

/// Takes every certificate. It holds the signature schemes that it says it would verify.
#[derive(Debug)]
struct Anyone(Vec<SignatureScheme>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
