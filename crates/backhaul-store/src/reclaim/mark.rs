//! What is still needed: one pass over all references, from the highest number down.

use super::Pace;
use crate::bits::Bits;
use crate::error::StoreError;
use crate::index::{Parent, Scan};

/// Objects with references that are looked at in one step.
const BLOCK: u64 = 16_384;
/// Bytes of references read at once; one object's are fewer.
const WINDOW: u64 = 4 << 20;

/// Adds to a set all that its members refer to, and so on. Children have smaller numbers than parents, so one pass
/// down is enough. Memory is the set and a few blocks, whatever there is. `pace` hears of bytes read.
///
/// # Errors
/// The index cannot be read.
pub fn close(scan: &Scan, live: &mut Bits, pace: &mut Pace<'_>) -> Result<(), StoreError> {
    let (mut raw, mut window) = (Vec::new(), Vec::new());
    let mut to = scan.parents();
    while to > 0 {
        let from = (to - 1) / BLOCK * BLOCK;
        let parents = scan.rows(from, to, &mut raw)?;
        pace(raw.len() as u64)?;
        let start = parents.first().map_or(0, |parent| parent.span.start);
        // What of the references is in memory: from `have` on.
        let mut have = u64::MAX;
        for Parent { ordinal, span } in parents.into_iter().rev() {
            if !live.has(ordinal) {
                continue;
            }
            if span.start < have {
                have = span.start.min(span.end.saturating_sub(WINDOW).max(start));
                scan.references(have..span.end, &mut window)?;
                pace(span.end - have)?;
            }
            let mine = &window[(span.start - have) as usize..(span.end - have) as usize];
            Scan::targets(ordinal, mine, &mut |child| live.add(child))?;
        }
        to = from;
    }
    Ok(())
}
