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

    /// Most bytes a chunk can have: [`Chunker::cut`] needs to see that many unless the file ends sooner.
    pub fn max(&self) -> usize {
        self.sizes[2]
    }

    /// Length of the first chunk of `data`; all of it when no cut is found.
    pub fn cut(&self, data: &[u8]) -> usize {
        let [min, avg, max] = self.sizes;
        let [hard, easy] = self.masks;
        let (gear, shifted) = (&self.gear[..], &self.gear_shifted[..]);
        cut_gear(data, min, avg, max, hard, easy, hard << 1, easy << 1, gear, shifted).1
    }
}
