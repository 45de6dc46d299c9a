//! Small files that are read whole: magic, version, what they say, and the first 16 bytes of the BLAKE3 of all that
//! (docs/format.md, "The vault on disk").

use crate::codec::{FormatError, Reader};

/// Bytes of the checksum.
const SUM: usize = 16;

/// A kind of such files.
#[derive(Debug, Clone, Copy)]
pub struct SmallFile {
    /// As people are told of it, without an article.
    pub what: &'static str,
    /// What it begins with.
    pub magic: &'static [u8; 4],
    /// The only version that is read.
    pub version: u8,
}

impl SmallFile {
    /// The beginning of a file: what it says comes after it.
    pub fn begin(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.push(self.version);
        out
    }

    /// Reads the beginning; what the file says comes after it.
    ///
    /// # Errors
    /// Truncated, another kind of file, or of an unknown version.
    pub fn head(&self, r: &mut Reader<'_>) -> Result<(), FormatError> {
        let what = self.what;
        if r.take(self.magic.len(), what)? != self.magic {
            return Err(FormatError::Another(what));
        }
        match r.u8(what)? {
            version if version == self.version => Ok(()),
            version => Err(FormatError::Version { what, version }),
        }
    }

    /// What a whole file says.
    ///
    /// # Errors
    /// As [`head`](Self::head); or changed.
    pub fn open<'b>(&self, bytes: &'b [u8]) -> Result<Reader<'b>, FormatError> {
        let (content, sum) = bytes.split_last_chunk::<SUM>().ok_or(FormatError::Truncated(self.what))?;
        if *sum != checksum(content) {
            return Err(FormatError::Checksum(self.what));
        }
        let mut r = Reader::new(content);
        self.head(&mut r)?;
        Ok(r)
    }
}

/// A whole file from all but its checksum.
pub fn summed(mut content: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&content);
    content.extend_from_slice(&sum);
    content
}

/// The checksum at the end of a file.
pub fn checksum(content: &[u8]) -> [u8; SUM] {
    let mut sum = [0; SUM];
    sum.copy_from_slice(&blake3::hash(content).as_bytes()[..SUM]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_such_a_file_is_refused_by_name() {
        let kind = SmallFile { what: "list", magic: b"BHXX", version: 3 };
        let file = |begin: Vec<u8>| summed([begin, b"said".to_vec()].concat());
        let whole = file(kind.begin());
        assert_eq!(kind.open(&whole).unwrap().rest(), b"said");
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(kind.open(&other).unwrap_err(), FormatError::Checksum("list"));
        }
        assert_eq!(kind.open(&whole[..15]).unwrap_err(), FormatError::Truncated("list"));
        let other = |magic, version| file(SmallFile { magic, version, ..kind }.begin());
        assert_eq!(kind.open(&other(b"BHXY", 3)).unwrap_err(), FormatError::Another("list"));
        let version = FormatError::Version { what: "list", version: 4 };
        assert_eq!(version.to_string(), "list of version 4: this program knows none of that version");
        assert_eq!(kind.open(&other(b"BHXX", 4)).unwrap_err(), version);
        assert_eq!(kind.open(&summed(b"BHX".to_vec())).unwrap_err(), FormatError::Truncated("list"));
    }
}
