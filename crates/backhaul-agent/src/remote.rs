//! A session with a server, for threads: they call, tasks carry.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use backhaul_archive::backup::{Patches, VaultParameters};
use backhaul_net::link::Hangup;
use backhaul_net::{Link, NetError};
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, VaultId};
use backhaul_object::keys::{ChunkerKey, IdKey};
use backhaul_object::source::{Kin, Query, Spot, TransferError};
use backhaul_object::{Compressed, FormatError, ObjectId, Reference};
use backhaul_proto::errand::News;
use backhaul_proto::goodbye::Goodbye;
use backhaul_proto::{Retry, end, feature, wire};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::error::AgentError;
use crate::ways::{Leaving, Ways};

mod bulk;
mod driver;
mod listing;
mod objects;
mod order;
mod trace;

pub(crate) use driver::read_frames;
pub use listing::{Listed, Which};

/// Objects that wait for the network.
const OUTBOUND_MAX: usize = 4;
/// How long the reason for an end is waited for: 2 s.
const LAST_WORDS_TRIES: u32 = 200;
const LAST_WORDS_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
/// How long a goodbye may take: over a slow line what was sent before it comes first.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(10);
/// Software name in the hello.
pub(crate) const SOFTWARE: &str = concat!("backhaul ", env!("CARGO_PKG_VERSION"));

/// What a thread asks of the session.
enum Command {
    Ask(Vec<Query>, Sender<Vec<backhaul_object::source::Answer>>),
    Sign(Vec<Spot>, Sender<Vec<Kin>>),
    Arrange(Vec<ObjectId>, Sender<Vec<usize>>),
    Read(Vec<Reference>, Sender<Result<Vec<Compressed>, TransferError>>),
    Commit(Box<Commitment>, Sender<wire::Committed>),
    List(wire::List, Sender<Vec<wire::SnapshotRow>>),
    Stats(Sender<wire::VaultStats>),
    Order(Box<wire::RestoreOrder>, Sender<News>),
    News(News),
    Close(Goodbye),
}

/// A manifest on its way.
struct Commitment {
    objects: u64,
    manifest: Compressed,
    signature: Vec<u8>,
    changes: Changes,
}

/// What a run found changed, for the server's brake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Files that were not known from the run before.
    pub files_new: u64,
    /// Files with other contents than then.
    pub files_changed: u64,
}

/// What the tasks and the threads share.
#[derive(Default)]
struct Shared {
    durable: AtomicU64,
    /// Objects that have left.
    left: AtomicU64,
    failure: Mutex<Option<Failure>>,
    /// Known from the welcome on.
    bounds: OnceLock<Bounds>,
}

/// Why the session is over.
#[derive(Debug, Clone)]
struct Failure {
    code: u32,
    error: TransferError,
    retry: Retry,
}

/// Hears where a session that waits for its slot stands.
pub type Waiting = Arc<dyn Fn(&wire::Queued) + Send + Sync>;

/// How a session is opened.
#[derive(Clone, Default)]
pub struct Opening {
    /// What is said first.
    pub hello: wire::Hello,
    /// Hears of the place in the queue.
    pub waiting: Option<Waiting>,
    /// Takes the policy's terms; without it they are left to who attends.
    pub terms: Option<Adopting>,
    /// Bytes that may be sent.
    pub limits: Limits,
    /// Hears that it is to say goodbye.
    pub leaving: Option<Leaving>,
}

/// Takes the policy's terms, and says whether they are kept; nothing, if they were before.
pub type Adopting = Arc<dyn Fn(&wire::Terms) -> Option<wire::Applied> + Send + Sync>;

/// Bounds of what a session sends. What the policy says is in the welcome: a machine that never heard of it keeps to it
/// from the first byte on.
#[derive(Clone, Copy, Default, Debug)]
pub struct Limits {
    /// Bytes a second that somebody asked for: they go before the policy's.
    pub asked: Option<NonZeroU64>,
    /// Whether a run may send no more than the policy allows on a connection that costs.
    pub cost: Cost,
}

/// What a connection costs.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing, or whoever wants the run does not mind.
    #[default]
    Free,
    /// It counts bytes.
    Metered,
}

/// What comes of the limits with the policy's.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Bounds {
    /// Bytes a second.
    per_s: Option<NonZeroU64>,
    /// Bytes in all.
    cap: Option<u64>,
}

