//! Content-defined cuts of large files: FastCDC with the vault's secret gear table.

use fastcdc::v2020::{MASKS, cut_gear};

use crate::descriptor::Descriptor;
use crate::keys::ChunkerKey;

/// Finds cut points. Equal key and descriptor give equal cuts on every machine.
pub struct Chunker {
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    sizes: [usize; 3],
    masks: [u64; 2],
}

impl Chunker {
    /// A chunker for one vault.
    pub fn new(descriptor: &Descriptor, key: &ChunkerKey) -> Self {
        let gear = Box::new(key.gear());
        let gear_shifted = Box::new(gear.map(|word| word << 1));
        let sizes = descriptor.chunk.map(|size| size as usize);
        // Normalisation level 2: harder cuts before the average, easier after (FastCDC 2020, table of masks).
        let bits = (sizes[1] as f64).log2().round() as usize;
        Self { gear, gear_shifted, sizes, masks: [MASKS[bits + 2], MASKS[bits - 2]] }
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
        let [min, avg, max] = self.sizes;
        let [hard, easy] = self.masks;
        let (gear, shifted) = (&self.gear[..], &self.gear_shifted[..]);
        cut_gear(data, min, avg, max, hard, easy, hard << 1, easy << 1, gear, shifted).1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
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
