//! Directory entries: one name with its metadata and what it holds.

use crate::codec::{FormatError, Reader, Write};
use crate::descriptor::INLINE_MAX;
use crate::header::{MEMBERS_MAX, REFERENCES_MAX};
use crate::ids::ObjectId;
use crate::node::Refer;
use crate::piece::Piece;

mod attribute;
mod inode_flags;
mod left_out;
mod special;

pub use attribute::Attribute;
pub use inode_flags::{EXTENSION_FLAGS, EXTENSION_PROJECT, InodeFlags};
pub use left_out::EXTENSION_LEFT_OUT;
pub use special::{Device, Special};

/// Extension of a directory that was not saved itself, but leads to what was: it has no time of its own.
pub const EXTENSION_WAY: u64 = 2;
/// Extension of what is no regular file and has further names: its link group, 8 bytes.
pub const EXTENSION_LINK: u64 = 4;
/// Extension of what has extended attributes, once for each: varint length of the name, name, value.
pub const EXTENSION_ATTRIBUTE: u64 = 6;
/// Longest name in bytes.
pub const NAME_MAX: usize = 255;
/// Longest symbolic link target in bytes.
pub const TARGET_MAX: usize = 4_095;
/// Most chunks and holes listed in the entry itself; more go to a file list.
pub const DIRECT_CHUNKS_MAX: usize = 8;
/// Bounds for what one folded directory may hold, checked before allocation.
const FOLDED_MAX: usize = 4_096;
/// Folded directories within each other in one node.
pub const FOLD_DEPTH_MAX: usize = 64;
/// Most attributes kept of one entry, with some room for other extensions.
pub const ATTRIBUTES_MAX: usize = 1_000;
/// Most bytes of attributes kept of one entry, with their names.
pub const ATTRIBUTES_BYTES: usize = 256 << 10;
const EXTENSIONS_MAX: usize = 1_024;
/// The largest attribute that Linux has, with its name.
const EXTENSION_MAX: usize = (64 << 10) + 258;

/// Ownership, mode and modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970, negative before.
    pub mtime_s: i64,
    /// Nanoseconds, below 10^9.
    pub mtime_ns: u32,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// No bytes.
    Empty,
    /// At most [`INLINE_MAX`] bytes, here.
    Inline(Vec<u8>),
    /// One member of a bundle.
    Member {
        /// The bundle.
        bundle: ObjectId,
        /// The member's number.
        member: u16,
    },
    /// At most [`DIRECT_CHUNKS_MAX`] chunks and holes.
    Chunks(Vec<Piece>),
    /// A file list.
    Flist(ObjectId),
}

/// Sums over a subtree, so that sizes need no descent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Everything that is not a directory.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Where they are.
        content: Content,
        /// Files with one number in one snapshot are links to one inode.
        link: Option<u64>,
    },
    /// A directory with an object of its own.
    Directory {
        /// Its (top) node.
        node: ObjectId,
        /// Sums below it.
        totals: Totals,
    },
    /// A small directory, folded into its parent.
    Folded(Vec<Entry>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A pipe, socket or device.
    Special(Special),
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Raw bytes: no `/`, no NUL, not `.` or `..`.
    pub name: Vec<u8>,
    /// Mode, owner, time.
    pub metadata: Metadata,
    /// File, directory or link.
    pub body: Body,
    /// Later metadata by tag. Readers skip even tags they do not know and refuse odd ones.
    pub extensions: Vec<(u64, Vec<u8>)>,
}

impl Entry {
    /// True for a directory that only leads to what was saved.
    pub fn is_way(&self) -> bool {
        self.extensions.iter().any(|(tag, _)| *tag == EXTENSION_WAY)
    }

    /// True for a directory, folded or not.
    pub fn is_folder(&self) -> bool {
        matches!(self.body, Body::Directory { .. } | Body::Folded(_))
    }

    /// The extensions of what is no regular file.
    pub fn extensions_of_plain(link: Option<u64>) -> Vec<(u64, Vec<u8>)> {
        link.map(|group| (EXTENSION_LINK, group.to_le_bytes().to_vec())).into_iter().collect()
    }

    /// The same entry with extended attributes.
    pub fn with_attributes(mut self, attributes: &[Attribute]) -> Self {
        self.extensions.extend(attributes.iter().map(Attribute::extension));
        self
    }

    /// Its extended attributes.
    pub fn attributes(&self) -> Vec<Attribute> {
        let own = self.extensions.iter().filter(|(tag, _)| *tag == EXTENSION_ATTRIBUTE);
        own.filter_map(|(_, bytes)| Attribute::from_extension(bytes)).collect()
    }

