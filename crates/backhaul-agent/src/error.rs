//! What can go wrong on a client.

use std::path::PathBuf;

use backhaul_archive::backup::BackupError;
use backhaul_child::CallError;
use backhaul_net::NetError;
use backhaul_net::enrol::EnrolError;
use backhaul_object::FormatError;
use backhaul_object::source::TransferError;
use thiserror::Error;

use crate::remote::Remote;

/// Why the agent could not do something.
#[derive(Debug, Error)]
pub enum AgentError {
    /// This machine is not enrolled.
    #[error("{} is no agent's home: this machine has not joined a server", path.display())]
    NoHome {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It already is.
    #[error("this home has already joined a server, as {client:?}")]
    Joined {
        /// Under which name.
        client: String,
    },
    /// Another process does it.
    #[error("{what} of this home is under way in process {pid}")]
    Busy {
        /// What it does.
        what: &'static str,
        /// Which.
        pid: String,
    },
    /// A file cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What the config says of what to save and to leave out cannot be used.
    #[error("config.toml, [backup]: {0}")]
    Sources(String),
    /// A program that is to run before a backup did not do what it should.
    #[error("no backup was made, because what is to run before it failed: {0}")]
    Before(CallError),
    /// Stills are required, and one cannot be made.
    #[error("no backup was made, because stills are required and there cannot be one of {0}")]
    Still(String),
    /// The server has dialled to have something restored, over this session.
    #[error("the server wants something restored")]
    Errand(Box<Remote>),
    /// Nothing was said to be saved.
    #[error("no paths to back up: name some, or `join` with some")]
    NoPaths,
    /// Enrolment failed.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The server does not let this machine in.
    #[error("{0}")]
    NotAuthorised(String),
    /// There is no slot now.
    #[error("{why}")]
    Deferred {
        /// Come back in so many seconds.
        after: u64,
        /// Keeps the place in the queue.
        ticket: Vec<u8>,
        /// In the server's words.
        why: String,
    },
    /// The server has dialled only to nudge.
    #[error("the server asks for a push")]
    Nudged {
        /// The nudge.
        id: u64,
        /// Somebody asked for it.
        by_hand: bool,
    },
    /// The daemon is told to end.
    #[error("{0}")]
    Stopping(&'static str),
    /// This machine does not want to be backed up now.
    #[error("not now: {0}")]
    NotNow(String),
    /// The session ended.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The backup ended without a snapshot.
    #[error(transparent)]
    Backup(BackupError),
    /// The server sent something that does not fit the format.
    #[error("{0}")]
    Format(#[from] FormatError),
}

impl From<BackupError> for AgentError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Transfer(error) => Self::Transfer(error),
            other => Self::Backup(other),
        }
    }
}
