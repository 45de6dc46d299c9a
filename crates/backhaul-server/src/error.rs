//! What can go wrong on the server.

use std::path::PathBuf;

use backhaul_net::NetError;
use backhaul_object::FormatError;
use backhaul_store::StoreError;
use thiserror::Error;

/// Why the server could not do something.
#[derive(Debug, Error)]
pub enum ServerError {
    /// There is no server in this home.
    #[error("{} is no server's home", path.display())]
    NoHome {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There already is something.
    #[error("{} already holds a server", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// A file cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The vault key cannot be unwrapped.
    #[error("{} does not open the vault key: it is of another server, or damaged", path.display())]
    WrongKey {
        /// The key file.
        path: PathBuf,
    },
    /// The recovery key does not fit.
    #[error("the recovery key does not open {}: {why}", path.display())]
    WrongRecoveryKey {
        /// What it should open.
        path: PathBuf,
        /// How that was noticed.
        why: &'static str,
    },
    /// The name is not one.
    #[error(
        "{0:?} is no client name: use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"
    )]
    BadName(String),
    /// A client's owner cannot be reached there.
    #[error("owner: {0}")]
    BadAddress(String),
    /// No such client.
    #[error("there is no client {0:?}; `backhaul client list` shows all")]
    NoClient(String),
    /// The name is taken.
    #[error("there already is a client {0:?}; `backhaul client revoke` first, if it is to join anew")]
    ClientExists(String),
    /// It cannot be dialled.
    #[error("client {0:?} has no address to dial; `client edit --address HOST:PORT` gives one")]
    NoAddress(String),
    /// It was asked for wrongly.
    #[error("{0}")]
    Usage(String),
    /// What is known of a client could not be read.
    #[error("{0}")]
    Session(String),
    /// The vault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The fleet database.
    #[error("fleet database: {0}")]
    Fleet(#[from] rusqlite::Error),
    /// A policy.
    #[error(transparent)]
    Policy(#[from] backhaul_schedule::policy::PolicyError),
    /// The database was made by a later Backhaul.
    #[error("the fleet database has schema version {0}, which this program does not know: use a newer one")]
    NewerFleet(i64),
    /// An object.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// Work on the database broke off.
    #[error("work on the fleet database broke off: {0}")]
    Broken(String),
    /// The random number generator failed.
    #[error("the system has no random numbers")]
    Random,
}
