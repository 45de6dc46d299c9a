//! The signatures of one file as they are kept (docs/format.md, "Signatures").

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backhaul_object::codec::{Reader, Write as _};
use backhaul_object::header::PLAIN_MAX;
use backhaul_object::ids::VaultId;
use backhaul_object::patch::BASES_MAX;
use backhaul_object::signature::{BlockHash, Signature, blocks_of};
use backhaul_object::{FormatError, ObjectId, Proof};

use super::Past;

const MAGIC: [u8; 4] = *b"BHSG";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 40;
const TRAILER_LEN: usize = 12;
/// Bytes of a block's hashes.
const HASH_LEN: usize = 12;
/// Largest index that is read: that of a file of a terabyte.
const INDEX_MAX: u64 = 128 << 20;
/// Bytes of an id by which a chunk is known again.
const BRIEF_LEN: usize = 16;

/// The first bytes of an id.
pub(super) type Brief = [u8; BRIEF_LEN];

pub(super) fn brief(id: &ObjectId) -> Brief {
    let mut brief = [0; BRIEF_LEN];
    brief.copy_from_slice(&id.0[..BRIEF_LEN]);
    brief
}

/// In which vault, and since when, anchors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) vault: VaultId,
    pub(super) generation: [u8; 16],
}

/// A chunk that the server has whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Where in the file it was, or what has taken its place.
    pub(super) offset: u64,
    pub(super) id: ObjectId,
    pub(super) proof: Proof,
    pub(super) len: usize,
    /// Bytes that patches of it have cost.
    pub(super) spent: u64,
    /// Where its blocks are in this file.
    at: u64,
}

fn head(scope: &Scope, past: Past) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..4].copy_from_slice(&MAGIC);
    head[4] = VERSION;
    head[5] = u8::from(past == Past::Changed);
    head[8..24].copy_from_slice(scope.vault.as_bytes());
    head[24..].copy_from_slice(&scope.generation);
    head
}

/// Whether the file that these signatures are of has ever changed.
pub(super) fn past(path: &Path) -> Option<Past> {
    let mut start = [0; 6];
    File::open(path).ok()?.read_exact(&mut start).ok()?;
    let is_one = start[..4] == MAGIC && start[4] == VERSION;
    is_one.then_some(if start[5] == 1 { Past::Changed } else { Past::New })
}

/// What is known of a file from when it was last read.
pub(super) struct Known {
    file: File,
    pub(super) past: Past,
    pub(super) anchors: Vec<Anchor>,
    /// By offset.
    order: Vec<usize>,
    ids: HashMap<Brief, usize>,
    /// Chunks that were patches, and of which anchors.
    patched: HashMap<Brief, Vec<usize>>,
}

impl Known {
    /// Opens what is kept; nothing if it is of another vault, or not whole.
    pub(super) fn open(path: &Path, scope: &Scope) -> Option<Self> {
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        let (mut first, mut last) = ([0; HEAD_LEN], [0; TRAILER_LEN]);
        file.read_exact_at(&mut first, 0).ok()?;
        file.read_exact_at(&mut last, len.checked_sub(TRAILER_LEN as u64)?).ok()?;
        let past = [Past::New, Past::Changed].into_iter().find(|past| head(scope, *past) == first)?;
        let (at, sum) = last.split_first_chunk::<8>()?;
        let at = u64::from_le_bytes(*at);
        let size = (len - TRAILER_LEN as u64).checked_sub(at).filter(|size| *size <= INDEX_MAX)?;
        let mut index = vec![0; size as usize];
        file.read_exact_at(&mut index, at).ok()?;
        if checksum(&[&first, &index]) != *sum {
            return None;
        }
        let (anchors, patched) = decode(&index).ok()?;
        let mut order: Vec<usize> = (0..anchors.len()).collect();
        order.sort_by_key(|n| anchors[*n].offset);
        let ids = anchors.iter().enumerate().map(|(n, anchor)| (brief(&anchor.id), n)).collect();
        Some(Self { file, past, anchors, order, ids, patched: patched.into_iter().collect() })
    }

    /// The anchor that is this chunk.
    pub(super) fn anchor(&self, id: &ObjectId) -> Option<usize> {
        self.ids.get(&brief(id)).copied().filter(|n| self.anchors[*n].id == *id)
    }

    /// The anchors that this chunk is a patch of.
    pub(super) fn patched(&self, id: &ObjectId) -> Option<&[usize]> {
        self.patched.get(&brief(id)).map(Vec::as_slice)
    }

    /// Anchors that have bytes in a stretch of the file, by offset.
    pub(super) fn within(&self, from: u64, to: u64) -> Vec<usize> {
        let early = from.saturating_sub(PLAIN_MAX as u64);
        let first = self.order.partition_point(|n| self.anchors[*n].offset < early);
        let before_end = |n: &&usize| self.anchors[**n].offset < to;
        let reaches = |n: &usize| self.anchors[*n].offset + self.anchors[*n].len as u64 > from;
        self.order[first..].iter().take_while(before_end).copied().filter(reaches).take(BASES_MAX).collect()
    }

