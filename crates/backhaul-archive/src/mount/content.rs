//! The bytes of an open file, from anywhere in it, and what will probably be wanted next.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use backhaul_object::entry::{Body, Content, Entry};
use backhaul_object::piece::Piece;
use backhaul_object::source::TransferError;
use backhaul_object::{FormatError, ObjectId};

use super::cache::{Held, Store};
use crate::dump::{DumpError, pick};

/// Most bytes read ahead of a reader that goes straight on, and the fewest.
const AHEAD_MAX: u64 = 16 << 20;
const AHEAD_MIN: u64 = 512 << 10;
/// Requests of one reader come in parallel: so far from where it was expected, it still goes straight on.
const SLACK: u64 = 1 << 20;
/// Bytes asked for in one read ahead.
const AT_ONCE: u64 = 4 << 20;

/// A regular file that is open.
pub(crate) struct File {
    store: Store,
    content: Content,
    size: u64,
    stride: Mutex<Stride>,
}

/// Where data or holes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seek {
    Data,
    Hole,
}

impl File {
    /// None for what has no content.
    pub(crate) fn open(store: Store, entry: &Entry) -> Option<Self> {
        let Body::File { size, content, .. } = &entry.body else { return None };
        Some(Self { store, content: content.clone(), size: *size, stride: Mutex::default() })
    }

    /// The bytes from `at` on, fewer than `len` only at the end.
    pub(crate) fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, DumpError> {
        let end = at.saturating_add(len).min(self.size);
        if at >= end {
            return Ok(Vec::new());
        }
        match &self.content {
            Content::Empty => self.part(&[], at..end),
            Content::Inline(bytes) => self.part(bytes, at..end),
            Content::Member { bundle, member } => {
                let id = *bundle;
                let format = |why| DumpError::Format { id, why };
                match &*self.store.one(id)? {
                    Held::Members(members) => self.part(&pick(members, *member).map_err(format)?, at..end),
                    _ => Err(format(FormatError::Invalid("not a bundle"))),
                }
            }
            Content::Chunks(_) | Content::Flist(_) => self.pieces(at..end),
        }
    }

    fn part(&self, whole: &[u8], range: Range<u64>) -> Result<Vec<u8>, DumpError> {
        if whole.len() as u64 != self.size {
            return Err(DumpError::Size { expected: self.size, found: whole.len() as u64 });
        }
        Ok(whole[range.start as usize..range.end as usize].to_vec())
    }

