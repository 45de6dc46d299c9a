//! Reed-Solomon parity of a pack: made once when it is sealed, used when it is damaged.
//!
//! Any blocks of a stripe can be computed from as many others, of the pack or of the parity, as the pack has in it. Few
//! stripes of 4 MiB are in memory at a time.

use backhaul_object::ids::PackId;
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use crate::error::StoreError;
use crate::pack::Class;
use crate::sidecar::{self, BLOCK, Layout, Sidecar, Table};

mod worker;

/// Stripes that are computed at once: the pack is then read in longer runs.
const AT_ONCE: u64 = 4;

pub(crate) use worker::{ParityWorker, make};

/// Fills a buffer from an offset of the pack.
pub type Read<'r> = dyn FnMut(u64, &mut [u8]) -> Result<(), StoreError> + 'r;

/// A block as it was before it was damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Where it belongs in the pack.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// More is damaged than the parity makes good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// Damaged blocks of the pack, in all stripes.
    pub blocks: u64,
}

fn internal(error: reed_solomon_simd::Error) -> StoreError {
    StoreError::damaged("the parity", error)
}

/// Makes the sidecar of a pack.
///
/// # Errors
/// `read` failed.
pub fn encode(pack: PackId, class: Class, pack_len: u64, read: &mut Read<'_>) -> Result<Vec<u8>, StoreError> {
    let layout = Layout::of(class, pack_len);
    let (stripes, data, parity) = (layout.stripes(), layout.data() as usize, layout.parity as usize);
    let blocks = layout.blocks() as usize;
    let mut sums = vec![0; blocks + stripes as usize * parity];
    let mut out = vec![0; stripes as usize * parity * BLOCK];
    let encoder = || HighRateEncoder::new(data, parity, BLOCK, DefaultEngine::new(), None).map_err(internal);
    let mut encoders = (0..stripes.min(AT_ONCE)).map(|_| encoder()).collect::<Result<Vec<_>, _>>()?;
    let mut run = vec![0; encoders.len() * BLOCK];
    for first in (0..stripes).step_by(AT_ONCE as usize) {
        let width = (stripes - first).min(AT_ONCE);
        for place in 0..data as u64 {
            // Neighbours in the pack are in neighbouring stripes.
            let number = place * stripes + first;
            let len: usize = (number..number + width).map(|number| layout.block_len(number)).sum();
            if len > 0 {
                read(number * BLOCK as u64, &mut run[..len])?;
            }
            run[len..].fill(0);
            let blocks_read = (number..number + width).zip(run.chunks_exact(BLOCK)).zip(&mut encoders);
            for ((number, block), encoder) in blocks_read {
                if let Some(sum) = sums[..blocks].get_mut(number as usize) {
                    *sum = crc32fast::hash(&block[..layout.block_len(number)]);
                }
                encoder.add_original_shard(block).map_err(internal)?;
            }
        }
        for (stripe, encoder) in (first..first + width).zip(&mut encoders) {
            let result = encoder.encode().map_err(internal)?;
            for (i, made) in result.recovery_iter().enumerate() {
                let number = i * stripes as usize + stripe as usize;
                sums[blocks + number] = crc32fast::hash(made);
                out[number * BLOCK..][..BLOCK].copy_from_slice(made);
            }
        }
    }
    Ok(sidecar::encode(&Table { pack, layout, sums }, &out))
}

/// Computes what is damaged of a pack; a block that cannot be read counts as damaged. What comes of it must still be
/// checked against the pack's name.
///
/// # Errors
/// Too much is damaged.
pub fn mend(sidecar: &Sidecar, read: &mut Read<'_>) -> Result<Vec<Patch>, Beyond> {
    let Table { layout, sums, .. } = sidecar.table();
    let mut patches = Vec::new();
    let mut beyond = Beyond { blocks: 0 };
    let mut stripe_bytes = vec![0; layout.data() as usize * BLOCK];
    for stripe in 0..layout.stripes() {
        let mut bad = Vec::new();
        for (place, block) in stripe_bytes.chunks_exact_mut(BLOCK).enumerate() {
            let number = place as u64 * layout.stripes() + stripe;
            let len = layout.block_len(number);
            let is_read = len == 0 || read(number * BLOCK as u64, &mut block[..len]).is_ok();
            block[len..].fill(0);
            if len > 0 && (!is_read || sums.get(number as usize) != Some(&crc32fast::hash(&block[..len]))) {
                bad.push(place);
            }
        }
        if bad.is_empty() {
            continue;
        }
        match restore(sidecar, stripe, &stripe_bytes, &bad) {
            Some(blocks) => patches.extend(bad.iter().zip(blocks).map(|(place, mut bytes)| {
                let number = *place as u64 * layout.stripes() + stripe;
                bytes.truncate(layout.block_len(number));
                Patch { offset: number * BLOCK as u64, bytes }
            })),
            None => beyond.blocks += bad.len() as u64,
        }
    }
    if beyond.blocks > 0 { Err(beyond) } else { Ok(patches) }
}

/// The bad blocks of one stripe, in order; none when there is not enough parity.
fn restore(sidecar: &Sidecar, stripe: u64, data: &[u8], bad: &[usize]) -> Option<Vec<Vec<u8>>> {
    let layout = &sidecar.table().layout;
    let good: Vec<(u64, &[u8])> = (0..layout.parity)
        .filter_map(|i| Some((i, sidecar.parity(i * layout.stripes() + stripe)?)))
        .take(bad.len())
        .collect();
    if good.len() < bad.len() {
        return None;
    }
    let (blocks, parity) = (layout.data() as usize, layout.parity as usize);
    let mut decoder = HighRateDecoder::new(blocks, parity, BLOCK, DefaultEngine::new(), None).ok()?;
    for (place, block) in data.chunks_exact(BLOCK).enumerate() {
        if bad.binary_search(&place).is_err() {
            decoder.add_original_shard(place, block).ok()?;
        }
    }
    for (i, block) in good {
        decoder.add_recovery_shard(i as usize, block).ok()?;
    }
    let result = decoder.decode().ok()?;
    bad.iter().map(|place| result.restored_original(*place).map(<[u8]>::to_vec)).collect()
}

#[cfg(test)]
mod tests;
