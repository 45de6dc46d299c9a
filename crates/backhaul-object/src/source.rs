//! The two seams through which objects are read and written, wherever they are.

use thiserror::Error;

use crate::codec::FormatError;
use crate::header::Reference;
use crate::ids::{ObjectId, Proof};
use crate::seal::{Compressed, Object};
use crate::signature::Signature;

/// Why an object could not be read or written. Always fatal for the run: never a per-file warning.
#[derive(Debug, Clone, Error)]
pub enum TransferError {
    /// It is not there, or the caller may not read it.
    #[error("object {0} is not there, or not yours to read")]
    NotFound(ObjectId),
    /// It is there but damaged.
    #[error("object {id} is damaged: {why}")]
    Damaged {
        /// Which.
        id: ObjectId,
        /// How it was noticed.
        why: FormatError,
    },
    /// What the agent believed present is not: its state is stale, and a full re-read is due.
    #[error("the server no longer holds what the local state refers to")]
    Stale,
    /// The other side ended the session and said why.
    #[error("{0}")]
    Refused(String),
    /// The connection broke; the run can be resumed.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// Reads whole objects, verified against their ids.
pub trait ObjectSource: Send + Sync {
    /// The objects, in the order of `ids`; all or an error.
    ///
    /// # Errors
    /// [`TransferError`], naming the object.
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError>;

    /// As [`ObjectSource::read`]; of a bundle, members that are not marked may be left out.
    ///
    /// # Errors
    /// As [`ObjectSource::read`].
    fn read_parts(&self, wanted: &[Reference]) -> Result<Vec<Object>, TransferError> {
        self.read(&wanted.iter().map(|one| one.id).collect::<Vec<_>>())
    }

    /// The order in which objects are read with the least effort, as places in `ids`: each once. As asked for, where nobody
    /// knows better.
    ///
    /// # Errors
    /// The session is over.
    fn arrange(&self, ids: &[ObjectId]) -> Result<Vec<usize>, TransferError> {
        Ok((0..ids.len()).collect())
    }
}

/// One question: is this content there?
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Content id.
    pub id: ObjectId,
    /// Sent only when the server asks for it.
    pub proof: Proof,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Not there: send it.
    Want,
    /// There, as an object of its own.
    Have,
    /// There, as a member of a bundle.
    Member {
        /// The bundle.
        bundle: ObjectId,
        /// The member's number.
        member: u16,
    },
}

/// Receives the answers to one batch.
pub type Answers = std::sync::mpsc::Receiver<Vec<Answer>>;

/// Where a content is: an object, or a member of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The object.
    pub object: ObjectId,
    /// Of a bundle, which.
    pub member: Option<u16>,
}

/// What is known of a content that is there: enough to find its blocks in a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kin {
    /// Which of the spots that were asked about it is at, or is made of.
    pub of: usize,
    /// The object that a patch would copy from.
    pub base: Reference,
    /// Its blocks.
    pub signature: Signature,
}

/// Receives the signatures of one batch, in the order of the spots: of each none, one, or several.
pub type Signatures = std::sync::mpsc::Receiver<Vec<Kin>>;

/// Takes objects, children before parents.
pub trait ObjectSink: Send + Sync {
    /// Asks about a batch; answers come in order of the queries. Several batches may be under way.
    ///
    /// # Errors
    /// [`TransferError`] when the session is over.
    fn ask(&self, queries: Vec<Query>) -> Result<Answers, TransferError>;

    /// Asks for the signatures of contents that are there, at most as many as queries in a batch. Nothing comes of those that are not
    /// there any more, or are not the caller's, and nothing at all when the session is over before.
    fn sign(&self, spots: Vec<Spot>) -> Signatures;

    /// Sends an object; blocks while the path is full. Returns how many were sent in this session.
    ///
    /// # Errors
    /// [`TransferError`] when the session is over.
    fn put(&self, object: Compressed) -> Result<u64, TransferError>;

    /// How many of the objects sent are durable on the server.
    fn durable(&self) -> u64;

    /// Why the session is over, if it is.
    fn failure(&self) -> Option<TransferError>;
}
