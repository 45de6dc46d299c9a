//! The vault key and the keys derived from it, each with one use.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{ObjectId, Proof};

/// Derivation contexts; frozen: they are part of the format (docs/format.md, "Keys").
const CONTEXT_ID: &str = "backhaul v1 object id";
const CONTEXT_DATA: &str = "backhaul v1 record sealing";
const CONTEXT_CHUNKER: &str = "backhaul v1 chunker gear table";
const CONTEXT_EXPORT: &str = "backhaul v1 server export";

/// The root secret of a vault, kept only wrapped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct VaultKey([u8; 32]);

/// Makes ids and possession proofs. Agents hold it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IdKey([u8; 32]);

/// Opens and seals records. In a managed vault only the server holds it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; 32]);

/// Fills the secret gear table. Agents hold it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ChunkerKey([u8; 32]);

impl VaultKey {
    /// From 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for wrapping.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id key.
    pub fn id_key(&self) -> IdKey {
        IdKey(blake3::derive_key(CONTEXT_ID, &self.0))
    }

    /// The record key.
    pub fn data_key(&self) -> DataKey {
        DataKey(blake3::derive_key(CONTEXT_DATA, &self.0))
    }

    /// The chunker key.
    pub fn chunker_key(&self) -> ChunkerKey {
        ChunkerKey(blake3::derive_key(CONTEXT_CHUNKER, &self.0))
    }

    /// Seals what the server is besides the vault.
    pub fn export_key(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT_EXPORT, &self.0)
    }
}

impl IdKey {
    /// From the bytes the server sends in its welcome.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for sending to an agent of the vault.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Id and proof of a message: one keyed hash, 48 bytes of its output.
    pub fn identify(&self, parts: &[&[u8]]) -> (ObjectId, Proof) {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        let mut out = [0u8; 48];
        hasher.finalize_xof().fill(&mut out);
        let (mut id, mut proof) = ([0; 32], [0; 16]);
        id.copy_from_slice(&out[..32]);
        proof.copy_from_slice(&out[32..]);
        (ObjectId(id), Proof(proof))
    }
}

impl DataKey {
    /// The key of one record: no nonce state is needed, because N is in it (docs/format.md, "Sealing").
    pub fn record_key(&self, nonce: &[u8; 24], suite: u8, id: &ObjectId, compressor: u8) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(nonce).update(&[suite]).update(id.as_bytes()).update(&[compressor]);
        *hasher.finalize().as_bytes()
    }
}

impl ChunkerKey {
    /// From the bytes the server sends in its welcome.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for sending to an agent of the vault.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// 256 pseudo-random words.
    pub fn gear(&self) -> [u64; 256] {
        let mut bytes = [0u8; 2048];
        blake3::Hasher::new_keyed(&self.0).finalize_xof().fill(&mut bytes);
        let mut table = [0u64; 256];
        for (word, raw) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*raw);
        }
        table
    }
}
