//! What this side shows, and which certificate of the other side it takes.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::Resumption;
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::fmt::Display;
use std::sync::Arc;

/// Takes the certificates that were judged elsewhere, and no other; that the other side has its key is checked here.
#[derive(Debug)]
struct Judged {
    /// None for any certificate: verification is off.
    believed: Option<Vec<Vec<u8>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Judged {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.believed {
            Some(believed) if !believed.iter().any(|each| each == shown.as_ref()) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What is the same for all connections: the certificate that this side shows, in PEM, if it has one.
#[pyclass(frozen, module = "lading_native")]
pub struct Config(ClientConfig);

#[pymethods]
impl Config {
    /// Raises `ValueError` for what rustls cannot use, which OpenSSL may.
    #[new]
    #[pyo3(signature = (certificate=None, key=None))]
    fn new(certificate: Option<&[u8]>, key: Option<&[u8]>) -> PyResult<Self> {
        let provider = ring::default_provider();
        let nobody = Judged { believed: Some(Vec::new()), algorithms: provider.signature_verification_algorithms };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(nobody));
        let mut config = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(unusable)?;
                builder.with_client_auth_cert(chain.map_err(unusable)?, key).map_err(unusable)?
            }
            _ => builder.with_no_client_auth(),
        };
        // A resumed session would not show its certificate.
        config.resumption = Resumption::disabled();
        Ok(Self(config))
    }
}

impl Config {
    /// The same, for a connection to a side that shows one of these certificates.
    pub fn believing(&self, believed: Option<Vec<Vec<u8>>>) -> Arc<ClientConfig> {
        let mut config = self.0.clone();
        let algorithms = config.crypto_provider().signature_verification_algorithms;
        config.dangerous().set_certificate_verifier(Arc::new(Judged { believed, algorithms }));
        Arc::new(config)
    }
}

fn unusable(error: impl Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
