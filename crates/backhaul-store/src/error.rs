//! What can go wrong with a vault.

use std::path::{Path, PathBuf};

use backhaul_object::{FormatError, ObjectId, ShortId};
use thiserror::Error;

/// Why a vault operation failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no vault here.
    #[error("{} holds no vault", path.display())]
    NotAVault {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{} is in use by process {pid}", path.display())]
    Busy {
        /// The vault or home.
        path: PathBuf,
        /// Who holds the lock, as it wrote itself down.
        pid: String,
    },
    /// Something on disk is not what it should be.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Which file or object.
        what: String,
        /// How it was noticed.
        why: String,
    },
    /// Packs that were there are not, so many that their folder may be elsewhere.
    #[error("nothing was changed: {} {why}", path.display())]
    PacksAway {
        /// Where packs belong.
        path: PathBuf,
        /// How many there should be.
        why: String,
    },
    /// An object refers to something that is not there.
    #[error("object {0} is referred to but not in the vault")]
    MissingReference(ObjectId),
    /// No such object.
    #[error("object {0} is not in the vault")]
    NotFound(ShortId),
    /// The disk said no.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An index of an earlier version does not fit beside a new one.
    #[error(
        "{source}; the index of an earlier Backhaul is written anew beside the old one, which takes up to {mebibytes} MiB: nothing was changed, make room and try again"
    )]
    NoRoomToConvert {
        /// How much may be needed.
        mebibytes: u64,
        /// What the disk said.
        source: Box<StoreError>,
    },
    /// SQLite said no.
    #[error("catalog: {0}")]
    Catalog(#[from] rusqlite::Error),
    /// The bundled SQLite is too old to be trusted with write-ahead logs.
    #[error("SQLite {0} is too old: 3.51.3 or later is needed")]
    OldSqlite(&'static str),
    /// The catalog was made by a later Backhaul.
    #[error("the catalog has schema version {found}, this program knows {known}: use a newer Backhaul")]
    NewerCatalog {
        /// In the file.
        found: i64,
        /// In the program.
        known: i64,
    },
    /// Whoever waits for it wants no more.
    #[error("it was ended before it was done; what it has done stays done")]
    Interrupted,
    /// Reclaim would have deleted what a snapshot needs.
    #[error("nothing was deleted: object {object} was to go, and {snapshot} needs it; run `backhaul check`")]
    StillNeeded {
        /// The object.
        object: ObjectId,
        /// A manifest from which it is reached.
        snapshot: String,
    },
    /// Reclaim cannot tell what is needed.
    #[error(
        "nothing was deleted: {what} cannot be read ({why}), so nobody knows what it needs; run `backhaul check`"
    )]
    Unsure {
        /// Manifest or pack.
        what: String,
        /// How it was noticed.
        why: String,
    },
    /// Reclaim is going on already.
    #[error("space is being reclaimed already")]
    Reclaiming,
    /// An earlier write of this session failed.
    #[error("this session failed earlier and cannot be continued")]
    Poisoned,
}

impl StoreError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
            Self::NoRoomToConvert { source, .. } => source.is_full(),
            Self::Catalog(rusqlite::Error::SqliteFailure(error, _)) => {
                error.code == rusqlite::ErrorCode::DiskFull
            }
            _ => false,
        }
    }

    pub(crate) fn damaged(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Damaged { what: what.into(), why: why.to_string() }
    }
}

/// Adds to an I/O result what was being done, to which file.
pub(crate) trait Doing<T> {
    fn doing(self, verb: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { doing, path: path.to_path_buf(), source })
    }
}

/// Names what failed to decode.
pub(crate) trait Of<T> {
    fn of(self, what: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T> Of<T> for Result<T, FormatError> {
    fn of(self, what: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|why| StoreError::damaged(what(), why))
    }
}
