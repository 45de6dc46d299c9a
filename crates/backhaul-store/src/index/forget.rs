//! Taking objects out of the index, and saying that they moved. Rows are changed in place: who does this has written
//! down elsewhere what is to be done, and does it again after a crash.

use super::rows::{self, ID_LEN, PLACE_LEN};
use super::{Index, Location};
use crate::bits::Bits;
use crate::error::StoreError;
use crate::index::Ordinal;

/// Rows that are cleared by one write.
const ROWS: u64 = 16_384;

impl Index {
    /// From now on these numbers are found no more, whatever their rows say.
    pub(crate) fn let_go(&mut self, leaving: Bits) {
        self.leaving = leaving;
    }

    /// True for what was let go, from before its row is cleared.
    pub(crate) fn is_leaving(&self, ordinal: Ordinal) -> bool {
        self.leaving.has(ordinal)
    }

    /// Clears the rows of `from..to` that are among the leaving.
    ///
    /// # Errors
    /// The index cannot be written.
    pub(crate) fn clear(&mut self, from: u64, to: u64) -> Result<(), StoreError> {
        let leaving = std::mem::take(&mut self.leaving);
        self.revived.retain(|number, _| !leaving.has(Ordinal(*number)));
        let done = self.clear_ranges(&leaving, from, to);
        self.leaving = leaving;
        done
    }

    fn clear_ranges(&mut self, leaving: &Bits, from: u64, to: u64) -> Result<(), StoreError> {
        let zeroes = vec![0; (ROWS * ID_LEN) as usize];
        for range in leaving.ranges().skip_while(|range| range.end <= from) {
            let (mut at, end) = (range.start.max(from), range.end.min(to).min(self.objects()));
            if range.start >= to {
                break;
            }
            while at < end {
                let n = ROWS.min(end - at);
                self.places.patch(at * PLACE_LEN, &zeroes[..(n * PLACE_LEN) as usize])?;
                self.ids.patch(at * ID_LEN, &zeroes[..(n * ID_LEN) as usize])?;
                at += n;
            }
        }
        Ok(())
    }

    /// An object has moved.
    ///
    /// # Errors
    /// The index cannot be written.
    pub(crate) fn relocate(&mut self, ordinal: Ordinal, at: Location) -> Result<(), StoreError> {
        self.revived.remove(&ordinal.0);
        self.places.patch(ordinal.0 * PLACE_LEN, &rows::place(at)?)
    }
}
