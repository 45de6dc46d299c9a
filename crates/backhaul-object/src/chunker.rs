//! Content-defined cuts of large files: FastCDC with the vault's secret gear table.
//!
//! The hash at a byte depends on the 64 bytes up to it and on nothing else. So a chunk is scanned in several places at a time
//! ("lanes"), and the processor need not wait for the hash at one byte before it begins with the next. The cuts are those of one
//! scan from the front, which tests compare them with.

use std::ops::Range;

use fastcdc::v2020::MASKS;

use crate::descriptor::Descriptor;
use crate::keys::ChunkerKey;

/// Places that are scanned at a time.
const LANES: usize = 4;
/// Bytes of a lane: where there is a cut in the first, so many were scanned in vain in each of the others.
const LANE: usize = 4_096;
/// Bytes that a hash depends on: each is shifted by one place more, and there are 64.
const REACH: usize = 64;

/// Finds cut points. Equal key and descriptor give equal cuts on every machine.
pub struct Chunker {
    gear: Box<[u64; 256]>,
    sizes: [usize; 3],
    masks: [u64; 2],
}

impl Chunker {
    /// A chunker for one vault. Sizes are even, as in every descriptor that is read: the cuts of odd ones would not be FastCDC's.
    pub fn new(descriptor: &Descriptor, key: &ChunkerKey) -> Self {
        let sizes = descriptor.chunk.map(|size| size as usize);
        // Normalisation level 2: harder cuts before the average, easier after (FastCDC 2020, table of masks).
        let bits = (sizes[1] as f64).log2().round() as usize;
        Self { gear: Box::new(key.gear()), sizes, masks: [MASKS[bits + 2], MASKS[bits - 2]] }
    }

    /// Most bytes a chunk can have: [`Chunker::cut`] must be shown that many where it finds no cut in less.
    pub fn max(&self) -> usize {
        self.sizes[2]
    }

    /// In so many bytes there is a cut nearly always: twice the mean. It must be shown as many unless the file ends sooner.
    pub fn ahead(&self) -> usize {
        (2 * self.sizes[1]).min(self.sizes[2])
    }

    /// Length of the first chunk of `data`; all of it when no cut is found.
    pub fn cut(&self, data: &[u8]) -> usize {
        let [min, average, max] = self.sizes;
        let [hard, easy] = self.masks;
        let len = data.len().min(max);
        // FastCDC 2020 takes bytes in pairs: there is no cut before one that is left over.
        let end = len & !1;
        let middle = average.min(end);
        let mut scan = Scan { gear: &self.gear, data, hash: 0 };
        scan.first(min..middle, hard).or_else(|| scan.first(middle.max(min)..end, easy)).unwrap_or(len)
    }
}

/// A scan of one chunk, from where a cut may be.
struct Scan<'a> {
    gear: &'a [u64; 256],
    data: &'a [u8],
    /// At the last byte that was scanned.
    hash: u64,
}

impl Scan<'_> {
    /// The first place in `range` where the hash has no bit of the mask. The range begins where the last one ended.
    fn first(&mut self, range: Range<usize>, mask: u64) -> Option<usize> {
        let mut at = range.start;
        while at + LANES * LANE <= range.end {
            if let Some(found) = self.in_lanes(at, mask) {
                return Some(found);
            }
            at += LANES * LANE;
        }
        self.one_by_one(at..range.end, mask)
    }

    fn one_by_one(&mut self, range: Range<usize>, mask: u64) -> Option<usize> {
        let start = range.start;
        let found = self.data.get(range)?.iter().position(|byte| {
            self.hash = roll(self.gear, self.hash, *byte);
            self.hash & mask == 0
        });
        found.map(|n| start + n)
    }

    /// As [`Scan::one_by_one`] over all lanes from `at`.
    fn in_lanes(&mut self, at: usize, mask: u64) -> Option<usize> {
        let lanes = self.data[at..].as_chunks::<LANE>().0.first_chunk::<LANES>()?;
        let mut hashes = [self.hash; LANES];
        for (hash, before) in hashes[1..].iter_mut().zip(lanes) {
            *hash = before[LANE - REACH..].iter().fold(0, |hash, byte| roll(self.gear, hash, *byte));
        }
        for n in 0..LANE {
            let mut is_cut = false;
            for (hash, lane) in hashes.iter_mut().zip(lanes) {
                *hash = roll(self.gear, *hash, lane[n]);
                is_cut |= *hash & mask == 0;
            }
            if is_cut {
                return self.first_lane(at, n, &hashes, mask);
            }
        }
        self.hash = hashes[LANES - 1];
        None
    }

    /// All lanes are at byte `n`, and one of them at a cut: the first one that has a cut there or further on.
    fn first_lane(&mut self, at: usize, n: usize, hashes: &[u64; LANES], mask: u64) -> Option<usize> {
        hashes.iter().enumerate().find_map(|(lane, hash)| {
            let start = at + lane * LANE;
            if hash & mask == 0 {
                return Some(start + n);
            }
            self.hash = *hash;
            self.one_by_one(start + n + 1..start + LANE, mask)
        })
    }
}

/// The hash at the byte that follows.
fn roll(gear: &[u64; 256], hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(gear[usize::from(byte)])
}

#[cfg(test)]
mod tests {
    use fastcdc::v2020::cut_gear;
    use proptest::prelude::*;

    use super::*;

    impl Chunker {
        /// One scan from the front.
        fn plain_cut(&self, data: &[u8]) -> usize {
            let ([min, avg, max], [hard, easy]) = (self.sizes, self.masks);
            let shifted = self.gear.map(|word| word << 1);
            cut_gear(data, min, avg, max, hard, easy, hard << 1, easy << 1, &self.gear[..], &shifted).1
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The average says how often there is a cut, from several in each lane to none in all.
        #[test]
        fn lanes_find_the_cuts_of_one_scan_from_the_front(
            seed: u64, len in 0..400_000_usize, zeros in 0..30_000_usize, average in 8_u32..19, min in 0..40_000_u32,
        ) {
            let (average, min) = (1 << average, min & !1);
            let sizes = [min.min(average), average, (4 * average).max(100_000)];
            let sizes = Descriptor { chunk: sizes, ..Descriptor::managed(crate::ids::VaultId([1; 16])) };
            let chunker = Chunker::new(&sizes, &ChunkerKey::new([2; 32]));
            let mut data = vec![0; len];
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data[zeros.min(len)..]);
            let mut rest = &data[..];
            while !rest.is_empty() {
                let cut = chunker.cut(rest);
                prop_assert_eq!(cut, chunker.plain_cut(rest));
                rest = &rest[cut.max(1)..];
            }
        }

        #[test]
        fn a_cut_that_is_found_is_there_whatever_follows(seed: u64, zeros in 0..40_000_usize, seen in 2_048..8_192_usize) {
            let sizes = Descriptor { chunk: [256, 1_024, 4_096], ..Descriptor::managed(crate::ids::VaultId([1; 16])) };
            let chunker = Chunker::new(&sizes, &ChunkerKey::new([2; 32]));
            let mut data = vec![0; 60_000];
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data[zeros..]);
            let mut at = 0;
            while at < data.len() {
                let cut = chunker.cut(&data[at..data.len().min(at + chunker.max())]);
                let seen = data.len().min(at + seen.max(chunker.ahead()));
                let early = chunker.cut(&data[at..seen]);
                prop_assert!(early == cut || early == seen - at && early < cut, "{early} for {cut}");
                at += cut;
            }
        }
    }
}
