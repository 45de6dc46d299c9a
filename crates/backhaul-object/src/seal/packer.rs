//! How a payload is compressed: by what it is, and by how what came before it took it (docs/decisions/0013).

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::NO_CONTEXT;
use crate::codec::FormatError;
use crate::header::Kind;

/// Content that saves less than 1/32 is kept raw: opening it is then free.
const GAIN_SHIFT: u32 = 5;
/// zstd level of a backup: the best that keeps up with a disk on one core.
const LEVEL: i32 = 3;
/// What differs from it for bundles: tables that stay in a core's own cache.
const BUNDLES: [CParameter; 2] = [CParameter::ChainLog(14), CParameter::HashLog(15)];
/// zstd level of what is hardly compressible: half of the time, and at most one byte in a hundred more.
const LEVEL_HARD: i32 = 1;
/// What saves less than one byte in so many is hardly compressible.
const HARD: usize = 10;

/// A reusable compression context (a fresh one per chunk costs up to 45 % on incompressible data).
pub struct Packer {
    zstd: Compressor<'static>,
    backup: Option<OfBackups>,
    /// Room for a frame.
    room: Vec<u8>,
}

/// What is otherwise in a backup. Pictures lie beside pictures: after something that is hardly compressible the next one is
/// likely to be, and is first tried as such.
struct OfBackups {
    bundles: Compressor<'static>,
    hard: Compressor<'static>,
    bundle_was_hard: bool,
    chunk_was_hard: bool,
}

impl Packer {
    /// A context at a zstd level.
    ///
    /// # Errors
    /// zstd could not allocate its context.
    pub fn new(level: i32) -> Result<Self, FormatError> {
        Ok(Self { zstd: compressor(level)?, backup: None, room: Vec::new() })
    }

    /// A context of a backup, for a machine that has other work.
    ///
    /// # Errors
    /// zstd could not allocate its context.
    pub fn of_backups() -> Result<Self, FormatError> {
        let mut bundles = compressor(LEVEL)?;
        for parameter in BUNDLES {
            bundles.set_parameter(parameter).map_err(|_| NO_CONTEXT)?;
        }
        let hard = compressor(LEVEL_HARD)?;
        let backup = OfBackups { bundles, hard, bundle_was_hard: false, chunk_was_hard: false };
        Ok(Self { backup: Some(backup), ..Self::new(LEVEL)? })
    }

    /// The frame of a payload, where it is worth one.
    pub(super) fn pack(&mut self, kind: Kind, plain: &[u8]) -> Result<Option<Bytes>, FormatError> {
        let worth = plain.len() - (plain.len() >> GAIN_SHIFT);
        let len = self.frame(kind, plain)?;
        // A copy, so that queues hold what they count and not the room for the longest frame.
        Ok((len < worth).then(|| Bytes::copy_from_slice(&self.room)))
    }

    /// Makes a frame in the room; returns how long it is.
    fn frame(&mut self, kind: Kind, plain: &[u8]) -> Result<usize, FormatError> {
        self.room.reserve(compress_bound(plain.len()));
        let Some(backup) = &mut self.backup else {
            return compress(&mut self.zstd, plain, &mut self.room);
        };
        let was_hard = match kind {
            Kind::Bundle => Some(&mut backup.bundle_was_hard),
            Kind::Chunk => Some(&mut backup.chunk_was_hard),
            _ => None,
        };
        let is_hard = |len| len >= plain.len() - plain.len() / HARD;
        if was_hard.as_ref().is_some_and(|was_hard| **was_hard) {
            let len = compress(&mut backup.hard, plain, &mut self.room)?;
            if is_hard(len) {
                return Ok(len);
            }
        }
        let zstd = if kind == Kind::Bundle { &mut backup.bundles } else { &mut self.zstd };
        let len = compress(zstd, plain, &mut self.room)?;
        if let Some(was_hard) = was_hard {
            *was_hard = is_hard(len);
        }
        Ok(len)
    }
}

fn compressor(level: i32) -> Result<Compressor<'static>, FormatError> {
    Compressor::new(level).map_err(|_| NO_CONTEXT)
}

fn compress(zstd: &mut Compressor<'_>, plain: &[u8], room: &mut Vec<u8>) -> Result<usize, FormatError> {
    room.clear();
    zstd.compress_to_buffer(plain, room).map_err(|_| FormatError::Invalid("zstd refused to compress"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 7.5 bits of 8: every eighth byte is zero, the others are anything.
    fn hard(seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8 * u8::from(state >> 61 != 0)
        };
        (0..300_000).map(|_| next()).collect()
    }

    fn pack(packer: &mut Packer, kind: Kind, plain: &[u8]) -> Vec<u8> {
        packer.pack(kind, plain).unwrap().unwrap().to_vec()
    }

    #[test]
    fn what_follows_something_hard_is_tried_as_such_and_compressed_anew_if_it_is_not() {
        let (hard, other, easy) = (hard(1), hard(2), b"never mind; ".repeat(30_000));
        for kind in [Kind::Chunk, Kind::Bundle] {
            let mut packer = Packer::of_backups().unwrap();
            let alone = |plain: &[u8]| pack(&mut Packer::of_backups().unwrap(), kind, plain);
            let fast = |plain: &[u8]| pack(&mut Packer::new(LEVEL_HARD).unwrap(), kind, plain);
            assert_ne!(alone(&other), fast(&other), "the levels make no difference: this shows nothing");
            assert_eq!(pack(&mut packer, kind, &hard), alone(&hard));
            assert_eq!(pack(&mut packer, kind, &other), fast(&other));
            // What is between two is of another kind.
            assert_eq!(
                pack(&mut packer, Kind::Node, &easy),
                pack(&mut Packer::new(LEVEL).unwrap(), kind, &easy)
            );
            assert_eq!(pack(&mut packer, kind, &hard), fast(&hard));
            assert_eq!(pack(&mut packer, kind, &easy), alone(&easy));
            assert_eq!(pack(&mut packer, kind, &other), alone(&other));
        }
    }
}
