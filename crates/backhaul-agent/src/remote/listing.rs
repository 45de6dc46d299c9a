//! A client's snapshots, as the server lists them.

use backhaul_object::seal::Unpacker;
use backhaul_object::snapshot::Snapshot;
use backhaul_object::{FormatError, ObjectId};
use backhaul_proto::wire;

use super::{Command, Remote};
use crate::error::AgentError;

/// Which snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are not forgotten.
    Listed,
    /// Every one that is still there.
    All,
}

/// A committed snapshot and its manifest.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The snapshot.
    pub id: ObjectId,
    /// The client's name when it was made.
    pub client: String,
    /// Seconds since 1970 by the server's clock.
    pub server_time: u64,
    /// Bytes that it added.
    pub bytes_stored: u64,
    /// What the client stated.
    pub manifest: Snapshot,
    /// What was said about it since.
    pub mark: wire::Mark,
}

impl Remote {
    /// The client's snapshots, oldest first; with what is forgotten, or without. Blocks.
    ///
    /// # Errors
    /// The session is over, or a manifest does not fit the format.
    pub fn snapshots(&self, which: Which) -> Result<Vec<Listed>, AgentError> {
        let list = wire::List { all: which == Which::All };
        let rows = self.command(|reply| Command::List(list, reply))?;
        let mut unpacker = Unpacker::new()?;
        let one = |row: wire::SnapshotRow| {
            let mark = row.mark();
            let object = backhaul_proto::data::decode_object(&row.header, row.body)?;
            let opened = object.open(&self.welcome.parameters.id_key, &mut unpacker)?;
            Ok(Listed {
                mark,
                id: object.header.id,
                client: row.client,
                server_time: row.server_time,
                bytes_stored: row.bytes_stored,
                manifest: Snapshot::decode(&opened)?,
            })
        };
        rows.into_iter().map(one).collect::<Result<_, FormatError>>().map_err(AgentError::from)
    }
}
