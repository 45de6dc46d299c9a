//! The snapshot manifest: what one client's paths looked like at one moment.

use bytes::Bytes;

use crate::codec::{FormatError, Reader, Write};
use crate::entry::{Totals, decode_totals, encode_totals};
use crate::header::{Kind, Reference};
use crate::ids::{ClientId, ObjectId, VaultId};
use crate::seal::Object;

/// Version of the manifest this crate writes.
const MANIFEST_VERSION: u8 = 1;
/// Limits on foreign manifests.
const PATHS_MAX: usize = 1_024;
const PATH_MAX: usize = 32 << 10;
const SKIPPED_MAX: usize = 64;

/// What the agent states about its backup; the object's id commits to all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The vault it belongs to.
    pub vault: VaultId,
    /// Whose it is.
    pub client: ClientId,
    /// 1, 2, 3, … per client, given by the server.
    pub sequence: u64,
    /// The client's manifest before this one: makes omission and rollback visible.
    pub previous: Option<ObjectId>,
    /// The root directory.
    pub root: ObjectId,
    /// Seconds since 1970 by the client's clock; for display only.
    pub client_time: u64,
    /// Absolute paths that were backed up, raw bytes; of a stream, its name.
    pub paths: Vec<Vec<u8>>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Sums over the tree.
    pub totals: Totals,
    /// Files that could not be read.
    pub errors: u64,
    /// What is on the disk but not kept by this version, by kind ("fifo", "xattr"), with counts.
    pub not_kept: Vec<(String, u64)>,
}

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Files that were on a disk.
    Files,
    /// What a program wrote, as the one file `/NAME`.
    Stream,
}

impl Origin {
    /// What these are the paths of: the name of a stream is no absolute path.
    pub fn of(paths: &[Vec<u8>]) -> Self {
        let is_stream = paths.first().is_some_and(|path| !path.starts_with(b"/"));
        if is_stream { Self::Stream } else { Self::Files }
    }
}

impl Snapshot {
    /// What it is of.
    pub fn origin(&self) -> Origin {
        Origin::of(&self.paths)
    }

    /// As an object.
    pub fn encode(&self) -> Object {
        let mut out = vec![MANIFEST_VERSION];
        out.extend_from_slice(self.vault.as_bytes());
        out.extend_from_slice(self.client.as_bytes());
        out.put_varint(self.sequence);
        out.push(u8::from(self.previous.is_some()));
        if let Some(previous) = &self.previous {
            out.extend_from_slice(previous.as_bytes());
        }
        out.put_varint(self.client_time);
        out.put_varint(self.paths.len() as u64);
        self.paths.iter().for_each(|path| out.put_bytes(path));
        out.put_varint(self.tags.len() as u64);
        self.tags.iter().for_each(|tag| out.put_bytes(tag.as_bytes()));
        encode_totals(&mut out, &self.totals);
        out.put_varint(self.errors);
        out.put_varint(self.not_kept.len() as u64);
        for (kind, count) in &self.not_kept {
            out.put_bytes(kind.as_bytes());
            out.put_varint(*count);
        }
        let references = vec![Reference::whole(self.root)];
        Object { kind: Kind::Snap, references, provides: Vec::new(), payload: Bytes::from(out) }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// Another kind, an unknown version, or a payload that breaks the format.
    pub fn decode(object: &Object) -> Result<Self, FormatError> {
        let ([root], Kind::Snap) = (&object.references[..], object.kind) else {
            return Err(FormatError::Invalid("not a snapshot manifest"));
        };
        let mut r = Reader::new(&object.payload);
        let version = r.u8("manifest version")?;
        if version != MANIFEST_VERSION {
            return Err(FormatError::Unknown { what: "manifest version", value: u64::from(version) });
        }
        let vault = VaultId(r.array("vault id")?);
        let client = ClientId(r.array("client id")?);
        let sequence = r.varint("sequence")?;
        let previous = match r.u8("previous")? {
            0 => None,
            1 => Some(ObjectId(r.array("previous")?)),
            other => return Err(FormatError::Unknown { what: "previous", value: u64::from(other) }),
        };
        let client_time = r.varint("client time")?;
        let paths = list(&mut r, PATHS_MAX, |r| Ok(r.bytes("path", PATH_MAX)?.to_vec()))?;
        let tags = list(&mut r, PATHS_MAX, text)?;
        let totals = decode_totals(&mut r)?;
        let errors = r.varint("errors")?;
        let not_kept = list(&mut r, SKIPPED_MAX, |r| Ok((text(r)?, r.varint("count")?)))?;
        r.finish()?;
        let root = root.id;
        Ok(Self {
            vault,
            client,
            sequence,
            previous,
            root,
            client_time,
            paths,
            tags,
            totals,
            errors,
            not_kept,
        })
    }
}

fn text(r: &mut Reader<'_>) -> Result<String, FormatError> {
    let bytes = r.bytes("text", 255)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FormatError::Invalid("text is not UTF-8"))
}

fn list<T>(
    r: &mut Reader<'_>,
    limit: usize,
    mut one: impl FnMut(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let count = r.count("list", limit)?;
    (0..count).map(|_| one(r)).collect()
}
