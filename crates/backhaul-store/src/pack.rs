//! The pack format, version 1: head, records, footer, trailer (docs/format.md, "Packs").

use backhaul_object::codec::{FormatError, Reader};
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::{Header, Kind, ObjectId, Sealed};
use bytes::Bytes;

use crate::index::Ordinal;

/// Version this crate writes.
pub const PACK_VERSION: u8 = 1;
/// Bytes of the head.
pub const HEAD_LEN: usize = 64;
/// Bytes before a record's header.
pub const RECORD_HEAD_LEN: usize = 24;
/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 20;
/// Bytes of one footer row.
const ROW_LEN: usize = 20;
/// Bytes of a record up to the end of its object's id: version, kind, compressor, id.
pub(crate) const ID_END: usize = RECORD_HEAD_LEN + 3 + 32;
/// Most records in a pack.
const RECORDS_MAX: usize = 1 << 20;

const HEAD_MAGIC: &[u8; 4] = b"BHPK";
pub(crate) const RECORD_MAGIC: &[u8; 4] = b"BHRC";
const FOOTER_MAGIC: &[u8; 4] = b"BHFT";
const TRAILER_MAGIC: &[u8; 4] = b"BHTR";

/// What a pack holds; the two are kept apart so that browsing never touches file data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Chunks, bundles, blobs.
    Data = 0,
    /// Nodes, file lists, snapshots.
    Meta = 1,
}

impl Class {
    /// The class of packs into which objects of a kind go.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Chunk | Kind::Bundle | Kind::Blob => Self::Data,
            // What refers to something is metadata: whoever follows references reads nothing else.
            Kind::Patch | Kind::Flist | Kind::Node | Kind::Snap | Kind::Attest => Self::Meta,
        }
    }

    /// Size in bytes at which a pack of this class is sealed.
    pub fn target(self) -> u64 {
        match self {
            Self::Data => 64 << 20,
            Self::Meta => 16 << 20,
        }
    }
}

/// The first 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it holds.
    pub class: Class,
    /// Whose vault.
    pub vault: VaultId,
    /// Which session wrote it.
    pub session: SessionId,
    /// For which client.
    pub client: ClientId,
}

impl Head {
    /// Of a pack of which nobody knows whose session wrote it.
    pub(crate) fn of_nobody(class: Class, vault: VaultId) -> Self {
        Self { class, vault, session: SessionId([0; 16]), client: ClientId([0; 16]) }
    }

    /// Canonical bytes.
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[..4].copy_from_slice(HEAD_MAGIC);
        out[4] = PACK_VERSION;
        out[5] = self.class as u8;
        out[8..24].copy_from_slice(self.vault.as_bytes());
        out[24..40].copy_from_slice(self.session.as_bytes());
        out[40..56].copy_from_slice(self.client.as_bytes());
        out
    }

    /// Reads the head of a pack.
    ///
    /// # Errors
    /// Not a pack, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        if r.take(4, "pack magic")? != HEAD_MAGIC {
            return Err(FormatError::Invalid("not a pack"));
        }
        let version = r.u8("pack version")?;
        if version != PACK_VERSION {
            return Err(FormatError::Unknown { what: "pack version", value: u64::from(version) });
        }
        let class = match r.u8("pack class")? {
            0 => Class::Data,
            1 => Class::Meta,
            other => return Err(FormatError::Unknown { what: "pack class", value: u64::from(other) }),
        };
        r.take(2, "pack flags")?;
        let vault = VaultId(r.array("vault")?);
        let session = SessionId(r.array("session")?);
        let client = ClientId(r.array("client")?);
        r.take(8, "reserved")?;
        Ok(Self { class, vault, session, client })
    }
}

/// One record as the footer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its object's number.
    pub ordinal: Ordinal,
    /// Where it begins in the pack.
    pub offset: u32,
    /// Bytes of clear header.
    pub header_len: u32,
    /// Bytes of sealed body.
    pub body_len: u32,
}

impl Row {
    /// Bytes of the whole record.
    pub fn len(&self) -> u64 {
        RECORD_HEAD_LEN as u64 + u64::from(self.header_len) + u64::from(self.body_len)
    }

    /// Always false: a record has a head.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// One record.
pub fn encode_record(ordinal: Ordinal, header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = encode_before_body(ordinal, header, body);
    out.extend_from_slice(body);
    out
}

/// A record up to its body, which is most of it.
pub(crate) fn encode_before_body(ordinal: Ordinal, header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_HEAD_LEN + header.len());
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(body);
    out.extend_from_slice(RECORD_MAGIC);
    out.extend_from_slice(&(header.len() as u32).to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&ordinal.0.to_le_bytes());
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(header);
    out
}

