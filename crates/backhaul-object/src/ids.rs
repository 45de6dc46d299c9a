//! Names of things: one newtype per id, so that none can stand in for another.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;

use crate::codec::FormatError;

/// Declares a fixed-size binary id with hex Display, Debug and FromStr.
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = FormatError;
            fn try_from(bytes: &[u8]) -> Result<Self, FormatError> {
                let raw = bytes.try_into().map_err(|_| FormatError::Invalid("id of a wrong length"))?;
                Ok(Self(raw))
            }
        }

        impl FromStr for $name {
            type Err = FormatError;
            fn from_str(text: &str) -> Result<Self, FormatError> {
                let mut raw = [0u8; $len];
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(FormatError::Invalid("id is not hex of the right length"));
                }
                for (i, byte) in raw.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16)
                        .map_err(|_| FormatError::Invalid("id is not hex"))?;
                }
                Ok(Self(raw))
            }
        }
    };
}

id_type!(
    /// Keyed BLAKE3 of an object's kind, references and plaintext. Never a capability.
    ObjectId, 32
);
id_type!(
    /// The first 24 bytes of an [`ObjectId`]: enough to tell objects apart where they are listed.
    ShortId, 24
);
id_type!(
    /// Sixteen further bytes of the same hash output: shows that its holder has the content.
    Proof, 16
);
id_type!(
    /// BLAKE3 of a sealed pack's bytes: its name.
    PackId, 32
);
id_type!(
    /// A vault, drawn at random when it is made.
    VaultId, 16
);
id_type!(
    /// A client, drawn at random when it is added; survives renaming.
    ClientId, 16
);
id_type!(
    /// One session, drawn by the server; its packs carry it.
    SessionId, 16
);

/// A map by ids that this side made itself of contents: they are keyed hashes, so nothing is gained by hashing them again. Where
/// many come from others, they could choose such as collide: not for that.
pub type OwnIdMap<V> = HashMap<ObjectId, V, BuildHasherDefault<IdHasher>>;

/// Takes the first 8 bytes of what it is given last, which is an id; see [`OwnIdMap`].
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().copied().map_or(self.0, u64::from_le_bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl ShortId {
    /// The 8 bytes by which have/want asks.
    pub fn prefix(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(head)
    }

    /// The 8 bytes after the prefix, as of the whole id.
    pub fn check(&self) -> [u8; 8] {
        let mut check = [0; 8];
        check.copy_from_slice(&self.0[8..16]);
        check
    }
}

impl ObjectId {
    /// By what the index knows it.
    pub fn short(&self) -> ShortId {
        let mut short = [0; 24];
        short.copy_from_slice(&self.0[..24]);
        ShortId(short)
    }

    /// The 8 bytes after the [`prefix`](Self::prefix): an answer carries them back, so that it cannot be about
    /// another content with the same prefix.
    pub fn check(&self) -> [u8; 8] {
        self.short().check()
    }

    /// The 8 bytes by which have/want asks.
    pub fn prefix(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(head)
    }
}
