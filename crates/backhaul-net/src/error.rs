//! What can go wrong between two machines.

use std::path::PathBuf;

use thiserror::Error;

use crate::identity::Role;

/// Why a connection could not be made, or broke.
#[derive(Debug, Error)]
pub enum NetError {
    /// The name has no address.
    #[error("cannot resolve {address}: {source}")]
    Resolve {
        /// As it was given.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody answers there.
    #[error("no answer from {address} ({why})")]
    Unreachable {
        /// As it was given.
        address: String,
        /// What was seen.
        why: String,
    },
    /// The peer's certificate is of another CA.
    #[error(
        "{address} is not the server this machine was enrolled with: its certificate is of another authority"
    )]
    WrongAuthority {
        /// As it was given.
        address: String,
    },
    /// A certificate is not valid at this machine's time.
    #[error("{address}: its certificate is not valid at this machine's time: is the clock right?")]
    Clock {
        /// As it was given.
        address: String,
    },
    /// The peer did not accept our certificate, or closed for a reason of its own.
    #[error("{address} refused the connection: {why}")]
    Rejected {
        /// Who.
        address: String,
        /// In its words.
        why: String,
    },
    /// The peer has a valid certificate, for something else.
    #[error("the peer is {found}, expected {expected}")]
    WrongRole {
        /// What it is.
        found: String,
        /// What it had to be.
        expected: Role,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer closed the connection, and not to be dialled again at once.
    #[error("{0}")]
    Dismissed(String),
    /// The peer closed the connection, and does not come back by itself.
    #[error("{0}")]
    Left(String),
    /// The peer gave its objects up; why, it says on the control stream.
    #[error("the other side has given its objects up")]
    Abandoned,
    /// The peer sent something that is not the protocol.
    #[error("the peer broke the protocol: {0}")]
    Malformed(String),
    /// A key or certificate file cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(String),
}