impl Limits {
    fn with(self, terms: &wire::Terms) -> Bounds {
        let cap = Some(terms.metered_cap).filter(|cap| *cap > 0 && self.cost == Cost::Metered);
        Bounds { per_s: self.asked.or(NonZeroU64::new(terms.limit_upload)), cap }
    }
}

/// What a hello was answered.
enum Answered {
    Welcome(Box<wire::Welcome>),
    Nudged(wire::Nudge),
}

impl Shared {
    /// The first reason is the true one.
    fn fail(&self, code: u32, error: TransferError) {
        self.fail_with(code, error, Retry::default());
    }

    fn fail_with(&self, code: u32, error: TransferError, retry: Retry) {
        let failure = Failure { code, error, retry };
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the session is over. The reason may still be on its way on the control stream when a data stream
    /// breaks, and it decides what is done next. Blocks for a moment.
    fn error(&self) -> TransferError {
        for _ in 0..LAST_WORDS_TRIES {
            if let Some(failure) = self.failure() {
                return failure.error;
            }
            std::thread::sleep(LAST_WORDS_PAUSE);
        }
        TransferError::Lost("the session ended".to_owned())
    }
}

/// What the server said in its welcome.
pub struct Welcome {
    /// The client's name on the server.
    pub client: String,
    /// Its id.
    pub client_id: ClientId,
    /// The vault's parameters and keys.
    pub parameters: VaultParameters,
    /// Number and predecessor of the snapshot to make, when a backup may start.
    pub grant: Option<(u64, Option<ObjectId>)>,
    /// The restore that the session is for.
    pub errand: Option<wire::RestoreOrder>,
    /// True when the server says in which order objects lie.
    pub arranges: bool,
}

/// An open session.
pub struct Remote {
    commands: mpsc::UnboundedSender<Command>,
    outbound: mpsc::Sender<Compressed>,
    sent: AtomicU64,
    shared: Arc<Shared>,
    welcome: Welcome,
    hangup: Hangup,
    driver: tokio::task::JoinHandle<()>,
}

impl Remote {
    /// For reading: `client` is for operators, whose snapshots. It is ended with the other `ways`.
    ///
    /// # Errors
    /// As [`Remote::open`].
    pub async fn browse(link: Link, client: &str, ways: &Ways) -> Result<Self, AgentError> {
        ways.note(&link)?;
        let hello = wire::Hello {
            intent: wire::Intent::Browse.into(),
            software: SOFTWARE.to_owned(),
            client_time: clock::now(),
            client: client.to_owned(),
            ..Default::default()
        };
        Self::open(link, Opening { hello, leaving: Some(ways.leaving()), ..Opening::default() }).await
    }

    /// Says hello and waits for the welcome, and before that for a slot if there has to be one.
    ///
    /// # Errors
    /// The server did not let us in or told us when to come back, or the connection broke.
    pub async fn open(link: Link, opening: Opening) -> Result<Self, AgentError> {
        let shared = Arc::new(Shared::default());
        let (commands, inbox) = mpsc::unbounded_channel();
        let (outbound, objects) = mpsc::channel(OUTBOUND_MAX);
        let (answer, answered) = oneshot::channel();
        let hangup = link.hangup();
        let driver = driver::Driver::new(opening, Arc::clone(&shared), answer);
        let driver = tokio::spawn(driver.run(link, inbox, objects));
        let welcome = match answered.await {
            Ok(Answered::Welcome(welcome)) => *welcome,
            Ok(Answered::Nudged(nudge)) => {
                // The answer leaves before the connection does.
                let _ = tokio::time::timeout(std::time::Duration::from_secs(3), driver).await;
                return Err(AgentError::Nudged {
                    id: nudge.id,
                    by_hand: nudge.cause() == wire::Cause::Manual,
                });
            }
            Err(_) => return Err(refused(shared.failure())),
        };
        let welcome = understand(welcome)?;
        Ok(Self { commands, outbound, sent: AtomicU64::new(0), shared, welcome, hangup, driver })
    }

    /// What the server said in its welcome.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    fn command<T>(&self, make: impl FnOnce(Sender<T>) -> Command) -> Result<T, TransferError> {
        let (send, receive) = channel();
        self.commands.send(make(send)).map_err(|_| self.shared.error())?;
        receive.recv().map_err(|_| self.shared.error())
    }

