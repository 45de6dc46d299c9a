//! Who is let in, and why sessions end.

use std::net::SocketAddr;

use backhaul_net::{NetError, PeerIdentity, Role};
use backhaul_object::snapshot::Origin;
use backhaul_proto::errand::News;
use backhaul_proto::goodbye::Goodbye;
use backhaul_proto::server::Request;
use backhaul_proto::{Retry, end, wire};
use backhaul_schedule::brake::Added;
use backhaul_schedule::fleet::{Deferral, Nudge, Place};
use backhaul_store::StoreError;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::errands::Errand;
use crate::error::ServerError;
use crate::fleet::{CUT_SHORT, Client, ClientState};
use crate::gate::printable;
use crate::hub::Ear;
use crate::rates::Throttle;

use super::ingest::Made;

/// Why a session ends before its time: a code of [`end`] and words for the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// For programs.
    pub code: u32,
    /// For people.
    pub text: String,
    /// When to come back.
    pub retry: Retry,
    /// Whether anybody has decided it.
    pub kind: EndingKind,
}

/// Whether anybody has decided that a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndingKind {
    /// One of the peers: a run that was going on has failed.
    Decided,
    /// The agent, before anything began: it does not want to now.
    NotNow,
    /// Somebody on the client, who has had enough of it: nothing has failed, and it does not go on by itself.
    CutShort,
    /// Nobody: the connection is gone, and the run may go on over another.
    Lost,
}

impl Ending {
    pub(crate) fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), retry: Retry::default(), kind: EndingKind::Decided }
    }

    pub(crate) fn lost(text: impl Into<String>) -> Self {
        Self { kind: EndingKind::Lost, ..Self::new(end::PROTOCOL, text) }
    }

    /// What the client's goodbye ends before its time; nothing, if it is done.
    pub(crate) fn of_goodbye(goodbye: Goodbye) -> Option<Self> {
        match goodbye {
            Goodbye::Done => None,
            Goodbye::Failed(why) => {
                Some(Self::new(end::AGENT, format!("on the client: {}", printable(&why, 400))))
            }
            Goodbye::CutShort(how) => Some(Self::cut_short(&how)),
        }
    }

    fn cut_short(how: &str) -> Self {
        let text = format!("{CUT_SHORT}{}", printable(how, 400));
        Self { kind: EndingKind::CutShort, ..Self::new(end::CUT_SHORT, text) }
    }

    /// Come back in so many seconds.
    pub(crate) fn busy(text: String, after: u64) -> Self {
        Self { retry: Retry { after, ..Retry::default() }, ..Self::new(end::BUSY, text) }
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
        match error {
            NetError::Lost(why) => Self::lost(why),
            // Whoever dismissed it has another session, or will not come back.
            NetError::Dismissed(why) => Self::lost(why),
            NetError::Left(how) => Self::cut_short(&how),
            other => Self::new(end::PROTOCOL, other.to_string()),
        }
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
    /// What the snapshot that it made is of.
    pub committed: Option<Origin>,
    /// Why it ended early, if it did.
    pub ending: Option<Ending>,
}

/// What a request for a run is answered at once.
pub enum Asked {
    /// It may begin.
    Granted,
    /// Not here: the agent was dialled to be nudged.
    Nudge(Nudge),
    /// It waits, and is told more.
    Waits(Ear),
}

/// The desk at which sessions are let in, wait, and hear of their clients: the daemon behind it decides.
pub trait Desk: Send + Sync {
    /// Finds the client and lets it in, or not.
    fn admit(&self, peer: &PeerIdentity, hello: &wire::Hello) -> Result<Client, Ending>;
    /// It wants a run.
    fn ask(&self, client: &Client, hello: &wire::Hello) -> Result<Asked, Ending>;
    /// Its run begins: its older sessions have stopped writing, and the run is written down.
    fn begin(&self, client: &Client) -> impl Future<Output = Result<(), Ending>> + Send;
    /// It wants to be told: what it hears from now on.
    fn attend(&self, client: &Client) -> Ear;
    /// It has said something of itself.
    fn heard(&self, client: &Client, what: &Request);
    /// Its run has made this snapshot: that is written down before it is told.
    fn committed(&self, client: &Client, made: &Made);
    /// Its session is over, and has added this without a snapshot.
    fn unfinished(&self, client: &Client, added: Added);
    /// It is known how its session ends: that is written down before its peer hears of it, for who has heard may come
    /// again at once.
    fn over(&self, client: &Client, outcome: &Outcome);
    /// Its run goes on.
    fn goes_on(&self, client: &Client);
    /// Where it stands in the queue.
    fn place(&self, client: &Client) -> Option<Place>;
    /// The same for its agent.
    fn queued(&self, client: &Client, place: &Place) -> wire::Queued;
    /// The end of a session whose client is to come back.
    fn deferred(&self, client: &Client, deferral: &Deferral) -> Ending;
    /// When it is due, and what is worth telling it about its link.
    fn verdict(&self, client: &Client) -> wire::Verdict;
    /// What its policy asks of its agent.
    fn terms(&self, client: &Client) -> wire::Terms;
    /// In how many seconds it is due with a new snapshot.
    fn due_after_success(&self, client: &Client) -> u64;
    /// Where its packets come from.
    fn observed(&self) -> SocketAddr;
    /// The restore that it has come, or was dialled, for.
    fn errand(&self, client: &Client, hello: &wire::Hello) -> Option<Errand>;
    /// An operator orders a restore of this client's snapshot from another client's agent.
    fn order(&self, from: &Client, order: wire::RestoreOrder) -> UnboundedReceiver<News>;
    /// How fast its bytes are accepted, where it is.
    fn throttle(&self) -> Throttle;
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
            _ => Err(refused("an operator does not back up".to_owned())),
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
