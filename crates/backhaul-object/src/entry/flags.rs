//! Inode flags, as `chattr` sets them.

use super::Entry;
use crate::codec::{FormatError, Reader, Write};

/// Extension of what has inode flags: varint of those that are kept (`FS_*_FL` of `linux/fs.h`), not 0.
pub const EXTENSION_FLAGS: u64 = 8;
impl Entry {
    /// The same entry with inode flags; 0 is none.
    pub fn with_flags(mut self, flags: u32) -> Self {
        if flags != 0 {
            let mut value = Vec::new();
            value.put_varint(u64::from(flags));
            self.extensions.push((EXTENSION_FLAGS, value));
        }
        self
    }

    /// Its inode flags; 0 when it has none.
    pub fn flags(&self) -> u32 {
        let own = self.extensions.iter().find(|(tag, _)| *tag == EXTENSION_FLAGS);
        own.and_then(|(_, value)| decode(value).ok()).unwrap_or(0)
    }
}

/// Reads the value of the extension.
pub(super) fn decode(value: &[u8]) -> Result<u32, FormatError> {
    let mut r = Reader::new(value);
    let flags = r.count("inode flags", u32::MAX as usize)? as u32;
    r.finish()?;
    if flags == 0 { Err(FormatError::Invalid("no inode flags")) } else { Ok(flags) }
}
