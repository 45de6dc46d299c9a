//! The vault descriptor: the versioned parameters that every writer into a vault must share.

use crate::codec::{FormatError, Reader, Write};
use crate::ids::VaultId;

/// Version of the descriptor this crate writes.
pub const DESCRIPTOR_VERSION: u8 = 1;

/// Content up to this many bytes is read where it is inline in its directory entry.
pub const INLINE_MAX: usize = 512;

/// Content up to this many bytes is written there (docs/decisions/0017-small-contents-in-bundles.md): a member of a bundle
/// costs about as much beside its content.
pub const INLINE_WRITTEN: usize = 64;

/// What clients of one vault must agree on, or deduplication between them silently ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The vault.
    pub vault: VaultId,
    /// Content over [`INLINE_WRITTEN`] and up to this many bytes is a bundle member.
    pub member_max: u32,
    /// A bundle is closed when its members reach this many bytes.
    pub bundle_target: u32,
    /// Content-defined chunk sizes in bytes: smallest, average, largest.
    pub chunk: [u32; 3],
}

impl Descriptor {
    /// The parameters of a managed vault (docs/format.md, "Size classes").
    pub fn managed(vault: VaultId) -> Self {
        Self { vault, member_max: 128 << 10, bundle_target: 512 << 10, chunk: [256 << 10, 1 << 20, 4 << 20] }
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![DESCRIPTOR_VERSION];
        out.extend_from_slice(self.vault.as_bytes());
        for value in [self.member_max, self.bundle_target, self.chunk[0], self.chunk[1], self.chunk[2]] {
            out.put_varint(u64::from(value));
        }
        out
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// An unknown version, or sizes outside what the chunker accepts.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        let version = r.u8("descriptor version")?;
        if version != DESCRIPTOR_VERSION {
            return Err(FormatError::Unknown { what: "descriptor version", value: u64::from(version) });
        }
        let vault = VaultId(r.array("vault id")?);
        let mut sizes = [0u32; 5];
        for size in &mut sizes {
            *size = r.count("descriptor size", 8 << 20)? as u32;
        }
        r.finish()?;
        let [member_max, bundle_target, min, avg, max] = sizes;
        let even = [min, avg, max].iter().all(|s| s % 2 == 0 && *s >= 64);
        if !even || min >= avg || avg >= max || member_max > bundle_target {
            return Err(FormatError::Invalid("descriptor sizes out of order"));
        }
        Ok(Self { vault, member_max, bundle_target, chunk: [min, avg, max] })
    }
}