    /// Entries with one number in one snapshot are names of one inode.
    pub fn link(&self) -> Option<u64> {
        let extension = || self.extensions.iter().find(|(tag, _)| *tag == EXTENSION_LINK);
        match &self.body {
            Body::File { link, .. } => *link,
            Body::Symlink(_) | Body::Special(_) => {
                extension().and_then(|(_, group)| Some(u64::from_le_bytes(group[..].try_into().ok()?)))
            }
            Body::Directory { .. } | Body::Folded(_) => None,
        }
    }

    /// Sums over this entry and what is below it.
    pub fn totals(&self) -> Totals {
        match &self.body {
            Body::File { size, .. } => Totals { files: 1, dirs: 0, bytes: *size },
            Body::Symlink(_) | Body::Special(_) => Totals { files: 1, dirs: 0, bytes: 0 },
            Body::Directory { totals, .. } => Totals { dirs: totals.dirs + 1, ..*totals },
            Body::Folded(entries) => {
                let below: Totals = entries.iter().map(Entry::totals).sum();
                Totals { dirs: below.dirs + 1, ..below }
            }
        }
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), |a, b| Self {
            files: a.files.saturating_add(b.files),
            dirs: a.dirs.saturating_add(b.dirs),
            bytes: a.bytes.saturating_add(b.bytes),
        })
    }
}

/// How deep directories are folded within each other below these entries.
pub(crate) fn folds(entries: &[Entry]) -> usize {
    let below = |entry: &Entry| match &entry.body {
        Body::Folded(entries) => folds(entries) + 1,
        _ => 0,
    };
    entries.iter().map(below).max().unwrap_or(0)
}

/// Refuses names that are no single path component.
///
/// # Errors
/// [`FormatError::Invalid`] with the reason.
pub fn check_name(name: &[u8]) -> Result<(), FormatError> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(FormatError::Invalid("name is empty or over 255 bytes"));
    }
    if name == b"." || name == b".." || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(FormatError::Invalid("name is no single path component"));
    }
    Ok(())
}

/// Appends entries in name order: front-coded names, times as differences to the entry before.
pub(crate) fn encode_all(out: &mut Vec<u8>, entries: &[Entry], references: &mut impl Refer) {
    out.put_varint(entries.len() as u64);
    let (mut name, mut mtime): (&[u8], i64) = (&[], 0);
    for entry in entries {
        let shared = name.iter().zip(&entry.name).take_while(|(a, b)| a == b).count();
        out.put_varint(shared as u64);
        out.put_bytes(&entry.name[shared..]);
        let meta = &entry.metadata;
        out.put_varint(u64::from(meta.mode));
        out.put_varint(u64::from(meta.uid));
        out.put_varint(u64::from(meta.gid));
        out.put_signed(meta.mtime_s.wrapping_sub(mtime));
        out.put_varint(u64::from(meta.mtime_ns));
        encode_body(out, &entry.body, references);
        out.put_varint(entry.extensions.len() as u64);
        for (tag, value) in &entry.extensions {
            out.put_varint(*tag);
            out.put_bytes(value);
        }
        (name, mtime) = (&entry.name, meta.mtime_s);
    }
}

fn encode_body(out: &mut Vec<u8>, body: &Body, references: &mut impl Refer) {
    match body {
        Body::File { size, content, link } => {
            out.push(if link.is_some() { 2 } else { 1 });
            out.put_varint(*size);
            if let Some(group) = link {
                out.extend_from_slice(&group.to_le_bytes());
            }
            encode_content(out, content, references);
        }
        Body::Symlink(target) => {
            out.push(3);
            out.put_bytes(target);
        }
        Body::Directory { node, totals } => {
            out.push(4);
            out.put_varint(references.whole(*node));
            encode_totals(out, totals);
        }
        Body::Folded(entries) => {
            out.push(5);
            encode_all(out, entries, references);
        }
        Body::Special(special) => {
            out.push(6);
            special::encode(out, *special);
        }
    }
}

fn encode_content(out: &mut Vec<u8>, content: &Content, references: &mut impl Refer) {
    match content {
        Content::Empty => out.push(0),
        Content::Inline(bytes) => {
            out.push(1);
            out.put_bytes(bytes);
        }
        Content::Member { bundle, member } => {
            out.push(2);
            out.put_varint(references.member(*bundle, usize::from(*member)));
            out.put_varint(u64::from(*member));
        }
        Content::Chunks(pieces) => {
            out.push(3);
            out.put_varint(pieces.len() as u64);
            for piece in pieces {
                piece.encode(out, |id| references.whole(id));
            }
        }
        Content::Flist(id) => {
            out.push(4);
            out.put_varint(references.whole(*id));
        }
    }
}

pub(crate) fn encode_totals(out: &mut Vec<u8>, totals: &Totals) {
    out.put_varint(totals.files);
    out.put_varint(totals.dirs);
    out.put_varint(totals.bytes);
}

pub(crate) fn decode_totals(r: &mut Reader<'_>) -> Result<Totals, FormatError> {
    Ok(Totals { files: r.varint("files")?, dirs: r.varint("dirs")?, bytes: r.varint("bytes")? })
}

