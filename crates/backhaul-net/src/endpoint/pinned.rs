//! Trust in a server of which only the CA's pin is known.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::provider;
use crate::authority::{Pin, pin_of};

/// Accepts a chain of leaf and CA when the CA has the pin and signed the leaf.
#[derive(Debug)]
pub(super) struct PinnedAuthority {
    pin: Pin,
}

impl PinnedAuthority {
    pub(super) fn new(pin: Pin) -> Self {
        Self { pin }
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let [authority] = above else { return Err(unknown()) };
        if pin_of(authority) != self.pin {
            return Err(unknown());
        }
        let roots = super::roots(&authority.clone().into_owned()).map_err(|_| unknown())?;
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        let inner: Arc<WebPkiServerVerifier> = inner.map_err(|_| unknown())?;
        inner.verify_server_cert(leaf, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
