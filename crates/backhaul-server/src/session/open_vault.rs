//! The vault with its keys, as all sessions see it.

use std::sync::{Arc, Mutex};

use backhaul_object::keys::{DataKey, IdKey, VaultKey};
use backhaul_object::seal::Unpacker;
use backhaul_object::snapshot::Snapshot;
use backhaul_object::{Compressed, FormatError, Kind, Sealed};
use backhaul_store::{StoreError, Vault};

use super::bases::Bases;
use super::book::Book;
use super::room::Room;

/// A vault with its keys, shared by all sessions.
pub struct OpenVault {
    /// The objects.
    pub vault: Vault,
    pub(crate) id_key: IdKey,
    pub(crate) data_key: DataKey,
    pub(super) chunker_key: [u8; 32],
    pub(super) room: Arc<Room>,
    pub(super) bases: Bases,
    pub(super) promises: Arc<Book>,
    /// Held by who exports.
    pub(crate) exporting: Mutex<()>,
}

impl OpenVault {
    /// Derives the keys.
    pub fn new(vault: Vault, key: &VaultKey) -> Self {
        let chunker_key = *key.chunker_key().expose();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let room = Room::new(processors);
        let (id_key, data_key) = (key.id_key(), key.data_key());
        vault.verify_with(Box::new(move |sealed| {
            snapshot(sealed, &id_key, &data_key).map(drop).map_err(|why| why.to_string())
        }));
        Self {
            vault,
            id_key: key.id_key(),
            data_key: key.data_key(),
            chunker_key,
            room,
            bases: Bases::default(),
            promises: Arc::default(),
            exporting: Mutex::default(),
        }
    }

    /// Reads an object, its seal checked; a chunk that is stored as a patch is made whole.
    pub(crate) fn get(&self, ordinal: backhaul_store::Ordinal) -> Result<Compressed, StoreError> {
        let object = self.unseal(&self.vault.get(ordinal)?)?;
        if object.header.kind != Kind::Patch {
            return Ok(object);
        }
        let what = || format!("object {}", object.header.id);
        self.travelling(&object).map_err(|why| StoreError::Damaged { what: what(), why: why.to_string() })
    }

    pub(super) fn unseal(&self, sealed: &Sealed) -> Result<Compressed, StoreError> {
        let what = || format!("object {}", sealed.header.id);
        let damaged = |why: FormatError| StoreError::Damaged { what: what(), why: why.to_string() };
        sealed.unseal(&self.data_key).map_err(damaged)
    }
}

/// Opens a snapshot as one that comes from a client: what it holds has its id.
fn snapshot(sealed: &Sealed, id_key: &IdKey, data_key: &DataKey) -> Result<Snapshot, FormatError> {
    Snapshot::decode(&sealed.unseal(data_key)?.open(id_key, &mut Unpacker::new()?)?)
}