    fn pieces(&self, range: Range<u64>) -> Result<Vec<u8>, DumpError> {
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let mut stretch = self.stretch(at)?;
            stretch.retain(|(start, _)| *start < range.end);
            let ids: Vec<ObjectId> = stretch.iter().filter_map(|(_, piece)| piece.id()).collect();
            let held = self.store.get(&ids)?;
            for (start, piece) in stretch {
                let end = (start + piece.len()).min(range.end);
                let part = (at - start) as usize..(end - start) as usize;
                match piece {
                    Piece::Hole { .. } => out.resize(out.len() + part.len(), 0),
                    Piece::Data { id, len } => match held.get(&id).map(|held| &**held) {
                        Some(Held::Chunk(bytes)) if bytes.len() as u64 == len => {
                            out.extend_from_slice(&bytes[part]);
                        }
                        Some(_) => {
                            let why = FormatError::Invalid("no chunk of the length that its file says");
                            return Err(DumpError::Format { id, why });
                        }
                        None => return Err(TransferError::NotFound(id).into()),
                    },
                }
                at = end;
            }
        }
        Ok(out)
    }

    /// The pieces from the one at `at` to the end of the list that it is in, with where each begins.
    fn stretch(&self, at: u64) -> Result<Vec<(u64, Piece)>, DumpError> {
        let (mut id, mut base, mut len, mut level) = match &self.content {
            Content::Chunks(pieces) => return place(pieces, 0, self.size, at),
            Content::Flist(id) => (*id, 0, self.size, None),
            Content::Empty | Content::Inline(_) | Content::Member { .. } => return Ok(Vec::new()),
        };
        loop {
            let held = self.store.one(id)?;
            let Held::List(list) = &*held else {
                return Err(DumpError::Format { id, why: FormatError::Invalid("not a file list") });
            };
            if level.is_some_and(|level| level != list.level) {
                let why = FormatError::Invalid("file list of another level than the one above it says");
                return Err(DumpError::Format { id, why });
            }
            let stretch = place(&list.pieces, base, len, at)?;
            match (list.level, stretch.first()) {
                (0, _) => return Ok(stretch),
                (above, Some((start, Piece::Data { id: below, len: covered }))) => {
                    (id, base, len, level) = (*below, *start, *covered, Some(above - 1));
                }
                _ => {
                    return Err(DumpError::Format {
                        id,
                        why: FormatError::Invalid("a hole in a list of lists"),
                    });
                }
            }
        }
    }

    /// Where the next data or hole begins; none after the end. The end is a hole.
    pub(crate) fn seek(&self, at: u64, what: Seek) -> Result<Option<u64>, DumpError> {
        if at >= self.size {
            return Ok(None);
        }
        if !matches!(self.content, Content::Chunks(_) | Content::Flist(_)) {
            return Ok(Some(if what == Seek::Data { at } else { self.size }));
        }
        let mut next = at;
        while next < self.size {
            for (start, piece) in self.stretch(next)? {
                if piece.id().is_some() == (what == Seek::Data) {
                    return Ok(Some(start.max(at)));
                }
                next = start + piece.len();
            }
        }
        Ok((what == Seek::Hole).then_some(self.size))
    }

    /// What a reader that has just had `range` will probably want, if it is not known to be on its way.
    pub(crate) fn ahead(&self, range: Range<u64>) -> Option<Range<u64>> {
        if !matches!(self.content, Content::Chunks(_) | Content::Flist(_)) {
            return None;
        }
        let mut stride = self.stride.lock().unwrap_or_else(PoisonError::into_inner);
        let next = stride.on_read(range)?;
        let next = next.start..next.end.min(self.size);
        (!next.is_empty()).then_some(next)
    }

    /// Reads what is in a range into the cache.
    pub(crate) fn fetch(&self, range: Range<u64>) -> Result<(), DumpError> {
        let (mut at, mut ids, mut bytes) = (range.start, Vec::new(), 0);
        while at < range.end {
            for (start, piece) in self.stretch(at)? {
                if start >= range.end {
                    break;
                }
                at = start + piece.len();
                if let Piece::Data { id, len } = piece {
                    ids.push(id);
                    bytes += len;
                }
                if bytes >= AT_ONCE {
                    self.store.get(&std::mem::take(&mut ids))?;
                    bytes = 0;
                }
            }
        }
        self.store.get(&ids).map(drop)
    }
}

/// Those of `pieces`, which cover `len` bytes from `base` on, that end after `at`.
fn place(pieces: &[Piece], base: u64, len: u64, at: u64) -> Result<Vec<(u64, Piece)>, DumpError> {
    let mut start = base;
    let mut placed = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let end = start.saturating_add(piece.len());
        if end > at {
            placed.push((start, *piece));
        }
        start = end;
    }
    // A list that says too little would be looked at for ever.
    match start - base {
        found if found == len && !placed.is_empty() => Ok(placed),
        found => Err(DumpError::Size { expected: len, found }),
    }
}

/// How a reader moves through a file. Pure.
#[derive(Debug, Default)]
struct Stride {
    next: u64,
    /// How far ahead of the reader it is read; 0 until it is seen to go straight on.
    window: u64,
    /// To here everything was asked for.
    asked: u64,
}

impl Stride {
    fn on_read(&mut self, range: Range<u64>) -> Option<Range<u64>> {
        let straight = range.start.abs_diff(self.next) <= SLACK && (self.next > 0 || range.start == 0);
        if !straight {
            *self = Self { next: range.end, window: 0, asked: range.end };
            return None;
        }
        self.next = self.next.max(range.end);
        self.window = (self.window * 2).clamp(AHEAD_MIN, AHEAD_MAX);
        let (from, to) = (self.asked.max(self.next), self.next + self.window);
        // In parts that are worth a request.
        if to < from + self.window / 2 {
            return None;
        }
        self.asked = to;
        Some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_goes_straight_on_is_read_ahead_for_in_growing_parts_and_who_jumps_is_not() {
        let mut stride = Stride::default();
        let (mut asked, mut most) = (0, 0);
        for at in (0..64u64 << 20).step_by(128 << 10) {
            if let Some(next) = stride.on_read(at..at + (128 << 10)) {
                assert!(next.start >= asked, "nothing is asked for twice");
                assert!(next.end <= at + (128 << 10) + AHEAD_MAX);
                asked = next.end;
                most = most.max(next.end - next.start);
            }
            assert!(asked > at, "the reader is never ahead");
        }
        assert!(most >= AHEAD_MAX / 2);
        assert_eq!(stride.on_read(900 << 20..901 << 20), None);
        assert_eq!(stride.on_read(500 << 20..501 << 20), None);
        assert!(stride.on_read(501 << 20..502 << 20).is_some());
    }
}
