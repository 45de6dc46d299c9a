//! What an inode is marked with beside its mode: flags, as `chattr` sets them, and a project.

use super::Entry;
use crate::codec::{FormatError, Reader, Write};

/// Extension of what has inode flags: varint of those that are kept (`FS_*_FL` of `linux/fs.h`), not 0.
pub const EXTENSION_FLAGS: u64 = 8;
/// Extension of what belongs to a project: varint of its id, not 0.
pub const EXTENSION_PROJECT: u64 = 12;

/// Marks of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Inode flags; 0 is none.
    pub flags: u32,
    /// The project by whose quota it is counted; 0 is none.
    pub project: u32,
}

impl Marks {
    /// True if there are none.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl Entry {
    /// The same entry with marks.
    #[must_use]
    pub fn with_marks(mut self, marks: Marks) -> Self {
        for (tag, mark) in [(EXTENSION_FLAGS, marks.flags), (EXTENSION_PROJECT, marks.project)] {
            if mark != 0 {
                let mut value = Vec::new();
                value.put_varint(u64::from(mark));
                self.extensions.push((tag, value));
            }
        }
        self
    }

    /// Its marks.
    pub fn marks(&self) -> Marks {
        let own = |tag: u64| self.extensions.iter().find(|(own, _)| *own == tag);
        let mark = |tag| own(tag).and_then(|(_, value)| decode(value).ok()).unwrap_or(0);
        Marks { flags: mark(EXTENSION_FLAGS), project: mark(EXTENSION_PROJECT) }
    }
}

/// Reads the value of one of the extensions.
pub(super) fn decode(value: &[u8]) -> Result<u32, FormatError> {
    let mut r = Reader::new(value);
    let mark = r.count("mark", u32::MAX as usize)? as u32;
    r.finish()?;
    if mark == 0 { Err(FormatError::Invalid("no inode flags, or no project")) } else { Ok(mark) }
}
