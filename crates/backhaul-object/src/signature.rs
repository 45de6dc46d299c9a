//! Signatures of a content's blocks: what is enough to find them in a later version without having the content.
//!
//! Two keyed hashes a block: one that rolls, by which a block is looked for at every byte, and one of 64 bits by which it is
//! believed to be there. Whoever has the base rebuilds and hashes the whole, so an accident (about 2^-64 for each pair of
//! blocks that are compared) costs a run, never a file. The key is secret, for nobody should choose blocks that collide.

use crate::keys::ChunkerKey;
use crate::patch::{Program, Writing};

/// Bytes of a block.
pub const BLOCK: usize = 1_024;
/// Bytes that are rolled over in one step when a block is hashed as a whole.
const LANES: usize = 8;
/// Blocks with one rolling hash that are compared before it is given up.
const ALIKE_MAX: usize = 8;
/// Bits of the table that says which rolling hashes there are not.
const FILTER_BITS: u32 = 18;

/// Hashes blocks.
pub struct SignatureKey {
    words: Box<[u64; BLOCK / 8]>,
    fold: [u64; 3],
    /// Powers of the rolling multiplier: 0 to 8.
    powers: [u64; LANES + 1],
    /// The one of a byte that leaves the window.
    leaving: u64,
}

/// What is known of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHash {
    /// Rolling.
    pub weak: u32,
    /// By which it is believed.
    pub strong: u64,
}

/// The blocks of one content, the last one as short as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// Where in its base the content begins.
    pub at: usize,
    /// In their order.
    pub blocks: Vec<BlockHash>,
    /// Bytes of the content.
    pub len: usize,
}

/// How many blocks so many bytes have.
pub fn blocks_of(len: usize) -> usize {
    len.div_ceil(BLOCK)
}

impl SignatureKey {
    /// The key of a vault.
    pub fn new(key: &ChunkerKey) -> Self {
        let mut bytes = [0; BLOCK + 32];
        let mut hasher = blake3::Hasher::new_derive_key("backhaul v1 block signatures");
        hasher.update(key.expose()).finalize_xof().fill(&mut bytes);
        let mut all = bytes.as_chunks::<8>().0.iter().map(|raw| u64::from_le_bytes(*raw));
        let mut next = || all.next().unwrap_or_default();
        let mut words = Box::new([0; BLOCK / 8]);
        words.fill_with(&mut next);
        let fold = [next() | 1, next() | 1, next()];
        let multiplier = next() | 1;
        let mut powers = [1u64; LANES + 1];
        for i in 0..LANES {
            powers[i + 1] = powers[i].wrapping_mul(multiplier);
        }
        let leaving = (0..BLOCK).fold(1u64, |power, _| power.wrapping_mul(multiplier));
        Self { words, fold, powers, leaving }
    }

    /// Signs a content that is all of its base.
    pub fn sign(&self, content: &[u8]) -> Signature {
        let block = |bytes: &[u8]| BlockHash { weak: weak(self.window(bytes)), strong: self.strong(bytes) };
        Signature { at: 0, blocks: content.chunks(BLOCK).map(block).collect(), len: content.len() }
    }

    /// NH (a sum of products of keyed pairs of words), folded; of blocks of one length two collide by accident only.
    fn strong(&self, block: &[u8]) -> u64 {
        let mut sum = 0u128;
        let mut add = |i: usize, pair: &[u8; 16]| {
            let word = u128::from_le_bytes(*pair);
            let a = (word as u64).wrapping_add(self.words[2 * i]);
            let b = ((word >> 64) as u64).wrapping_add(self.words[2 * i + 1]);
            sum = sum.wrapping_add(u128::from(a) * u128::from(b));
        };
        let (pairs, rest) = block.as_chunks::<16>();
        pairs.iter().enumerate().for_each(|(i, pair)| add(i, pair));
        if !rest.is_empty() {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            add(pairs.len(), &last);
        }
        let low = (sum as u64).wrapping_mul(self.fold[0]);
        let high = ((sum >> 64) as u64).wrapping_mul(self.fold[1]);
        low ^ high.rotate_left(32) ^ (block.len() as u64).wrapping_mul(self.fold[2])
    }

    /// The rolling state of a window.
    fn window(&self, block: &[u8]) -> u64 {
        let (groups, rest) = block.as_chunks::<LANES>();
        let mut state = 0u64;
        for group in groups {
            let mut sum = state.wrapping_mul(self.powers[LANES]);
            for (byte, power) in group.iter().zip(self.powers[..LANES].iter().rev()) {
                sum = sum.wrapping_add(u64::from(*byte).wrapping_mul(*power));
            }
            state = sum;
        }
        for byte in rest {
            state = state.wrapping_mul(self.powers[1]).wrapping_add(u64::from(*byte));
        }
        state
    }