/// Reads what [`encode_all`] wrote; `ids` are the object's references.
pub(crate) fn decode_all(
    r: &mut Reader<'_>,
    ids: &[ObjectId],
    depth: usize,
) -> Result<Vec<Entry>, FormatError> {
    if depth > FOLD_DEPTH_MAX {
        return Err(FormatError::Invalid("directories folded too deep"));
    }
    let count = r.count("entries", if depth == 0 { REFERENCES_MAX } else { FOLDED_MAX })?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(1_024));
    for _ in 0..count {
        let entry = decode_one(r, ids, depth, entries.last())?;
        if entries.last().is_some_and(|before| before.name >= entry.name) {
            return Err(FormatError::Invalid("names out of order"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_one(
    r: &mut Reader<'_>,
    ids: &[ObjectId],
    depth: usize,
    before: Option<&Entry>,
) -> Result<Entry, FormatError> {
    let (last, mtime) = before.map_or((&[][..], 0), |e| (&e.name[..], e.metadata.mtime_s));
    let shared = r.count("shared name", last.len())?;
    let mut name = last[..shared].to_vec();
    let suffix = r.bytes("name", NAME_MAX)?;
    if !suffix.is_empty() && suffix.first() == last.get(shared) {
        return Err(FormatError::Invalid("name not front-coded in its shortest form"));
    }
    name.extend_from_slice(suffix);
    check_name(&name)?;
    let metadata = Metadata {
        mode: r.count("mode", 0o7777)? as u16,
        uid: r.count("uid", u32::MAX as usize)? as u32,
        gid: r.count("gid", u32::MAX as usize)? as u32,
        mtime_s: r.signed("mtime")?.wrapping_add(mtime),
        mtime_ns: r.count("mtime ns", 999_999_999)? as u32,
    };
    let body = decode_body(r, ids, depth)?;
    let count = r.count("extensions", EXTENSIONS_MAX)?;
    let mut extensions = Vec::with_capacity(count);
    for _ in 0..count {
        let tag = r.varint("extension tag")?;
        if tag % 2 == 1 {
            return Err(FormatError::Unknown { what: "extension", value: tag });
        }
        let value = r.bytes("extension", EXTENSION_MAX)?;
        match tag {
            EXTENSION_LINK if value.len() != 8 => return Err(FormatError::Invalid("link group")),
            EXTENSION_ATTRIBUTE if Attribute::from_extension(value).is_none() => {
                return Err(FormatError::Invalid("extended attribute"));
            }
            EXTENSION_FLAGS | EXTENSION_PROJECT => drop(inode_flags::decode(value)?),
            EXTENSION_LEFT_OUT => drop(left_out::decode(value)?),
            _ => {}
        }
        extensions.push((tag, value.to_vec()));
    }
    Ok(Entry { name, metadata, body, extensions })
}

fn reference(r: &mut Reader<'_>, ids: &[ObjectId]) -> Result<ObjectId, FormatError> {
    let index = r.count("reference index", REFERENCES_MAX)?;
    ids.get(index).copied().ok_or(FormatError::Invalid("reference out of range"))
}

fn decode_body(r: &mut Reader<'_>, ids: &[ObjectId], depth: usize) -> Result<Body, FormatError> {
    Ok(match r.u8("entry type")? {
        kind @ (1 | 2) => {
            let size = r.varint("size")?;
            let link = if kind == 2 { Some(r.u64("link group")?) } else { None };
            Body::File { size, content: decode_content(r, ids)?, link }
        }
        3 => Body::Symlink(r.bytes("link target", TARGET_MAX)?.to_vec()),
        4 => Body::Directory { node: reference(r, ids)?, totals: decode_totals(r)? },
        5 => Body::Folded(decode_all(r, ids, depth + 1)?),
        6 => Body::Special(special::decode(r)?),
        other => return Err(FormatError::Unknown { what: "entry type", value: u64::from(other) }),
    })
}

fn decode_content(r: &mut Reader<'_>, ids: &[ObjectId]) -> Result<Content, FormatError> {
    Ok(match r.u8("content type")? {
        0 => Content::Empty,
        1 => Content::Inline(r.bytes("inline content", INLINE_MAX)?.to_vec()),
        2 => {
            let bundle = reference(r, ids)?;
            Content::Member { bundle, member: r.count("member", MEMBERS_MAX - 1)? as u16 }
        }
        3 => {
            let count = r.count("chunks", DIRECT_CHUNKS_MAX)?;
            let mut pieces = Vec::with_capacity(count);
            for _ in 0..count {
                pieces.push(Piece::decode(r, |index| ids.get(index).copied())?);
            }
            Content::Chunks(pieces)
        }
        4 => Content::Flist(reference(r, ids)?),
        other => return Err(FormatError::Unknown { what: "content type", value: u64::from(other) }),
    })
}
