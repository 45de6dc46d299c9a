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
        match parts.iter().map(|part| part.len()).sum::<usize>() {
            ..=SERIAL_MAX => parts.iter().for_each(|part| {
                hasher.update(part);
            }),
            _ => update_aligned(&mut hasher, parts),
        }
        let mut out = [0u8; 48];
        hasher.finalize_xof().fill(&mut out);
        let (mut id, mut proof) = ([0; 32], [0; 16]);
        id.copy_from_slice(&out[..32]);
        proof.copy_from_slice(&out[32..]);
        (ObjectId(id), Proof(proof))
    }
}

/// Messages up to this many bytes are hashed serially, however they are given.
const SERIAL_MAX: usize = 1 << 10;
/// What the widest processors hash at once: sixteen pieces of 1 KiB.
const BLOCK: usize = 16 << 10;

/// Hashes the parts as one message, its first block in one piece: after a first part of one byte nothing lies where many
/// pieces can be hashed at once, which costs half of the time for a file of a few KiB.
fn update_aligned(hasher: &mut blake3::Hasher, parts: &[&[u8]]) {
    let (mut block, mut filled) = ([0; BLOCK], 0);
    for part in parts {
        let (head, tail) = part.split_at(part.len().min(BLOCK - filled));
        block[filled..filled + head.len()].copy_from_slice(head);
        filled += head.len();
        if filled == BLOCK && !head.is_empty() {
            hasher.update(&block);
        }
        hasher.update(tail);
    }
    if filled < BLOCK {
        hasher.update(&block[..filled]);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_does_not_depend_on_how_its_message_is_cut(
            message in (0..3 * BLOCK).prop_map(|len| (0..len).map(|n| (n % 251) as u8).collect::<Vec<u8>>()),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
            exact in any::<bool>(),
        ) {
            let key = IdKey::new([3; 32]);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
            if exact {
                at.push(BLOCK.min(message.len()));
            }
            at.extend([0, message.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|ends| &message[ends[0]..ends[1]]).collect();
            let mut out = [0; 48];
            blake3::Hasher::new_keyed(&key.0).update(&message).finalize_xof().fill(&mut out);
            let (id, proof) = key.identify(&parts);
            prop_assert_eq!([&id.0[..], &proof.0[..]].concat(), out.to_vec());
        }
    }
}
