//! From an id's first 8 bytes to the numbers of rows that may have it: about 10 bytes a row in memory.
//!
//! Open addressing over 64-bit slots: 24 bits of fingerprint, 40 bits of number plus one. The low bits of
//! the prefix choose the slot, the high ones are the fingerprint. Ids are hashes, so no further mixing.

use super::log::Log;
use crate::error::StoreError;

const NUMBER_BITS: u32 = 40;
const SLOTS_MIN: usize = 1 << 12;
/// Rows read at once when the table is built.
const ROWS: u64 = 16_384;

#[derive(Default)]
pub(super) struct Fingerprints {
    slots: Vec<u64>,
    used: usize,
}

impl Fingerprints {
    /// Fills the table from a log of rows that begin with an id.
    pub(super) fn rebuild(&mut self, rows: &Log, row_len: u64) -> Result<(), StoreError> {
        let count = rows.len() / row_len;
        // Room for a quarter more than there is, at 4/5 full.
        let wanted = (count as usize + count as usize / 4) * 5 / 4;
        self.slots = vec![0; wanted.next_power_of_two().max(SLOTS_MIN)];
        self.used = 0;
        let mut number = 0;
        while number < count {
            let n = ROWS.min(count - number);
            let raw = rows.read(number * row_len, n * row_len)?;
            for row in raw.chunks_exact(row_len as usize) {
                let mut head = [0; 8];
                head.copy_from_slice(&row[..8]);
                // A row of zeroes is a lost object.
                if row[..32] != [0; 32] {
                    self.place(u64::from_le_bytes(head), number);
                }
                number += 1;
            }
        }
        Ok(())
    }

    /// Adds a row that is already in the log.
    pub(super) fn insert(
        &mut self,
        prefix: u64,
        number: u64,
        rows: &Log,
        row_len: u64,
    ) -> Result<(), StoreError> {
        if (self.used + 1) * 5 > self.slots.len() * 4 {
            return self.rebuild(rows, row_len);
        }
        self.place(prefix, number);
        Ok(())
    }

    fn place(&mut self, prefix: u64, number: u64) {
        let mask = self.slots.len() - 1;
        let mut at = prefix as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = (prefix >> NUMBER_BITS) << NUMBER_BITS | (number + 1);
        self.used += 1;
    }

    /// Numbers whose fingerprint fits; the caller compares ids.
    pub(super) fn candidates(&self, prefix: u64) -> impl Iterator<Item = u64> + '_ {
        let mask = self.slots.len() - 1;
        let start = prefix as usize & mask;
        let chain = (0..self.slots.len()).map(move |i| self.slots[(start + i) & mask]);
        chain
            .take_while(|slot| *slot != 0)
            .filter(move |slot| slot >> NUMBER_BITS == prefix >> NUMBER_BITS)
            .map(|slot| (slot & ((1 << NUMBER_BITS) - 1)) - 1)
    }
}
