//! Small files are read whole, all of a batch into one piece of memory: what goes from thread to thread is made and given back
//! under a lock that all threads want.

use std::fs::File;
use std::io;
use std::ops::Range;

use backhaul_object::descriptor::INLINE_WRITTEN;
use backhaul_object::seal::identify_content;
use backhaul_object::{ObjectId, Proof};
use bytes::Bytes;

use super::{CHANGED, Opened, Outcome, Part, Readers, Wanted};
use crate::backup::state::Fingerprint;
use crate::extents;

/// How often a small file that changes after it was looked at is read again.
const RETRIES: usize = 3;

/// What has become of a file that may be small.
pub(super) enum Small {
    /// It is read.
    Read(Read),
    /// It is too big to be held, or has holes.
    Not(Opened),
}

/// A small file that is read.
pub(super) struct Read {
    /// Where its content is among that of the batch.
    place: Range<usize>,
    /// Of what does not go into its directory entry.
    name: Option<(ObjectId, Proof)>,
    outcome: Outcome,
}

impl Read {
    /// Its content and its end; `held` is all that the batch has.
    pub(super) fn parts(self, held: &Bytes) -> [Part; 2] {
        let content = held.slice(self.place);
        let content = match self.name {
            Some((id, proof)) => Part::Small { id, proof, content },
            None => Part::Inline(content),
        };
        [content, Part::Done(self.outcome)]
    }
}

impl Readers<'_> {
    /// Room for the small ones of these files, and the byte more by which the end of each is found.
    pub(super) fn room(&self, files: &[Wanted]) -> Vec<u8> {
        let sizes = files.iter().map(|wanted| wanted.look.size()).filter(|size| self.is_small(*size));
        Vec::with_capacity(sizes.map(|size| size as usize + 1).sum())
    }

    fn is_small(&self, size: u64) -> bool {
        size <= u64::from(self.parameters.descriptor.member_max)
    }

    /// Reads a file behind what is held already. As it was when the walk looked at it, it needs one look more: after it was read.
    pub(super) fn read_small(&self, mut opened: Opened, held: &mut Vec<u8>) -> io::Result<Small> {
        let start = held.len();
        for attempt in 0.. {
            let (file, before) = (&opened.file, opened.look);
            let size = before.size();
            if !self.is_small(size) || extents::has_holes(file, size, before.room()) {
                break;
            }
            held.truncate(start);
            let read = read_whole(file, size, held);
            let after = self.look(file)?;
            read?;
            let is_stable = Fingerprint::of(&before) == Fingerprint::of(&after);
            if !is_stable && attempt < RETRIES {
                opened.look = after;
                continue;
            }
            let found = held.len() - start;
            let is_longer = found as u64 > size;
            let len = found.min(size as usize);
            let unstable = match is_stable && len as u64 == size {
                true => is_longer.then_some("it has more content than its size says; saved as far as that"),
                false => Some(CHANGED),
            };
            held.truncate(start + len);
            let content = &held[start..];
            let name = (len > INLINE_WRITTEN).then(|| identify_content(&self.parameters.id_key, content));
            let outcome = self.done(opened, (len as u64, len as u64), unstable);
            return Ok(Small::Read(Read { place: start..start + len, name, outcome }));
        }
        held.truncate(start);
        Ok(Small::Not(opened))
    }
}

/// Appends all of a small file, with a byte more than it should have if it has more.
fn read_whole(file: &File, size: u64, held: &mut Vec<u8>) -> io::Result<()> {
    let start = held.len();
    held.reserve(size as usize + 1);
    loop {
        let len = (held.len() - start) as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(held), len) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            // It was asked for more: that was its end, and needs no further look.
            Ok(0) => return Ok(()),
            Ok(_) if (held.len() - start) as u64 >= size => return Ok(()),
            Ok(_) => {}
        }
    }
}
