//! Listening and dialling.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use socket2::SockRef;

use crate::authority::Pin;
use crate::enrol::Applicant;
use crate::error::NetError;
use crate::identity::{Identity, PeerIdentity, Role, TLS_NAME, certificate};
use crate::link::Link;
use crate::transport::{self, Keeper, Manner, Use};

mod pinned;

pub(crate) const ALPN_PUSH: &[u8] = b"backhaul-push/1";
pub(crate) const ALPN_PULL: &[u8] = b"backhaul-pull/1";
pub(crate) const ALPN_JOIN: &[u8] = b"backhaul-join/1";
/// How long one address is tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a dialler may take to be known.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// An endpoint that is dialled.
pub struct Listener {
    endpoint: Endpoint,
    /// How standing links are accepted.
    standing: Arc<ServerConfig>,
}

/// A dial that has not been answered yet; establish it in a task of its own.
pub struct Pending {
    incoming: Incoming,
    standing: Arc<ServerConfig>,
}

/// What came of an accepted dial.
pub enum Accepted {
    /// A session.
    Session(Link),
    /// An enrolment: a connection without a client certificate.
    Join(Applicant),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Of links that stand, keys come from X25519 alone. Nothing is said over them that were worth keeping until somebody breaks
/// that, and a hello with a key of ML-KEM takes 2 KiB of the server's memory for as long as the link stands.
fn provider_for(manner: Manner) -> Arc<CryptoProvider> {
    match manner {
        Manner::ToServer(Use::Standing(_)) => Arc::new(CryptoProvider {
            kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519],
            ..rustls::crypto::aws_lc_rs::default_provider()
        }),
        Manner::ToServer(Use::Work) | Manner::ToAgent => provider(),
    }
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, NetError> {
    let mut store = RootCertStore::empty();
    store.add(authority.clone()).map_err(certificate)?;
    Ok(Arc::new(store))
}

/// How connections of each kind are accepted: those that move data, and those that stand.
pub(crate) fn server_configs(
    identity: &Identity,
    protocols: &[&[u8]],
    keeper: Keeper,
) -> Result<(ServerConfig, ServerConfig), NetError> {
    let authority = identity.authority().ok_or_else(|| certificate("no authority"))?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(certificate)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(certificate)?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain.clone(), identity.tls_key())
        .map_err(certificate)?;
    // Sessions are never resumed: no early data, and a fresh look at every certificate.
    tls.send_tls13_tickets = 0;
    tls.alpn_protocols = protocols.iter().map(|alpn| alpn.to_vec()).collect();
    let crypto = QuicServerConfig::try_from(tls).map_err(certificate)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut standing = config.clone();
    config.transport_config(transport::transport(keeper));
    standing.transport_config(transport::standing(keeper));
    Ok((config, standing))
}

impl Listener {
    /// The server's endpoint: pushes and enrolments. `reset_key` stays the same across restarts.
    ///
    /// # Errors
    /// The address cannot be bound, or the identity is not usable.
    pub fn server(address: SocketAddr, identity: &Identity, reset_key: &[u8; 32]) -> Result<Self, NetError> {
        let endpoint = transport::endpoint_with_reset_key(reset_key);
        Self::bind(address, identity, &[ALPN_PUSH, ALPN_JOIN], Keeper::Server, endpoint)
    }

    /// An agent's endpoint: pulls.
    ///
    /// # Errors
    /// As [`Listener::server`].
    pub fn agent(address: SocketAddr, identity: &Identity) -> Result<Self, NetError> {
        let keeper = Keeper::Agent(transport::KEEP_ALIVE);
        Self::bind(address, identity, &[ALPN_PULL], keeper, transport::endpoint())
    }

    fn bind(
        address: SocketAddr,
        identity: &Identity,
        protocols: &[&[u8]],
        keeper: Keeper,
        endpoint: EndpointConfig,
    ) -> Result<Self, NetError> {
        let (config, standing) = server_configs(identity, protocols, keeper)?;
        let bind = |source| NetError::Bind { address: address.to_string(), source };
        let socket = std::net::UdpSocket::bind(address).map_err(bind)?;
        make_room(&socket);
        let endpoint = Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime)).map_err(bind)?;
        Ok(Self { endpoint, standing: Arc::new(standing) })
    }

    /// Where it listens: the port is known even if 0 was asked for.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> Result<SocketAddr, NetError> {
        self.endpoint.local_addr().map_err(|error| NetError::Lost(error.to_string()))
    }

    /// The next dial; none once the endpoint is closed.
    pub async fn accept(&self) -> Option<Pending> {
        let incoming = self.endpoint.accept().await?;
        Some(Pending { incoming, standing: Arc::clone(&self.standing) })
    }

    /// Tells every peer goodbye and waits until they know.
    pub async fn close(&self, reason: &str) {
        self.endpoint.close(0u32.into(), reason.as_bytes());
        self.endpoint.wait_idle().await;
    }
}

