//! Who is let in, and why sessions end.

use backhaul_net::{NetError, PeerIdentity, Role};
use backhaul_object::ObjectId;
use backhaul_proto::{end, wire};
use backhaul_store::StoreError;

use crate::error::ServerError;
use crate::fleet::{Client, ClientState};

/// Why a session ends before its time: a code of [`end`] and words for the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// For programs.
    pub code: u32,
    /// For people.
    pub text: String,
}

impl Ending {
    pub(crate) fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<StoreError> for Ending {
    fn from(error: StoreError) -> Self {
        let text = match error.is_full() {
            true => format!(
                "the disk of the server's vault is full: {error}; no snapshot was made, earlier ones are intact"
            ),
            false => format!("the server's vault: {error}"),
        };
        Self::new(end::STORAGE, text)
    }
}

impl From<NetError> for Ending {
    fn from(error: NetError) -> Self {
        Self::new(end::PROTOCOL, error.to_string())
    }
}

impl From<ServerError> for Ending {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Store(error) => error.into(),
            other => Self::new(end::STORAGE, other.to_string()),
        }
    }
}

/// What a session came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The snapshot it made, and how many files of it could not be read.
    pub committed: Option<(ObjectId, u64)>,
    /// Why it ended early, if it did.
    pub ending: Option<Ending>,
}

/// What the daemon decides when a client says hello.
pub trait Admission: Send + Sync {
    /// Finds the client and lets it in, or not. `backup` ends an older backup session of the client.
    fn admit(
        &self,
        peer: &PeerIdentity,
        hello: &wire::Hello,
    ) -> impl Future<Output = Result<Client, Ending>> + Send;

    /// In how many seconds the client's next backup is due.
    fn due_in(&self, client: &Client) -> u64;
}

/// Who a peer is to the server: the client of its certificate, or the one an operator names.
pub fn identify(peer: &PeerIdentity, hello: &wire::Hello, found: Option<Client>) -> Result<Client, Ending> {
    let refused = |text: String| Ending::new(end::REVOKED, text);
    let operator = peer.role == Role::Operator;
    let name = if operator { &hello.client } else { &peer.name };
    let Some(client) = found else {
        return Err(refused(format!("this server knows no client {name:?}")));
    };
    if operator {
        return match hello.intent() {
            wire::Intent::Browse => Ok(client),
            wire::Intent::Backup => Err(refused("an operator does not back up".to_owned())),
        };
    }
    if client.state == ClientState::Revoked {
        return Err(refused(format!("client {name:?} was revoked on the server")));
    }
    if !client.keys.contains(&Some(peer.fingerprint())) {
        return Err(refused(format!("client {name:?} was enrolled anew with another key; join again")));
    }
    Ok(client)
}
