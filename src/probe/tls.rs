//! TLS to a service whose certificate is nobody's business: a kubelet verifies none of it, for a probe
//! asks whether the service answers, not who it is.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring::{DEFAULT_CIPHER_SUITES, DEFAULT_KX_GROUPS};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SigningKey;
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
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
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

/// What a handshake takes of ring: its ciphers and key exchanges. Without what makes or verifies signatures,
/// which nothing here does, the binary is smaller by as much.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: DEFAULT_CIPHER_SUITES.to_vec(),
        kx_groups: DEFAULT_KX_GROUPS.to_vec(),
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &Plain,
        key_provider: &Plain,
    }
}

/// The kernel's random numbers, and no private keys.
#[derive(Debug)]
struct Plain;

impl SecureRandom for Plain {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(buffer).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Plain {
    fn load_private_key(&self, _key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("a probe has no private key".to_owned()))
    }
}

/// The signature schemes that it says it would verify: those of ring, in its order.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// Takes every certificate.
#[derive(Debug)]
struct Anyone;

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
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::crypto::ring::default_provider;

    use super::*;

    #[test]
    fn what_is_offered_is_what_ring_offers() {
        let whole = default_provider();
        assert_eq!(SCHEMES.to_vec(), whole.signature_verification_algorithms.supported_schemes());
        assert_eq!(provider().cipher_suites, whole.cipher_suites);
        let names = |provider: &CryptoProvider| -> Vec<_> {
            provider.kx_groups.iter().map(|group| group.name()).collect()
        };
        assert_eq!(names(&provider()), names(&whole));
    }
}
