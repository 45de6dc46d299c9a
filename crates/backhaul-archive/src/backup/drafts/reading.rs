//! One file while it is read: which of its chunks are drafted as patches, and what is known of it afterwards.

use std::collections::{HashMap, HashSet};
use std::io;

use backhaul_object::source::Query;
use backhaul_object::{ObjectId, Proof};
use bytes::Bytes;

use super::file::{Fresh, Known};
use super::{Draft, Drafts, Name, Past};

/// A patch is drafted if at most this share of the chunk is not copied: its 40 parts of 100.
const LITERALS: (usize, usize) = (40, 100);
/// How far from its place a chunk is looked for, for what was inserted or removed between two that are known.
const MARGIN: u64 = 64 << 10;

/// A file that is being read, from its begin on.
pub(in crate::backup) struct Reading<'a> {
    drafts: &'a Drafts,
    name: Name,
    known: Option<Known>,
    fresh: Fresh,
    /// Numbers of kept anchors: before, and now.
    kept: HashMap<usize, usize>,
    seen: HashSet<ObjectId>,
    /// How far what follows has moved since.
    shift: i64,
    has_failed: bool,
}

impl<'a> Reading<'a> {
    /// Nothing where nothing can be written.
    pub(super) fn begin(drafts: &'a Drafts, name: Name, known: Option<Known>, past: Past) -> Option<Self> {
        let past = known.as_ref().map_or(past, |known| known.past.max(past));
        let path = drafts.path(&name).with_extension("new");
        let fresh = Fresh::create(path, &drafts.scope, past).ok()?;
        let (kept, seen) = (HashMap::new(), HashSet::new());
        Some(Self { drafts, name, known, fresh, kept, seen, shift: 0, has_failed: false })
    }

    /// The next chunk, at an offset in the file.
    pub(in crate::backup) fn chunk(
        &mut self,
        offset: u64,
        (id, proof): (ObjectId, Proof),
        content: &[u8],
    ) -> Option<Draft> {
        if self.has_failed || !self.seen.insert(id) {
            return None;
        }
        let done = self.look(offset, (id, proof), content);
        self.has_failed = done.is_err();
        done.ok().flatten()
    }

    fn look(
        &mut self,
        offset: u64,
        (id, proof): (ObjectId, Proof),
        content: &[u8],
    ) -> io::Result<Option<Draft>> {
        if let Some(known) = &self.known {
            if let Some(n) = known.anchor(&id) {
                self.shift = offset as i64 - known.anchors[n].offset as i64;
                self.keep(n)?;
                return Ok(None);
            }
            if let Some(bases) = known.patched(&id) {
                let bases = bases.to_vec();
                let bases = bases.into_iter().map(|n| self.keep(n)).collect::<io::Result<Vec<_>>>()?;
                self.fresh.note(&id, bases);
                return Ok(None);
            }
            if let Some(draft) = self.draft(offset, &id, content)? {
                return Ok(Some(draft));
            }
        }
        let signature = self.drafts.key.sign(content);
        self.fresh.add(Fresh::anchor(offset, id, proof, content.len()), &signature)?;
        Ok(None)
    }

    /// What is known of an anchor stays known; returns its number from now on.
    fn keep(&mut self, n: usize) -> io::Result<usize> {
        if let Some(now) = self.kept.get(&n) {
            return Ok(*now);
        }
        let Some(known) = &self.known else { return Err(io::ErrorKind::NotFound.into()) };
        let mut anchor = known.anchors[n].clone();
        anchor.offset = anchor.offset.saturating_add_signed(self.shift);
        let now = self.fresh.add(anchor, &known.signature(n)?)?;
        self.kept.insert(n, now);
        Ok(now)
    }

    /// The chunk as a patch of what was in its place, if that saves enough.
    fn draft(&mut self, offset: u64, id: &ObjectId, content: &[u8]) -> io::Result<Option<Draft>> {
        let Some(known) = &self.known else { return Ok(None) };
        let place = offset.saturating_add_signed(-self.shift);
        let end = place.saturating_add(content.len() as u64 + MARGIN);
        let near = known.within(place.saturating_sub(MARGIN), end);
        let signatures = near.iter().map(|n| known.signature(*n)).collect::<io::Result<Vec<_>>>()?;
        let literals_max = content.len() * LITERALS.0 / LITERALS.1;
        let Some((program, used)) = self.drafts.key.difference(&signatures, content, literals_max) else {
            return Ok(None);
        };
        let used: Vec<usize> = used.into_iter().map(|n| near[n]).collect();
        let share = (program.literals() / used.len().max(1)) as u64;
        let spent = |n: &usize| {
            let before = self.kept.get(n).map_or(known.anchors[*n].spent, |now| self.fresh.spent(*now));
            before + share
        };
        if used.iter().any(|n| spent(n) > known.anchors[*n].len as u64) {
            return Ok(None);
        }
        let query = |n: &usize| Query { id: known.anchors[*n].id, proof: known.anchors[*n].proof };
        let bases = used.iter().map(query).collect();
        let kept = used.into_iter().map(|n| self.keep(n)).collect::<io::Result<Vec<_>>>()?;
        kept.iter().for_each(|n| self.fresh.spend(*n, share));
        self.fresh.note(id, kept);
        Ok(Some(Draft { bases, payload: Bytes::from(program.encode()), of: self.name.clone() }))
    }

    /// The file was read to its end.
    pub(in crate::backup) fn finish(self) {
        let new = self.fresh.path().to_path_buf();
        let done = match self.has_failed {
            true => Err(io::ErrorKind::Other.into()),
            false => self.fresh.finish().and_then(|new| self.drafts.replace(&self.name, &new)),
        };
        if done.is_err() {
            // What cannot be kept is found out anew, and what is kept was not whole or cannot be read.
            let _ = std::fs::remove_file(new);
            self.drafts.forsake(&self.name);
        }
    }
}
