//! The object index: names, places and references by ordinal, and fingerprints to find a name's ordinal.
//!
//! Five append-only files that are caches of the packs (docs/format.md, "The index"): `ids` and `places`, a row an object;
//! `parents` and `references`, what objects refer to; `contents`, members of bundles. How much of them counts is written in
//! the catalog; what is beyond is cut off when the index is opened. An object is known by the first 24 bytes of its id: the
//! rest, and the proof of possession, stand in its record's header.

use std::collections::BTreeMap;
use std::path::Path;

use backhaul_object::{Header, ObjectId, ShortId};

use crate::atomic::sync_parent;
use crate::bits::Bits;
use crate::catalog::Counts;
use crate::error::{Doing, StoreError};

pub(crate) mod convert;
mod fingerprints;
mod forget;
mod log;
mod references;
mod revived;
mod rows;
mod scan;

use fingerprints::Fingerprints;
use log::Log;
pub use rows::Parent;
use rows::{BLANK, CONTENT_LEN, Content, ID_LEN, PARENT_LEN, PLACE_LEN};
pub use scan::Scan;

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
        /// Its id.
        bundle_id: ObjectId,
        /// The member's number there.
        member: u16,
    },
}

/// One find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its id, as far as the index knows it.
    pub id: ShortId,
    /// What it is.
    pub place: Place,
}

/// The index of one vault.
pub struct Index {
    ids: Log,
    places: Log,
    parents: Log,
    references: Log,
    contents: Log,
    objects: Fingerprints,
    members: Fingerprints,
    /// Numbers that are being forgotten.
    leaving: Bits,
    /// Where lost numbers have come back, in packs that need not be durable yet.
    revived: BTreeMap<u64, Location>,
}

impl Index {
    /// Opens the files and cuts them back to the committed counts.
    ///
    /// # Errors
    /// A file is missing, shorter than the catalog says, or unreadable.
    pub fn open(dir: &Path, counts: &Counts) -> Result<Self, StoreError> {
        if !dir.is_dir() {
            let why = "it is missing; run `backhaul check --rebuild-index`";
            return Err(StoreError::damaged(dir.display().to_string(), why));
        }
        let parents = Log::open(&dir.join("parents"), counts.parents * PARENT_LEN)?;
        let references = match counts.parents.checked_sub(1) {
            Some(last) => rows::parent_of(&parents.array(last * PARENT_LEN)?).1,
            None => 0,
        };
        let mut index = Self {
            ids: Log::open(&dir.join("ids"), counts.objects * ID_LEN)?,
            places: Log::open(&dir.join("places"), counts.objects * PLACE_LEN)?,
            parents,
            references: Log::open(&dir.join("references"), references)?,
            contents: Log::open(&dir.join("contents"), counts.contents * CONTENT_LEN)?,
            objects: Fingerprints::new(ID_LEN, |row| row != [0; ID_LEN as usize]),
            members: Fingerprints::new(CONTENT_LEN, rows::is_member),
            leaving: Bits::default(),
            revived: BTreeMap::new(),
        };
        // A flush syncs what is in the files: what was made above could still lose its name.
        sync_parent(&dir.join("ids")).doing("sync", dir)?;
        index.objects.build(&index.ids)?;
        index.members.build(&index.contents)?;
        Ok(index)
    }

    /// How many numbers are given out.
    pub fn objects(&self) -> u64 {
        self.ids.len() / ID_LEN
    }

    /// Bytes of memory that its tables take.
    pub fn memory(&self) -> u64 {
        self.objects.memory() + self.members.memory()
    }

    /// Adds an object under the next number.
    ///
    /// # Errors
    /// Its place or its references cannot be written down, or the fingerprints could not grow because the names could
    /// not be read again.
    pub fn append(&mut self, header: &Header, at: Location, edges: &[Edge]) -> Result<Ordinal, StoreError> {
        let ordinal = Ordinal(self.objects());
        let place = rows::place(at)?;
        self.append_references(ordinal, edges)?;
        self.places.append(&place);
        self.ids.append(&header.id.short().0);
        self.objects.insert(header.id.prefix(), ordinal.0, &self.ids)?;
        self.append_members(ordinal, header)?;
        Ok(ordinal)
    }

    fn append_members(&mut self, bundle: Ordinal, header: &Header) -> Result<(), StoreError> {
        if header.provides.is_empty() {
            return Ok(());
        }
        self.contents.append(&rows::content(Content::Bundle { tail: rows::tail(&header.id), bundle }));
        for (member, (id, _)) in header.provides.iter().enumerate() {
            let number = self.contents.len() / CONTENT_LEN;
            let row = Content::Member { id: id.short(), bundle, member: member as u16 };
            self.contents.append(&rows::content(row));
            self.members.insert(id.prefix(), number, &self.contents)?;
        }
        Ok(())
    }

    /// Gives out a number whose object was lost, with what it referred to.
    pub fn append_lost(&mut self) {
        self.places.append(&rows::blank());
        self.ids.append(&[0; ID_LEN as usize]);
    }

