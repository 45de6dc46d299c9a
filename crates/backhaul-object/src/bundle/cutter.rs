//! Parts of bundles: of one that lies in a vault, the members that a reader wants, or may have.

use bytes::Bytes;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use crate::codec::{FormatError, Reader, Write};
use crate::header::{Compressor, Kind, PLAIN_MAX};
use crate::ids::Proof;
use crate::seal::{Compressed, NO_CONTEXT, Object, Packer};

/// Longest length of a member in the table: [`PLAIN_MAX`] has 24 bits.
const LENGTH_MAX: usize = 4;
/// zstd level of parts: they travel once, and are not kept.
const LEVEL: i32 = 1;

/// Takes parts out of bundles. Contexts and room are used again: a restore of what has changed takes a part of a thousand
/// bundles, and to get room for each cost a quarter of its time.
pub struct Cutter {
    zstd: Decoder<'static>,
    packer: Packer,
    /// As large as the most that was unpacked so far.
    room: Vec<u8>,
}

impl Cutter {
    /// Fresh contexts.
    ///
    /// # Errors
    /// zstd could not allocate its contexts.
    pub fn new() -> Result<Self, FormatError> {
        let zstd = Decoder::new().map_err(|_| NO_CONTEXT)?;
        Ok(Self { zstd, packer: Packer::new(LEVEL)?, room: Vec::new() })
    }

    /// A bundle with only the members of a bitmap (as in a reference): the id stays, other contents and proofs go. It is
    /// unpacked no further than to the last of them, and not re-hashed: that is for who opens what is left.
    ///
    /// # Errors
    /// Not a bundle, or a payload that breaks the format.
    pub fn part_of(&mut self, whole: &Compressed, wanted: &[u8]) -> Result<Compressed, FormatError> {
        if whole.header.kind != Kind::Bundle {
            return Err(FormatError::Invalid("not a bundle"));
        }
        let is_wanted = |n: usize| wanted.get(n / 8).is_some_and(|byte| byte >> (n % 8) & 1 == 1);
        let mut provides = whole.header.provides.clone();
        let mut plain = Beginning::of(whole, &mut self.zstd, &mut self.room)?;
        let mut r = Reader::new(plain.reach(provides.len() * LENGTH_MAX)?);
        let lengths =
            provides.iter().map(|_| r.count("member length", PLAIN_MAX)).collect::<Result<Vec<_>, _>>()?;
        let rest = r.rest().len();
        let mut at = plain.len - rest;
        let (mut payload, mut picked) = (Vec::new(), Vec::new());
        for (n, length) in lengths.into_iter().enumerate() {
            let content = at..at + length.saturating_sub(1);
            at = content.end;
            if length > 0 && is_wanted(n) {
                payload.put_varint(length as u64);
                picked.push(content);
            } else {
                payload.put_varint(0);
                provides[n].1 = Proof([0; 16]);
            }
        }
        let unpacked = plain.reach(picked.last().map_or(0, |last| last.end))?;
        for content in picked {
            payload.extend_from_slice(unpacked.get(content).ok_or(FormatError::Truncated("bundle member"))?);
        }
        let payload = Bytes::from(payload);
        let part = Object { kind: Kind::Bundle, references: Vec::new(), provides, payload };
        part.compress_as(whole.header.id, whole.header.proof, &mut self.packer)
    }
}

/// A payload from its beginning on, as far as it was asked for.
struct Beginning<'c> {
    /// What is still packed; none of what is kept raw.
    packed: Option<(InBuffer<'c>, &'c mut Decoder<'static>)>,
    room: &'c mut Vec<u8>,
    /// How much of the room is of this payload.
    len: usize,
    /// How long the payload says that it is.
    total: usize,
}

impl<'c> Beginning<'c> {
    fn of(
        whole: &'c Compressed,
        zstd: &'c mut Decoder<'static>,
        room: &'c mut Vec<u8>,
    ) -> Result<Self, FormatError> {
        let total = whole.header.plain_len as usize;
        let (packed, len) = match whole.header.compressor {
            Compressor::Raw => {
                let body = &whole.body[..total.min(whole.body.len())];
                room.clear();
                room.extend_from_slice(body);
                (None, body.len())
            }
            Compressor::Zstd => {
                zstd.reinit().map_err(|_| NO_CONTEXT)?;
                (Some((InBuffer::around(&whole.body), zstd)), 0)
            }
        };
        Ok(Self { packed, room, len, total })
    }

    /// What there is, once it has so many bytes or the payload has no more.
    fn reach(&mut self, wanted: usize) -> Result<&[u8], FormatError> {
        let wanted = wanted.min(self.total);
        if let Some((input, zstd)) = &mut self.packed {
            self.room.resize(self.room.len().max(wanted), 0);
            while self.len < wanted {
                let before = (input.pos(), self.len);
                let mut output = OutBuffer::around(&mut self.room[self.len..wanted]);
                zstd.run(input, &mut output).map_err(|_| FormatError::Mismatch("zstd frame"))?;
                self.len += output.pos();
                if (input.pos(), self.len) == before {
                    return Err(FormatError::Truncated("bundle"));
                }
            }
        }
        Ok(&self.room[..self.len])
    }
}
