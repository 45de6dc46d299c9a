//! One item of a state file.

use backhaul_object::ObjectId;
use backhaul_object::codec::{FormatError, Reader, Write};
use backhaul_object::descriptor::INLINE_MAX;
use backhaul_object::entry::{Content, DIRECT_CHUNKS_MAX, InodeFlags};
use backhaul_object::piece::Piece;

use super::{Fingerprint, Record};

/// Longest path that is remembered: a file under a longer one is read again each time.
pub(super) const PATH_MAX: usize = 32 << 10;

const RACY: u8 = 1;
const ATTRIBUTES: u8 = 2;

/// What a state file lists.
pub(super) enum Item {
    File(Record),
    /// First 8 bytes of the id of a node that the server holds.
    Node(u64),
}

pub(super) fn encode_node(out: &mut Vec<u8>, prefix: u64) {
    out.push(2);
    out.extend_from_slice(&prefix.to_le_bytes());
}

pub(super) fn encode_file(out: &mut Vec<u8>, record: &Record) {
    out.push(1);
    out.put_bytes(&record.path);
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(flag(record.racy, RACY) | flag(record.attributes, ATTRIBUTES));
    let fingerprint = &record.fingerprint;
    out.put_varint(fingerprint.size);
    out.put_signed(fingerprint.mtime_ns);
    out.put_signed(fingerprint.ctime_ns);
    out.put_varint(fingerprint.inode);
    out.put_varint(fingerprint.volume);
    out.put_varint(u64::from(record.flags.bits));
    out.put_varint(u64::from(record.flags.project));
    match &record.content {
        Content::Empty => out.push(0),
        Content::Inline(bytes) => {
            out.push(1);
            out.put_bytes(bytes);
        }
        Content::Member { bundle, member } => {
            out.push(2);
            out.extend_from_slice(bundle.as_bytes());
            out.put_varint(u64::from(*member));
        }
        Content::Chunks(pieces) => {
            out.push(3);
            out.put_varint(pieces.len() as u64);
            for piece in pieces {
                out.put_varint(piece.len());
                match piece.id() {
                    None => out.push(0),
                    Some(id) => {
                        out.push(1);
                        out.extend_from_slice(id.as_bytes());
                    }
                }
            }
        }
        Content::Flist(id) => {
            out.push(4);
            out.extend_from_slice(id.as_bytes());
        }
    }
}

pub(super) fn decode(r: &mut Reader<'_>) -> Result<Item, FormatError> {
    match r.u8("item")? {
        1 => Ok(Item::File(decode_file(r)?)),
        2 => Ok(Item::Node(r.u64("node")?)),
        other => Err(FormatError::Unknown { what: "state item", value: u64::from(other) }),
    }
}

fn decode_file(r: &mut Reader<'_>) -> Result<Record, FormatError> {
    let path = r.bytes("path", PATH_MAX)?.to_vec();
    let set = r.u8("what is set")?;
    let fingerprint = Fingerprint {
        size: r.varint("size")?,
        mtime_ns: r.signed("mtime")?,
        ctime_ns: r.signed("ctime")?,
        inode: r.varint("inode")?,
        volume: r.varint("volume")?,
    };
    let mut number = |what| r.count(what, u32::MAX as usize).map(|number| number as u32);
    let flags = InodeFlags { bits: number("inode flags")?, project: number("project")? };
    let content = match r.u8("content")? {
        0 => Content::Empty,
        1 => Content::Inline(r.bytes("inline", INLINE_MAX)?.to_vec()),
        2 => Content::Member {
            bundle: ObjectId(r.array("bundle")?),
            member: r.count("member", usize::from(u16::MAX))? as u16,
        },
        3 => {
            let count = r.count("pieces", DIRECT_CHUNKS_MAX)?;
            Content::Chunks((0..count).map(|_| decode_piece(r)).collect::<Result<_, FormatError>>()?)
        }
        4 => Content::Flist(ObjectId(r.array("list")?)),
        other => return Err(FormatError::Unknown { what: "content", value: u64::from(other) }),
    };
    let set = |bit: u8| set & bit != 0;
    Ok(Record { path, fingerprint, racy: set(RACY), attributes: set(ATTRIBUTES), flags, content })
}

fn decode_piece(r: &mut Reader<'_>) -> Result<Piece, FormatError> {
    let len = r.varint("length")?;
    match r.u8("piece")? {
        0 => Ok(Piece::Hole { len }),
        1 => Ok(Piece::Data { id: ObjectId(r.array("chunk")?), len }),
        other => Err(FormatError::Unknown { what: "piece", value: u64::from(other) }),
    }
}