impl Pending {
    /// From where it comes; it may not be true before [`Pending::challenge`].
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Drops the dial without a word.
    pub fn ignore(self) {
        self.incoming.ignore();
    }

    /// Makes the dialler show that it is where it says, before anything is done for it: unless it has, it is
    /// told to dial again, and nothing is left of this dial.
    pub fn challenge(self) -> Option<Self> {
        if self.incoming.remote_address_validated() {
            return Some(self);
        }
        let Self { incoming, standing } = self;
        incoming.retry().err().map(|error| Self { incoming: error.into_incoming(), standing })
    }

    /// Completes the handshake and says what the dialler is.
    ///
    /// # Errors
    /// The handshake failed, or a session came without a certificate.
    pub async fn establish(self) -> Result<Accepted, NetError> {
        let lost = |error: ConnectionError| NetError::Lost(error.to_string());
        let connecting = match transport::is_standing(&self.incoming.orig_dst_cid()) {
            true => self.incoming.accept_with(self.standing),
            false => self.incoming.accept(),
        }
        .map_err(lost)?;
        let connection = tokio::time::timeout(ACCEPT_TIMEOUT, connecting)
            .await
            .map_err(|_| NetError::Lost("the handshake took too long".to_owned()))?
            .map_err(lost)?;
        let protocol = connection
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| data.protocol);
        if protocol.as_deref() == Some(ALPN_JOIN) {
            return Ok(Accepted::Join(Applicant(connection)));
        }
        let peer = peer(&connection)?;
        let fits = match protocol.as_deref() {
            Some(ALPN_PUSH) => matches!(peer.role, Role::Agent | Role::Operator),
            Some(ALPN_PULL) => peer.role == Role::ServerDialler,
            _ => false,
        };
        if !fits {
            connection.close(1u32.into(), b"this certificate is for another purpose");
            return Err(NetError::WrongRole { found: peer.role.to_string(), expected: Role::Agent });
        }
        let link = tokio::time::timeout(ACCEPT_TIMEOUT, Link::accept(connection.clone(), peer)).await;
        link.unwrap_or_else(|_| {
            connection.close(1u32.into(), b"nothing was said");
            Err(NetError::Lost("the peer said nothing".to_owned()))
        })
        .map(Accepted::Session)
    }
}

fn peer(connection: &Connection) -> Result<PeerIdentity, NetError> {
    let certificates = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    match certificates.first() {
        Some(leaf) => PeerIdentity::from_certificate(leaf),
        None => {
            connection.close(1u32.into(), b"a certificate is needed");
            Err(certificate("the peer has no certificate"))
        }
    }
}

/// Dials a server (push).
///
/// # Errors
/// [`NetError`] says which of the many things that can be wrong it is.
pub async fn dial_server(address: &str, identity: &Identity, wanted: Use) -> Result<Link, NetError> {
    dial_role(address, identity, Role::Server, ALPN_PUSH, Manner::ToServer(wanted)).await
}

/// Dials an agent (pull) and makes sure that it is the named client.
///
/// # Errors
/// As [`dial_server`].
pub async fn dial_agent(address: &str, identity: &Identity, client: &str) -> Result<Link, NetError> {
    let link = dial_role(address, identity, Role::AgentListener, ALPN_PULL, Manner::ToAgent).await?;
    if link.peer().name != client {
        let found = format!("the agent of {}", link.peer().name);
        link.close("this is not the client I was looking for");
        return Err(NetError::WrongRole { found, expected: Role::AgentListener });
    }
    Ok(link)
}

/// What a session is dialled with: our certificate, and the authority that we trust.
pub(crate) fn client_tls(identity: &Identity, manner: Manner) -> Result<rustls::ClientConfig, NetError> {
    let authority = identity.authority().ok_or_else(|| certificate("no authority"))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authority)?, provider())
        .build()
        .map_err(certificate)?;
    rustls::ClientConfig::builder_with_provider(provider_for(manner))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(certificate)?
        .with_webpki_verifier(verifier)
        // The peer has the authority's certificate, and would keep another one with every link.
        .with_client_auth_cert(identity.chain[..1].to_vec(), identity.tls_key())
        .map_err(certificate)
}