    /// Says which object had a lost number, so that what refers to it can be entered, and `check` can name it.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn name_lost(&mut self, lost: Ordinal, id: &ObjectId) -> Result<(), StoreError> {
        self.ids.patch(lost.0 * ID_LEN, &id.short().0)?;
        self.objects.insert(id.prefix(), lost.0, &self.ids)
    }

    /// True when a bundle's members are listed: they stay so while it is lost.
    fn has_members(&self, of: Ordinal, header: &Header) -> Result<bool, StoreError> {
        let Some((first, _)) = header.provides.first() else { return Ok(true) };
        for number in self.members.candidates(first.prefix()) {
            match self.content(number)? {
                Content::Member { id, bundle, .. } if id == first.short() && bundle == of => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    fn content(&self, number: u64) -> Result<Content, StoreError> {
        Ok(rows::content_of(&self.contents.array(number * CONTENT_LEN)?))
    }

    fn is_lost(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.leaving.has(Ordinal(number)) || self.location(Ordinal(number))?.len == 0)
    }

    /// True for a lost object of which it is not known what it referred to.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn is_blank(&self, ordinal: Ordinal) -> Result<bool, StoreError> {
        Ok(self.location(ordinal)? == BLANK)
    }

    /// Everything whose id begins with a prefix.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn find(&self, prefix: u64) -> Result<Vec<Hit>, StoreError> {
        let mut hits = Vec::new();
        for number in self.objects.candidates(prefix) {
            let id = self.short(Ordinal(number))?;
            if id.prefix() == prefix && !self.is_lost(number)? {
                hits.push(Hit { id, place: Place::Object(Ordinal(number)) });
            }
        }
        for number in self.members.candidates(prefix) {
            match self.content(number)? {
                Content::Member { id, bundle, member }
                    if id.prefix() == prefix && !self.is_lost(bundle.0)? =>
                {
                    // The row about the bundle is before those of its members.
                    let Some(row) = number.checked_sub(u64::from(member) + 1) else { continue };
                    let Content::Bundle { tail, bundle: its } = self.content(row)? else { continue };
                    // What does not fit is as good as not there: it is wanted, and `check` says so.
                    let whole = rows::join(self.short(bundle)?, tail).filter(|_| its == bundle);
                    let Some(bundle_id) = whole else { continue };
                    hits.push(Hit { id, place: Place::Member { bundle, bundle_id, member } });
                }
                _ => {}
            }
        }
        Ok(hits)
    }

    /// The number of an object that is there.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn ordinal(&self, id: &ObjectId) -> Result<Option<Ordinal>, StoreError> {
        self.ordinal_of(id.short())
    }

    /// The same by the part of its id that the index knows.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn ordinal_of(&self, id: ShortId) -> Result<Option<Ordinal>, StoreError> {
        for number in self.objects.candidates(id.prefix()) {
            if self.short(Ordinal(number))? == id && !self.is_lost(number)? {
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
            if !reclaimed && self.short(Ordinal(number))? == id.short() && self.is_lost(number)? {
                return Ok(Some(Ordinal(number)));
            }
        }
        Ok(None)
    }

    /// The id of a number, as far as the index knows it.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn short(&self, ordinal: Ordinal) -> Result<ShortId, StoreError> {
        Ok(ShortId(self.ids.array(ordinal.0 * ID_LEN)?))
    }

    /// The ids of numbers `from..to`, in one read; zeroes for those that have none.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn shorts(&self, from: u64, to: u64) -> Result<Vec<ShortId>, StoreError> {
        let raw = self.ids.read(from * ID_LEN, to.saturating_sub(from) * ID_LEN)?;
        Ok(raw.as_chunks().0.iter().map(|id| ShortId(*id)).collect())
    }

    /// The counts by which the catalog knows this index again.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let newest = self.objects().checked_sub(1).map(|last| self.short(Ordinal(last))).transpose()?;
        let (contents, parents) = (self.contents.len() / CONTENT_LEN, self.parents.len() / PARENT_LEN);
        Ok(Counts { objects: self.objects(), contents, parents, newest })
    }

    /// Where an object is.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn location(&self, ordinal: Ordinal) -> Result<Location, StoreError> {
        if let Some(at) = self.revived.get(&ordinal.0) {
            return Ok(*at);
        }
        Ok(rows::location(&self.places.array(ordinal.0 * PLACE_LEN)?))
    }

    /// The locations of numbers `from..to`, in one read.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn locations(&self, from: u64, to: u64) -> Result<Vec<Location>, StoreError> {
        let raw = self.places.read(from * PLACE_LEN, (to - from) * PLACE_LEN)?;
        let mut places: Vec<Location> = raw.as_chunks().0.iter().map(rows::location).collect();
        for (number, at) in self.revived.range(from..to.max(from)) {
            places[(number - from) as usize] = *at;
        }
        Ok(places)
    }

    /// Writes and syncs everything appended so far.
    ///
    /// # Errors
    /// The disk refused; what was appended stays in memory and may be flushed again.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let logs =
            [&mut self.ids, &mut self.places, &mut self.parents, &mut self.references, &mut self.contents];
        logs.into_iter().try_for_each(Log::flush)
    }
}

#[cfg(test)]
mod tests;
