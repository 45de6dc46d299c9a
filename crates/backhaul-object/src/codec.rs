//! Canonical byte encoding: little-endian integers, LEB128 varints, and a reader that never trusts a length.

use thiserror::Error;

/// Why bytes could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The input ended inside the named field.
    #[error("input ends inside {0}")]
    Truncated(&'static str),
    /// A length or count is over its declared limit.
    #[error("{what} is {value}, over the limit of {limit}")]
    TooLarge {
        /// The field.
        what: &'static str,
        /// What the input declares.
        value: u64,
        /// The most this version accepts.
        limit: u64,
    },
    /// A field holds a value that this version does not define.
    #[error("{what} has the unknown value {value}")]
    Unknown {
        /// The field.
        what: &'static str,
        /// What was found.
        value: u64,
    },
    /// The bytes break a rule of the format.
    #[error("{0}")]
    Invalid(&'static str),
    /// The content does not have the id (or the seal) that its header claims.
    #[error("content does not match: {0}")]
    Mismatch(&'static str),
    /// A file does not have the checksum that it ends with.
    #[error("the checksum of the {0} is wrong")]
    Checksum(&'static str),
    /// A file begins as no such file does.
    #[error("this is no {0}")]
    Another(&'static str),
    /// A file is of a version that this program does not know.
    #[error("{what} of version {version}: this program knows none of that version")]
    Version {
        /// The file.
        what: &'static str,
        /// What it says.
        version: u8,
    },
}

/// Appends canonical encodings to a byte vector.
pub trait Write {
    /// A LEB128 unsigned varint.
    fn put_varint(&mut self, value: u64);
    /// A zig-zag varint.
    fn put_signed(&mut self, value: i64);
    /// A varint length and the bytes.
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Write for Vec<u8> {
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_signed(&mut self, value: i64) {
        self.put_varint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

/// Reads canonical encodings from a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything not yet read.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Refuses trailing bytes.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] when something is left.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Invalid("trailing bytes")) }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] when fewer are left.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], FormatError> {
        if n > self.rest.len() {
            return Err(FormatError::Truncated(what));
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] when fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] at the end.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, FormatError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// A little-endian u32.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] at the end.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A little-endian u64.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] at the end.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A varint in its shortest form.
    ///
    /// # Errors
    /// Truncated, longer than 64 bits, or not the shortest form.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..).step_by(7) {
            let byte = self.u8(what)?;
            if shift == 63 && byte > 1 || shift > 63 {
                return Err(FormatError::Invalid("varint over 64 bits"));
            }
            if byte == 0 && shift > 0 {
                return Err(FormatError::Invalid("varint not in its shortest form"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    /// A varint that must not exceed `limit`.
    ///
    /// # Errors
    /// As [`Reader::varint`], or [`FormatError::TooLarge`].
    pub fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, FormatError> {
        let value = self.varint(what)?;
        match usize::try_from(value) {
            Ok(n) if n <= limit => Ok(n),
            _ => Err(FormatError::TooLarge { what, value, limit: limit as u64 }),
        }
    }

    /// A zig-zag varint.
    ///
    /// # Errors
    /// As [`Reader::varint`].
    pub fn signed(&mut self, what: &'static str) -> Result<i64, FormatError> {
        let raw = self.varint(what)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A varint length of at most `limit` and that many bytes.
    ///
    /// # Errors
    /// Truncated or over the limit.
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], FormatError> {
        let n = self.count(what, limit)?;
        self.take(n, what)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(v: u64, s: i64) {
            let mut out = Vec::new();
            out.put_varint(v);
            out.put_signed(s);
            let mut r = Reader::new(&out);
            prop_assert_eq!(r.varint("v").unwrap(), v);
            prop_assert_eq!(r.signed("s").unwrap(), s);
            r.finish().unwrap();
        }

        #[test]
        fn any_accepted_varint_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut r = Reader::new(&bytes);
            if let Ok(v) = r.varint("v") {
                let used = bytes.len() - r.rest().len();
                let mut again = Vec::new();
                again.put_varint(v);
                prop_assert_eq!(&again[..], &bytes[..used]);
            }
        }
    }
}
