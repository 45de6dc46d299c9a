//! The object index: names, places and edges by ordinal, and fingerprints to find a name's ordinal.
//!
//! Five append-only files that are caches of the packs: `names` (id and proof), `loc` (pack, offset, length),
//! `spans` and `edges` (references), `members` (members of bundles). How much of them counts is written in
//! the catalog; what is beyond is cut off when the index is opened.

use std::ops::Range;
use std::path::Path;

use backhaul_object::codec::{Reader, Write};
use backhaul_object::header::{MEMBERS_MAX, REFERENCES_MAX};
use backhaul_object::{Header, ObjectId, Proof};

use crate::atomic::sync_parent;
use crate::bits::Bits;
use crate::catalog::Counts;
use crate::error::{Doing, Of, StoreError};

mod fingerprints;
mod forget;
mod log;
mod scan;

use fingerprints::Fingerprints;
use log::Log;
pub use scan::Scan;

const NAME_LEN: u64 = 48;
const LOC_LEN: u64 = 12;
const SPAN_LEN: u64 = 8;
const MEMBER_LEN: u64 = 58;

/// An object's dense number in its vault: children have smaller ones than parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ordinal(pub u64);

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack's number in the catalog.
    pub pack: u32,
    /// Where the record begins.
    pub offset: u32,
    /// Bytes of the record; 0 for a number whose object was lost.
    pub len: u32,
}

/// The location of an object that was lost.
const LOST: Location = Location { pack: 0, offset: 0, len: 0 };

/// A reference, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// What is referred to.
    pub to: Ordinal,
    /// For a bundle: the members used.
    pub members: Vec<u8>,
}

/// What a name was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An object.
    Object(Ordinal),
    /// A member of a bundle.
    Member {
        /// The bundle.
        bundle: Ordinal,
        /// Its number there.
        member: u16,
    },
}

/// One find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The full id.
    pub id: ObjectId,
    /// Its proof of possession.
    pub proof: Proof,
    /// What it is.
    pub place: Place,
}

/// The index of one vault.
pub struct Index {
    names: Log,
    loc: Log,
    spans: Log,
    edges: Log,
    members: Log,
    objects: Fingerprints,
    contents: Fingerprints,
    /// Numbers that are being forgotten.
    leaving: Bits,
}

impl Index {
    /// Opens the files and cuts them back to the committed counts.
    ///
    /// # Errors
    /// A file is missing, shorter than the catalog says, or unreadable.
    pub fn open(dir: &Path, objects: u64, members: u64) -> Result<Self, StoreError> {
        if !dir.is_dir() {
            let why = "it is missing; run `backhaul check --rebuild-index`";
            return Err(StoreError::damaged(dir.display().to_string(), why));
        }
        let names = Log::open(&dir.join("names"), objects * NAME_LEN)?;
        let loc = Log::open(&dir.join("loc"), objects * LOC_LEN)?;
        let spans = Log::open(&dir.join("spans"), objects * SPAN_LEN)?;
        let edge_bytes = match objects.checked_sub(1) {
            Some(last) => u64::from_le_bytes(spans.array(last * SPAN_LEN)?),
            None => 0,
        };
        let edges = Log::open(&dir.join("edges"), edge_bytes)?;
        let members_log = Log::open(&dir.join("members"), members * MEMBER_LEN)?;
        // A flush syncs what is in the files: what was made above could still lose its name.
        sync_parent(&dir.join("names")).doing("sync", dir)?;
        let mut index = Self {
            leaving: Bits::default(),
            objects: Fingerprints::default(),
            contents: Fingerprints::default(),
            members: members_log,
            names,
            loc,
            spans,
            edges,
        };
        index.objects.rebuild(&index.names, NAME_LEN)?;
        index.contents.rebuild(&index.members, MEMBER_LEN)?;
        Ok(index)
    }

    /// How many numbers are given out.
    pub fn objects(&self) -> u64 {
        self.names.len() / NAME_LEN
    }

    /// How many bundle members are listed.
    pub fn members(&self) -> u64 {
        self.members.len() / MEMBER_LEN
    }

    /// Adds an object under the next number.
    ///
    /// # Errors
    /// The fingerprints could not grow because the names could not be read again.
    pub fn append(&mut self, header: &Header, at: Location, edges: &[Edge]) -> Result<Ordinal, StoreError> {
        let ordinal = Ordinal(self.objects());
        self.names.append(header.id.as_bytes());
        self.names.append(header.proof.as_bytes());
        self.append_place(at, edges);
        self.objects.insert(header.id.prefix(), ordinal.0, &self.names, NAME_LEN)?;
        self.append_members(ordinal, header)?;
        Ok(ordinal)
    }

