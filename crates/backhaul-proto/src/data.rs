//! Objects on a data stream: a 9-byte prefix, the clear header, the body.
//!
//! Prefix: status u8 (0 object, 1 absent, 2 damaged), header length u32, body length u32, little-endian.
//! An absent or damaged object has no header; its body is the reason in words.

use backhaul_object::codec::FormatError;
use backhaul_object::header::PLAIN_MAX;
use backhaul_object::{Compressed, Header};
use bytes::Bytes;

/// Bytes of the prefix.
pub const PREFIX_LEN: usize = 9;
/// Largest clear header: all references and all bitmaps.
const HEADER_MAX: u32 = 4 << 20;

/// What one prefix announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// An object: header and body lengths in bytes.
    Object {
        /// Bytes of header.
        header: usize,
        /// Bytes of body.
        body: usize,
    },
    /// Not there, or not the asker's to read: bytes of text.
    Absent(usize),
    /// There but damaged: bytes of text.
    Damaged(usize),
}

/// Prefix and header of an object; its body follows as it is.
pub fn encode_head(object: &Compressed) -> Bytes {
    let header = object.header.encode();
    let mut out = Vec::with_capacity(PREFIX_LEN + header.len());
    out.push(0);
    out.extend_from_slice(&(header.len() as u32).to_le_bytes());
    out.extend_from_slice(&(object.body.len() as u32).to_le_bytes());
    out.extend_from_slice(&header);
    Bytes::from(out)
}

/// The whole frame for an object that cannot be sent.
pub fn encode_failure(damaged: bool, text: &str) -> Bytes {
    let text = &text.as_bytes()[..text.len().min(1_024)];
    let mut out = vec![if damaged { 2 } else { 1 }, 0, 0, 0, 0];
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text);
    Bytes::from(out)
}

/// Reads a prefix, with every limit checked.
///
/// # Errors
/// An unknown status or a length over its limit.
pub fn decode_prefix(prefix: &[u8; PREFIX_LEN]) -> Result<Announced, FormatError> {
    let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    let (header, body) = (word(1), word(5));
    let limit = if prefix[0] == 0 { PLAIN_MAX as u32 } else { 1_024 };
    if header > HEADER_MAX || body > limit {
        let (value, limit) = (u64::from(header.max(body)), u64::from(limit));
        return Err(FormatError::TooLarge { what: "object on the data stream", value, limit });
    }
    match prefix[0] {
        0 => Ok(Announced::Object { header: header as usize, body: body as usize }),
        1 => Ok(Announced::Absent(body as usize)),
        2 => Ok(Announced::Damaged(body as usize)),
        other => Err(FormatError::Unknown { what: "status", value: u64::from(other) }),
    }
}

/// Header and body back into an object.
///
/// # Errors
/// A header that does not decode.
pub fn decode_object(header: &[u8], body: Bytes) -> Result<Compressed, FormatError> {
    Ok(Compressed { header: Header::decode(header)?, body })
}
