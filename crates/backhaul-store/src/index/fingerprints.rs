//! From an id's first 8 bytes to the numbers of rows that may have it: about 6 bytes a row in memory.
//!
//! Open addressing over slots of 40 bits: the number plus one in as many bits as there are rows for, the rest of the
//! bits a fingerprint. The high bits of the prefix choose the slot, the low ones are the fingerprint. Ids are hashes, so
//! no further mixing.

use super::log::Log;
use crate::error::StoreError;

const SLOT_BITS: u32 = 40;
/// So many bits are left for a fingerprint at least.
const FINGERPRINT_MIN: u32 = 2;
const SLOTS_MIN: u64 = 1 << 12;
/// Rows read at once when the table is built.
const ROWS: u64 = 16_384;

type Slot = [u8; 5];
const EMPTY: Slot = [0; 5];

/// A table over one log of rows that begin with an id.
pub(super) struct Fingerprints {
    row_len: u64,
    /// Whether a row has an id.
    is_named: fn(&[u8]) -> bool,
    slots: Vec<Slot>,
    used: u64,
    number_bits: u32,
}

impl Fingerprints {
    /// An empty table: nothing is found before it is built.
    pub(super) fn new(row_len: u64, is_named: fn(&[u8]) -> bool) -> Self {
        let number_bits = SLOT_BITS - FINGERPRINT_MIN;
        Self { row_len, is_named, slots: vec![EMPTY; SLOTS_MIN as usize], used: 0, number_bits }
    }

    /// Fills the table from the rows that there are.
    pub(super) fn build(&mut self, rows: &Log) -> Result<(), StoreError> {
        let count = rows.len() / self.row_len;
        // Room for an eighth more than there is, at 17/20 full.
        let room = (count + count / 8).max(SLOTS_MIN / 2);
        self.number_bits = u64::BITS - (room + 1).leading_zeros();
        if self.number_bits > SLOT_BITS - FINGERPRINT_MIN {
            return Err(StoreError::damaged("the index", "it has more rows than can be numbered"));
        }
        // The old table goes before the new one comes: both together would be twice the memory.
        self.slots = Vec::new();
        self.slots = vec![EMPTY; (room * 20 / 17 + 1) as usize];
        self.used = 0;
        let mut number = 0;
        while number < count {
            let n = ROWS.min(count - number);
            let raw = rows.read(number * self.row_len, n * self.row_len)?;
            for row in raw.chunks_exact(self.row_len as usize) {
                if (self.is_named)(row) {
                    let mut head = [0; 8];
                    head.copy_from_slice(&row[..8]);
                    self.place(u64::from_le_bytes(head), number);
                }
                number += 1;
            }
        }
        Ok(())
    }

    /// Adds a row that is already in the log.
    pub(super) fn insert(&mut self, prefix: u64, number: u64, rows: &Log) -> Result<(), StoreError> {
        let is_full = (self.used + 1) * 20 > self.slots.len() as u64 * 17;
        if is_full || (number + 1) >> self.number_bits > 0 {
            return self.build(rows);
        }
        self.place(prefix, number);
        Ok(())
    }

    /// The first slot for a prefix, and its fingerprint.
    fn home(&self, prefix: u64) -> (usize, u64) {
        let at = (u128::from(prefix) * self.slots.len() as u128) >> 64;
        (at as usize, prefix & ((1 << (SLOT_BITS - self.number_bits)) - 1))
    }

    fn place(&mut self, prefix: u64, number: u64) {
        let (mut at, fingerprint) = self.home(prefix);
        while self.slots[at] != EMPTY {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        let value = fingerprint << self.number_bits | (number + 1);
        self.slots[at].copy_from_slice(&value.to_le_bytes()[..5]);
        self.used += 1;
    }

    /// Numbers whose fingerprint fits; the caller compares ids.
    pub(super) fn candidates(&self, prefix: u64) -> impl Iterator<Item = u64> + '_ {
        let (start, fingerprint) = self.home(prefix);
        let bits = self.number_bits;
        self.slots[start..]
            .iter()
            .chain(&self.slots[..start])
            .take_while(|slot| **slot != EMPTY)
            .map(|[a, b, c, d, e]| u64::from_le_bytes([*a, *b, *c, *d, *e, 0, 0, 0]))
            .filter(move |value| value >> bits == fingerprint)
            .map(move |value| (value & ((1 << bits) - 1)) - 1)
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> u64 {
        self.slots.len() as u64 * EMPTY.len() as u64
    }
}
