//! Who somebody is: one certificate and key per role, the role in the certificate.

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{CertificateParams, KeyPair, SigningKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;

use crate::error::NetError;
use crate::private_file;

/// The DNS name in every certificate: names of machines change, this does not.
pub const TLS_NAME: &str = "backhaul";

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The server, when it is dialled.
    Server,
    /// The server, when it dials an agent.
    ServerDialler,
    /// An agent, when it dials the server.
    Agent,
    /// An agent, when it is dialled.
    AgentListener,
    /// Whoever works on the server's own machine with the server's own files.
    Operator,
}

impl Role {
    /// As it stands in the certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ServerDialler => "server-dialler",
            Self::Agent => "agent",
            Self::AgentListener => "agent-listener",
            Self::Operator => "operator",
        }
    }

    /// True when holders of this role are dialled.
    pub fn listens(self) -> bool {
        matches!(self, Self::Server | Self::AgentListener)
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Server, Self::ServerDialler, Self::Agent, Self::AgentListener, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A certificate with its chain, and the key.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    pub(crate) fn new(
        leaf: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key: KeyPair,
    ) -> Self {
        Self { chain: vec![leaf, authority], key }
    }

    /// Reads `<name>.crt`, `<name>.key` and `ca.crt` (all DER) in a directory.
    ///
    /// # Errors
    /// A file is missing or no key or certificate.
    pub fn load(dir: &Path, name: &str) -> Result<Self, NetError> {
        let path = dir.join(format!("{name}.key"));
        let raw = private_file::read(&path)?;
        let der = PrivatePkcs8KeyDer::from(raw.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| NetError::File { path, why: error.to_string() })?;
        let leaf = CertificateDer::from(private_file::read(&dir.join(format!("{name}.crt")))?);
        let authority = CertificateDer::from(private_file::read(&dir.join("ca.crt"))?);
        Ok(Self::new(leaf, authority, key))
    }

    /// Writes what [`Identity::load`] reads.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), NetError> {
        private_file::write(&dir.join(format!("{name}.key")), self.key.serialized_der())?;
        let [leaf, authority] = &self.chain[..] else {
            return Err(NetError::Certificate("chain of a wrong length".to_owned()));
        };
        private_file::write(&dir.join(format!("{name}.crt")), leaf)?;
        private_file::write(&dir.join("ca.crt"), authority)
    }

    /// Signs a message (ECDSA P-256, SHA-256, DER).
    ///
    /// # Errors
    /// The key refused.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NetError> {
        self.key.sign(message).map_err(certificate)
    }

    pub(crate) fn authority(&self) -> Option<&CertificateDer<'static>> {
        self.chain.get(1)
    }

    pub(crate) fn tls_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialized_der().to_vec()))
    }
}

/// The peer of a connection, from its verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it may do.
    pub role: Role,
    /// The client's (or server's) name.
    pub name: String,
    public_key: Vec<u8>,
}

impl PeerIdentity {
    /// From a certificate that was verified against the CA.
    ///
    /// # Errors
    /// The certificate has no role in it.
    pub fn from_certificate(der: &CertificateDer<'_>) -> Result<Self, NetError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(certificate)?;
        let names = parsed.subject_alternative_name().map_err(certificate)?;
        let uri = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .find_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix("backhaul:"),
                _ => None,
            })
            .ok_or_else(|| NetError::Certificate("no role in the certificate".to_owned()))?;
        let (role, name) = uri.split_once('/').unwrap_or((uri, ""));
        let role = Role::parse(role).ok_or_else(|| NetError::Certificate(format!("unknown role {role}")))?;
        let public_key = parsed.public_key().subject_public_key.data.to_vec();
        Ok(Self { role, name: name.to_owned(), public_key })
    }

    /// BLAKE3 of the public key: how the server knows this very key again.
    pub fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(&self.public_key).as_bytes()
    }

    /// True for a signature made by [`Identity::sign`] with this peer's key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key).verify(message, signature).is_ok()
    }
}

/// A fresh P-256 key.
pub(crate) fn new_key() -> Result<KeyPair, NetError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(certificate)
}

/// A request for a certificate; what it asks for is decided by the authority.
pub(crate) fn request(key: &KeyPair) -> Result<Vec<u8>, NetError> {
    let params = CertificateParams::new(Vec::new()).map_err(certificate)?;
    Ok(params.serialize_request(key).map_err(certificate)?.der().to_vec())
}

pub(crate) fn certificate(error: impl fmt::Display) -> NetError {
    NetError::Certificate(error.to_string())
}
