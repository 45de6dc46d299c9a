//! What is still needed: one pass over all references, from the highest number down.

use super::Pace;
use crate::bits::Bits;
use crate::error::StoreError;
use crate::index::{Ordinal, Scan};

/// Numbers looked at in one step.
const BLOCK: u64 = 65_536;
/// Bytes of references read at once; one object's are fewer.
const WINDOW: u64 = 4 << 20;

/// Adds to a set all that its members refer to, and so on. Children have smaller numbers than parents, so one pass
/// down is enough. Memory is the set and a few blocks, whatever there is. `pace` hears of bytes read.
///
/// # Errors
/// The index cannot be read.
pub fn close(scan: &Scan, live: &mut Bits, pace: &mut Pace<'_>) -> Result<(), StoreError> {
    let (mut raw, mut ends, mut window) = (Vec::new(), Vec::new(), Vec::new());
    let mut to = scan.objects();
    while to > 0 {
        let from = (to - 1) / BLOCK * BLOCK;
        let start = scan.ends(from, to, &mut raw, &mut ends)?;
        pace(raw.len() as u64)?;
        let begin = |row: usize| if row == 0 { start } else { ends[row - 1] };
        let mut row = ends.len();
        // What of the edges is in memory: from `have` on.
        let mut have = u64::MAX;
        while row > 0 {
            row -= 1;
            let number = from + row as u64;
            if !live.near(number) {
                row = (number / 64 * 64).saturating_sub(from) as usize;
                continue;
            }
            let (at, end) = (begin(row), ends[row]);
            if at == end || !live.has(Ordinal(number)) {
                continue;
            }
            if at < have {
                have = at.min(end.saturating_sub(WINDOW).max(start));
                scan.edges(have..end, &mut window)?;
                pace(end - have)?;
            }
            let mine = &window[(at - have) as usize..(end - have) as usize];
            scan.targets(number, mine, &mut |child| live.add(child))?;
        }
        to = from;
    }
    Ok(())
}
