//! The pieces of a file in order, and those of one read.

use std::collections::VecDeque;

use backhaul_object::piece::Piece;
use backhaul_object::source::ObjectSource;
use backhaul_object::{FormatError, ObjectId, flist};

use super::{DumpError, read_one};

/// Plain bytes asked for in one read.
pub(super) const READ_BYTES: u64 = 4 << 20;
/// Pieces of one read.
const READ_PIECES: usize = 256;

/// The chunks of a file in order; nested lists are read when their turn comes.
pub(super) struct Pieces<'a> {
    source: &'a dyn ObjectSource,
    /// From the top list down: (level, pieces still to come).
    lists: Vec<(u8, VecDeque<Piece>)>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(source: &'a dyn ObjectSource, pieces: Vec<Piece>) -> Self {
        Self { source, lists: vec![(0, pieces.into())] }
    }

    pub(super) fn from_flist(source: &'a dyn ObjectSource, id: ObjectId) -> Result<Self, DumpError> {
        let mut pieces = Self { source, lists: Vec::new() };
        pieces.open(id, None)?;
        Ok(pieces)
    }

    fn open(&mut self, id: ObjectId, level: Option<u8>) -> Result<(), DumpError> {
        let object = read_one(self.source, id)?;
        let list = flist::decode(&object).map_err(|why| DumpError::Format { id, why })?;
        if level.is_some_and(|level| level != list.level) {
            let why = FormatError::Invalid("file list of another level than the one above it says");
            return Err(DumpError::Format { id, why });
        }
        self.lists.push((list.level, list.pieces.into()));
        Ok(())
    }

    pub(super) fn next(&mut self) -> Result<Option<Piece>, DumpError> {
        while let Some((level, pieces)) = self.lists.last_mut() {
            let level = *level;
            match pieces.pop_front() {
                None => drop(self.lists.pop()),
                Some(piece) if level == 0 => return Ok(Some(piece)),
                // Only the lowest lists have holes.
                Some(piece) => match piece.id() {
                    Some(id) => self.open(id, Some(level - 1))?,
                    None => return Ok(Some(piece)),
                },
            }
        }
        Ok(None)
    }

    /// The pieces of the next read, and the one that was too much for it.
    fn group(&mut self, held: &mut Option<Piece>) -> Result<Vec<Piece>, DumpError> {
        let (mut group, mut bytes) = (Vec::new(), 0u64);
        loop {
            let next = match held.take() {
                Some(piece) => Some(piece),
                None => self.next()?,
            };
            let Some(piece) = next else { return Ok(group) };
            // A hole is not read.
            bytes = bytes.saturating_add(piece.id().map_or(0, |_| piece.len()));
            if !group.is_empty() && (bytes > READ_BYTES || group.len() >= READ_PIECES) {
                *held = Some(piece);
                return Ok(group);
            }
            group.push(piece);
        }
    }
}

/// What one read is of: the place of the first piece in the file, and the pieces.
pub(super) type Run = Result<(u64, Vec<Piece>), DumpError>;

/// The reads that make a file, up to the first that cannot be told.
pub(super) struct Runs<'a> {
    pieces: Pieces<'a>,
    held: Option<Piece>,
    at: u64,
    ended: bool,
}

impl<'a> Runs<'a> {
    pub(super) fn new(pieces: Pieces<'a>) -> Self {
        Self { pieces, held: None, at: 0, ended: false }
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if self.ended {
            return None;
        }
        let run = self.pieces.group(&mut self.held);
        self.ended = run.as_ref().map_or(true, Vec::is_empty);
        let at = self.at;
        for piece in run.iter().flatten() {
            self.at = self.at.saturating_add(piece.len());
        }
        run.map(|run| (!run.is_empty()).then_some((at, run))).transpose()
    }
}