    fn append_members(&mut self, bundle: Ordinal, header: &Header) -> Result<(), StoreError> {
        for (member, (id, proof)) in header.provides.iter().enumerate() {
            let number = self.members();
            self.members.append(id.as_bytes());
            self.members.append(proof.as_bytes());
            self.members.append(&bundle.0.to_le_bytes());
            self.members.append(&(member as u16).to_le_bytes());
            self.contents.insert(id.prefix(), number, &self.members, MEMBER_LEN)?;
        }
        Ok(())
    }

    /// Gives out a number whose object was lost.
    pub fn append_lost(&mut self) {
        self.names.append(&[0; NAME_LEN as usize]);
        self.append_place(LOST, &[]);
    }

    /// Says which object had a lost number, so that what refers to it can be entered, and `check` can name it.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn name_lost(&mut self, lost: Ordinal, id: &ObjectId) -> Result<(), StoreError> {
        self.names.patch(lost.0 * NAME_LEN, id.as_bytes())?;
        self.objects.insert(id.prefix(), lost.0, &self.names, NAME_LEN)
    }

    /// Gives a lost number back to its object, whose references are those it had: what refers to it is whole again.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn revive(&mut self, lost: Ordinal, header: &Header, at: Location) -> Result<(), StoreError> {
        let raw = [at.pack, at.offset, at.len].map(u32::to_le_bytes).concat();
        self.loc.patch(lost.0 * LOC_LEN, &raw)?;
        self.names.patch(lost.0 * NAME_LEN + 32, header.proof.as_bytes())?;
        match self.has_members(lost, header)? {
            true => Ok(()),
            false => self.append_members(lost, header),
        }
    }

    /// True when a bundle's members are listed: they stay so while it is lost.
    fn has_members(&self, bundle: Ordinal, header: &Header) -> Result<bool, StoreError> {
        let Some((first, _)) = header.provides.first() else { return Ok(true) };
        for number in self.contents.candidates(first.prefix()) {
            let row = self.members.read(number * MEMBER_LEN, MEMBER_LEN)?;
            if row[..32] == first.0 && row[48..56] == bundle.0.to_le_bytes() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets where an object is: it is lost, and wanted. Its name and its references stay.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn mark_lost(&mut self, ordinal: Ordinal) -> Result<(), StoreError> {
        self.loc.patch(ordinal.0 * LOC_LEN, &[0; LOC_LEN as usize])
    }

    fn is_lost(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.leaving.has(Ordinal(number)) || self.location(Ordinal(number))? == LOST)
    }

    fn append_place(&mut self, at: Location, edges: &[Edge]) {
        for value in [at.pack, at.offset, at.len] {
            self.loc.append(&value.to_le_bytes());
        }
        let mut out = Vec::new();
        for edge in edges {
            out.put_varint(edge.to.0);
            out.put_bytes(&edge.members);
        }
        self.edges.append(&out);
        self.spans.append(&self.edges.len().to_le_bytes());
    }

    /// Everything whose id begins with a prefix.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn find(&self, prefix: u64) -> Result<Vec<Hit>, StoreError> {
        let mut hits = Vec::new();
        for number in self.objects.candidates(prefix) {
            let (id, proof) = name(&self.names.read(number * NAME_LEN, NAME_LEN)?)?;
            if id.prefix() == prefix && !self.is_lost(number)? {
                hits.push(Hit { id, proof, place: Place::Object(Ordinal(number)) });
            }
        }
        for number in self.contents.candidates(prefix) {
            let row = self.members.read(number * MEMBER_LEN, MEMBER_LEN)?;
            let (id, proof) = name(&row)?;
            if id.prefix() == prefix {
                let mut r = Reader::new(&row[NAME_LEN as usize..]);
                let bundle = Ordinal(r.u64("bundle").of(|| "index".into())?);
                if self.is_lost(bundle.0)? {
                    continue;
                }
                let raw = r.array::<2>("member").of(|| "index".into())?;
                hits.push(Hit {
                    id,
                    proof,
                    place: Place::Member { bundle, member: u16::from_le_bytes(raw) },
                });
            }
        }
        Ok(hits)
    }

    /// The number of an object that is there.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn ordinal(&self, id: &ObjectId) -> Result<Option<Ordinal>, StoreError> {
        for number in self.objects.candidates(id.prefix()) {
            if self.id(Ordinal(number))? == *id && !self.is_lost(number)? {
                return Ok(Some(Ordinal(number)));
            }
        }
        Ok(None)
    }

    /// The number of an object that was lost.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn lost_ordinal(&self, id: &ObjectId) -> Result<Option<Ordinal>, StoreError> {
        for number in self.objects.candidates(id.prefix()) {
            let reclaimed = self.leaving.has(Ordinal(number));
            if !reclaimed && self.id(Ordinal(number))? == *id && self.is_lost(number)? {
                return Ok(Some(Ordinal(number)));
            }
        }
        Ok(None)
    }

    /// The id of a number.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn id(&self, ordinal: Ordinal) -> Result<ObjectId, StoreError> {
        Ok(name(&self.names.read(ordinal.0 * NAME_LEN, NAME_LEN)?)?.0)
    }

    /// The counts by which the catalog knows this index again.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let newest = self.objects().checked_sub(1).map(|last| self.id(Ordinal(last))).transpose()?;
        Ok(Counts { objects: self.objects(), members: self.members(), newest })
    }

    /// The proof of a number's object.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn proof(&self, ordinal: Ordinal) -> Result<Proof, StoreError> {
        Ok(name(&self.names.read(ordinal.0 * NAME_LEN, NAME_LEN)?)?.1)
    }

    /// Where an object is.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn location(&self, ordinal: Ordinal) -> Result<Location, StoreError> {
        let raw = self.loc.read(ordinal.0 * LOC_LEN, LOC_LEN)?;
        let mut r = Reader::new(&raw);
        let mut next = || r.u32("location").of(|| "index".into());
        Ok(Location { pack: next()?, offset: next()?, len: next()? })
    }

    /// The locations of numbers `from..to`, in one read.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn locations(&self, from: u64, to: u64) -> Result<Vec<Location>, StoreError> {
        let raw = self.loc.read(from * LOC_LEN, (to - from) * LOC_LEN)?;
        let word =
            |row: &[u8], at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        let one = |row: &[u8]| Location { pack: word(row, 0), offset: word(row, 4), len: word(row, 8) };
        Ok(raw.chunks_exact(LOC_LEN as usize).map(one).collect())
    }

    /// Where in `edges` the references of numbers `from..to` are, in one read.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn spans(&self, from: u64, to: u64) -> Result<Vec<Range<u64>>, StoreError> {
        // One row before the first says where that begins; the very first begins at 0.
        let before = from.min(1);
        let raw = self.spans.read((from - before) * SPAN_LEN, (to - from + before) * SPAN_LEN)?;
        let mut ends = raw.as_chunks::<8>().0.iter().map(|row| u64::from_le_bytes(*row));
        let mut start = if before == 1 { ends.next().unwrap_or(0) } else { 0 };
        let mut next = |end| std::mem::replace(&mut start, end)..end;
        Ok(ends.map(&mut next).collect())
    }

    /// What an object refers to.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn edges(&self, ordinal: Ordinal) -> Result<Vec<Edge>, StoreError> {
        let spans = self.spans(ordinal.0, ordinal.0 + 1)?;
        spans.into_iter().next().map_or(Ok(Vec::new()), |span| self.edges_at(span))
    }

    /// The references at a place that [`Index::spans`] gave.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn edges_at(&self, span: Range<u64>) -> Result<Vec<Edge>, StoreError> {
        let raw = self.edges.read(span.start, span.end.saturating_sub(span.start))?;
        let mut r = Reader::new(&raw);
        let mut edges = Vec::new();
        while !r.is_empty() && edges.len() <= REFERENCES_MAX {
            let to = Ordinal(r.varint("edge").of(|| "index".into())?);
            let members = r.bytes("edge members", MEMBERS_MAX / 8).of(|| "index".into())?.to_vec();
            edges.push(Edge { to, members });
        }
        Ok(edges)
    }

    /// Writes and syncs everything appended so far.
    ///
    /// # Errors
    /// The disk refused; what was appended stays in memory and may be flushed again.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        for log in [&mut self.names, &mut self.loc, &mut self.spans, &mut self.edges, &mut self.members] {
            log.flush()?;
        }
        Ok(())
    }
}

fn name(raw: &[u8]) -> Result<(ObjectId, Proof), StoreError> {
    let mut r = Reader::new(raw);
    let id = ObjectId(r.array("id").of(|| "index".into())?);
    Ok((id, Proof(r.array("proof").of(|| "index".into())?)))
}

#[cfg(test)]
mod tests;
