//! What the peers say: messages, limits, and the session as a state machine without I/O.
//!
//! - [`wire`]: the messages, generated from schemas/wire/backhaul.proto;
//! - [`agent`]: [`agent::AgentSession`], the side that has files;
//! - [`server`]: [`server::ServerSession`], the side that has the vault;
//! - [`attend`]: [`attend::AttendSession`], an agent that waits to be told something;
//! - [`goodbye`]: how an agent leaves;
//! - [`signing`]: what contents that are there are like;
//! - `arranging`: in which order objects lie;
//! - [`errand`]: what is heard of a restore that was ordered from an agent;
//! - [`data`]: the framing of objects on the data streams.
//!
//! Both sessions have the same three groups of methods: `handle` takes a frame that arrived and returns
//! what it means; commands (`ask`, `answer`, `commit` …) queue frames; `poll` yields frames to send.
//!
//! Invariants:
//! - neither session knows who dialled: there is no field for it;
//! - bulk bytes never pass through a session, only the count of objects does;
//! - a frame that is out of turn or over a limit ends the session with a code, never a panic.

pub mod agent;
mod arranging;
pub mod attend;
pub mod data;
pub mod errand;
pub mod goodbye;
mod pages;
pub mod server;
pub mod signing;

/// Messages on the wire.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the schema")]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/backhaul.v1.rs"));
}

use thiserror::Error;

/// The only protocol version so far.
pub const PROTOCOL: u32 = 1;
/// Queries in one batch.
pub const BATCH_MAX: usize = 2_048;
/// Batches an agent may have under way.
pub const BATCHES_IN_FLIGHT_MAX: usize = 64;
/// Snapshots in one list, and bytes of it: a client that makes one every ten minutes has fewer in four years.
pub const LIST_ROWS_MAX: usize = 250_000;
/// See [`LIST_ROWS_MAX`].
pub const LIST_BYTES_MAX: usize = 256 << 20;
/// Ids in one read request.
pub const READ_MAX: usize = 4_096;

/// Ids in one question in which order they lie.
pub const ARRANGE_MAX: usize = 16_384;

/// What a peer can do beyond the least, in its hello or welcome (docs/protocol.md, "A session").
pub mod feature {
    /// The server takes chunks as differences to others.
    pub const PATCH: &str = "patch";
    /// The server tells what contents that are there are like, so that later ones can be sent as differences.
    pub const SIGN: &str = "sign";
    /// The server tells in which order objects lie, so that they can be read in that.
    pub const ARRANGE: &str = "arrange";
}

/// Codes of [`wire::End`] (docs/protocol.md, "End codes").
pub mod end {
    /// All done.
    pub const DONE: u32 = 0;
    /// A frame out of turn, malformed or over a limit.
    pub const PROTOCOL: u32 = 100;
    /// No common protocol version.
    pub const VERSION: u32 = 101;
    /// The certificate is not (or no longer) welcome.
    pub const REVOKED: u32 = 200;
    /// Another machine has this identity: a copy of one is at work.
    pub const CLONE: u32 = 201;
    /// There is no slot now, or another session of this client is still ending; `after` says when to come back.
    pub const BUSY: u32 = 300;
    /// The server is stopping.
    pub const STOPPING: u32 = 301;
    /// The agent could not go on, and says why.
    pub const AGENT: u32 = 400;
    /// Somebody on the agent's side has ended the run, and says how; nothing has failed.
    pub const CUT_SHORT: u32 = 401;
    /// The agent's local state refers to what the server does not hold.
    pub const STALE: u32 = 500;
    /// The vault could not be written or read.
    pub const STORAGE: u32 = 600;
    /// An object does not have the content that its id claims, or may not be referred to.
    pub const DATA: u32 = 700;
}

/// Why a session ends early.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The peer speaks other versions.
    #[error("no common protocol version: we speak {ours}, the peer {min} to {max}")]
    Version {
        /// Ours.
        ours: u32,
        /// The peer's lowest.
        min: u32,
        /// The peer's highest.
        max: u32,
    },
    /// The peer ended the session.
    #[error("{text}")]
    Ended {
        /// See [`end`].
        code: u32,
        /// In words.
        text: String,
        /// When to come back, with [`end::BUSY`].
        retry: Retry,
    },
}

/// When to come back, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// In so many seconds; 0 when nothing was said.
    pub after: u64,
    /// Keeps the place in the queue.
    pub ticket: bytes::Bytes,
}

impl SessionError {
    /// The frame that tells the peer.
    pub fn to_end(&self) -> wire::End {
        let code = match self {
            Self::Protocol(_) => end::PROTOCOL,
            Self::Version { .. } => end::VERSION,
            Self::Ended { code, .. } => *code,
        };
        wire::End { code, text: self.to_string(), ..Default::default() }
    }
}

/// Wraps a message body.
pub(crate) fn frame(body: wire::frame::Body) -> wire::Frame {
    wire::Frame { body: Some(body) }
}
