//! Enrolment: from a join code to two certificates, bound to this very connection.

use std::time::Duration;

use backhaul_proto::wire::{JoinReply, JoinRequest};
use prost::Message;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::endpoint::dial_join;
use crate::error::NetError;
use crate::identity::{Identity, PeerIdentity, new_key, request};
use crate::join_code::JoinCode;

const EXPORTER_LABEL: &[u8] = b"EXPORTER-backhaul-join-1";
/// Requests and replies are a few kilobytes.
const MESSAGE_MAX: usize = 64 << 10;

/// How long an applicant may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a server does not enrol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[repr(u32)]
pub enum Refusal {
    /// There is no such invitation.
    #[error("the server does not know this join code: it was replaced, or the client was removed")]
    Unknown = 1,
    /// It was used.
    #[error("this join code was already used")]
    Spent = 2,
    /// It is too old.
    #[error("this join code has expired")]
    Expired = 3,
    /// The request does not prove knowledge of the secret on this connection.
    #[error("the server could not verify this join code")]
    BadProof = 4,
    /// The certificate requests are malformed.
    #[error("the server could not read the certificate request")]
    BadRequest = 5,
}

/// Why enrolment failed.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// The server could not be reached or is not the one of the code.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The server said no.
    #[error("{0}")]
    Refused(Refusal),
}

/// A new client's identities.
pub struct Enrolled {
    /// The name the server knows it by.
    pub client: String,
    /// For dialling the server.
    pub agent: Identity,
    /// For being dialled.
    pub listener: Identity,
    /// The address that answered.
    pub address: String,
}

/// Enrols this machine: tries the code's addresses in order; keys are made here and never leave.
///
/// # Errors
/// Nobody answered, another server answered, or the server refused.
pub async fn enrol(code: &JoinCode) -> Result<Enrolled, EnrolError> {
    let mut last = NetError::Unreachable { address: "the server".to_owned(), why: "no address".to_owned() };
    for address in &code.addresses {
        match dial_join(address, code.pin).await {
            Ok((connection, authority)) => return request_on(&connection, authority, code, address).await,
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

async fn request_on(
    connection: &Connection,
    authority: CertificateDer<'static>,
    code: &JoinCode,
    address: &str,
) -> Result<Enrolled, EnrolError> {
    let (agent_key, listener_key) = (new_key()?, new_key()?);
    let (agent_request, listener_request) = (request(&agent_key)?, request(&listener_key)?);
    let proof = proof(connection, &code.secret.proof_key(), &agent_request, &listener_request)?;
    let message = JoinRequest {
        invitation: code.secret.invitation().to_vec().into(),
        agent_request: agent_request.into(),
        listener_request: listener_request.into(),
        proof: proof.to_vec().into(),
    };
    let lost = |error: String| NetError::Lost(error);
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| lost(e.to_string()))?;
    send.write_all(&message.encode_to_vec()).await.map_err(|e| lost(e.to_string()))?;
    send.finish().map_err(|e| lost(e.to_string()))?;
    let reply = receive.read_to_end(MESSAGE_MAX).await.map_err(|e| lost(e.to_string()))?;
    let reply = JoinReply::decode(&reply[..]).map_err(|e| NetError::Malformed(e.to_string()))?;
    let refusal =
        [Refusal::Unknown, Refusal::Spent, Refusal::Expired, Refusal::BadProof, Refusal::BadRequest];
    if reply.refusal != 0 {
        let known = refusal.into_iter().find(|known| *known as u32 == reply.refusal);
        return Err(EnrolError::Refused(known.unwrap_or(Refusal::BadRequest)));
    }
    connection.close(0u32.into(), b"joined");
    let leaf = |der: &[u8]| CertificateDer::from(der.to_vec());
    let agent = leaf(&reply.agent_certificate);
    let client = PeerIdentity::from_certificate(&agent)?.name;
    Ok(Enrolled {
        client,
        agent: Identity::new(agent, authority.clone(), agent_key),
        listener: Identity::new(leaf(&reply.listener_certificate), authority, listener_key),
        address: address.to_owned(),
    })
}

fn proof(
    connection: &Connection,
    key: &[u8; 32],
    agent: &[u8],
    listener: &[u8],
) -> Result<[u8; 32], NetError> {
    let mut exporter = [0; 32];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|_| NetError::Lost("the connection is not ready".to_owned()))?;
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&exporter);
    hasher.update(&(agent.len() as u64).to_le_bytes()).update(agent).update(listener);
    Ok(*hasher.finalize().as_bytes())
}

/// Somebody who dialled for enrolment and has not yet asked.
pub struct Applicant(pub(crate) Connection);

/// A request as the server sees it.
pub struct Application {
    connection: Connection,
    send: quinn::SendStream,
    request: JoinRequest,
}

impl Application {
    /// Reads the request from an accepted enrolment connection.
    ///
    /// # Errors
    /// The connection broke or the message is malformed.
    pub async fn read(applicant: Applicant) -> Result<Self, NetError> {
        let Applicant(connection) = applicant;
        let read = tokio::time::timeout(PATIENCE, Self::read_from(connection.clone())).await;
        read.unwrap_or_else(|_| {
            connection.close(1u32.into(), b"nothing was asked");
            Err(NetError::Lost("the applicant asked nothing".to_owned()))
        })
    }

    async fn read_from(connection: Connection) -> Result<Self, NetError> {
        let lost = |error: String| NetError::Lost(error);
        let (send, mut receive) = connection.accept_bi().await.map_err(|e| lost(e.to_string()))?;
        let bytes = receive.read_to_end(MESSAGE_MAX).await.map_err(|e| lost(e.to_string()))?;
        let request = JoinRequest::decode(&bytes[..]).map_err(|e| NetError::Malformed(e.to_string()))?;
        Ok(Self { connection, send, request })
    }

    /// By what to find the invitation.
    pub fn invitation(&self) -> &[u8] {
        &self.request.invitation
    }

    /// The DER certificate requests: agent, listener.
    pub fn requests(&self) -> (&[u8], &[u8]) {
        (&self.request.agent_request, &self.request.listener_request)
    }

    /// True when the applicant knows the secret behind `proof_key` and speaks on this connection.
    pub fn proves(&self, proof_key: &[u8; 32]) -> bool {
        let (agent, listener) = self.requests();
        let expected = proof(&self.connection, proof_key, agent, listener);
        // Comparing hashes takes the same time wherever they differ.
        expected.is_ok_and(|expected| {
            blake3::Hash::from(expected)
                == *<&[u8; 32]>::try_from(&self.request.proof[..]).unwrap_or(&[0; 32])
        })
    }

    /// Answers with certificates, or a refusal, and waits until the applicant has it.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn answer(
        mut self,
        answer: Result<(String, Vec<u8>, Vec<u8>), Refusal>,
    ) -> Result<(), NetError> {
        let reply = match answer {
            Ok((client, agent, listener)) => JoinReply {
                refusal: 0,
                client,
                agent_certificate: agent.into(),
                listener_certificate: listener.into(),
            },
            Err(refusal) => JoinReply { refusal: refusal as u32, ..JoinReply::default() },
        };
        let lost = |error: String| NetError::Lost(error);
        self.send.write_all(&reply.encode_to_vec()).await.map_err(|e| lost(e.to_string()))?;
        self.send.finish().map_err(|e| lost(e.to_string()))?;
        let _ = tokio::time::timeout(PATIENCE, self.send.stopped()).await;
        Ok(())
    }
}
