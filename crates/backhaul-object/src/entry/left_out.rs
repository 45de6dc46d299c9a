//! What a backup has left out of a directory, or could not read: whoever restores it does not take that for gone.

use super::{Body, Entry, check_name};
use crate::codec::{FormatError, Reader, Write};

/// Extension of a directory that is not whole: varint count of the names that are not in it, then each; none when they are
/// not known.
pub const EXTENSION_LEFT_OUT: u64 = 10;
/// Most names, and most bytes of names, that are listed.
const NAMES_MAX: usize = 1_000;
const BYTES_MAX: usize = 32 << 10;

impl Entry {
    /// A directory without what is in it.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { body: Body::Folded(Vec::new()), ..self }
    }

    /// The same directory, of which these names were left out; `None` when it is not known which.
    #[must_use]
    pub fn with_left_out(mut self, names: Option<&[Vec<u8>]>) -> Self {
        let fits = |names: &&[Vec<u8>]| {
            names.len() <= NAMES_MAX && names.iter().map(Vec::len).sum::<usize>() <= BYTES_MAX
        };
        let names = names.filter(fits).unwrap_or_default();
        let mut value = Vec::new();
        value.put_varint(names.len() as u64);
        names.iter().for_each(|name| value.put_bytes(name));
        self.extensions.push((EXTENSION_LEFT_OUT, value));
        self
    }

    /// The names that were left out of a directory; `None` when it is not known which.
    pub fn left_out(&self) -> Option<Vec<Vec<u8>>> {
        match self.extensions.iter().find(|(tag, _)| *tag == EXTENSION_LEFT_OUT) {
            None => Some(Vec::new()),
            Some((_, value)) => decode(value).ok().filter(|names| !names.is_empty()),
        }
    }
}

/// Reads the value of the extension.
pub(super) fn decode(value: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
    let mut r = Reader::new(value);
    let count = r.count("names left out", NAMES_MAX)?;
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let name = r.bytes("name left out", super::NAME_MAX)?;
        check_name(name)?;
        names.push(name.to_vec());
    }
    r.finish()?;
    Ok(names)
}
