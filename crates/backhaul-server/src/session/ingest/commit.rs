//! What is asked of the ingest at the end, and what it tells its session.

use backhaul_object::snapshot::Origin;
use backhaul_object::{Compressed, ObjectId};
use backhaul_schedule::brake::{Added, Profile};
use backhaul_store::catalog::SnapshotRow;

use crate::session::Ending;

/// What the ingest tells its session.
#[derive(Debug)]
pub enum Report {
    /// So many objects are durable.
    Durable(u64),
    /// The snapshot exists.
    Committed(Box<Made>),
    /// It is over.
    Failed(Ending),
    /// It is over without a snapshot of what it has added.
    Unfinished(Added),
}

/// A snapshot that was made.
#[derive(Debug)]
pub struct Made {
    /// As the vault has it.
    pub row: SnapshotRow,
    /// What it is of.
    pub origin: Origin,
    /// Files that could not be read.
    pub errors: u64,
    /// What the run changed.
    pub profile: Profile,
}

/// A commit with all that must be true of it.
pub struct CommitRequest {
    /// Objects before it.
    pub objects: u64,
    /// The manifest.
    pub snapshot: Compressed,
    /// The granted number.
    pub sequence: u64,
    /// The manifest before it.
    pub previous: Option<ObjectId>,
    /// The client's name.
    pub client_name: String,
    /// Over the manifest's id.
    pub signature: Vec<u8>,
    /// Files that are new, and files that changed, as the client counts.
    pub changes: (u64, u64),
}