pub(crate) fn client_config(
    mut tls: rustls::ClientConfig,
    alpn: &[u8],
    manner: Manner,
) -> Result<ClientConfig, NetError> {
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(certificate)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    manner.apply(&mut config);
    Ok(config)
}

async fn dial_role(
    address: &str,
    identity: &Identity,
    role: Role,
    alpn: &[u8],
    manner: Manner,
) -> Result<Link, NetError> {
    let (connection, endpoint) =
        dial(address, client_config(client_tls(identity, manner)?, alpn, manner)?).await?;
    let peer = peer(&connection)?;
    if peer.role != role {
        connection.close(1u32.into(), b"this certificate is for another purpose");
        return Err(NetError::WrongRole { found: peer.role.to_string(), expected: role });
    }
    Link::dialled(connection, endpoint, peer).await
}

/// Dials a server that is known only by the pin of its CA; returns that CA's certificate, too.
pub(crate) async fn dial_join(
    address: &str,
    pin: Pin,
) -> Result<(Connection, CertificateDer<'static>), NetError> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(certificate)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned::PinnedAuthority::new(pin)))
        .with_no_client_auth();
    let (connection, _) = dial(address, client_config(tls, ALPN_JOIN, Manner::ToServer(Use::Work))?).await?;
    let certificates = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    let authority = certificates.get(1).cloned().ok_or_else(|| certificate("no authority in the chain"))?;
    Ok((connection, authority))
}

async fn dial(address: &str, config: ClientConfig) -> Result<(Connection, Endpoint), NetError> {
    let resolve = |source| NetError::Resolve { address: address.to_owned(), source };
    let targets: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(resolve)?.collect();
    let mut last = resolve(std::io::Error::from(std::io::ErrorKind::NotFound));
    for target in targets {
        match dial_one(address, target, config.clone()).await {
            Ok(connection) => return Ok(connection),
            Err(error @ NetError::Unreachable { .. }) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

async fn dial_one(
    address: &str,
    target: SocketAddr,
    config: ClientConfig,
) -> Result<(Connection, Endpoint), NetError> {
    let unreachable = |why: String| NetError::Unreachable { address: address.to_owned(), why };
    let socket = socket_towards(target).map_err(|error| unreachable(error.to_string()))?;
    let endpoint = Endpoint::new(transport::endpoint(), None, socket, Arc::new(TokioRuntime))
        .map_err(|error| unreachable(error.to_string()))?;
    let connecting =
        endpoint.connect_with(config, target, TLS_NAME).map_err(|error| unreachable(error.to_string()))?;
    match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
        Err(_) => Err(unreachable(format!("nothing heard within {} s", DIAL_TIMEOUT.as_secs()))),
        Ok(Err(error)) => Err(explain(address, error)),
        Ok(Ok(connection)) => Ok((connection, endpoint)),
    }
}

/// A socket without an address of its own: it follows the machine's routes.
pub(crate) fn socket_towards(target: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    })?;
    make_room(&socket);
    Ok(socket)
}

/// What the kernel keeps of a socket's packets while nobody takes them. By itself 208 KiB, which fifty clients that
/// begin at once overrun: their dials are lost with the rest.
const SOCKET_BUFFER: usize = 4 << 20;

/// Asks for it; the kernel gives as much as its limit allows (`net.core.rmem_max`).
fn make_room(socket: &std::net::UdpSocket) {
    let _ = SockRef::from(socket).set_recv_buffer_size(SOCKET_BUFFER);
}

/// TLS alerts (RFC 8446, section 6.2) arrive as QUIC error 0x100 + alert.
fn explain(address: &str, error: ConnectionError) -> NetError {
    const BAD_CERTIFICATE: u64 = 0x12a;
    const EXPIRED: u64 = 0x12d;
    const UNKNOWN_CA: u64 = 0x130;
    // All our authorities have one name: another one's certificates fail at the signature.
    const DECRYPT_ERROR: u64 = 0x133;
    let address = address.to_owned();
    match &error {
        ConnectionError::TransportError(local) => match u64::from(local.code) {
            EXPIRED => NetError::Clock { address },
            UNKNOWN_CA | BAD_CERTIFICATE | DECRYPT_ERROR => NetError::WrongAuthority { address },
            _ => NetError::Rejected { address, why: error.to_string() },
        },
        ConnectionError::TimedOut => NetError::Unreachable { address, why: error.to_string() },
        _ => NetError::Rejected { address, why: error.to_string() },
    }
}