    /// Makes the snapshot of what was put. Blocks.
    ///
    /// # Errors
    /// The session is over: no snapshot was made.
    pub fn commit(
        &self,
        manifest: Compressed,
        signature: Vec<u8>,
        changes: Changes,
    ) -> Result<wire::Committed, TransferError> {
        let objects = self.sent.load(Ordering::SeqCst);
        let commitment = Box::new(Commitment { objects, manifest, signature, changes });
        self.command(|reply| Command::Commit(commitment, reply))
    }

    /// Why the session is over. Blocks for a moment when it has only just ended.
    pub fn reason(&self) -> TransferError {
        self.shared.error()
    }

    /// The vault's figures. Blocks.
    ///
    /// # Errors
    /// The session is over.
    pub fn stats(&self) -> Result<wire::VaultStats, TransferError> {
        self.command(Command::Stats)
    }

    /// Says goodbye and waits until it is heard.
    pub async fn close(self) {
        self.end(Goodbye::Done).await;
    }

    /// Tells the server why there will be no snapshot.
    pub async fn give_up(self, why: String) {
        self.end(Goodbye::Failed(why)).await;
    }

    async fn end(self, goodbye: Goodbye) {
        let _ = self.commands.send(Command::Close(goodbye));
        let _ = tokio::time::timeout(FAREWELL, self.driver).await;
        self.hangup.close("done");
    }
}

/// Why there was no welcome.
fn refused(failure: Option<Failure>) -> AgentError {
    match failure {
        Some(Failure { code: end::REVOKED | end::CLONE, error, .. }) => {
            AgentError::NotAuthorised(error.to_string())
        }
        Some(Failure { code: end::BUSY, error, retry }) if retry.after > 0 => {
            AgentError::Deferred { after: retry.after, ticket: retry.ticket.to_vec(), why: error.to_string() }
        }
        Some(Failure { error, .. }) => error.into(),
        None => TransferError::Lost("the session ended".to_owned()).into(),
    }
}

fn understand(welcome: wire::Welcome) -> Result<Welcome, AgentError> {
    let has = |name| welcome.features.iter().any(|one| one == name);
    let key =
        |raw: &[u8]| <[u8; 32]>::try_from(raw).map_err(|_| FormatError::Invalid("key of a wrong length"));
    let grant = match &welcome.grant {
        None => None,
        Some(grant) if grant.previous.is_empty() => Some((grant.sequence, None)),
        Some(grant) => Some((grant.sequence, Some(ObjectId::try_from(&grant.previous[..])?))),
    };
    let generation = <[u8; 16]>::try_from(&welcome.generation[..])
        .map_err(|_| FormatError::Invalid("generation of a wrong length"))?;
    let (patches, arranges) = ([feature::PATCH, feature::SIGN].map(has), has(feature::ARRANGE));
    Ok(Welcome {
        client: welcome.client,
        client_id: ClientId::try_from(&welcome.client_id[..])?,
        parameters: VaultParameters {
            descriptor: Descriptor::decode(&welcome.descriptor)?,
            id_key: IdKey::new(key(&welcome.id_key)?),
            chunker_key: ChunkerKey::new(key(&welcome.chunker_key)?),
            generation,
            patches: match patches {
                [false, _] => Patches::Refused,
                [true, false] => Patches::Taken,
                [true, true] => Patches::Helped,
            },
        },
        grant,
        errand: welcome.errand,
        arranges,
    })
}

impl Welcome {
    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.parameters.descriptor.vault
    }
}

/// The words of a network error as an end of the session.
fn lost(error: &NetError) -> TransferError {
    match error {
        NetError::Lost(why) => TransferError::Lost(why.clone()),
        NetError::Dismissed(why) => TransferError::Refused(why.clone()),
        other => TransferError::Lost(other.to_string()),
    }
}

/// The header and body of a manifest as they travel.
fn travelling(manifest: &Compressed) -> (Bytes, Bytes) {
    (manifest.header.encode().into(), manifest.body.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_asks_for_goes_before_the_policys_rate_and_only_costly_connections_have_a_cap() {
        let terms = wire::Terms { limit_upload: 7, metered_cap: 9, ..Default::default() };
        let bounds = |asked, cost| Limits { asked: NonZeroU64::new(asked), cost }.with(&terms);
        let of = |per_s, cap| Bounds { per_s: NonZeroU64::new(per_s), cap };
        assert_eq!(bounds(0, Cost::Free), of(7, None));
        assert_eq!(bounds(50, Cost::Metered), of(50, Some(9)));
        assert_eq!(Limits { asked: None, cost: Cost::Metered }.with(&wire::Terms::default()), of(0, None));
    }
}