/// Lengths, number and checksum from a record's first 24 bytes, which are at `offset` of the pack.
///
/// # Errors
/// Not a record.
pub fn decode_record_head(bytes: &[u8], offset: u32) -> Result<(Row, u32), FormatError> {
    let mut r = Reader::new(bytes);
    if r.take(4, "record magic")? != RECORD_MAGIC {
        return Err(FormatError::Invalid("not a record"));
    }
    let (header_len, body_len) = (r.u32("header length")?, r.u32("body length")?);
    let row = Row { ordinal: Ordinal(r.u64("ordinal")?), offset, header_len, body_len };
    Ok((row, r.u32("checksum")?))
}

/// A whole record: its number and its object.
///
/// # Errors
/// Truncated, changed, or not a record.
pub fn decode_record(bytes: &[u8]) -> Result<(Ordinal, Sealed), FormatError> {
    let (row, crc) = decode_record_head(bytes, 0)?;
    let mut r = Reader::new(&bytes[RECORD_HEAD_LEN..]);
    let header = r.take(row.header_len as usize, "record header")?;
    let body = r.take(row.body_len as usize, "record body")?;
    let mut found = crc32fast::Hasher::new();
    found.update(header);
    found.update(body);
    if found.finalize() != crc {
        return Err(FormatError::Mismatch("record checksum"));
    }
    Ok((row.ordinal, Sealed { header: Header::decode(header)?, body: Bytes::copy_from_slice(body) }))
}

/// The id in the first [`ID_END`] bytes of a record; nothing if they are fewer.
pub(crate) fn decode_record_id(bytes: &[u8]) -> Option<ObjectId> {
    bytes.get(..ID_END)?.last_chunk().map(|id| ObjectId(*id))
}

/// Footer and trailer.
pub fn encode_footer(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + rows.len() * ROW_LEN + TRAILER_LEN);
    out.extend_from_slice(FOOTER_MAGIC);
    for row in rows {
        out.extend_from_slice(&row.ordinal.0.to_le_bytes());
        for value in [row.offset, row.header_len, row.body_len] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(TRAILER_MAGIC);
    out.extend_from_slice(&[PACK_VERSION, 0, 0, 0]);
    out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out
}

/// How many bytes before the end the footer begins, from the last [`TRAILER_LEN`] bytes.
///
/// # Errors
/// The pack was not finished, or its end is damaged.
pub fn footer_len(trailer: &[u8]) -> Result<usize, FormatError> {
    let mut r = Reader::new(trailer);
    if r.take(4, "trailer magic")? != TRAILER_MAGIC {
        return Err(FormatError::Invalid("pack has no trailer"));
    }
    let version = r.u8("trailer version")?;
    if version != PACK_VERSION {
        return Err(FormatError::Unknown { what: "trailer version", value: u64::from(version) });
    }
    r.take(3, "reserved")?;
    let count = r.u32("records")? as usize;
    if count > RECORDS_MAX {
        let (value, limit) = (count as u64, RECORDS_MAX as u64);
        return Err(FormatError::TooLarge { what: "records in a pack", value, limit });
    }
    Ok(4 + count * ROW_LEN + TRAILER_LEN)
}

/// The rows of a footer, given footer and trailer.
///
/// # Errors
/// A checksum or length that does not fit.
pub fn decode_footer(bytes: &[u8]) -> Result<Vec<Row>, FormatError> {
    let split = bytes.len().checked_sub(TRAILER_LEN).ok_or(FormatError::Truncated("footer"))?;
    let (footer, trailer) = bytes.split_at(split);
    if footer_len(trailer)? != bytes.len() {
        return Err(FormatError::Invalid("footer of another length"));
    }
    let mut crc = [0; 4];
    crc.copy_from_slice(&trailer[12..16]);
    if crc32fast::hash(footer) != u32::from_le_bytes(crc) {
        return Err(FormatError::Mismatch("footer checksum"));
    }
    let mut r = Reader::new(footer);
    if r.take(4, "footer magic")? != FOOTER_MAGIC {
        return Err(FormatError::Invalid("not a footer"));
    }
    let mut rows = Vec::with_capacity(footer.len() / ROW_LEN);
    while !r.is_empty() {
        rows.push(Row {
            ordinal: Ordinal(r.u64("ordinal")?),
            offset: r.u32("offset")?,
            header_len: r.u32("header length")?,
            body_len: r.u32("body length")?,
        });
    }
    Ok(rows)
}
