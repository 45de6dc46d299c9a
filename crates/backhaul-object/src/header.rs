//! The clear header of an object: all that a server needs without a key, and all that the id commits to.

use crate::codec::{FormatError, Reader, Write};
use crate::ids::{ObjectId, Proof};

/// Most references one object may carry.
pub const REFERENCES_MAX: usize = 16_384;
/// Most members one bundle may carry.
pub const MEMBERS_MAX: usize = 1_024;
/// Largest plaintext payload of any object, in bytes.
pub const PLAIN_MAX: usize = 8 << 20;
/// Version byte at the start of every header.
pub const HEADER_VERSION: u8 = 1;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of a large file.
    Chunk = 1,
    /// Several small files in one compressed frame.
    Bundle = 2,
    /// Chunk list of one large file.
    Flist = 3,
    /// Directory entries.
    Node = 4,
    /// Snapshot manifest.
    Snap = 5,
    /// A chunk written as a difference to others.
    Patch = 6,
    /// Large attribute values, logs (reserved).
    Blob = 7,
    /// Signed statements: drill results, holds (reserved).
    Attest = 8,
}

impl Kind {
    /// From its number.
    ///
    /// # Errors
    /// A number this version does not define.
    pub fn from_u8(value: u8) -> Result<Self, FormatError> {
        Ok(match value {
            1 => Self::Chunk,
            2 => Self::Bundle,
            3 => Self::Flist,
            4 => Self::Node,
            5 => Self::Snap,
            6 => Self::Patch,
            7 => Self::Blob,
            8 => Self::Attest,
            _ => return Err(FormatError::Unknown { what: "object kind", value: u64::from(value) }),
        })
    }
}

/// How the payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Compressor {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// One reference to another object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The object.
    pub id: ObjectId,
    /// For a bundle: which of its members are used, one bit each, low bit first, no trailing zero byte.
    pub members: Vec<u8>,
}

impl Reference {
    /// A reference to a whole object.
    pub fn whole(id: ObjectId) -> Self {
        Self { id, members: Vec::new() }
    }

    /// A reference to a bundle of which no member is wanted: what comes tells their ids.
    pub fn to_none_of(id: ObjectId) -> Self {
        Self { id, members: vec![0] }
    }

    /// True when it is for the ids of a bundle's members.
    pub fn is_to_none(&self) -> bool {
        !self.members.is_empty() && self.members.iter().all(|byte| *byte == 0)
    }

    /// Marks member `n` of a bundle as used.
    pub fn use_member(&mut self, n: usize) {
        if self.members.len() <= n / 8 {
            self.members.resize(n / 8 + 1, 0);
        }
        self.members[n / 8] |= 1 << (n % 8);
    }
}

/// Everything about an object except its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub id: ObjectId,
    /// Shows possession; never sent by a server.
    pub proof: Proof,
    /// How its payload is compressed.
    pub compressor: Compressor,
    /// Length of the plaintext payload in bytes.
    pub plain_len: u32,
    /// What it refers to, in order of first use.
    pub references: Vec<Reference>,
    /// For a bundle: id and proof of each member.
    pub provides: Vec<(ObjectId, Proof)>,
}

impl Header {
    /// Canonical bytes: what travels, what is stored, and what the seal authenticates.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 34 * self.references.len() + 48 * self.provides.len());
        out.extend_from_slice(&[HEADER_VERSION, self.kind as u8, self.compressor as u8]);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.proof.as_bytes());
        out.put_varint(u64::from(self.plain_len));
        encode_references(&mut out, &self.references);
        out.put_varint(self.provides.len() as u64);
        for (id, proof) in &self.provides {
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(proof.as_bytes());
        }
        out
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Anything truncated, unknown, over a limit, or inconsistent with the kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        let version = r.u8("header version")?;
        if version != HEADER_VERSION {
            return Err(FormatError::Unknown { what: "header version", value: u64::from(version) });
        }
        let kind = Kind::from_u8(r.u8("kind")?)?;
        let compressor = match r.u8("compressor")? {
            0 => Compressor::Raw,
            1 => Compressor::Zstd,
            other => return Err(FormatError::Unknown { what: "compressor", value: u64::from(other) }),
        };
        let id = ObjectId(r.array("id")?);
        let proof = Proof(r.array("proof")?);
        let plain_len = r.count("plain length", PLAIN_MAX)? as u32;
        let references = decode_references(&mut r)?;
        let count = r.count("members", MEMBERS_MAX)?;
        let mut provides = Vec::with_capacity(count);
        for _ in 0..count {
            provides.push((ObjectId(r.array("member id")?), Proof(r.array("member proof")?)));
        }
        r.finish()?;
        let header = Self { kind, id, proof, compressor, plain_len, references, provides };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), FormatError> {
        let bundle = self.kind == Kind::Bundle;
        if bundle == self.provides.is_empty() {
            return Err(FormatError::Invalid("members belong to bundles, and every bundle has some"));
        }
        let leaf = matches!(self.kind, Kind::Chunk | Kind::Bundle | Kind::Blob);
        if leaf && !self.references.is_empty() {
            return Err(FormatError::Invalid("a chunk, bundle or blob refers to nothing"));
        }
        if self.kind == Kind::Patch { crate::patch::check(self) } else { Ok(()) }
    }
}

/// The reference section, which is also hashed into the id.
pub(crate) fn encode_references(out: &mut Vec<u8>, references: &[Reference]) {
    out.put_varint(references.len() as u64);
    for reference in references {
        out.extend_from_slice(reference.id.as_bytes());
        out.put_bytes(&reference.members);
    }
}

fn decode_references(r: &mut Reader<'_>) -> Result<Vec<Reference>, FormatError> {
    let count = r.count("references", REFERENCES_MAX)?;
    let mut references = Vec::with_capacity(count.min(1_024));
    for _ in 0..count {
        let id = ObjectId(r.array("reference")?);
        let members = r.bytes("member bitmap", MEMBERS_MAX / 8)?.to_vec();
        if members.last() == Some(&0) {
            return Err(FormatError::Invalid("member bitmap ends in a zero byte"));
        }
        references.push(Reference { id, members });
    }
    Ok(references)
}
