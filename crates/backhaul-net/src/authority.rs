//! The private CA of one server: made by `server init`, pinned by join codes, trusted by nobody else.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

use crate::error::NetError;
use crate::identity::{Identity, Role, TLS_NAME, certificate, new_key};
use crate::private_file;

/// How long a leaf is valid. Long, because trust ends by `client revoke`, which acts within seconds, and an
/// expired leaf would end backups in silence.
const LEAF_DAYS: u64 = 3_650;
/// How long the CA is valid.
const AUTHORITY_DAYS: u64 = 7_300;
/// Certificates are valid from a day before they are made: clocks differ.
const DAYS_BEFORE: u64 = 1;
const DAY: u64 = 86_400;

/// First 16 bytes of the BLAKE3 of the CA certificate.
pub type Pin = [u8; 16];

/// The CA's certificate and key.
pub struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// The pin of a CA certificate.
pub fn pin_of(der: &CertificateDer<'_>) -> Pin {
    let mut pin = [0; 16];
    pin.copy_from_slice(&blake3::hash(der).as_bytes()[..16]);
    pin
}

impl Authority {
    /// Makes a new one. `now` is seconds since 1970.
    ///
    /// # Errors
    /// The provider cannot make keys.
    pub fn create(now: u64) -> Result<Self, NetError> {
        let key = new_key()?;
        let mut params = CertificateParams::new(Vec::new()).map_err(certificate)?;
        params.distinguished_name.push(DnType::CommonName, "Backhaul private authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now, AUTHORITY_DAYS);
        let der = params.self_signed(&key).map_err(certificate)?.der().clone();
        Ok(Self { der, issuer: Issuer::new(params, key) })
    }

    /// Reads `ca.crt` and `ca.key` in a directory.
    ///
    /// # Errors
    /// A file is missing or is no certificate or key.
    pub fn load(dir: &Path) -> Result<Self, NetError> {
        let der = CertificateDer::from(private_file::read(&dir.join("ca.crt"))?);
        let raw = private_file::read(&dir.join("ca.key"))?;
        let pkcs8 = PrivatePkcs8KeyDer::from(raw.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(certificate)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(certificate)?;
        Ok(Self { der, issuer })
    }

    /// Writes what [`Authority::load`] reads.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), NetError> {
        private_file::write(&dir.join("ca.key"), self.issuer.key().serialized_der())?;
        private_file::write(&dir.join("ca.crt"), &self.der)
    }

    /// What a join code tells about this CA.
    pub fn pin(&self) -> Pin {
        pin_of(&self.der)
    }

    /// Makes key and certificate for one of the server's own roles.
    ///
    /// # Errors
    /// The provider cannot make keys.
    pub fn issue_own(&self, role: Role, name: &str, now: u64) -> Result<Identity, NetError> {
        let key = new_key()?;
        let leaf = leaf(role, name, now)?.signed_by(&key, &self.issuer).map_err(certificate)?;
        Ok(Identity::new(leaf.der().clone(), self.der.clone(), key))
    }

    /// Makes a certificate for the key of a request; everything else in the request is ignored.
    ///
    /// # Errors
    /// The request does not parse or is not signed by its own key.
    pub fn issue(&self, request: &[u8], role: Role, name: &str, now: u64) -> Result<Vec<u8>, NetError> {
        let der = CertificateSigningRequestDer::from(request.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&der).map_err(certificate)?;
        request.params = leaf(role, name, now)?;
        Ok(request.signed_by(&self.issuer).map_err(certificate)?.der().to_vec())
    }
}

fn leaf(role: Role, name: &str, now: u64) -> Result<CertificateParams, NetError> {
    let mut params = CertificateParams::new(vec![TLS_NAME.to_owned()]).map_err(certificate)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = format!("backhaul:{role}/{name}").try_into().map_err(certificate)?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match role.listens() {
        true => ExtendedKeyUsagePurpose::ServerAuth,
        false => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    valid(&mut params, now, LEAF_DAYS);
    Ok(params)
}

fn valid(params: &mut CertificateParams, now: u64, days: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(DAYS_BEFORE * DAY));
    params.not_after = epoch + Duration::from_secs(now + days * DAY);
}