    /// The window moves by one byte.
    fn roll(&self, state: u64, leaves: u8, enters: u8) -> u64 {
        state
            .wrapping_mul(self.powers[1])
            .wrapping_sub(u64::from(leaves).wrapping_mul(self.leaving))
            .wrapping_add(u64::from(enters))
    }

    /// How `content` is made of what these signatures are of; nothing when more than `literals_max` bytes of it
    /// are not in them. With it comes which of them it uses.
    pub fn difference(
        &self,
        bases: &[Signature],
        content: &[u8],
        literals_max: usize,
    ) -> Option<(Program, Vec<usize>)> {
        let table = Table::new(bases);
        let mut writing = Writing::default();
        // `open`: from where on nothing is decided yet.
        let (mut at, mut open, mut state, mut next) = (0, 0, None, None);
        while at < content.len() {
            let found = match self.is_next(bases, next, &content[at..]) {
                Some(place) => Some(place),
                None if content.len() - at < BLOCK => None,
                None => {
                    let block = &content[at..at + BLOCK];
                    let rolled = *state.get_or_insert_with(|| self.window(block));
                    table.find(bases, weak(rolled), || self.strong(block)).map(|(base, n)| (base, n, BLOCK))
                }
            };
            match found {
                Some((base, n, len)) => {
                    writing.insert(&content[open..at]);
                    writing.copy(base, bases[base].at + n * BLOCK, len);
                    (at, state, next) = (at + len, None, Some((base, n + 1)));
                    open = at;
                }
                None if content.len() - at < BLOCK => break,
                None => {
                    let enters = content.get(at + BLOCK).copied();
                    state = state.zip(enters).map(|(state, enters)| self.roll(state, content[at], enters));
                    // The block at the same distance is as likely as before once this one has passed.
                    next = None;
                    at += 1;
                }
            }
            if writing.literals() + (at - open) > literals_max {
                return None;
            }
        }
        if writing.literals() + (content.len() - open) > literals_max {
            return None;
        }
        writing.insert(&content[open..]);
        let (program, used) = writing.finish(bases.len());
        (!used.is_empty()).then_some((program, used))
    }

    /// The block that followed the last one in its base, if it follows here, too; the last of a base may be short.
    fn is_next(
        &self,
        bases: &[Signature],
        next: Option<(usize, usize)>,
        rest: &[u8],
    ) -> Option<(usize, usize, usize)> {
        let (base, n) = next?;
        let hash = bases[base].blocks.get(n)?;
        let len = BLOCK.min(bases[base].len - n * BLOCK);
        let block = rest.get(..len)?;
        (self.strong(block) == hash.strong).then_some((base, n, len))
    }
}

/// What of the rolling state is compared: its upper half depends on all bytes.
fn weak(state: u64) -> u32 {
    (state >> 32) as u32
}

/// Whole blocks by their rolling hashes.
struct Table {
    filter: Vec<u64>,
    blocks: Vec<(u32, u32, u32)>,
}

impl Table {
    fn new(bases: &[Signature]) -> Self {
        let mut blocks = Vec::new();
        for (number, base) in bases.iter().enumerate() {
            let whole = base.blocks.iter().take(base.len / BLOCK).enumerate();
            blocks.extend(whole.map(|(n, hash)| (hash.weak, number as u32, n as u32)));
        }
        blocks.sort_unstable();
        let mut filter = vec![0; 1 << (FILTER_BITS - 6)];
        for (weak, ..) in &blocks {
            let bit = weak >> (32 - FILTER_BITS);
            filter[bit as usize / 64] |= 1 << (bit % 64);
        }
        Self { filter, blocks }
    }

    fn find(&self, bases: &[Signature], weak: u32, strong: impl FnOnce() -> u64) -> Option<(usize, usize)> {
        let bit = weak >> (32 - FILTER_BITS);
        if self.filter[bit as usize / 64] >> (bit % 64) & 1 == 0 {
            return None;
        }
        let first = self.blocks.partition_point(|(other, ..)| *other < weak);
        let alike = self.blocks[first..].iter().take_while(|(other, ..)| *other == weak);
        let mut alike = alike.take(ALIKE_MAX).map(|(_, base, n)| (*base as usize, *n as usize)).peekable();
        alike.peek()?;
        let strong = strong();
        alike.find(|(base, n)| bases[*base].blocks[*n].strong == strong)
    }
}
