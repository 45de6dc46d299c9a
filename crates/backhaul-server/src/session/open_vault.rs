//! The vault with its keys, as all sessions see it.

use backhaul_object::keys::{DataKey, IdKey, VaultKey};
use backhaul_object::{Compressed, FormatError};
use backhaul_store::{StoreError, Vault};

/// A vault with its keys, shared by all sessions.
pub struct OpenVault {
    /// The objects.
    pub vault: Vault,
    pub(crate) id_key: IdKey,
    pub(crate) data_key: DataKey,
    pub(super) chunker_key: [u8; 32],
}

impl OpenVault {
    /// Derives the keys.
    pub fn new(vault: Vault, key: &VaultKey) -> Self {
        let chunker_key = *key.chunker_key().expose();
        Self { vault, id_key: key.id_key(), data_key: key.data_key(), chunker_key }
    }

    /// Reads an object, its seal checked.
    pub(crate) fn get(&self, ordinal: backhaul_store::Ordinal) -> Result<Compressed, StoreError> {
        let sealed = self.vault.get(ordinal)?;
        let what = format!("object {}", sealed.header.id);
        let damaged = |why: FormatError| StoreError::Damaged { what, why: why.to_string() };
        sealed.unseal(&self.data_key).map_err(damaged)
    }
}
