//! What an inode has beside its mode: flags, as `chattr` sets them, and a project.

use super::Entry;
use crate::codec::{FormatError, Reader, Write};

/// Extension of what has inode flags: varint of those that are kept (`FS_*_FL` of `linux/fs.h`), not 0.
pub const EXTENSION_FLAGS: u64 = 8;
/// Extension of what belongs to a project: varint of its id, not 0.
pub const EXTENSION_PROJECT: u64 = 12;

/// Flags of a file or directory, and what is set and told with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InodeFlags {
    /// Those of `FS_*_FL` that are kept; 0 is none.
    pub bits: u32,
    /// The project by whose quota it is counted; 0 is none.
    pub project: u32,
}

impl InodeFlags {
    /// True if there are none.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl Entry {
    /// The same entry with inode flags.
    #[must_use]
    pub fn with_inode_flags(mut self, flags: InodeFlags) -> Self {
        for (tag, number) in [(EXTENSION_FLAGS, flags.bits), (EXTENSION_PROJECT, flags.project)] {
            if number != 0 {
                let mut value = Vec::new();
                value.put_varint(u64::from(number));
                self.extensions.push((tag, value));
            }
        }
        self
    }

    /// Its inode flags.
    pub fn inode_flags(&self) -> InodeFlags {
        let own = |tag: u64| self.extensions.iter().find(|(own, _)| *own == tag);
        let number = |tag| own(tag).and_then(|(_, value)| decode(value).ok()).unwrap_or(0);
        InodeFlags { bits: number(EXTENSION_FLAGS), project: number(EXTENSION_PROJECT) }
    }
}

/// Reads the value of one of the extensions.
pub(super) fn decode(value: &[u8]) -> Result<u32, FormatError> {
    let mut r = Reader::new(value);
    let number = r.count("inode flags or project", u32::MAX as usize)? as u32;
    r.finish()?;
    if number == 0 { Err(FormatError::Invalid("no inode flags, or no project")) } else { Ok(number) }
}