    /// The blocks of an anchor.
    ///
    /// # Errors
    /// They are not what was written.
    pub(super) fn signature(&self, n: usize) -> io::Result<Signature> {
        let Anchor { len, at, .. } = self.anchors[n];
        let mut raw = vec![0; blocks_of(len) * HASH_LEN + 4];
        self.file.read_exact_at(&mut raw, at)?;
        let Some((raw, sum)) = raw.split_last_chunk::<4>() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if checksum(&[raw]) != *sum {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let hash = |raw: &[u8; HASH_LEN]| {
            let (mut weak, mut strong) = ([0; 4], [0; 8]);
            weak.copy_from_slice(&raw[..4]);
            strong.copy_from_slice(&raw[4..]);
            BlockHash { weak: u32::from_le_bytes(weak), strong: u64::from_le_bytes(strong) }
        };
        Ok(Signature { at: 0, blocks: raw.as_chunks().0.iter().map(hash).collect(), len })
    }
}

fn checksum(parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}

type Index = (Vec<Anchor>, Vec<(Brief, Vec<usize>)>);

fn decode(index: &[u8]) -> Result<Index, FormatError> {
    let mut r = Reader::new(index);
    let anchors = (0..r.count("anchors", index.len())?).map(|_| {
        Ok(Anchor {
            offset: r.varint("offset")?,
            id: ObjectId(r.array("id")?),
            proof: Proof(r.array("proof")?),
            len: r.count("length", PLAIN_MAX)?,
            spent: r.varint("spent")?,
            at: r.varint("place")?,
        })
    });
    let anchors = anchors.collect::<Result<Vec<_>, FormatError>>()?;
    let mut patched = Vec::new();
    for _ in 0..r.count("patched", index.len())? {
        let id = r.array("id")?;
        let count = r.count("bases", BASES_MAX)?;
        let base = |_| r.count("anchor", anchors.len().saturating_sub(1));
        patched.push((id, (0..count).map(base).collect::<Result<_, _>>()?));
    }
    r.finish()?;
    Ok((anchors, patched))
}

/// What is known of a file now, being written.
pub(super) struct Fresh {
    out: BufWriter<File>,
    path: PathBuf,
    head: [u8; HEAD_LEN],
    len: u64,
    anchors: Vec<Anchor>,
    patched: Vec<(Brief, Vec<usize>)>,
}

impl Fresh {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn create(path: PathBuf, scope: &Scope, past: Past) -> io::Result<Self> {
        let head = head(scope, past);
        let mut out = BufWriter::new(File::create(&path)?);
        out.write_all(&head)?;
        Ok(Self { out, path, head, len: HEAD_LEN as u64, anchors: Vec::new(), patched: Vec::new() })
    }

    /// Adds an anchor; returns its number.
    ///
    /// # Errors
    /// The disk refused.
    pub(super) fn add(&mut self, anchor: Anchor, signature: &Signature) -> io::Result<usize> {
        let mut raw = Vec::with_capacity(signature.blocks.len() * HASH_LEN + 4);
        for BlockHash { weak, strong } in &signature.blocks {
            raw.extend_from_slice(&weak.to_le_bytes());
            raw.extend_from_slice(&strong.to_le_bytes());
        }
        raw.extend_from_slice(&checksum(&[&raw]));
        self.out.write_all(&raw)?;
        self.anchors.push(Anchor { at: self.len, ..anchor });
        self.len += raw.len() as u64;
        Ok(self.anchors.len() - 1)
    }

    /// A chunk that the server has whole from now on.
    pub(super) fn anchor(offset: u64, id: ObjectId, proof: Proof, len: usize) -> Anchor {
        Anchor { offset, id, proof, len, spent: 0, at: 0 }
    }

    /// Notes that a chunk is a patch of anchors.
    pub(super) fn note(&mut self, id: &ObjectId, bases: Vec<usize>) {
        self.patched.push((brief(id), bases));
    }

    /// What patches of an anchor have cost.
    pub(super) fn spent(&self, n: usize) -> u64 {
        self.anchors[n].spent
    }

    /// An anchor has cost so much more.
    pub(super) fn spend(&mut self, n: usize, bytes: u64) {
        self.anchors[n].spent += bytes;
    }

    /// Ends the file; returns where it is.
    ///
    /// # Errors
    /// The disk refused.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        let mut index = Vec::new();
        index.put_varint(self.anchors.len() as u64);
        for Anchor { offset, id, proof, len, spent, at } in &self.anchors {
            index.put_varint(*offset);
            index.extend_from_slice(id.as_bytes());
            index.extend_from_slice(proof.as_bytes());
            index.put_varint(*len as u64);
            index.put_varint(*spent);
            index.put_varint(*at);
        }
        index.put_varint(self.patched.len() as u64);
        for (id, bases) in &self.patched {
            index.extend_from_slice(id);
            index.put_varint(bases.len() as u64);
            bases.iter().for_each(|base| index.put_varint(*base as u64));
        }
        self.out.write_all(&index)?;
        self.out.write_all(&self.len.to_le_bytes())?;
        self.out.write_all(&checksum(&[&self.head, &index]))?;
        self.out.flush()?;
        Ok(self.path)
    }

    /// Where it is being written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
